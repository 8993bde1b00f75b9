"""The truth that every engine is tested against: nested top-k and MaxSim in float64, plainly."""

from collections.abc import Sequence

import numpy as np

from fusion.ragged import Ragged
from fusion.topk.cosines import rank_documents


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


def reference_maxsim(
    queries: Ragged,
    documents: Ragged,
    dims: Sequence[int],
    k: int,
    candidates: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rank ragged documents by MaxSim at the first ``d`` components, for every ``d`` of ``dims``.

    Args:
        queries: Of one token or more each.
        documents: Of any number of tokens.
        dims: Widths of the nested levels.
        k: Results a query.
        candidates: Documents int64 [q, m] to choose from for each query, -1 for none.

    Returns:
        Scores float64 [l, q, min(k, c)], descending, and indices int64 of the same shape. Ties go
        to the lower index; documents without tokens score -inf and come last; where there are too
        few candidates, the score is -inf and the index -1.
    """
    keep = min(k, len(documents))
    scores = np.full((len(dims), len(queries), keep), -np.inf)
    indices = np.full((len(dims), len(queries), keep), -1, np.int64)
    for row in range(len(queries)):
        there = np.arange(len(documents))
        if candidates is not None:
            there = np.unique(candidates[row][candidates[row] >= 0])
        for level, dim in enumerate(dims):
            ranked = np.array(
                [
                    maxsim(queries[row][:, :dim], documents[index][:, :dim])
                    for index in there.tolist()
                ]
            )
            order = np.argsort(-ranked, kind="stable")[:keep]
            scores[level, row, : len(order)] = ranked[order]
            indices[level, row, : len(order)] = there[order]
    return scores, indices


def maxsim(query: np.ndarray, document: np.ndarray) -> float:
    """Mean over a query's tokens [any, d] of the largest cosine with a document's tokens [n, d]."""
    if not len(document):
        return -np.inf
    best = np.zeros(len(query))
    document = np.asarray(document, np.float64)
    for token, vector in enumerate(np.asarray(query, np.float64)):
        best[token] = rank_documents(vector, document).max()
    return best.sum() / len(best)
