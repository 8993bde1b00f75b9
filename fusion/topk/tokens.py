"""What is asked of a search among token vectors: checked inputs, and cosines a tile at a time.

A tile is cut by the number of its tokens, whatever documents they belong to, so nothing is padded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fusion.ragged import Ragged
from fusion.topk.norms import FLOAT32, NotFiniteError, PrefixNorms, prefix_norms
from fusion.topk.problem import Rows, as_tensor, check_dims, check_k, scale_queries

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
TILE_COSINES = 2**20  # of a tile at all levels: 4 MB
FEWEST, MOST = 64, 8192  # tokens of a tile
STRIP = 768  # documents' tokens that a product reads at a time: a megabyte or so


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens of each of some documents: all of theirs, or a part of a single one's."""

    begin: np.ndarray
    """int64 [n]: the first row of each document."""
    end: np.ndarray
    """int64 [n]: after its last one, so each has at least one."""

    @cached_property
    def counts(self) -> np.ndarray:
        """Tokens of each document, int64 [n]."""
        return self.end - self.begin

    @cached_property
    def starts(self) -> np.ndarray:
        """The column at which each document begins, int64 [n]."""
        return self.counts.cumsum() - self.counts

    def runs(self) -> list[tuple[int, int]]:
        """Ranges of rows, of which neighbours are one."""
        breaks = self.begin[1:] != self.end[:-1]
        first = self.begin[np.concatenate([[True], breaks])]
        last = self.end[np.concatenate([breaks, [True]])]
        return list(zip(first.tolist(), last.tolist(), strict=True))

    def rows(self, columns: np.ndarray) -> np.ndarray:
        """The rows int64 [m] that stand at columns int64 [m]."""
        document = self.starts.searchsorted(columns, side="right") - 1
        return self.begin[document] + columns - self.starts[document]


@dataclass(frozen=True)
class Tile:
    """Some documents and their tokens, in pieces that fit into memory."""

    places: np.ndarray
    """int64 [n]: where the documents stand among those that are searched."""
    pieces: list[Piece]
    """Of a single document if there are several."""


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

    @property
    def starts(self) -> np.ndarray:
        """The first token of each query, int64 [q]."""
        return self.counts.cumsum() - self.counts


@dataclass(frozen=True)
class TokenSearch:
    """A checked search: engine and settling may rely on what stands here."""

    queries: Tensor
    """Floating point [t, D or wider] as it was given."""
    query_offsets: np.ndarray
    """int64 [q + 1], of which no two are equal."""
    documents: Tensor
    """Floating point [t, D or wider] as it was given."""
    offsets: np.ndarray
    """int64 [c + 1]."""
    dims: tuple[int, ...]
    keep: int
    """Results a query, at most c."""
    candidates: np.ndarray | None
    """int64 [q, m], -1 for none."""
    norms: PrefixNorms | None
    """Of the documents' tokens, if they are known."""

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

    def tiles(self, documents: np.ndarray, tokens: int) -> Iterator[Tile]:
        """Cut documents int64 [m] for so many tokens of queries; those without tokens are left out.

        Results never depend on it.
        """
        most = min(MOST, max(FEWEST, TILE_COSINES // (tokens * len(self.dims))))
        begin, end = self.offsets[documents], self.offsets[documents + 1]
        there = (end > begin).nonzero()[0]
        total = np.concatenate([[0], (end - begin)[there].cumsum()])
        first = 0
        while first < len(there):
            last = max(first + 1, int(total.searchsorted(total[first] + most, side="right")) - 1)
            places = there[first:last]
            yield Tile(places, list(_pieces(begin[places], end[places], most)))
            first = last

    def exact(self, rows: np.ndarray) -> np.ndarray:
        """Documents' tokens int64 [n] as float64 [n, D]."""
        return self.documents[torch.from_numpy(rows), : self.dims[-1]].double().numpy()

    def cosines(self, left: Asked, piece: Piece) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Cosines of each level in turn, whose queries' norms are still to be divided by.

        Yields:
            The level; float32 [queries' tokens, documents' tokens], to be overwritten at will;
            and what to multiply its rows by, float32 [queries' tokens].

        Raises:
            ValueError: If a token is not finite; it names the document and the token.
        """
        runs, norms = self._right(piece, self.dims, self.norms)
        if not (left.norms.wide or norms.wide) or len(self.dims) == 1:
            yield from _cosines(left, runs, norms)
            return
        for level, dim in enumerate(self.dims):  # each level on its own needs no common scale
            alone = asked(left.given[:, :dim], left.counts, (dim,))
            for _, cosines, inverse in _cosines(alone, *self._right(piece, (dim,), None)):
                yield level, cosines, inverse

    def _right(
        self, piece: Piece, dims: tuple[int, ...], known: PrefixNorms | None
    ) -> tuple[list[Tensor], PrefixNorms]:
        """Documents' tokens [any, d], where they lie if they can be used so, and their norms."""
        ranges = piece.runs()
        runs = [self.documents[a:b, : dims[-1]] for a, b in ranges]
        if known is None:
            whole = _joined(runs).float()
            runs, norms = [whole], self._measured(whole, piece, dims)
        else:
            norms = _part(known, ranges)
        if norms.scale is None:
            return runs, norms
        return [(_joined(runs).double() * norms.scale[:, None]).float()], norms

    def _measured(self, rows: Tensor, piece: Piece, dims: tuple[int, ...]) -> PrefixNorms:
        try:
            return prefix_norms(rows, dims)
        except NotFiniteError as error:
            row = int(piece.rows(np.array([error.row]))[0])
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
        _on_cpu(as_tensor(side.rows, name, FLOATS), name)
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
    """Queries' tokens [t, d] near unit norm."""
    scaled, norms = scale_queries(rows, prefix_norms(rows, dims, "queries"))
    return Asked(rows, counts, scaled, norms)


def prefix_products(queries: Tensor, runs: list[Tensor], dims: Sequence[int]) -> Tensor:
    """The products of every prefix of rows, float32 [l, q, c]; documents' rows are runs [any, d].

    A strip of documents' rows is read once for all levels, which find it in cache.
    """
    room = torch.empty(len(dims), len(queries), sum(map(len, runs)), **FLOAT32)
    start = 0
    for strip in _strips(runs):
        before = None
        columns = room[:, :, start : start + len(strip)]
        for out, (a, b) in zip(columns, pairwise((0, *dims)), strict=True):
            left, right = queries[:, a:b], strip[:, a:b].T
            if before is None:
                torch.mm(left, right, out=out)
            else:
                torch.addmm(before, left, right, out=out)
            before = out
        start += len(strip)
    return room


def _strips(runs: list[Tensor]) -> Iterator[Tensor]:
    """Runs of rows as float32 [at most STRIP, d]: long ones in parts, short ones put together."""
    short: list[Tensor] = []
    for part in (part for run in runs for part in run.split(STRIP)):
        if short and sum(map(len, short)) + len(part) > STRIP:
            yield _joined(short).float()
            short = []
        short.append(part)
    if short:
        yield _joined(short).float()


def _joined(runs: list[Tensor]) -> Tensor:
    return runs[0] if len(runs) == 1 else torch.cat(runs)


def _cosines(
    left: Asked, runs: list[Tensor], norms: PrefixNorms
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    products = prefix_products(left.rows, runs, norms.dims)
    for level, cosines in enumerate(products.mul_(norms.inverse[:, None]).numpy()):
        yield level, cosines, left.norms.inverse[level].numpy()


def _pieces(begin: np.ndarray, end: np.ndarray, most: int) -> Iterator[Piece]:
    """All tokens of some documents at once, or those of a long one in parts."""
    if len(begin) > 1:
        yield Piece(begin, end)
        return
    for start in range(int(begin[0]), int(end[0]), most):
        yield Piece(np.array([start]), np.minimum(start + most, end))


def _part(norms: PrefixNorms, ranges: list[tuple[int, int]]) -> PrefixNorms:
    """The norms of some ranges of rows."""
    inverse = torch.cat([norms.inverse[:, a:b] for a, b in ranges], dim=1)
    scale = norms.scale
    if scale is not None:
        scale = torch.cat([scale[a:b] for a, b in ranges])
    return PrefixNorms(inverse, scale, norms.wide, norms.dims)


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
