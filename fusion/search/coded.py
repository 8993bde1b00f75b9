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

from fusion.search import cpu
from fusion.search.norms import PrefixNorms
from fusion.search.problem import Problem, Rows, check_dims, pose

EXACT_INT8 = 2**24 // 128**2
"""Components up to which products of int8 codes sum exactly: 1,024."""


@dataclass(frozen=True)
class BitProblem(Problem):
    """A search among documents of one bit a component, unpacked a tile at a time."""

    def documents(self, start: int, stop: int, dim: int) -> Tensor:
        """Rows of -1 and +1, float32 [rows, dim]."""
        return unpack_bits(self.corpus[start:stop], dim)


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
    codes = _tensor(corpus, "corpus")
    bits = codes.dtype == torch.uint8
    if not bits and codes.dtype != torch.int8:
        raise ValueError(f"corpus must be int8 codes or uint8 bits, got {codes.dtype}")
    levels = check_dims(dims, codes.shape[1] * (8 if bits else 1))
    left = _queries(_tensor(queries, "queries"), bits, levels[-1])
    if not bits:
        if left.dtype == torch.int8 and levels[-1] > EXACT_INT8:
            raise ValueError(
                f"int8 queries and documents of {levels[-1]} components could exceed 2**24: give "
                f"float queries, or at most {EXACT_INT8} components"
            )
        return cpu.search(pose(left.float(), codes, levels, k, exclude, None))
    inverse = torch.tensor(levels).rsqrt()[:, None].expand(-1, len(codes)).contiguous()
    stub = torch.empty(1, levels[-1]).expand(len(codes), -1)  # only its shape is looked at
    posed = pose(left.float(), stub, levels, k, exclude, PrefixNorms(inverse, None, False, levels))
    return cpu.search(BitProblem(**vars(posed) | {"corpus": codes}))


def unpack_bits(packed: Tensor, dim: int) -> Tensor:
    """Bits [n, at least dim / 8] as float32 [n, dim] of -1 and +1."""
    components = np.unpackbits(packed.numpy(), axis=1, count=dim)  # (n, dim)
    return torch.from_numpy(components).float().mul_(2).sub_(1)


def _tensor(rows: Rows, name: str) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(rows)) if isinstance(rows, np.ndarray) else rows
    if tensor.ndim != 2:
        raise ValueError(f"{name} must have two dimensions, got {tuple(tensor.shape)}")
    return tensor


def _queries(queries: Tensor, bits: bool, dim: int) -> Tensor:
    """Queries as rows of components, whatever they are coded in."""
    if queries.dtype != torch.uint8:
        return queries
    if not bits:
        raise ValueError("queries are bits, but the corpus is int8: code both alike")
    return unpack_bits(queries, dim)
