"""The best documents of each query over blocks that stream by, in the order of float64."""

from collections.abc import Callable

import numpy as np

from fusion.topk.cosines import rank_documents

UNIT = 2.0**-24  # the largest relative rounding error of one float32 operation
PENDING = 4096  # documents beyond k that await their exact scores


def score_bound(dim: int) -> float:
    """How far a cosine may be from the true one, of products and norms summed in float32."""
    return (1.5 * dim + 12) * UNIT * 1.001


class Best:
    """One query's best documents.

    Scores of blocks come in float32, in whatever order a library has summed them. Documents that
    may be among the best are kept with their codes, and scored again in float64 from what these
    stand for: the order is that of ``fusion.evaluate``, with ties to the earlier row.
    """

    def __init__(
        self, query: np.ndarray, k: int, decode: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        """Take the query [d], and what turns codes [n, items] into vectors [n, d]."""
        self.query, self.k, self.decode = query.astype(np.float64), k, decode
        self.slack = 2 * score_bound(len(query))
        self.floor = -np.inf
        self.scores = np.empty(0)
        self.rows = np.empty(0, np.int64)
        self.codes: np.ndarray | None = None

    def add(self, first: int, codes: np.ndarray, scores: np.ndarray) -> None:
        """Take in the next codes [n, items] with their scores [n]; rows count from ``first``."""
        chosen = np.flatnonzero(scores >= self.floor)
        if len(chosen) > self.k:
            of_these = scores[chosen]
            self.floor = max(self.floor, self._kth(of_these) - self.slack)
            chosen = chosen[of_these >= self.floor]
        if not len(chosen):
            return
        self.scores = np.concatenate([self.scores, scores[chosen]])
        self.rows = np.concatenate([self.rows, first + chosen])
        own = codes[chosen]
        self.codes = own if self.codes is None else np.concatenate([self.codes, own])
        if len(self.scores) > self.k:
            self.floor = max(self.floor, self._kth(self.scores) - self.slack)
            self._keep(np.flatnonzero(self.scores >= self.floor))
        if len(self.scores) > self.k + PENDING:
            self._settle()

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores float64 and rows int64 [at most k], the best first."""
        self._settle()
        return self.scores, self.rows

    def _kth(self, scores: np.ndarray) -> float:
        return float(np.partition(scores, len(scores) - self.k)[len(scores) - self.k])

    def _keep(self, places: np.ndarray) -> None:
        assert self.codes is not None  # there are scores
        self.scores, self.rows = self.scores[places], self.rows[places]
        self.codes = self.codes[places]

    def _settle(self) -> None:
        """Score what is kept exactly; the k best remain, in their order."""
        if self.codes is None:
            return
        documents = self.decode(self.codes).astype(np.float64)
        self.scores = rank_documents(self.query, documents)
        self._keep(np.lexsort((self.rows, -self.scores))[: self.k])
