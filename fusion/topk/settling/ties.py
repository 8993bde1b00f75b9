"""Results in the order of ever better scores: what one cannot tell apart is left to the next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fusion.topk.bounds import Bounds, error_bound64
from fusion.topk.problem import Problem
from fusion.topk.settling.exact import DOCUMENTS, canonical_cosines, numbered

UPWARDS = 1.0001  # covers what the comparison itself rounds


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


@dataclass(frozen=True)
class Rung:
    """One way to score results."""

    score: Callable[[Ties], np.ndarray]
    """Cosines float64 [n]."""
    bounds: Bounds
    """How far they may be from the true ones."""

    def reach(self, levels: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """How far below a score [n] another one is certain to be worse."""
        constant, slope = (2 * UPWARDS * np.array(part)[levels] for part in self.bounds)
        return constant + slope * np.abs(scores)


def last_rungs(problem: Problem, score: Callable[[Ties], np.ndarray]) -> tuple[Rung, Rung]:
    """Scores in float64, summed in any order, and the canonical ones, which are as they are."""
    none = [0.0 for _ in problem.dims]
    return Rung(score, ([error_bound64(dim) for dim in problem.dims], none)), Rung(
        canonical, (none, none)
    )


def in_order(
    ties: Ties, chains: np.ndarray, rungs: Sequence[Rung]
) -> tuple[np.ndarray, np.ndarray]:
    """Scores float64 [n] and documents int64 [n], the best of each chain first.

    Args:
        ties: Results, those of a chain side by side; each chain is of one query and level.
        chains: Ascending int64 [n]; results of different chains are not compared.
        rungs: What scores them, and then what those scores cannot tell apart.
    """
    scores, documents = rungs[0].score(ties), ties.documents
    close = _close(rungs[0], ties.levels, chains, scores)
    if not close.any():
        return scores, documents
    doubtful = np.zeros(chains[-1] + 1, bool)
    doubtful[chains[1:][close]] = True
    some = doubtful[chains].nonzero()[0]
    documents = documents.copy()
    scores[some], documents[some] = _sorted(ties.some(some), chains[some], scores[some], rungs)
    return scores, documents


def _close(rung: Rung, levels: np.ndarray, chains: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Whether each result [n - 1] is not certain to be worse than the one before, in one chain."""
    reach = rung.reach(levels, scores)
    better = scores[:-1] - scores[1:] > np.maximum(reach[:-1], reach[1:])
    return (chains[1:] == chains[:-1]) & ~better


def _sorted(
    ties: Ties, chains: np.ndarray, scores: np.ndarray, rungs: Sequence[Rung]
) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((ties.documents, -scores, chains))
    ties, scores, documents = ties.some(order), scores[order], ties.documents[order]
    if len(rungs) == 1:
        return scores, documents
    close = _close(rungs[0], ties.levels, chains, scores)
    tied = np.zeros(len(scores), bool)
    tied[1:] = close
    tied[:-1] |= close
    some = tied.nonzero()[0]
    if len(some):
        parts = np.concatenate([[0], (~close).cumsum()])[some]
        scores[some], documents[some] = in_order(ties.some(some), parts, rungs[1:])
    return scores, documents


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
