"""How much MaxSim counts beside the cosine, found without labels, and what that makes of a ranking.

A document's score is ``cosine + weight * MaxSim``. Without labels a weight is judged by how high
titles or first sentences of documents rank the rests that they were taken from.
"""

import numpy as np

from fusion.ragged import Ragged
from fusion.space.weights import likely_share
from fusion.topk.maxsim import maxsim_topk

BEYOND_CHANCE = 2.5  # standard errors that the best of ten shares has to rank better than none
SHARES = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
"""What is tried as MaxSim's share of the score; its weight is share / (1 - share)."""


def token_scores(
    queries: Ragged, documents: Ragged, candidates: np.ndarray, dims: list[int]
) -> np.ndarray:
    """MaxSim of every query with each of its candidates.

    Args:
        queries: q items of token vectors.
        documents: c items of token vectors.
        candidates: int64 [q, n], documents; -1 for none.
        dims: Widths, ascending.

    Returns:
        float32 [l, q, n]: -inf for none, for a document without tokens and for a query without.
    """
    out = np.full((len(dims), *candidates.shape), -np.inf, np.float32)  # (l, q, n)
    asked = np.flatnonzero(queries.counts)  # maxsim_topk takes no query without tokens
    order = np.argsort(candidates[asked], axis=1)  # (q, n)
    named = np.take_along_axis(candidates[asked], order, axis=1)  # (q, n) ascending
    kept = queries if len(asked) == len(queries) else Ragged.of([queries[int(i)] for i in asked])
    found = maxsim_topk(kept, documents, dims, candidates.shape[1], candidates[asked])
    for level, (scores, indices) in enumerate(zip(*(part.numpy() for part in found), strict=True)):
        for row, query in enumerate(asked):
            real = indices[row] >= 0
            place = order[row, np.searchsorted(named[row], indices[row][real])]
            out[level, query, place] = scores[row][real]
    return out


def blended(cosines: np.ndarray, maxsims: np.ndarray, weight: float) -> np.ndarray:
    """``cosine + weight * MaxSim``, float32 [q, n].

    A candidate without tokens counts as the least of its query's others, so it is neither lifted
    nor lost; where no candidate has a score the cosines stand.
    """
    known = np.isfinite(maxsims)
    least = np.where(known, maxsims, np.inf).min(axis=1, keepdims=True)  # (q, 1)
    filled = np.where(known, maxsims, np.where(np.isfinite(least), least, 0.0))
    return (cosines + np.float32(weight) * filled).astype(np.float32)


def reranked(indices: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Order the first n results of each query anew; the others stay below them.

    Args:
        indices: int64 [q, k], results, best first; -1 at an empty place.
        scores: float32 [q, n], of the first n of them; higher is better, ties to the lower index.
    """
    n = scores.shape[1]
    first = indices[:, :n]
    keys = np.where(first >= 0, scores, -np.inf)
    order = np.lexsort((first, -keys), axis=-1)  # (q, n)
    return np.concatenate([np.take_along_axis(first, order, axis=1), indices[:, n:]], axis=1)


def choose_weight(cosines: np.ndarray, maxsims: np.ndarray, right: np.ndarray) -> float:
    """The weight of MaxSim that pseudo-queries bear out.

    Its share of the score is the mean of all shares that it might have, each counted by how well
    the reciprocal ranks bear it out, as the weights of encoders are: with many pseudo-queries the
    share that ranks best, with few of them something between that and a half. But MaxSim has to
    earn its place: where the best share does not rank better than none beyond chance, it has none.

    Args:
        cosines: float32 [q, n], of the first stage's results, descending.
        maxsims: float32 [q, n], of the same documents.
        right: bool [q, n], whether a document is what its query has to find.

    Returns:
        0 or more; 0 where no query found what it has to.
    """
    found = right.any(axis=1)  # (q,)
    if not found.any():
        return 0.0
    rows = cosines[found], maxsims[found]
    own = right[found].argmax(axis=1)[:, None]  # (q, 1)
    tried = np.stack(
        [_reciprocal_ranks(blended(*rows, s / (1 - s)), own) for s in SHARES]
    )  # (s, q)
    gained = tried[tried.mean(axis=1).argmax()] - tried[0]  # (q,)
    if gained.mean() <= BEYOND_CHANCE * gained.std() / len(gained) ** 0.5:
        return 0.0
    share = likely_share(tried, SHARES)
    return round(share / (1 - share), 3)


def _reciprocal_ranks(scores: np.ndarray, own: np.ndarray) -> np.ndarray:
    """1 / rank [q] of the column ``own`` [q, 1] of each row; ties do not count against it."""
    return 1.0 / (1 + (scores > np.take_along_axis(scores, own, axis=1)).sum(axis=1))
