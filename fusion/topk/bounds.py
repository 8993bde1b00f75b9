"""How far a computed cosine may be from the true one, in whatever order a library sums."""

import numpy as np

from fusion.topk.norms import summed_terms

UNIT = 2.0**-24  # the largest relative rounding error of one float32 operation
UNIT64 = 2.0**-53
INPUTS = 2
"""Roundings of float64 rows to float32: each moves a cosine by at most one unit."""
ROUNDINGS = 6
"""Of norms, inverse norms and products, which move a cosine in proportion to its size; there are
fewer."""
TINY = 2.0**-8  # units: more than what numbers below float32's range can add up to
PIECE = 32  # columns whose products are summed apart from others
SECOND_ORDER = 1.001  # products of errors: terms * UNIT stays below 1e-3 up to 16,000 components


Bounds = tuple[list[float], list[float]]
"""A constant of each level, and what to add to it times the size of the cosine."""


def error_bounds(dims: tuple[int, ...], double: bool = False, rounded: bool = True) -> Bounds:
    """Bounds of cosines whose products are summed in float32, or in float64 if ``double``.

    Rows that were ``rounded`` may have been float64. The error of the query's norm is left out,
    since it moves all scores of a query alike.

    An inner product of n terms x_i y_i takes n - 1 additions, however they are ordered. Each
    partial sum lies between minus the sum of the negative terms and the sum of the positive ones,
    whose difference is the product S and whose sum A is at most |x||y|: no partial sum is larger
    than (A + |S|) / 2, and an addition errs by one unit of its result (Higham, Accuracy and
    Stability of Numerical Algorithms, section 4.2). The products themselves err by one unit of A.
    So the cosine s errs by at most n (1 + |s|) / 2 + 1 units, and by |s| / 2 more for each term
    that is summed in float32 for a norm. Nearly nothing is left where both are ``double``.
    """
    scale, inputs = UNIT * SECOND_ORDER, INPUTS if rounded else TINY
    if double:
        return [inputs * scale for _ in dims], [ROUNDINGS * scale for _ in dims]
    constant = [(d / 2 + 1 + inputs) * scale for d in dims]
    return constant, [(d / 2 + summed_terms(dims) / 2 + ROUNDINGS) * scale for d in dims]


def accumulated_bounds(
    dims: tuple[int, ...], sums: np.ndarray, rounded: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """The same, float64 [l, q] and [l, 1], where the sums of narrower levels are known.

    Args:
        dims: Levels whose products are added to the sum of the level before, in any order.
        sums: The greatest size of each level's sums, over the norms of both rows at the width of
            another level, which comes second: float64 [l, l, q].
        rounded: See ``error_bounds``.

    Let n terms whose sizes add up to A take a sum from C to D. A partial sum of some of them lies
    between minus the sum of the negative terms and that of the positive ones, from C on if C is
    part of it: its size is at most (A + |C| + |D|) / 2, and it takes n additions. The As of all
    levels are at most |x||y| together, of which each errs by half the widest segment. The size of
    the level's own last sum is its score, whose half segment is within the slope.
    """
    inputs = INPUTS if rounded else TINY
    widths = np.diff((0, *dims))
    steps = (widths[:-1] + widths[1:]) / 2
    constants = [
        widths[: level + 1].max() / 2 + 1 + inputs + steps[:level] @ sums[:level, level]
        for level in range(len(dims))
    ]
    slopes = widths[:, None] / 2 + summed_terms(dims) / 2 + ROUNDINGS
    return np.stack(constants) * UNIT * SECOND_ORDER, slopes * UNIT * SECOND_ORDER


def piece_bounds(dims: tuple[int, ...], rounded: bool = True) -> Bounds:
    """The same of cosines whose products are summed in pieces, and these in float64.

    A piece of n terms errs by at most n units of its own A, and all of these are at most |x||y|.
    """
    scale, inputs = UNIT * SECOND_ORDER, INPUTS if rounded else TINY
    constant = [(min(d, PIECE) + inputs) * scale for d in dims]
    return constant, [(summed_terms(dims) / 2 + ROUNDINGS) * scale for _ in dims]


def error_bound(dim: int, dims: tuple[int, ...]) -> float:
    """The bound of any float32 cosine of ``dim`` components, one of the levels ``dims``."""
    constant, slope = error_bounds(dims)
    level = dims.index(dim)
    return constant[level] + slope[level]


def error_bound64(dim: int) -> float:
    """The same of float64 inputs, products and norms, all of ``dim`` terms."""
    return (1.5 * dim + INPUTS + ROUNDINGS) * UNIT64 * SECOND_ORDER


def maxsim_bounds(dims: tuple[int, ...]) -> list[float]:
    """Bounds of what a float32 cosine of two tokens, at each level, may be off its canonical one.

    Here the norm of the query's token does not cancel: the tokens of a query are averaged. It errs
    as the document's does; tokens of unusual size have theirs measured at one level alone. The
    largest of some cosines is off by no more than the worst of them, and so is the mean of those.
    """
    terms = max(summed_terms(some) for some in [dims, *((d,) for d in dims)])
    scale = UNIT * SECOND_ORDER
    roundings = 2 * (INPUTS + ROUNDINGS)
    return [(d + 1 + terms + roundings) * scale + error_bound64(d) for d in dims]


def mean_bound(tokens: int) -> float:
    """The bound of what two float64 means of the same cosines may be apart, however ordered."""
    return 2 * (tokens + 1) * UNIT64 * SECOND_ORDER
