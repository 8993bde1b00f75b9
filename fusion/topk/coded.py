"""Nested cosine top-k over codes: int8, or one bit a component.

Codes are small integers, and a float32 sum of their products is exact as long as it stays below
2**24. So the CPU engine's float32 products are integer accumulators here, on the processor's fast
float units, and ties between codes are true ties.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fusion.topk.engines import cpu
from fusion.topk.norms import FLOAT32, PrefixNorms
from fusion.topk.problem import Problem, Rows, as_tensor, check_dims, pose
from fusion.topk.settling.settled import settled

EXACT_INT8 = 2**24 // 128**2
"""Components up to which products of int8 codes sum exactly: 1,024."""


@dataclass(frozen=True)
class BitProblem(Problem):
    """A search among documents of one bit a component, unpacked a tile at a time."""

    bits: bool = False
    """Whether the queries are bits too."""

    @property
    def settled(self) -> bool:
        """Products of bits are exact, and all documents have one norm."""
        return self.bits

    def documents(self, start: int, stop: int, dim: int) -> Tensor:
        """Rows of -1 and +1, float32 [rows, dim]."""
        return unpack_bits(self.corpus[start:stop], dim)

    def chosen(self, documents: np.ndarray) -> Tensor:
        """Rows of -1 and +1, float32 [n, d]."""
        return unpack_bits(self.corpus[torch.from_numpy(documents)], self.dims[-1])

    def exact_rows(self, documents: np.ndarray) -> Tensor:
        """The same."""
        return self.chosen(documents)


def nested_topk_codes(
    queries: Rows,
    corpus: Rows,
    dims: Sequence[int],
    k: int,
    *,
    exclude: Rows | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the k nearest coded documents for every level.

    Args:
        queries: float [q, d] (asymmetric: a float query against coded documents), int8 codes
            [q, d], or bits [q, d / 8] where the documents are bits too.
        corpus: int8 codes [c, d], of the same scale for all components; or uint8 bits [c, d / 8]
            as ``numpy.packbits`` makes them, where 1 stands for +1 and 0 for -1.
        dims: Ascending widths of the nested levels, in components.
        k: Results a query.
        exclude: See ``nested_topk``.

    Returns:
        Scores and indices as from ``nested_topk``: cosines of the queries with the codes. Between
        int8 codes and between bits the dot products are exact integers (int8: up to
        ``EXACT_INT8`` components).

    Raises:
        ValueError: If an argument does not fit.
    """
    codes, asked = as_tensor(corpus, "corpus", None), as_tensor(queries, "queries", None)
    bits = codes.dtype == torch.uint8
    if not bits and codes.dtype != torch.int8:
        raise ValueError(f"corpus must be int8 codes or uint8 bits, got {codes.dtype}")
    levels = check_dims(dims, codes.shape[1] * (8 if bits else 1))
    if not bits and asked.dtype == torch.int8 and levels[-1] > EXACT_INT8:
        raise ValueError(
            f"int8 queries and documents of {levels[-1]} components could exceed 2**24: give "
            f"float queries, or at most {EXACT_INT8} components"
        )
    left = _components(asked, bits, levels)
    alike = bits and asked.dtype == torch.uint8
    problems = [_pose(left, codes, levels, k, exclude, alike)]
    if problems[0].wide:  # each level on its own needs no common scale
        problems = [_pose(left, codes, (d,), k, exclude, alike) for d in levels]
    scores, indices = zip(*(settled(problem, cpu.search) for problem in problems), strict=True)
    return torch.cat(scores), torch.cat(indices)


def unpack_bits(packed: Tensor, dim: int) -> Tensor:
    """Bits [n, at least dim / 8] as float32 [n, dim] of -1 and +1."""
    components = np.unpackbits(packed.numpy(), axis=1, count=dim)  # (n, dim)
    return torch.from_numpy(components).float().mul_(2).sub_(1)


def _components(queries: Tensor, bits: bool, dims: tuple[int, ...]) -> Tensor:
    """Queries as rows of floating-point components, whatever they are coded in."""
    if queries.dtype != torch.uint8:
        return queries if queries.is_floating_point() else queries.float()
    if not bits:
        raise ValueError("queries are bits, but the corpus is int8: code both alike")
    check_dims(dims, 8 * queries.shape[1])
    return unpack_bits(queries, dims[-1])


def _pose(
    queries: Tensor, codes: Tensor, dims: tuple[int, ...], k: int, exclude: Rows | None, alike: bool
) -> Problem:
    """A search among int8 codes, which are documents as they are, or among bits."""
    if codes.dtype == torch.int8:
        return pose(queries, codes, dims, k, exclude, None)
    inverse = torch.tensor(dims, **FLOAT32).rsqrt()[:, None].expand(-1, len(codes)).contiguous()
    stub = torch.empty(1, dims[-1], **FLOAT32).expand(len(codes), -1)  # only its shape is looked at
    posed = pose(queries, stub, dims, k, exclude, PrefixNorms(inverse, None, False, dims))
    return BitProblem(**vars(posed) | {"corpus": codes}, bits=alike)
