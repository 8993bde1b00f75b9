"""What is asked of a search among token vectors: checked inputs, and cosines a tile at a time.

A tile is cut by the number of its tokens, whatever documents they belong to, so nothing is padded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fusion.ragged import Ragged
from fusion.topk.bounds import ROUNDINGS, SECOND_ORDER, UNIT, error_bound64, maxsim_bounds
from fusion.topk.engines.screening import int8_is_better
from fusion.topk.lanes import (
    LANES,
    Fold,
    Piece,
    Rows,
    Tile,
    coded_products,
    in_lanes,
    largest,
    out_of_lanes,
    prefix_products,
)
from fusion.topk.norms import (
    ROWS,
    NotFiniteError,
    PrefixNorms,
    added_squares,
    prefix_norms,
    prefix_squares,
    sums_of_squares,
    usual_norms,
)
from fusion.topk.problem import as_tensor, check_dims, check_k, scale_queries

KINDS = (torch.float32, torch.float16, torch.bfloat16, torch.int8)
TILE_COSINES = 2**20  # of a tile at all levels: 4 MB
TILE_NUMBERS = 2**23  # of a tile's tokens: 32 MB where they must be copied
EXACT = 1024  # columns of int8 whose products add up to at most 2**24
FEWEST, MOST = 64, 32768  # tokens of a tile


@dataclass(frozen=True)
class Asked:
    """The tokens of a block of consecutive queries."""

    given: Tensor
    """Floating point [t, d]."""
    counts: np.ndarray
    """Tokens of each query, int64 [q], at least one."""
    rows: Tensor
    """float32 [t, d], each times a power of two."""
    norms: PrefixNorms
    """Of these."""

    @cached_property
    def lanes(self) -> np.ndarray:
        """The same as right-hand sides of products, float32 [groups, d, LANES]."""
        return in_lanes(self.rows)

    @cached_property
    def codes(self) -> Tensor | None:
        """The same if they are int8, filled up to whole lanes, int8 [groups * LANES, d]."""
        if self.given.dtype != torch.int8:
            return None
        missing = -len(self.rows) % LANES
        return torch.nn.functional.pad(self.given, (0, 0, 0, missing)).contiguous()

    def query(self, row: int) -> "Asked":
        """The tokens of one of the queries."""
        part = slice(int(self.starts[row]), int(self.starts[row] + self.counts[row]))
        norms = replace(self.norms, inverse=self.norms.inverse[:, part])
        return Asked(self.given[part], self.counts[row : row + 1], self.rows[part], norms)

    def first(self, levels: int) -> "Asked":
        """The same at so many of the levels."""
        norms = self.norms.first(levels)
        return Asked(
            self.given[:, : norms.dims[-1]], self.counts, self.rows[:, : norms.dims[-1]], norms
        )

    @property
    def starts(self) -> np.ndarray:
        """The first token of each query, int64 [q]."""
        return self.counts.cumsum() - self.counts


@dataclass(frozen=True)
class Sides:
    """The tokens of queries and of documents, and at which levels they are multiplied."""

    levels: slice
    left: Asked
    runs: list[Rows]
    """Documents' tokens [any, d or wider], t in all."""
    norms: PrefixNorms
    """Of these."""

    def cosines(self) -> Iterator[np.ndarray]:
        """Cosines float32 [documents' tokens, queries' tokens] of each level in turn."""
        for some, inverse in zip(
            self._products().numpy(), self.left.norms.inverse.numpy(), strict=True
        ):
            yield out_of_lanes(some, len(inverse)) * inverse

    def largest(self, fold: Fold) -> np.ndarray:
        """The largest of each document and query's token, float32 [levels, n, queries' tokens]."""
        inverse = self.left.norms.inverse.numpy()  # (l, t)
        found = largest(self._products(), fold)
        return out_of_lanes(found, inverse.shape[1]) * inverse[:, None]

    def _products(self) -> Tensor:
        """Products over the norms of documents' tokens, float32 [levels, groups, t, lanes]."""
        dims, codes = self.norms.dims, self.left.codes
        narrow = min(b - a for a, b in pairwise((0, *dims))) == 1
        if codes is None or self.runs[0].dtype != torch.int8 or narrow or not int8_is_better():
            products = prefix_products(self.left.lanes, self.runs, dims)
        else:
            products = coded_products(codes, self.runs, dims)
        return products.mul_(self.norms.inverse[:, None, :, None])


@dataclass(frozen=True)
class TokenSearch:
    """A checked search: engine and settling may rely on what stands here."""

    queries: Tensor
    """Floating point or int8 [t, D or wider] as it was given."""
    query_offsets: np.ndarray
    """int64 [q + 1], of which no two are equal."""
    documents: Tensor
    """Floating point or int8 [t, D or wider] as it was given."""
    offsets: np.ndarray
    """int64 [c + 1]."""
    dims: tuple[int, ...]
    keep: int
    """Results a query, at most c."""
    candidates: np.ndarray | None
    """int64 [q, m], -1 for none."""
    norms: PrefixNorms | None
    """Of the documents' tokens, if they are known."""

    @property
    def bounds(self) -> list[float]:
        """What a computed cosine of two tokens, at each level, may be off its canonical one.

        Sums of products of int8, and of their squares, are integers that float32 holds: in whatever
        order they are added, only norms, their inverse and what is multiplied by it are rounded.
        """
        both = self.queries.dtype == self.documents.dtype == torch.int8
        if both and self.dims[-1] <= EXACT:
            return [ROUNDINGS * UNIT * SECOND_ORDER + error_bound64(dim) for dim in self.dims]
        return maxsim_bounds(self.dims)

    def first(self, levels: int) -> "TokenSearch":
        """The same search at so many of its levels."""
        norms = None if self.norms is None else self.norms.first(levels)
        return replace(self, dims=self.dims[:levels], norms=norms)

    def asked(self, block: slice) -> Asked:
        """The tokens of a block of queries.

        Raises:
            ValueError: If one is not finite; it names the query and the token.
        """
        edges = self.query_offsets[block.start : block.stop + 1]
        rows = self.queries[int(edges[0]) : int(edges[-1]), : self.dims[-1]]
        try:
            return asked(rows, np.diff(edges), self.dims)
        except NotFiniteError as error:
            row = int(edges[0]) + error.row
            raise ValueError(_not_finite("query", self.query_offsets, row)) from None

    def tiles(self, documents: np.ndarray, tokens: int, parts: int = 1) -> Iterator[Tile]:
        """Cut documents int64 [m] for so many tokens of queries; those without tokens are left out.

        There are so many ``parts`` at least, if documents have the tokens for it. Results never
        depend on it.
        """
        lanes = -(-tokens // LANES) * LANES
        most = min(TILE_COSINES // (lanes * len(self.dims)), TILE_NUMBERS // self.dims[-1])
        most = min(MOST, max(FEWEST, most))
        begin, end = self.offsets[documents], self.offsets[documents + 1]
        there = (end > begin).nonzero()[0]
        total = np.concatenate([[0], (end - begin)[there].cumsum()])
        most = min(most, max(FEWEST, -(-int(total[-1]) // parts)))
        first = 0
        while first < len(there):
            last = max(first + 1, int(total.searchsorted(total[first] + most, side="right")) - 1)
            places = there[first:last]
            yield Tile(places, list(_pieces(begin[places], end[places], most)))
            first = last

    def exact(self, rows: np.ndarray) -> np.ndarray:
        """Documents' tokens int64 [n] as float64 [n, D]."""
        return self.documents[torch.from_numpy(rows), : self.dims[-1]].double().numpy()

    def sides(self, left: Asked, piece: Piece) -> Iterator[Sides]:
        """What is multiplied for all levels at once, or for one level after the other.

        Raises:
            ValueError: If a token is not finite; it names the document and the token.
        """
        runs, norms = self._right(piece, self.dims, self.norms)
        if not (left.norms.wide or norms.wide) or len(self.dims) == 1:
            yield Sides(slice(None), left, runs, norms)
            return
        for level, dim in enumerate(self.dims):  # each level on its own needs no common scale
            alone = asked(left.given[:, :dim], left.counts, (dim,))
            yield Sides(slice(level, level + 1), alone, *self._right(piece, (dim,), None))

    @cached_property
    def _readable(self) -> Rows:
        """Documents' tokens where they lie: an array if products can read it, or else a tensor."""
        rows = self.documents
        plain = rows.dtype == torch.float32 and rows.stride(1) == 1
        return rows.numpy() if plain and rows.stride(0) >= self.dims[-1] else rows

    def _right(
        self, piece: Piece, dims: tuple[int, ...], known: PrefixNorms | None
    ) -> tuple[list[Rows], PrefixNorms]:
        """Documents' tokens [any, d or wider], where they lie if they can be, and their norms."""
        runs = [self._readable[a:b] for a, b in piece.runs]
        norms = self._measured(runs, piece, dims) if known is None else _part(known, piece)
        if norms.scale is None:
            return runs, norms
        parts = torch.from_numpy(piece.rows()).split(ROWS), norms.scale.split(ROWS)
        scaled = [
            (self.documents[rows, : dims[-1]].double() * scale[:, None]).float()
            for rows, scale in zip(*parts, strict=True)
        ]
        return scaled, norms

    def _measured(self, runs: Sequence[Rows], piece: Piece, dims: tuple[int, ...]) -> PrefixNorms:
        whole = [run[:, : dims[-1]] for run in runs]
        if isinstance(self._readable, np.ndarray):
            sums = np.concatenate([sums_of_squares(np.asarray(run), dims) for run in whole])
            if (norms := usual_norms(added_squares(sums, dims), dims)) is not None:
                return norms
        try:
            return prefix_norms(torch.cat([torch.as_tensor(run) for run in whole]), dims)
        except NotFiniteError as error:
            row = int(piece.rows()[error.row])
            raise ValueError(_not_finite("document", self.offsets, row)) from None


def pose(
    queries: Ragged,
    documents: Ragged,
    dims: Sequence[int],
    k: int,
    candidates: Rows | None,
    norms: PrefixNorms | None,
) -> TokenSearch:
    """Check the arguments of a search."""
    asked, rows = (
        _on_cpu(as_tensor(side.rows, name, KINDS), name)
        for side, name in ((queries, "queries"), (documents, "documents"))
    )
    levels = check_dims(dims, min(asked.shape[1], rows.shape[1]))
    check_k(k)
    empty = (queries.counts == 0).nonzero()[0]
    if len(empty):
        raise ValueError(f"query {empty[0]} has no tokens: leave it out")
    if norms is not None and (norms.dims != levels or norms.inverse.shape[1] != len(rows)):
        raise ValueError(
            f"norms belong to {norms.inverse.shape[1]} rows at dims {norms.dims}, the documents "
            f"have {len(rows)} tokens and dims are {levels}: measure them again with corpus_norms()"
        )
    chosen = _check_candidates(candidates, len(queries), len(documents))
    keep = min(k, len(documents))
    offsets = queries.offsets, documents.offsets
    return TokenSearch(asked, offsets[0], rows, offsets[1], levels, keep, chosen, norms)


def asked(rows: Tensor, counts: np.ndarray, dims: tuple[int, ...]) -> Asked:
    """Queries' tokens [t, d], near unit norm where they are of unusual size."""
    wide = rows.float()
    norms = usual_norms(prefix_squares(wide.numpy(), dims), dims)
    if norms is None:
        norms = prefix_norms(rows, dims, "queries")
        if norms.scale is not None:
            wide, norms = scale_queries(rows, norms)
    return Asked(rows, counts, wide, norms)


def _pieces(begin: np.ndarray, end: np.ndarray, most: int) -> Iterator[Piece]:
    """All tokens of some documents at once, or those of a long one in parts."""
    if len(begin) > 1:
        yield Piece(begin, end)
        return
    for start in range(int(begin[0]), int(end[0]), most):
        yield Piece(np.array([start]), np.minimum(start + most, end))


def _part(norms: PrefixNorms, piece: Piece) -> PrefixNorms:
    """The norms of a piece's tokens."""
    if len(piece.runs) == 1:
        part = slice(*piece.runs[0])
        scale = None if norms.scale is None else norms.scale[part]
        return PrefixNorms(norms.inverse[:, part], scale, norms.wide, norms.dims)
    rows = torch.from_numpy(piece.rows())
    scale = norms.scale
    if scale is not None:
        scale = scale[rows]
    return PrefixNorms(norms.inverse.index_select(1, rows), scale, norms.wide, norms.dims)


def _on_cpu(rows: Tensor, name: str) -> Tensor:
    if rows.device.type != "cpu":
        raise ValueError(f"{name} lie on {rows.device}, but are searched on the CPU: move them")
    return rows


def _not_finite(name: str, offsets: np.ndarray, row: int) -> str:
    item = int(offsets.searchsorted(row, side="right")) - 1
    token = row - int(offsets[item])
    return f"{name} {item}, token {token} holds a value that is not finite: remove or repair it"


def _check_candidates(candidates: Rows | None, queries: int, documents: int) -> np.ndarray | None:
    """Any number of document indices a query, or -1."""
    if candidates is None:
        return None
    chosen = np.asarray(candidates)
    if chosen.ndim != 2 or len(chosen) != queries or chosen.dtype.kind not in "iu":
        raise ValueError(
            f"candidates must be integers [{queries}, any], a row a query, got {chosen.dtype} of "
            f"shape {chosen.shape}"
        )
    row, column = ((chosen < -1) | (chosen >= documents)).nonzero()
    if len(row):
        raise ValueError(
            f"candidates of query {row[0]} name document {chosen[row[0], column[0]]}, but the "
            f"{documents} documents are numbered from 0, and -1 stands for none"
        )
    return chosen.astype(np.int64)
