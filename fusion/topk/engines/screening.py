"""Ruling out most documents by products of int8 codes, which cost a quarter of float32 products.

The cosine of two codes lies within a proven distance of the true one. So a document whose coded
score stays further than that below its query's threshold cannot be among the best. The few others
are scored in float32.
"""

import timeit
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fusion.topk.bounds import error_bound
from fusion.topk.engines.passing import Tile, compare, marked
from fusion.topk.engines.survivors import CROWDED, Survivors
from fusion.topk.norms import FLOAT32, prefix_squares
from fusion.topk.products import accumulated, sampled_products, segments

MANY = 200  # queries that repay the coding of a document
WORTH = 80_000  # scores for each result, and for each of ``SET_UP``, that repay the rest
SET_UP = 180
PAYS = 1 / 12  # share of scores that may pass; with more of them float32 products cost less
LOOSE = 4.0  # scores that pass the bound for each that passes the threshold, at first
TOP = 127  # the greatest code
CODED = 2**19  # components that are coded at a time: 2 MB
CACHED = 2**19  # scores that are compared at a time: 2 MB
LEAST = -1e6  # for cosines of queries that have no threshold yet
ROUNDED = 1.001  # covers the rounding of an error's own norm


@dataclass(frozen=True)
class Codes:
    """Rows rounded to multiples of a step, which each row has for itself."""

    codes: Tensor
    """int8 [n, d]."""
    step: np.ndarray
    """float32 [n]: a row is about this times its codes."""
    error: np.ndarray
    """float32 [l, n]: the norm of what rounding took from each prefix, at most."""


class Screen:
    """Brings tiles of documents to the survivors of a block of queries."""

    def __init__(self, queries: Tensor, dims: Sequence[int], survivors: list[Survivors]) -> None:
        """Code the queries float32 [q, d]; ``survivors`` are those of each level."""
        self.queries = queries
        self.dims = tuple(dims)
        self.survivors = survivors
        self.keep = survivors[0].keep
        self.coded = code(queries, self.dims)
        squares = prefix_squares(queries.numpy(), self.dims)  # (q, l)
        self.norms = squares.sqrt_().float().numpy().T  # (l, q)
        rounding = [error_bound(dim, self.dims) for dim in self.dims]
        self.slack = self.norms * np.array(rounding, np.float32)[:, None]  # (l, q)
        self.loose = LOOSE
        self.seen = 0

    def add(self, tile: Tile, documents: Tensor, inverse: np.ndarray) -> None:
        """Take in documents [c, d] with inverse prefix norms [l, c]; overwrites the tile's dots."""
        if self.seen and self.loose * self.keep < PAYS * self.seen:
            self._add_coded(tile, documents, inverse)
        else:
            self._add_plain(tile, documents, inverse)
        self.seen += tile.documents

    def _add_plain(self, tile: Tile, documents: Tensor, inverse: np.ndarray) -> None:
        for level in accumulated(tile.shown, self.queries, documents, self.dims):
            self.survivors[level].add(tile, inverse[level])

    def _add_coded(self, tile: Tile, documents: Tensor, inverse: np.ndarray) -> None:
        coded = code(documents, self.dims)
        thresholds, factors = self._bounds(coded.error * inverse)
        thresholds /= self.coded.step[:, None]
        factors *= coded.step * inverse
        passed = np.zeros((len(self.queries), tile.documents), bool)
        height = max(1, CACHED // tile.documents)
        for first in range(0, len(passed), height):
            rows = slice(first, first + height)
            queries, found = self.coded.codes[rows], passed[rows]
            mask = tile.mask.reshape(-1)[: found.size].reshape(found.shape)
            for level, dots in coded_products(tile, queries, coded.codes, self.dims):
                compare(dots, thresholds[level, rows], factors[level], tile.scratch, mask)
                found |= mask
        passed[tile.hidden] = False
        taken = self._take(tile, documents, inverse, passed)
        self.loose = (self.loose + taken * self.seen / (self.keep * passed.size)) / 2

    def _bounds(self, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the products of codes must exceed, [l, q, 1], and factors for them, [l, c].

        With Q and D a query and a document, q and d their codes, q' and d' what rounding took from
        them, QD - qd = q'd + Qd' is at most |q'| (|D| + |d'|) + |Q| |d'|. ``errors`` [l, c] are the
        |d'| / |D|. Where they exceed their mean, a document's score is raised instead of the bound
        lowered for all documents: raised by what a typical query needs, and the bound is lowered
        by the rest for queries whose scores are so low that a factor raises them less.
        """
        worst = errors.max(axis=1, keepdims=True)  # (l, 1)
        mean = errors.mean(axis=1, keepdims=True)
        bounds = np.stack([survivors.threshold[:, 0] for survivors in self.survivors])  # (l, q)
        bounds -= self.slack + self.coded.error * (1 + worst)
        lowest = np.divide(bounds, self.norms, out=np.zeros_like(bounds), where=self.norms > 0)
        lowest = np.maximum(lowest - worst, LEAST)
        typical = lowest.mean(axis=1, keepdims=True)
        inverse = np.divide(1, typical, out=np.zeros_like(typical), where=typical > 0)
        factors = 1 + np.maximum(0, errors - mean) * inverse
        bounds -= self.norms * (mean + (worst - mean) * np.maximum(0, 1 - lowest * inverse))
        return bounds[..., None], factors

    def _take(self, tile: Tile, documents: Tensor, inverse: np.ndarray, passed: np.ndarray) -> int:
        """Hand on the exact scores of what may pass at some level; how many those are."""
        rows, columns = marked(passed)
        for first in range(0, len(rows), CROWDED):
            pairs = rows[first : first + CROWDED], columns[first : first + CROWDED]
            left, right = (segments(side, self.dims) for side in (self.queries, documents))
            products = sampled_products(left, right, *pairs)
            for survivors, norms, dots in zip(self.survivors, inverse, products, strict=True):
                scores = dots * norms.take(pairs[1])
                survivors.take(tile, *pairs, scores.astype(np.float32))
        return len(rows)


def code(rows: Tensor, dims: Sequence[int]) -> Codes:
    """Round rows float32 [n, d] to int8."""
    n, dim = rows.shape
    codes = torch.empty(n, dim, dtype=torch.int8, device="cpu")
    error, step = torch.empty(n, len(dims), **FLOAT32), torch.empty(n, 1, **FLOAT32)
    height = max(1, CODED // dim)
    room = torch.empty(2, min(n, height), dim, **FLOAT32)
    for first in range(0, n, height):
        part = slice(first, min(first + height, n))
        scaled, rounded = room[:, : part.stop - first]
        torch.abs(rows[part], out=scaled)
        torch.amax(scaled, dim=1, keepdim=True, out=step[part]).div_(TOP)
        step[part].masked_fill_(step[part] == 0, 1.0)
        torch.mul(rows[part], step[part].reciprocal(), out=scaled)
        codes[part] = torch.round(scaled, out=rounded)
        scaled -= rounded
        error[part] = prefix_squares(scaled.numpy(), dims).sqrt_()  # of what it took, in steps
    error *= step * ROUNDED
    return Codes(codes, step.squeeze(1).numpy(), error.numpy().T)


def coded_products(
    tile: Tile, queries: Tensor, documents: Tensor, dims: Sequence[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """The products int32 [r, c] of codes [r, d] and [c, d], of each level in turn.

    They stand in the tile's dots; its scratch is theirs only until they are yielded.
    """
    shape = len(queries), len(documents)
    rooms = (a.reshape(-1)[: shape[0] * shape[1]].reshape(shape) for a in (tile.dots, tile.scratch))
    total, part = (torch.from_numpy(room).view(torch.int32) for room in rooms)
    for level, (a, b) in enumerate(pairwise((0, *dims))):
        torch._int_mm(queries[:, a:b], documents[:, a:b].T, out=part if level else total)
        if level:
            total += part
        yield level, total.numpy()


def screens(queries: int, documents: int, dims: Sequence[int], keep: int) -> bool:
    """Whether a screen is faster than float32 products for this many queries and documents."""
    if queries < MANY or queries * documents < WORTH * (SET_UP + keep):
        return False
    # torch 2.13 multiplies int8 matrices of a single column wrongly
    return min(b - a for a, b in pairwise((0, *dims))) > 1 and int8_is_better()


@cache
def int8_is_better() -> bool:
    """Whether torch multiplies int8 exactly here, and twice as fast as float32.

    A processor without instructions for it would be slower, or would let sums of int16 overflow.
    """
    queries = torch.full((256, 512), TOP, dtype=torch.int8, device="cpu")
    documents = queries.repeat(4, 1)
    left, right = queries.float(), documents.float()
    try:
        exact = bool((torch._int_mm(queries, documents.T) == 512 * TOP**2).all())
        list(sampled_products([[left]], [[right]], np.arange(2), np.arange(2)))
    except (AttributeError, RuntimeError):
        return False
    codes = _seconds(lambda: torch._int_mm(queries, documents.T))
    return exact and 2 * codes < _seconds(lambda: left @ right.T)


def _seconds(product: Callable[[], Tensor]) -> float:
    return min(timeit.repeat(product, number=1, repeat=9))
