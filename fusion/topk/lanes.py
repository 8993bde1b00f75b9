"""Products of documents' tokens and queries' tokens, and the largest of each document.

Queries' tokens stand side by side in groups of ``LANES`` columns. A product of a strip of rows with
one group is so small that numpy's BLAS neither packs its sides nor shares it among threads: twice
as fast as one large product, for any number of queries. What comes out has documents' tokens as
rows, and the largest of each whole block of ``FOLDED`` rows are taken a few registers at a time.
Only these, and the rows of documents that begin or end within a block, are told apart by document.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fusion.topk.norms import FLOAT32
from fusion.topk.products import SMALL

Rows = np.ndarray | Tensor
"""[any, d or wider]: an array float32 with contiguous columns, or a tensor of any kind."""

LANES = 32  # queries' tokens that are multiplied together
READ = 2**17  # numbers of documents that all widths read before the next: 512 KB
STRIPS = 2  # products that cost less one by one than stacked
FOLDED = 16  # rows of a block


@dataclass(frozen=True)
class Fold:
    """What the largest of each document's rows is taken from: single rows and whole blocks."""

    rows: np.ndarray
    """int64 [r], ascending."""
    order: np.ndarray
    """int64 [m]: blocks, and rows by their place among ``rows``, after all blocks."""
    firsts: np.ndarray
    """int64 [n]: where each document begins in this order."""
    blocks: int
    """How many whole blocks there are."""

    @classmethod
    def of(cls, starts: np.ndarray, counts: np.ndarray) -> "Fold":
        """Of documents that follow one another from int64 [n] on, with at least one row each."""
        stops = starts + counts
        first, last = -(-starts // FOLDED), stops // FOLDED
        whole = last > first
        before = np.where(whole, first * FOLDED, stops) - starts
        after = np.where(whole, stops - last * FOLDED, 0)
        lengths = np.stack([before, np.where(whole, last - first, 0), after], axis=1)  # (n, 3)
        begins = np.stack([starts, first, stops - after], axis=1)
        places = (lengths.cumsum() - lengths.reshape(-1)).reshape(-1, 3)
        order = (begins - places).repeat(lengths.reshape(-1)) + np.arange(lengths.sum())
        single = np.tile([True, False, True], len(starts)).repeat(lengths.reshape(-1))
        rows, blocks = order[single], int(stops[-1]) // FOLDED
        order[single] = blocks + np.arange(len(rows))
        return cls(rows, order, places[:, 0], blocks)


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
        """Where each document begins, int64 [n]."""
        return self.counts.cumsum() - self.counts

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """Ranges of rows, of which neighbours are one."""
        breaks = self.begin[1:] != self.end[:-1]
        first = self.begin[np.concatenate([[True], breaks])]
        last = self.end[np.concatenate([breaks, [True]])]
        return list(zip(first.tolist(), last.tolist(), strict=True))

    @cached_property
    def fold(self) -> Fold:
        """How the largest of each document's tokens is found."""
        return Fold.of(self.starts, self.counts)

    def rows(self) -> np.ndarray:
        """The rows of all tokens, int64 [t]."""
        return (self.begin - self.starts).repeat(self.counts) + np.arange(self.counts.sum())


@dataclass(frozen=True)
class Tile:
    """Some documents and their tokens, in pieces that fit into memory."""

    places: np.ndarray
    """int64 [n]: where the documents stand among those that are searched."""
    pieces: list[Piece]
    """Of a single document if there are several."""


def in_lanes(rows: Tensor) -> np.ndarray:
    """Tokens float32 [t, d] as right-hand sides [groups, d, LANES], filled up with zeros."""
    groups = -(-len(rows) // LANES)
    padded = np.zeros((groups * LANES, rows.shape[1]), np.float32)
    padded[: len(rows)] = rows.numpy()
    return np.ascontiguousarray(padded.reshape(groups, LANES, -1).transpose(0, 2, 1))


def out_of_lanes(found: np.ndarray, tokens: int) -> np.ndarray:
    """Results [..., groups, n, LANES] as [..., n, tokens]."""
    apart = np.moveaxis(found, -3, -2)
    return apart.reshape(*apart.shape[:-2], -1)[..., :tokens]


def largest(products: Tensor, fold: Fold) -> np.ndarray:
    """The largest of each document's rows, float32 [l, groups, n, lanes], of [l, groups, t, lanes].

    A document's rows are those that ``fold`` was made of.
    """
    whole = products[:, :, : fold.blocks * FOLDED].unflatten(2, (fold.blocks, FOLDED))
    single = products.numpy().take(fold.rows, axis=2)
    kept = np.concatenate([whole.amax(dim=3).numpy(), single], axis=2)
    return np.maximum.reduceat(kept.take(fold.order, axis=2), fold.firsts, axis=2)


def prefix_products(lanes: np.ndarray, runs: Sequence[Rows], dims: Sequence[int]) -> Tensor:
    """The products of every prefix of rows, float32 [l, groups, t, LANES]."""
    found = np.empty((len(dims), len(lanes), sum(map(len, runs)), LANES), np.float32)
    segments = list(pairwise((0, *dims)))
    products = [
        Product(a, b, group[a:b], out)
        for (a, b), outs in zip(segments, found, strict=True)
        for group, out in zip(lanes, outs, strict=True)
    ]
    start = 0
    for rows in _read(runs, max(1, READ // dims[-1])):
        for product in products:
            product.write(rows, start)
        start += len(rows)
    for before, after in pairwise(found):
        after += before
    return torch.from_numpy(found)


def coded_products(codes: Tensor, runs: Sequence[Rows], dims: Sequence[int]) -> Tensor:
    """The same of int8, as one group of all lanes, float32 [l, 1, t, queries' tokens].

    Sums of integers are exact, and float32 holds them up to 1,024 columns.

    Args:
        codes: Queries' tokens int8 [m, d].
        runs: Documents' tokens int8 [any, d or wider], t in all.
        dims: Ascending widths, of which no two are neighbours.
    """
    rows = [torch.as_tensor(run)[:, : dims[-1]] for run in runs]
    documents = rows[0] if len(rows) == 1 else torch.cat(rows)  # (t, d)
    found = torch.empty(len(dims), 1, len(documents), len(codes), **FLOAT32)
    total = None
    for (a, b), out in zip(pairwise((0, *dims)), found, strict=True):
        part = torch._int_mm(documents[:, a:b], codes[:, a:b].T)
        total = part if total is None else total.add_(part)
        out.copy_(total)
    return found


def _read(runs: Sequence[Rows], most: int) -> Iterator[np.ndarray]:
    """Rows in parts that stay in cache while all widths read them, float32 [any, d or wider]."""
    for run in runs:
        if isinstance(run, Tensor):
            for first in range(0, len(run), most):
                yield run[first : first + most].float().contiguous().numpy()
        elif len(run) <= most:
            yield run
        else:
            for first in range(0, len(run), most):
                yield run[first : first + most]


class Product:
    """Some columns of documents' tokens times one group of queries' tokens."""

    __slots__ = ("begin", "end", "height", "out", "right")

    def __init__(self, begin: int, end: int, right: np.ndarray, out: np.ndarray) -> None:
        """Columns from ``begin`` to ``end``, float32 [columns, LANES] and [t, LANES]."""
        self.begin, self.end, self.right, self.out = begin, end, right, out
        self.height = max(1, SMALL // right.size)

    def write(self, rows: np.ndarray, start: int) -> None:
        """Write the products of rows float32 [n, d or wider] from row ``start`` on."""
        height, stop = self.height, start + len(rows)
        columns = rows[:, self.begin : self.end]
        if len(rows) > STRIPS * height:
            whole = len(rows) // height * height
            stacked = self.out[start : start + whole].reshape(-1, height, LANES)
            np.matmul(columns[:whole].reshape(len(stacked), height, -1), self.right, out=stacked)
            columns, start = columns[whole:], start + whole
        for first in range(start, stop, height):
            last = min(first + height, stop)
            out = self.out[first:last]
            np.matmul(columns[first - start : last - start], self.right, out=out)
