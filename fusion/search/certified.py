"""Nested top-k in the exact order of float64, at about the price of float32.

Every float32 score lies within a proven distance of the true cosine. So a document that belongs to
the k best cannot score lower than the k-th float32 score less twice that distance; what scores
higher are the candidates, and only they are computed again in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from fusion.search.bounds import error_bound
from fusion.search.problem import Rows, as_tensor, check_dims, check_exclude, check_k
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
    check_k(k)
    left_out = check_exclude(exclude, len(q), len(c))
    keep, wanted = min(k, len(c)), k + max(16, k // 8)
    scores = np.full((len(levels), len(q), keep), -np.inf)
    found, candidates = np.full(scores.shape, -1, np.int64), 0
    rows = np.arange(len(q))  # for which more is wanted: few, unless documents tie by the hundred
    while len(rows):
        asked = q[torch.from_numpy(rows).to(q.device)]  # (r, d)
        hidden = None if left_out is None else left_out[rows]
        plain, indices = nested_topk(asked, c, levels, wanted, exclude=hidden)
        exact = asked.cpu().double().numpy()
        needed = _candidates(plain.cpu().numpy(), exact, levels, keep)  # (l, r)
        enough = (needed < wanted).all(axis=0) | np.full(len(rows), wanted >= len(c))  # (r,)
        for level, row in product(range(len(levels)), enough.nonzero()[0]):
            chosen = indices[level, row, : needed[level, row]].cpu().numpy()
            best, documents = _rescore(exact[row, : levels[level]], c, np.sort(chosen), keep)
            scores[level, rows[row], : len(best)] = best
            found[level, rows[row], : len(best)] = documents
            candidates += len(chosen)
        rows, wanted = rows[~enough], min(len(c), 2 * wanted)
    return Certified(scores, found, candidates / max(1, scores.size))


def _candidates(
    scores: np.ndarray, queries: np.ndarray, dims: tuple[int, ...], keep: int
) -> np.ndarray:
    """How many of each row's results might be among the true k best, [l, q]."""
    bounds = np.array([error_bound(dim, len(dims)) for dim in dims])[:, None, None]
    kth = scores[:, :, keep - 1 : keep].astype(np.float64)
    needed = ((scores >= kth - 2 * bounds) & (scores > -np.inf)).sum(axis=2)
    for level, dim in enumerate(dims):  # where all scores are exactly zero, the first ones are best
        nothing = ~queries[:, :dim].any(axis=1)
        needed[level, nothing] = needed[level, nothing].clip(max=keep)
    return needed


def _rescore(
    query: np.ndarray, corpus: torch.Tensor, chosen: np.ndarray, keep: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines float64 and indices int64 of the best of the chosen documents, from the best down."""
    rows = torch.from_numpy(chosen).to(corpus.device)
    ranked = rank_documents(query, corpus[rows, : len(query)].cpu().double().numpy())
    order = np.argsort(-ranked, kind="stable")[:keep]
    norm = np.linalg.norm(query)
    return ranked[order] / norm if norm > 0 else 0.0 * ranked[order], chosen[order]
