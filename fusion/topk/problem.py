"""What is asked of an engine: inputs of any kind, checked once and brought to tensors."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fusion.topk import keys
from fusion.topk.norms import (
    ROWS,
    PrefixNorms,
    inverse_norms,
    prefix_norms,
    prefix_squares,
    times_two_to,
)

Rows = np.ndarray | Tensor
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Problem:
    """A checked search: every engine may rely on what stands here."""

    asked: Tensor
    """Floating point [q, d] as it was given."""
    queries: Tensor
    """float32 [q, d], contiguous, every row scaled by a power of two to a norm in [0.5, 1)."""
    corpus: Tensor
    """Floating point [c, d or wider] as it was given: any float dtype, any strides."""
    dims: tuple[int, ...]
    """Ascending widths of the nested levels."""
    keep: int
    """Results a query, at most c."""
    exclude: Tensor | None
    """int64 [q], -1 for none."""
    query_norms: PrefixNorms
    corpus_norms: PrefixNorms
    double: bool = False
    """Whether products and norms are summed in float64, though scores stay float32."""
    sizes: np.ndarray | None = None
    """float32 [l, q]: room for what an engine that adds up products level by level may say of them,
    the greatest size of a query's scores with all documents, before the query's norm is divided
    out; infinite where it says nothing."""

    @property
    def wide(self) -> bool:
        """Whether each level needs row scales of its own: it must be a search of its own."""
        return self.query_norms.wide or self.corpus_norms.wide

    def documents(self, start: int, stop: int, dim: int) -> Tensor:
        """Rows of the corpus as float32 [rows, dim], scaled like their norms; a view if it can."""
        rows = self.corpus[start:stop, :dim]
        if self.corpus_norms.scale is None:
            return rows.float()
        scale = self.corpus_norms.scale[start:stop, None].to(rows.device)
        return (rows.double() * scale).float()

    def chosen(self, documents: np.ndarray) -> Tensor:
        """Documents int64 [n] as float32 [n, d], scaled like their norms."""
        rows, some = torch.from_numpy(documents), self._given(documents)
        if self.corpus_norms.scale is None:
            return some.float()
        return (some.double() * self.corpus_norms.scale[rows, None]).float()

    @property
    def rounded(self) -> bool:
        """Whether float32 rows may be others than those that were given."""
        return torch.float64 in (self.asked.dtype, self.corpus.dtype)

    def doubled(self) -> "Problem":
        """The same search with products and norms that are summed in float64."""
        inverse = torch.empty_like(self.corpus_norms.inverse)
        for start in range(0, len(self.corpus), ROWS):
            rows = self.documents(start, start + ROWS, self.dims[-1])  # (c, d)
            inverse[:, start : start + ROWS] = self._inverse64(rows)
        corpus_norms = replace(self.corpus_norms, inverse=inverse)
        query_norms = replace(self.query_norms, inverse=self._inverse64(self.queries))
        return replace(self, corpus_norms=corpus_norms, query_norms=query_norms, double=True)

    def _inverse64(self, rows: Tensor) -> Tensor:
        """Inverse prefix norms float32 [l, n] of rows [n, d], from float64 sums."""
        return inverse_norms(prefix_squares(rows.double().numpy(), self.dims)).T

    def some(self, chosen: np.ndarray, keep: int) -> "Problem":
        """The same search for distinct queries, ascending int64 [r], with so many results."""
        if len(chosen) == len(self.queries):
            return replace(self, keep=keep)
        norms, rows = self.query_norms, torch.from_numpy(chosen)
        return replace(
            self,
            asked=self.asked[rows.to(self.asked.device)],
            queries=self.queries[rows],
            keep=keep,
            exclude=None if self.exclude is None else self.exclude[rows],
            query_norms=replace(norms, inverse=norms.inverse[:, rows]),
        )

    @property
    def settled(self) -> bool:
        """Whether float32 scores are exact up to a factor of each query's own."""
        return False

    def exact_rows(self, documents: np.ndarray) -> Tensor:
        """Documents int64 [n] as a copy [n, d] of any dtype and no unusual size, on the CPU."""
        return in_range(self._given(documents))

    def _given(self, documents: np.ndarray) -> Tensor:
        """Documents [n, d] on the CPU; torch takes rows so three times as fast as by brackets."""
        rows = torch.from_numpy(documents).to(self.corpus.device)
        return self.corpus[:, : self.dims[-1]].index_select(0, rows).cpu()

    def exact(self, documents: np.ndarray) -> np.ndarray:
        """The same as float64 [n, d]."""
        return self.exact_rows(documents).double().numpy()

    def exact_queries(self) -> np.ndarray:
        """The queries as float64 [q, d]; see ``in_range``."""
        return in_range(self.asked.cpu()).double().numpy()

    def finish(self, found: Tensor, block: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Cosines and indices of a block's keys [l, rows, keep], sorted from the best down."""
        scores, indices = keys.unpack(found)
        return self.cosines(scores, indices, block), indices

    def cosines(self, scores: Tensor, indices: Tensor, block: slice = slice(None)) -> Tensor:
        """Scores [l, rows, keep] divided, in place, by the norms of a block's queries.

        Only here does the query's norm matter: it cannot change the order of the documents.
        """
        scores *= self.query_norms.inverse[:, block, None].to(scores.device)  # (l, rows, k)
        if scores.shape[-1] and (indices[..., -1] < 0).any():
            scores.masked_fill_(indices < 0, -torch.inf)  # 0 times -inf was not a number
        return scores


def pose(
    queries: Rows,
    corpus: Rows,
    dims: Sequence[int],
    k: int,
    exclude: Rows | None,
    norms: PrefixNorms | None,
) -> Problem:
    """Check the arguments of a search and prepare what every engine needs of them."""
    q = as_tensor(queries, "queries")
    c = as_tensor(corpus, "corpus", (*FLOATS, torch.int8))
    levels = check_dims(dims, min(q.shape[1], c.shape[1]))
    check_k(k)
    query_norms = prefix_norms(q, levels, "queries")
    if norms is not None and (norms.dims != levels or norms.inverse.shape[1] != len(c)):
        raise ValueError(
            f"norms belong to {norms.inverse.shape[1]} rows at dims {norms.dims}, the corpus has "
            f"{len(c)} rows and dims are {levels}: measure them again with corpus_norms()"
        )
    scaled, query_norms = scale_queries(q[:, : levels[-1]], query_norms)
    return Problem(
        q[:, : levels[-1]],
        scaled,
        c,
        levels,
        min(k, len(c)),
        check_exclude(exclude, len(q), len(c)),
        query_norms,
        prefix_norms(c, levels) if norms is None else norms,
    )


def as_tensor(rows: Rows, name: str, dtypes: tuple[torch.dtype, ...] | None = FLOATS) -> Tensor:
    """See rows as a tensor, of any dtype if None, without a copy where torch can read in place."""
    if isinstance(rows, np.ndarray):
        native = rows.dtype.newbyteorder("=")
        if rows.dtype != native or any(s < 0 or s % native.itemsize for s in rows.strides):
            rows = np.array(rows, native, order="C")  # which torch cannot read in place
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")  # we only read
            rows = torch.from_numpy(rows)
    if not isinstance(rows, Tensor):
        raise TypeError(f"{name} must be a numpy array or a torch tensor, got {type(rows)}")
    if dtypes is not None and rows.dtype not in dtypes:
        raise ValueError(f"{name} must be floating point, got {rows.dtype}: convert them first")
    if rows.ndim != 2:
        raise ValueError(f"{name} must have two dimensions [rows, d], got {tuple(rows.shape)}")
    return rows.detach()


def check_dims(dims: Sequence[int], width: int) -> tuple[int, ...]:
    """Ascending distinct widths that the rows can serve."""
    levels = tuple(int(dim) for dim in dims)
    if not levels or levels[0] < 1 or any(a >= b for a, b in pairwise(levels)):
        raise ValueError(f"dims must be ascending distinct widths of at least 1, got {list(dims)}")
    if levels[-1] > width:
        raise ValueError(f"dims end at {levels[-1]}, but the vectors have only {width} components")
    return levels


def check_k(k: int) -> None:
    """At least one result."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")


def check_exclude(exclude: Rows | None, queries: int, documents: int) -> Tensor | None:
    """One document index a query, or -1."""
    if exclude is None:
        return None
    indices = torch.as_tensor(exclude).cpu()
    if indices.shape != (queries,) or indices.is_floating_point():
        raise ValueError(
            f"exclude must be {queries} integers, one a query, got {indices.dtype} of shape "
            f"{tuple(indices.shape)}"
        )
    if queries and (int(indices.min()) < -1 or int(indices.max()) >= documents):
        raise ValueError(f"exclude must lie between -1 and {documents - 1}")
    return indices.long()


def in_range(rows: Tensor) -> Tensor:
    """Rows [n, d], those of float64 each times a power of two that keeps squares in its range."""
    if rows.dtype != torch.float64 or not rows.numel():
        return rows
    exponent = torch.frexp(rows.abs().amax(dim=1, keepdim=True)).exponent
    return times_two_to(rows, -exponent)


def scale_queries(queries: Tensor, norms: PrefixNorms) -> tuple[Tensor, PrefixNorms]:
    """Bring queries near unit norm by powers of two, which rounds nothing."""
    if norms.scale is not None:
        queries = queries.cpu().double() * norms.scale[:, None]
    norm = norms.inverse[-1].double().reciprocal()  # (q,) inf for zero rows
    exponent = torch.where(torch.isfinite(norm), torch.frexp(norm).exponent, 0)
    factor = torch.ldexp(torch.ones_like(norm), -exponent)
    # Usual float32 rows need no float64, where the product would be rounded to the same numbers.
    exact = torch.float32 if queries.dtype == torch.float32 else torch.float64
    scaled = (queries.cpu().to(exact) * factor[:, None].to(exact)).float().contiguous()  # (q, d)
    inverse = (norms.inverse.double() / factor).float()
    return scaled, PrefixNorms(inverse, None, norms.wide, norms.dims)
