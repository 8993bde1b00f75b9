"""The best documents of a few queries at one level by float64 products alone.

For queries whose k-th result ties with more documents than an engine keeps: copies by the hundred,
or a corpus in which everything lies near a tie. Memory stays bounded by a tile, time by a few times
that of a float32 search.
"""

import numpy as np

from fusion.topk.bounds import error_bound64
from fusion.topk.problem import Problem
from fusion.topk.settling.exact import DOCUMENTS, canonical_norms, quotient
from fusion.topk.settling.ties import Ties, canonical, in_order, last_rungs


def best_exactly(problem: Problem, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines float32 and indices int64 [q, keep] at one level; -inf and -1 for what is missing."""
    dim = problem.dims[level]
    queries = problem.exact_queries()[:, :dim]
    norms = canonical_norms(queries)  # (q,)
    reach = 2 * error_bound64(dim)
    scores, documents = np.empty((len(queries), 0)), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(problem.corpus), DOCUMENTS):
        tile = np.arange(start, min(start + DOCUMENTS, len(problem.corpus)))
        exact = problem.exact(tile)[:, :dim]  # (c, d)
        first = _first_copies(exact)
        lengths = np.outer(norms, canonical_norms(exact))
        fresh = quotient(queries @ exact.T, lengths)[:, first]  # (q, c)
        if problem.exclude is not None:
            fresh[problem.exclude.numpy()[:, None] == tile] = -np.inf
        scores = np.concatenate([scores, fresh], axis=1)
        documents = np.concatenate([documents, np.broadcast_to(tile, fresh.shape)], axis=1)
        if scores.shape[1] > problem.keep:
            same = np.concatenate([np.arange(start), start + first])  # as which document it scores
            scores, documents = _cut(problem, level, scores, documents, reach, same)
    return _finished(problem, level, scores, documents)


def _first_copies(rows: np.ndarray) -> np.ndarray:
    """For each row the first that is equal to it, int64 [n]."""
    _, first, inverse = np.unique(
        np.ascontiguousarray(rows + 0.0).view(f"V{rows.itemsize * rows.shape[1]}").reshape(-1),
        return_index=True,
        return_inverse=True,
    )
    return first[inverse]


def _cut(
    problem: Problem,
    level: int,
    scores: np.ndarray,
    documents: np.ndarray,
    reach: float,
    same: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The best ``keep`` of scores and documents [q, any], in any order; copies score alike."""
    keep, edge = problem.keep, scores.shape[1] - problem.keep
    kth = np.partition(scores, edge, axis=1)[:, edge, None]  # (q, 1)
    chosen = scores >= kth - reach
    crowded = (chosen.sum(axis=1) > keep).nonzero()[0]
    near = chosen[crowded] & (scores[crowded] <= kth[crowded] + reach)
    row, column = (near & np.isfinite(scores[crowded])).nonzero()
    row = crowded[row]
    pairs, inverse = np.unique(
        row * len(problem.corpus) + same[documents[row, column]], return_inverse=True
    )
    rows, alike = np.divmod(pairs, len(problem.corpus))
    levels = np.full(len(rows), level)
    scores[row, column] = canonical(Ties(problem, levels, rows, alike))[inverse]
    order = np.lexsort((documents[crowded], -scores[crowded]), axis=1)[:, :keep]
    chosen[crowded] = False
    chosen[crowded[:, None], order] = True
    return scores[chosen].reshape(-1, keep), documents[chosen].reshape(-1, keep)


def _finished(
    problem: Problem, level: int, scores: np.ndarray, documents: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and documents [q, keep] in order."""
    found, best = np.full(scores.shape, -np.inf, np.float32), np.full(documents.shape, -1)
    there = np.isfinite(scores)
    rows, column = there.nonzero()
    if len(rows):
        ties = Ties(problem, np.full(len(rows), level), rows, documents[rows, column])
        rungs = last_rungs(problem, lambda _: scores[rows, column])
        ordered, named = in_order(ties, rows, rungs)
        filled = np.arange(scores.shape[1]) < there.sum(axis=1, keepdims=True)
        found[filled], best[filled] = ordered, named
    return found, best
