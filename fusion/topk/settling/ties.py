"""Results in the order of their float64 scores; what those cannot tell apart, canonically."""

from dataclasses import dataclass

import numpy as np

from fusion.topk.bounds import error_bound64
from fusion.topk.problem import Problem
from fusion.topk.settling.exact import DOCUMENTS, canonical_cosines, numbered


@dataclass(frozen=True)
class Ties:
    """Results that might belong in another order."""

    problem: Problem
    levels: np.ndarray
    """int64 [n]."""
    rows: np.ndarray
    """Queries int64 [n]."""
    documents: np.ndarray
    """int64 [n]."""

    def some(self, chosen: np.ndarray) -> "Ties":
        """Those at places int64 [m]."""
        parts = self.levels, self.rows, self.documents
        return Ties(self.problem, *(part[chosen] for part in parts))


def in_order(ties: Ties, chains: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores float64 [n] and documents int64 [n], the best of each chain first.

    Args:
        ties: Results, those of a chain side by side; each chain is of one query and level.
        chains: Ascending int64 [n]; results of different chains are not compared.
        scores: Cosines float64 [n], within ``error_bound64`` of the true ones.
    """
    reach = np.array([2 * error_bound64(dim) for dim in ties.problem.dims])[ties.levels]
    doubtful = np.zeros(chains[-1] + 1, bool)
    doubtful[chains[1:][_close(chains, scores, reach)]] = True
    some = doubtful[chains].nonzero()[0]
    if len(some):
        part, scores, documents = ties.some(some), scores.copy(), ties.documents.copy()
        scores[some], documents[some] = _sorted(part, chains[some], scores[some], reach[some])
        return scores, documents
    return scores, ties.documents


def _close(chains: np.ndarray, scores: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Whether each result [n - 1] is not certain to be worse than the one before, in one chain."""
    return (chains[1:] == chains[:-1]) & ~(scores[:-1] - scores[1:] > reach[1:])


def _sorted(
    ties: Ties, chains: np.ndarray, scores: np.ndarray, reach: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((ties.documents, -scores, chains))
    ties, scores = ties.some(order), scores[order]
    close = _close(chains, scores, reach)
    tied = np.zeros(len(scores), bool)
    tied[1:] = close
    tied[:-1] |= close
    scores[tied] = canonical(ties.some(tied.nonzero()[0]))
    order = np.lexsort((ties.documents, -scores, chains))
    return scores[order], ties.documents[order]


def canonical(ties: Ties) -> np.ndarray:
    """The canonical cosines float64 [n]."""
    problem, scores = ties.problem, np.empty(len(ties.rows))
    queries = problem.exact_queries()
    wanted, places = numbered(ties.documents, len(problem.corpus))
    blocks = places // DOCUMENTS
    for block in np.unique(blocks):
        first = block * DOCUMENTS
        exact = problem.exact(wanted[first : first + DOCUMENTS])  # (c, D)
        for level, dim in enumerate(problem.dims):
            some = ((blocks == block) & (ties.levels == level)).nonzero()[0]
            columns = places[some] - first
            rows = ties.rows[some]
            scores[some] = canonical_cosines(queries[:, :dim], exact[:, :dim], rows, columns)
    return scores
