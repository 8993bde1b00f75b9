"""Fewer vectors an item, nested: its first m vectors stand for all of them as well as m can.

Candidates are an item's vectors and the means of the groups that Ward's method (1963) makes of
them, from pairs up to the whole item. Of these, one after another is taken that lifts the mean over
the item's vectors of the largest cosine with a taken one the most: that is the item's MaxSim with
itself. For every m such a choice reaches at least 1 - 1/e of what the best m candidates reach
(Nemhauser, Wolsey and Fisher, 1978), so one order serves all m.
"""

import numpy as np

from fusion.ragged import Ragged

AT_ONCE = 512  # vectors that are grouped together; of an item of more, neighbours first
NOTHING = 1e-6  # of a cosine, on average: what lifts less is there already


def summaries(items: Ragged, most: int) -> Ragged:
    """At most ``most`` vectors of each item, the best first.

    Args:
        items: n items of any number of vectors [D], numpy, of any length but zero.
        most: Vectors of an item, at most; copies are not taken.

    Returns:
        n items of unit float32 vectors, whose first m are the item's m-vector summary.

    Raises:
        ValueError: ``most`` is not positive.

    Example:
        >>> tokens = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
        >>> summaries(Ragged(tokens, [0, 3]), most=5).counts.tolist()
        [3]
    """
    if most < 1:
        raise ValueError(f"most must be at least 1 vector an item, got {most}")
    found = [summary(np.asarray(items[i], dtype=np.float32), most) for i in range(len(items))]
    width = items.rows.shape[1]
    rows = np.concatenate(found) if found else np.empty((0, width), np.float32)
    return Ragged(rows, np.cumsum([0, *map(len, found)], dtype=np.int64))


def summary(vectors: np.ndarray, most: int) -> np.ndarray:
    """The same of one item's vectors float32 [t, D]: [at most ``most``, D]."""
    unit = _unit(vectors)
    at_once = max(AT_ONCE, 2 * most)  # so that every group at least halves
    while len(unit) > at_once:
        groups = (unit[start : start + at_once] for start in range(0, len(unit), at_once))
        unit = np.concatenate([_of_few(group, most) for group in groups])
    return _of_few(unit, most)


def first_vectors(items: Ragged, most: int) -> Ragged:
    """The first ``most`` vectors of each item, or all that it has."""
    counts = np.minimum(items.counts, most)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    taken = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - items.offsets[:-1], counts)
    return Ragged(items.rows[taken], offsets)


def _of_few(unit: np.ndarray, most: int) -> np.ndarray:
    """Greedy choice among the groups' means of unit vectors [t, D]."""
    if len(unit) < 2:
        return unit
    candidates = np.concatenate([unit, _unit(ward_sums(unit))])  # (2t - 1, D)
    cosines = candidates @ unit.T  # (2t - 1, t)
    covered = np.full(len(unit), -1.0, np.float32)  # (t,)
    gains = (cosines + 1).mean(axis=1)  # (2t - 1,) at most: they fall as more is covered
    chosen: list[int] = []
    while len(chosen) < most:
        best = int(gains.argmax())
        gains[best] = np.maximum(cosines[best] - covered, 0).mean()
        if gains[best] < gains.max():
            continue
        if chosen and gains[best] <= NOTHING:
            break
        chosen.append(best)
        covered = np.maximum(covered, cosines[best])
    return candidates[chosen]


def ward_sums(vectors: np.ndarray) -> np.ndarray:
    """Sums [t - 1, D] of the groups that Ward's method makes of vectors [t, D], one a merger.

    By chains of nearest neighbours: each is followed until two are nearest to one another, which
    Ward's method would merge sooner or later, whatever else it merges before.
    """
    sums = vectors.astype(np.float64)
    squares = (sums**2).sum(axis=1)
    # Half the squared distance of two points is what merging them adds to the sum of squares.
    costs = squares[:, None] / 2 + squares / 2 - sums @ sums.T  # (t, t)
    np.fill_diagonal(costs, np.inf)
    sizes = np.ones(len(vectors))
    merged: list[np.ndarray] = []
    chain: list[int] = []
    while len(merged) < len(vectors) - 1:
        if not chain:
            chain.append(int(np.flatnonzero(sizes)[0]))
        last = chain[-1]
        near = int(costs[last].argmin())
        # Where a tie would lead on, the one before is as near: so no chain runs in circles.
        if len(chain) > 1 and costs[last, chain[-2]] <= costs[last, near]:
            near = chain[-2]
        if len(chain) > 1 and near == chain[-2]:
            del chain[-2:]
            _merge(costs, sizes, near, last)
            sums[near] += sums[last]
            merged.append(sums[near].copy())
        else:
            chain.append(near)
    return np.array(merged)


def _merge(costs: np.ndarray, sizes: np.ndarray, one: int, other: int) -> None:
    """Put a group into another, in place (Lance and Williams, 1967)."""
    a, b, others = sizes[one], sizes[other], np.maximum(sizes, 1)
    found = (a + others) * costs[one] + (b + others) * costs[other] - others * costs[one, other]
    found /= a + b + others  # (t,)
    found[(sizes == 0)] = np.inf
    found[[one, other]] = np.inf
    costs[one], costs[:, one] = found, found
    costs[other], costs[:, other] = np.inf, np.inf
    sizes[one], sizes[other] = a + b, 0


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
