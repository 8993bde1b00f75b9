"""Nested top-k in the exact order of float64, at about the price of float32.

Every float32 score lies within a proven distance of the true cosine. So a document that belongs to
the k best cannot score lower than the k-th float32 score less twice that distance; what scores
higher are the candidates, and only they are computed again in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fusion.search.bounds import error_bound
from fusion.search.problem import Rows, as_tensor, check_dims
from fusion.search.reference import rank_documents
from fusion.search.topk import nested_topk


@dataclass(frozen=True)
class Certified:
    """Results in float64 order and what it took to be sure of them."""

    scores: np.ndarray
    """float64 [l, q, min(k, c)], descending; -inf where ``exclude`` leaves too few."""
    indices: np.ndarray
    """int64 [l, q, min(k, c)], ties to the lower index, -1 where ``exclude`` leaves too few."""
    candidates: float
    """Documents computed again in float64, per result: 1.0 is the least possible."""


def certified_topk(
    queries: Rows,
    corpus: Rows,
    dims: Sequence[int],
    k: int,
    *,
    exclude: Rows | None = None,
) -> Certified:
    """``nested_topk`` whose indices are those of the float64 reference.

    Takes the arguments of ``nested_topk`` and raises its errors.
    """
    q, c = as_tensor(queries, "queries"), as_tensor(corpus, "corpus")
    levels = check_dims(dims, min(q.shape[1], c.shape[1]))
    keep, wanted = min(k, len(c)), k + max(16, k // 8)
    while True:
        scores, indices = nested_topk(q, c, levels, wanted, exclude=exclude)
        needed = _candidates(scores.numpy(), levels, keep)  # (l, q)
        if wanted >= len(c) or not len(q) or int(needed.max()) < wanted:
            break
        wanted = min(len(c), 2 * wanted)
    return _rescore(q, c, levels, keep, indices.numpy(), needed)


def _candidates(scores: np.ndarray, dims: tuple[int, ...], keep: int) -> np.ndarray:
    """How many of each row's results might be among the true k best, [l, q]."""
    bounds = np.array([error_bound(dim, len(dims)) for dim in dims])[:, None, None]
    kth = scores[:, :, keep - 1 : keep].astype(np.float64)
    return ((scores >= kth - 2 * bounds) & (scores > -np.inf)).sum(axis=2)


def _rescore(
    queries: torch.Tensor,
    corpus: torch.Tensor,
    dims: tuple[int, ...],
    keep: int,
    indices: np.ndarray,
    needed: np.ndarray,
) -> Certified:
    scores = np.full((len(dims), len(queries), keep), -np.inf)
    found = np.full(scores.shape, -1, np.int64)
    exact = queries.cpu().double().numpy()
    for (level, row), count in np.ndenumerate(needed):
        chosen = np.sort(indices[level, row, :count])
        query = exact[row, : dims[level]]
        documents = corpus[torch.from_numpy(chosen), : dims[level]].cpu().double().numpy()
        ranked = rank_documents(query, documents)
        order = np.argsort(-ranked, kind="stable")[:keep]
        norm = np.linalg.norm(query)
        scores[level, row, : len(order)] = ranked[order] / norm if norm > 0 else 0.0
        found[level, row, : len(order)] = chosen[order]
    return Certified(scores, found, float(needed.sum()) / max(1, scores.size))
