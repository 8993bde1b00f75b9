"""Fit the maps of two sides, with what a closed form leaves open chosen on pairs held back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from fusion.alignment.closed import canonical, procrustes, ridge
from fusion.alignment.pairs import Moments, Pairs
from fusion.space.affine import AffineMap

SHRINKAGES = (0.1, 0.3, 0.5, 0.7, 0.9)
POWERS = (0.5, 1.0, 1.5)
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
HELD_SHARE, MOST_HELD = 0.1, 1000
"""Of the target rows, where the data has no split of its own to choose on."""


class Method(StrEnum):
    """How two sides are brought together."""

    CCA = "cca"
    PROCRUSTES = "procrustes"
    RIDGE = "ridge"

    @property
    def keeps_target(self) -> bool:
        """Whether the source is mapped into the target's own space."""
        return self is not Method.CCA


@dataclass(frozen=True)
class Trial:
    """What one setting scored on the pairs held back."""

    settings: dict[str, float]
    """Names and values: ``shrinkage`` and ``power``, or ``penalty``."""
    reciprocal_rank: float
    """Mean over both directions and all widths."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """The maps of both sides."""

    source: AffineMap
    target: AffineMap | None
    """None where the target's vectors stay as they are."""
    chosen: Trial
    """The best of those that were tried."""
    trials: tuple[Trial, ...]
    """All of them."""


def fit(
    method: Method,
    pairs: Pairs,
    dims: Sequence[int],
    held: Pairs | None = None,
    seed: int = 0,
) -> Fitted:
    """Fit maps on pairs.

    Args:
        method: ``cca`` maps both sides; the others map the source into the target's space.
        pairs: To learn from.
        dims: Nested widths, ascending.
        held: Pairs to choose settings on, never learned from; None to hold some of ``pairs`` back
            while choosing, and to learn from all of them then.
        seed: Of what is held back.

    Raises:
        ValueError: The pairs are too few for a width, or do not vary.
    """
    check_width(method, pairs, dims[-1])
    learned, judged = (
        (pairs, held) if held is not None else pairs.split(HELD_SHARE, seed, MOST_HELD)
    )
    judged = judged.thinned(MOST_HELD)
    moments = Moments.of(learned)
    trials, best = [], None
    for settings, source, target in _candidates(method, moments, dims[-1]):
        trial = Trial(settings, agreement(source, target, judged, dims))
        trials.append(trial)
        if best is None or trial.reciprocal_rank > best[0].reciprocal_rank:
            best = (trial, source, target)
    assert best is not None  # every method has a candidate
    chosen, source, target = best
    if held is None:
        source, target = _one(method, Moments.of(pairs), dims[-1], chosen.settings)
    return Fitted(source, target, chosen, tuple(trials))


def check_width(method: Method, pairs: Pairs, width: int) -> None:
    """Refuse a width that pairs cannot give.

    Raises:
        ValueError: It is more than either side has, or than there are directions among the pairs.
    """
    sides = pairs.source.shape[1], pairs.target.shape[1]
    most = sides[1] if method.keeps_target else min(*sides, len(pairs.target) - 1)
    if width > most:
        raise ValueError(
            f"dims: {width} is more than {most}, all that {method} can give of {sides[0]} and "
            f"{sides[1]} columns and {len(pairs.target):,} targets"
        )


def agreement(
    source: AffineMap, target: AffineMap | None, pairs: Pairs, dims: Sequence[int]
) -> float:
    """Mean reciprocal rank of what belongs together, over both directions and all widths."""
    asked = source.transform(pairs.source)  # (n, d)
    given = pairs.target if target is None else target.transform(pairs.target)  # (m, d)
    return float(np.mean([_both_ways(asked[:, :d], given[:, :d], pairs.owner) for d in dims]))


def _both_ways(source: np.ndarray, target: np.ndarray, owner: np.ndarray) -> float:
    scores = _unit(source) @ _unit(target).T  # (n, m)
    rows = np.arange(len(owner))
    own = scores[rows, owner]  # (n,)
    forth = 1.0 / (scores >= own[:, None]).sum(axis=1)
    best = np.full(scores.shape[1], -np.inf)  # the best of a target row's own
    np.maximum.at(best, owner, own)
    above = scores >= best  # (n, m); its own among them, of which one is found at that rank
    above[rows, owner] = False
    asked = np.isfinite(best)
    back = 1.0 / (1 + above[:, asked].sum(axis=0))
    return float((forth.mean() + back.mean()) / 2)


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def _candidates(
    method: Method, moments: Moments, width: int
) -> Iterator[tuple[dict[str, float], AffineMap, AffineMap | None]]:
    if method is Method.CCA:
        for shrinkage in SHRINKAGES:
            found = canonical(moments, shrinkage)
            for power in POWERS:
                settings = {"shrinkage": shrinkage, "power": power}
                yield settings, *found.maps(moments, width, power)
    elif method is Method.RIDGE:
        for penalty in PENALTIES:
            yield {"penalty": penalty}, ridge(moments, penalty), None
    else:
        yield {}, procrustes(moments), None


def _one(
    method: Method, moments: Moments, width: int, settings: dict[str, float]
) -> tuple[AffineMap, AffineMap | None]:
    if method is Method.CCA:
        found = canonical(moments, settings["shrinkage"])
        return found.maps(moments, width, settings["power"])
    if method is Method.RIDGE:
        return ridge(moments, settings["penalty"]), None
    return procrustes(moments), None
