"""nDCG@k and recall@k of ranked indices, exactly as trec_eval has them, for all queries at once.

The conventions that could be got wrong, each tested against pytrec_eval: the gain of a document is
its judgement (linear, not 2^rel − 1); a negative judgement gains nothing; rank i is discounted by
log2(i + 1); the ideal ranking is over **all** judged documents of a query, also those that the
corpus does not hold; of equal scores, the document with the higher id comes first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Judgements:
    """The judgements of a retrieval data set as flat arrays, one entry a judged document.

    Build it once with `from_qrels`; every method, width and precision is then scored against it.
    """

    query_count: int
    """Number of queries, q."""
    corpus_size: int
    """Number of documents, c; a valid index is below it."""
    rows: np.ndarray
    """int64 [j], the query of each judgement; ascending."""
    docs: np.ndarray
    """int64 [j], the document's index, or -1 for a document that the corpus does not hold."""
    gains: np.ndarray
    """float64 [j], the judgement, at least 0."""

    @classmethod
    def from_qrels(
        cls,
        query_ids: Sequence[str],
        doc_ids: Sequence[str],
        qrels: Mapping[str, Mapping[str, int]],
    ) -> "Judgements":
        """Look up every id once; a query that ``qrels`` does not name has no judgements.

        Args:
            query_ids: The q queries, in the order of the rows of a ranking.
            doc_ids: The c documents, in the order that a ranking's indices count.
            qrels: query id → document id → judgement.

        Raises:
            ValueError: An id occurs twice.
        """
        position = _positions("query_ids", query_ids)
        index = _positions("doc_ids", doc_ids)
        triples = [
            (position[query], index.get(doc, -1), max(gain, 0))
            for query, judged in qrels.items()
            if query in position
            for doc, gain in judged.items()
        ]
        table = np.array(triples, dtype=np.int64).reshape(-1, 3)  # (j, 3)
        table = table[np.lexsort((table[:, 1], table[:, 0]))]
        return cls(
            query_count=len(query_ids),
            corpus_size=len(doc_ids),
            rows=table[:, 0].copy(),
            docs=table[:, 1].copy(),
            gains=table[:, 2].astype(np.float64),
        )

    @property
    def judged(self) -> np.ndarray:
        """Which queries have at least one judgement, bool [q]."""
        return np.bincount(self.rows, minlength=self.query_count) > 0

    @property
    def relevant(self) -> np.ndarray:
        """How many documents of each query are judged above 0, in the corpus or not, int64 [q]."""
        return np.bincount(self.rows[self.gains > 0], minlength=self.query_count)

    def ideal_dcg(self, k: int) -> np.ndarray:
        """Discounted gain of the best possible first k documents of each query, float64 [q]."""
        best = np.lexsort((-self.gains, self.rows))
        starts = np.searchsorted(self.rows, self.rows)  # (j,) where each query's judgements begin
        ranks = np.arange(len(best)) - starts
        gains = np.where(ranks < k, self.gains[best] / np.log2(ranks + 2), 0.0)
        return np.bincount(self.rows, weights=gains, minlength=self.query_count)

    def gains_of(self, indices: np.ndarray) -> np.ndarray:
        """Gain of each ranked document; unjudged documents and empty places (index < 0) gain 0.

        Args:
            indices: int64 [q, k].

        Returns:
            float64 [q, k].
        """
        held = self.docs >= 0
        keys = self.rows[held] * self.corpus_size + self.docs[held]  # (j,) ascending
        if not len(keys):
            return np.zeros(indices.shape)
        wanted = np.arange(self.query_count)[:, None] * self.corpus_size + indices  # (q, k)
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = (keys[place] == wanted) & (indices >= 0)
        return np.where(found, self.gains[held][place], 0.0)


def ndcg_at_k(indices: np.ndarray, judgements: Judgements, k: int = 10) -> np.ndarray:
    """Normalised discounted cumulative gain of each query's first k documents.

    A query without judgements, or without a single result, is NaN: trec_eval does not count it,
    so that the score of a data set is ``np.nanmean``. A query whose judgements are all 0 is 0.

    Example: of the judgements {0: 2, 1: 1}, the ranking [1, 0] has
    (1/log2(2) + 2/log2(3)) / (2/log2(2) + 1/log2(3)) = 0.8597.

    Args:
        indices: int64 [q, k or more], best first; below 0 is an empty place.
        judgements: What is relevant.
        k: The cutoff.

    Returns:
        float64 [q].

    Raises:
        ValueError: The ranking is shorter than k, or names documents that do not exist.
    """
    top = _checked(indices, judgements, k)
    discounts = np.log2(np.arange(top.shape[1]) + 2)
    dcg = (judgements.gains_of(top) / discounts).sum(axis=1)  # (q,)
    return _per_query(dcg, judgements.ideal_dcg(k), top, judgements)


def recall_at_k(indices: np.ndarray, judgements: Judgements, k: int = 100) -> np.ndarray:
    """Share of each query's relevant documents (judged above 0) that its first k documents hold.

    Args:
        indices: int64 [q, k or more], best first; below 0 is an empty place.
        judgements: What is relevant.
        k: The cutoff.

    Returns:
        float64 [q]; NaN as in `ndcg_at_k`.

    Raises:
        ValueError: As in `ndcg_at_k`.
    """
    top = _checked(indices, judgements, k)
    found = (judgements.gains_of(top) > 0).sum(axis=1)  # (q,)
    return _per_query(found, judgements.relevant, top, judgements)


def in_trec_order(scores: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Ranked indices as trec_eval orders them: scores in float32, equal ones by descending id.

    A search may tell documents apart by less than float32 shows; trec_eval does not.

    Args:
        scores: Float [..., k], descending; -inf at an empty place.
        indices: int64 [..., k], into documents in descending order of their ids.

    Returns:
        int64 [..., k].
    """
    order = np.lexsort((indices, -scores.astype(np.float32)), axis=-1)
    return np.take_along_axis(indices, order, axis=-1)


def _per_query(
    reached: np.ndarray, possible: np.ndarray, top: np.ndarray, judgements: Judgements
) -> np.ndarray:
    share = np.divide(reached, possible, out=np.zeros(len(top)), where=possible > 0)
    counted = judgements.judged & (top >= 0).any(axis=1)
    return np.where(counted, share, np.nan)


def _checked(indices: np.ndarray, judgements: Judgements, k: int) -> np.ndarray:
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    if indices.ndim != 2 or len(indices) != judgements.query_count:
        raise ValueError(
            f"indices have shape {indices.shape}; {judgements.query_count} queries were judged, "
            "so they must be [q, k] with one row a query"
        )
    if indices.shape[1] < min(k, judgements.corpus_size):
        raise ValueError(f"indices hold {indices.shape[1]} documents a query; rank {k} or more")
    if indices.size and indices.max() >= judgements.corpus_size:
        raise ValueError(
            f"indices name document {indices.max()} of a corpus of {judgements.corpus_size}"
        )
    return indices[:, :k]


def _positions(name: str, ids: Sequence[str]) -> dict[str, int]:
    positions = {value: place for place, value in enumerate(ids)}
    if len(positions) != len(ids):
        twice = next(value for place, value in enumerate(ids) if positions[value] != place)
        raise ValueError(f"{name} hold {twice!r} twice; each id must be unique")
    return positions
