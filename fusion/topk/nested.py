"""Nested cosine top-k: the exact results of every truncation level in one pass over the corpus.

The dot product of a longer prefix is that of the shorter one plus one more segment, so one matrix
product serves all levels. This file holds the contract and chooses the engine.
"""

import logging
from collections.abc import Sequence
from functools import cache

import torch

from fusion.topk.engines import cpu, per_level
from fusion.topk.norms import PrefixNorms, prefix_norms
from fusion.topk.problem import FLOATS, Problem, Rows, as_tensor, check_dims, pose
from fusion.topk.settling.settled import Engine, Found, settled

__all__ = ["corpus_norms", "nested_topk"]

BACKENDS = ("auto", "cpu", "per-level", "triton")

logger = logging.getLogger(__name__)


def nested_topk(
    queries: Rows,
    corpus: Rows,
    dims: Sequence[int],
    k: int,
    *,
    exclude: Rows | None = None,
    backend: str = "auto",
    norms: PrefixNorms | None = None,
) -> Found:
    """Find the k nearest documents by the cosine of the first ``d`` components, for every ``d``.

    Args:
        queries: Floating point [q, D or wider], numpy or torch; need not be unit-norm.
        corpus: Floating point [c, D or wider]: float32, bfloat16 or float16 (float64 is rounded to
            float32), of any strides, memory-mapped if you like. Half precision is computed in
            float32.
        dims: Ascending widths of the nested levels; D is the last one.
        k: Results a query.
        exclude: int [q], the index of one document to leave out for each query, or -1.
        backend: "cpu", "triton" (CUDA), "per-level" (one product and top-k a level, on any device)
            or "auto", which takes the first of them that fits and says once why not a better one.
        norms: The corpus's ``corpus_norms``, if you keep them between calls.

    Returns:
        Scores float32 [l, q, min(k, c)], descending, and indices int64 of the same shape, on the
        corpus's device. The order is that of float64 and a function of the rows alone: of no
        processor, library, backend or thread; ties go to the lower index. Scores of results that
        float32 could not tell apart are float64's, rounded; others may differ in their last bits
        from machine to machine. A zero vector scores 0 with everything. Where ``exclude`` leaves
        too few documents, the score is -inf and the index -1.

    Raises:
        ValueError: If an argument does not fit, or a row holds a value that is not finite.

    Example:
        >>> import numpy as np
        >>> corpus = np.array([[1, 0, 0, 9], [1, 1, 0, 0], [0, 1, 1, 0]], np.float32)
        >>> scores, indices = nested_topk(corpus[1:2], corpus, dims=[2, 4], k=2)
        >>> indices.tolist()  # at 2 components row 0 ties with row 2 and comes first
        [[[1, 0]], [[1, 2]]]
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    problem = pose(queries, corpus, dims, k, exclude, norms)
    if problem.wide and len(problem.dims) > 1:  # each level on its own needs no common scale
        parts = [
            nested_topk(queries, corpus, [d], k, exclude=exclude, backend=backend)
            for d in problem.dims
        ]
        return torch.cat([scores for scores, _ in parts]), torch.cat([found for _, found in parts])
    return settled(problem, _engine(problem, backend))


def _engine(problem: Problem, backend: str) -> Engine:
    """The engine asked for, or the best one that can take this problem."""
    on_cpu = problem.corpus.device.type == "cpu"
    if backend == "per-level":
        return per_level.search
    if backend == "cpu" or (backend == "auto" and on_cpu):
        if not on_cpu:
            raise ValueError(f"backend cpu cannot search a corpus on {problem.corpus.device}")
        return cpu.search
    fused, reason = _fused(problem)
    if fused is not None:
        return fused
    if backend == "triton":
        raise ValueError(f"backend triton cannot take this search: {reason}")
    _say_once(f"searching level by level, since {reason}")
    return per_level.search


def _fused(problem: Problem) -> tuple[Engine | None, str]:
    """The Triton engine, or why it cannot take this problem."""
    try:
        from fusion.topk.engines import triton_kernel
    except ImportError:
        return None, "triton is not installed"
    reason = triton_kernel.unfit(problem)
    return (triton_kernel.search, "") if reason is None else (None, reason)


@cache
def _say_once(message: str) -> None:
    logger.warning(message)


def corpus_norms(corpus: Rows, dims: Sequence[int]) -> PrefixNorms:
    """Measure a corpus once for many searches with the same ``dims``.

    Raises:
        ValueError: If a row holds a value that is not finite; it names the row.
    """
    rows = as_tensor(corpus, "corpus", (*FLOATS, torch.int8))
    return prefix_norms(rows, check_dims(dims, rows.shape[1]))
