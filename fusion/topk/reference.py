"""The truth that every engine is tested against: nested cosine top-k in float64, plainly."""

from collections.abc import Sequence

import numpy as np


def reference_topk(
    queries: np.ndarray,
    corpus: np.ndarray,
    dims: Sequence[int],
    k: int,
    *,
    exclude: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rank the corpus by the cosine of the first ``d`` components, for every ``d`` of ``dims``.

    The raw dot product is divided by the document's norm, then by the query's: a reference that
    normalises both sides first rounds equal cosines apart and so decides ties by noise.

    Args:
        queries: Real numbers of shape [q, d].
        corpus: Real numbers of shape [c, d].
        dims: Widths of the nested levels.
        k: Results a query.
        exclude: Index of one document to leave out for each query [q]; -1 leaves out none.

    Returns:
        Scores float64 [l, q, min(k, c)], descending, and indices int64 of the same shape. Ties go
        to the lower index; where too few documents are left, the score is -inf and the index -1.
    """
    queries, corpus = np.asarray(queries, np.float64), np.asarray(corpus, np.float64)
    keep = min(k, len(corpus))
    scores = np.full((len(dims), len(queries), keep), -np.inf)
    indices = np.full((len(dims), len(queries), keep), -1, np.int64)
    for level, dim in enumerate(dims):
        for row, query in enumerate(queries[:, :dim]):
            ranked = rank_documents(query, corpus[:, :dim])
            if exclude is not None:
                ranked[exclude[row] if exclude[row] >= 0 else slice(0)] = -np.inf
            order = np.argsort(-ranked, kind="stable")[:keep]
            order = order[ranked[order] > -np.inf]
            scores[level, row, : len(order)] = ranked[order]
            indices[level, row, : len(order)] = order
    return scores, indices


def rank_documents(query: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Cosines float64 [c], by which documents are ranked; 0 where either side is zero."""
    norms = np.sqrt((documents * documents).sum(axis=1))
    dots = (documents * query).sum(axis=1)  # (c,)
    dots = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
    norm = np.sqrt((query * query).sum())
    return dots / norm if norm > 0 else np.zeros_like(dots)
