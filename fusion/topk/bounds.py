"""How far a computed cosine may be from the true one, in whatever order a library sums."""

from fusion.topk.norms import summed_terms

UNIT = 2.0**-24  # the largest relative rounding error of one float32 operation
UNIT64 = 2.0**-53
ROUNDINGS = 8
"""Of float64 inputs to float32, of inverse norms and of the products with them; each at most one
unit of a cosine, and there are fewer."""
SECOND_ORDER = 1.001  # products of errors: terms * UNIT stays below 1e-3 up to 16,000 components


def error_bounds(dims: tuple[int, ...], double: bool = False) -> tuple[list[float], list[float]]:
    """Bounds of float32 cosines: a constant of each level, and what to add times the cosine's size.

    The error of the query's norm is left out, since it moves all scores of a query alike.

    An inner product of n terms x_i y_i takes n - 1 additions, however they are ordered. Each
    partial sum lies between minus the sum of the negative terms and the sum of the positive ones,
    whose difference is the product S and whose sum A is at most |x||y|: no partial sum is larger
    than (A + |S|) / 2, and an addition errs by one unit of its result (Higham, Accuracy and
    Stability of Numerical Algorithms, section 4.2). The products themselves err by one unit of A.
    So the cosine s errs by at most n (1 + |s|) / 2 + 1 units, and by half a unit more for each term
    that is summed in float32 for a norm. Nearly nothing is left where both are ``double``.
    """
    scale = UNIT * SECOND_ORDER
    if double:
        return [ROUNDINGS * scale for _ in dims], [0.0 for _ in dims]
    constant = [(d / 2 + 1 + summed_terms(dims) / 2 + ROUNDINGS) * scale for d in dims]
    return constant, [d / 2 * scale for d in dims]


def error_bound(dim: int, dims: tuple[int, ...]) -> float:
    """The bound of any float32 cosine of ``dim`` components, one of the levels ``dims``."""
    constant, slope = error_bounds(dims)
    level = dims.index(dim)
    return constant[level] + slope[level]


def error_bound64(dim: int) -> float:
    """The same of float64 inputs, products and norms, all of ``dim`` terms."""
    return (1.5 * dim + ROUNDINGS) * UNIT64 * SECOND_ORDER


def maxsim_bounds(dims: tuple[int, ...]) -> list[float]:
    """Bounds of what a float32 cosine of two tokens, at each level, may be off its canonical one.

    Here the norm of the query's token does not cancel: the tokens of a query are averaged. It errs
    as the document's does; tokens of unusual size have theirs measured at one level alone. The
    largest of some cosines is off by no more than the worst of them, and so is the mean of those.
    """
    terms = max(summed_terms(some) for some in [dims, *((d,) for d in dims)])
    scale = UNIT * SECOND_ORDER
    return [(d + 1 + terms + 2 * ROUNDINGS) * scale + error_bound64(d) for d in dims]


def mean_bound(tokens: int) -> float:
    """The bound of what two float64 means of the same cosines may be apart, however ordered."""
    return 2 * (tokens + 1) * UNIT64 * SECOND_ORDER
