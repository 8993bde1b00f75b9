"""Products of documents' tokens and queries' tokens, and the largest of each document.

Queries' tokens stand side by side in groups of ``LANES`` columns. A product of a strip of rows with
one group is so small that numpy's BLAS neither packs its sides nor shares it among threads: twice
as fast as one large product, for any number of queries. What comes out has documents' tokens as
rows, and the largest of each whole block of ``FOLDED`` rows are taken a few registers at a time.
Only these, and the rows of documents that begin or end within a block, are told apart by document.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fusion.topk.products import SMALL

Rows = np.ndarray | Tensor
"""[any, d or wider]: an array float32 with contiguous columns, or a tensor of any kind."""

LANES = 32  # queries' tokens that are multiplied together
READ = 2**17  # numbers of documents that all widths read before the next: 512 KB
STRIPS = 8  # products that cost less one by one than stacked
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


def largest_products(
    lanes: np.ndarray, runs: Sequence[Rows], dims: Sequence[int], inverse: Tensor, fold: Fold
) -> np.ndarray:
    """The largest scaled product of each document, float32 [l, groups, n, LANES].

    Args:
        lanes: Queries' tokens float32 [groups, d, LANES].
        runs: Documents' tokens, t in all.
        dims: Ascending widths.
        inverse: What to multiply documents' tokens by, float32 [l, t].
        fold: Of the documents.
    """
    products = prefix_products(lanes, runs, dims)
    products *= inverse[:, None, :, None]
    whole = products[:, :, : fold.blocks * FOLDED].unflatten(2, (fold.blocks, FOLDED))
    single = products.numpy().take(fold.rows, axis=2)
    kept = np.concatenate([whole.amax(dim=3).numpy(), single], axis=2)
    return np.maximum.reduceat(kept.take(fold.order, axis=2), fold.firsts, axis=2)


def prefix_products(lanes: np.ndarray, runs: Sequence[Rows], dims: Sequence[int]) -> Tensor:
    """The products of every prefix of rows, float32 [l, groups, t, LANES]."""
    found = np.empty((len(dims), len(lanes), sum(map(len, runs)), LANES), np.float32)
    segments = [(a, b, lanes[:, a:b]) for a, b in pairwise((0, *dims))]
    start = 0
    for rows in _read(runs, dims[-1]):
        stop = start + len(rows)
        for (a, b, right), out in zip(segments, found, strict=True):
            _multiply(rows[:, a:b], right, out[:, start:stop])
        start = stop
    for before, after in pairwise(found):
        after += before
    return torch.from_numpy(found)


def _read(runs: Sequence[Rows], width: int) -> Iterator[np.ndarray]:
    """Rows in parts that stay in cache while all widths read them, float32 [any, d or wider]."""
    most = max(1, READ // width)
    for run in runs:
        parts = [run[first : first + most] for first in range(0, len(run), most)]
        for part in parts:
            yield part.float().contiguous().numpy() if isinstance(part, Tensor) else part


def _multiply(rows: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    """Write rows [t, w] times each group [groups, w, LANES] to [groups, t, LANES]."""
    height = max(1, SMALL // (LANES * right.shape[1]))
    if len(rows) <= STRIPS * height:
        for group, found in zip(right, out, strict=True):
            for first in range(0, len(rows), height):
                part = slice(first, first + height)
                np.matmul(rows[part], group, out=found[part])
        return
    count, rest = divmod(len(rows), height)
    whole = len(rows) - rest
    strips = out[:, :whole].reshape(len(out), count, height, LANES).transpose(1, 0, 2, 3)
    np.matmul(rows[:whole].reshape(count, 1, height, -1), right, out=strips)
    if rest:
        np.matmul(rows[whole:], right, out=out[:, whole:])
