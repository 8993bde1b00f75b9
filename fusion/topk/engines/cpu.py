"""The CPU engine: one accumulated matrix product for all levels, filtered while it is in cache.

For a tile of queries and documents the scores of level i are those of level i - 1 plus the product
of one more segment of the columns. After each segment the tile is scaled by the documents' inverse
prefix norms and whatever exceeds its query's threshold is kept; everything else is forgotten.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fusion.topk import keys
from fusion.topk.engines.passing import FILLED, Tile, best_of_tile, slots
from fusion.topk.engines.screening import Screen, screens
from fusion.topk.engines.survivors import Survivors
from fusion.topk.norms import FLOAT32
from fusion.topk.problem import Problem
from fusion.topk.products import accumulated, tuned_products

TILE_SCORES = 2**23  # scores of a first tile: 32 MB
TILE_DOCUMENTS = 8192
STRIP_SCORES = 2**19  # scores of a later one: 2 MB, which products leave in cache for each other
SCREENED_SCORES = 2**20  # of a later one that is screened, in parts that stay in cache
LINE = 16  # float32 numbers of a cache line
BUFFERED = 2**23  # scores that the survivors of all levels of one block may keep: 96 MB

Found = tuple[Tensor, Tensor]
"""Scores float32 and indices int64 [l, rows, keep], from the best down; -inf and -1 for none."""


@dataclass(frozen=True)
class Tiling:
    """How the work is cut; results never depend on it."""

    queries: int
    """Queries in a block, one block at a time a thread."""
    documents: int
    """Documents in the first tile, whose best scores are the first thresholds."""
    strip: int
    """Documents in each later tile."""
    threads: int
    screened: bool = False
    """Whether int8 codes rule out most documents."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot make progress."""
        for field in ("queries", "documents", "strip", "threads"):
            if (value := getattr(self, field)) < 1:
                raise ValueError(f"{field} must be at least 1, got {value}")


def default_tiling(problem: Problem) -> Tiling:
    """Tiles that stay in cache, but for a first one that is wide enough to give good thresholds."""
    count = len(problem.corpus)
    tiles = max(1, round(count / max(TILE_DOCUMENTS, 8 * problem.keep)))
    documents = max(1, -(-count // tiles))
    buffered = BUFFERED // (len(problem.dims) * slots(problem.keep))
    most = max(1, min(buffered, TILE_SCORES // documents))
    blocks = max(1, -(-len(problem.queries) // most))
    queries = max(1, -(-len(problem.queries) // blocks))
    screened = documents < count and not problem.double
    screened = screened and screens(queries, count, problem.dims, problem.keep)
    strip = _strip(documents, queries, screened)
    return Tiling(queries, documents, strip, torch.get_num_threads(), screened)


def search(problem: Problem, tiling: Tiling | None = None) -> Found:
    """Cosines and indices of every level, [l, q, keep]."""
    scores, indices = _search(problem, tiling or default_tiling(problem))
    return problem.cosines(scores, indices), indices


def _strip(documents: int, queries: int, screened: bool) -> int:
    """How many documents a later tile has."""
    scores = SCREENED_SCORES if screened else STRIP_SCORES
    lines = scores // queries // LINE | 1  # odd: rows of whole lines that need no padding
    return min(documents, LINE * lines)


def _search(problem: Problem, tiling: Tiling) -> Found:
    """Indices of every level, and scores that are not yet divided by the norms of the queries."""
    blocks = list(_cut(len(problem.queries) if problem.keep else 0, tiling.queries))
    parts = [slice(0, len(problem.corpus))]
    if blocks and len(blocks) < tiling.threads:  # too few queries for all: share the documents
        parts = list(_cut(len(problem.corpus), -(-len(problem.corpus) // tiling.threads)))
    found = [_results(problem) for _ in parts]
    tasks = [
        (problem, block, part, tiling, (scores[:, block], indices[:, block]))
        for block in blocks
        for part, (scores, indices) in zip(parts, found, strict=True)
    ]
    with tuned_products():
        if tiling.threads == 1:
            for task in tasks:
                _search_block(*task)
        else:
            with ThreadPoolExecutor(tiling.threads) as pool:
                list(pool.map(_search_block, *zip(*tasks, strict=True)) if tasks else ())
    if len(found) == 1:
        return found[0]
    return keys.unpack(keys.merge([keys.pack_found(*part) for part in found], problem.keep))


def _results(problem: Problem) -> Found:
    """Room for the results of every level."""
    shape = len(problem.dims), len(problem.queries), problem.keep
    # Not numpy's: it asks for huge pages, for which a busy system first has to move memory about.
    return torch.empty(shape, **FLOAT32), torch.empty(shape, dtype=torch.int64, device="cpu")


def _cut(total: int, size: int, start: int = 0) -> Iterator[slice]:
    return (slice(at, min(at + size, total)) for at in range(start, total, max(1, size)))


def _search_block(
    problem: Problem, block: slice, documents: slice, tiling: Tiling, found: Found
) -> None:
    """Write the best of a range of documents for a block of queries to ``found``."""
    queries = problem.queries[block]
    exclude = None if problem.exclude is None else problem.exclude[block]
    first = slice(documents.start, min(documents.start + tiling.documents, documents.stop))
    whole = first == documents and not tiling.screened
    survivors = [] if whole else [Survivors(len(queries), problem.keep) for _ in problem.dims]
    screen = Screen(queries, problem.dims, survivors) if tiling.screened else None
    inverse = problem.corpus_norms.inverse.numpy()
    sizes = problem.sizes if first.stop - first.start == len(problem.corpus) else None
    room = _Room(len(queries), max(first.stop - first.start, 0 if whole else tiling.strip))
    for part in (first, *_cut(documents.stop, tiling.strip, first.stop)):
        tile = room.tile(part, _hidden(exclude, part))
        rows = problem.documents(part.start, part.stop, problem.dims[-1])  # (c, d)
        if screen is not None:
            screen.add(tile, rows, inverse[:, part])
            continue
        for level in accumulated(tile.shown, queries, rows, problem.dims, problem.double):
            if whole:
                size = None if sizes is None else sizes[level, block]
                scores, indices = (a[level].numpy() for a in found)
                best_of_tile(tile, inverse[level, part], scores, indices, size)
            else:
                survivors[level].add(tile, inverse[level, part])
    for level, best in enumerate(survivors):
        best.best(found[0][level].numpy(), found[1][level].numpy())


class _Room:
    """Memory for one tile after another."""

    def __init__(self, rows: int, documents: int) -> None:
        # torch begins its arrays with a cache line, without which products take a third longer.
        # Pages that a narrower tile leaves untouched cost nothing; its rows may need a line more.
        pitch = _pitch(documents) + LINE
        self.dots = torch.empty(rows * pitch, **FLOAT32).numpy()
        self.mask = torch.empty(rows * pitch, dtype=torch.bool, device="cpu").numpy()
        self.scratch = torch.empty(max(FILLED, rows * pitch), **FLOAT32).numpy()
        self.rows = rows

    def tile(self, documents: slice, hidden: tuple[np.ndarray, np.ndarray]) -> Tile:
        """A tile of as many columns as there are documents; it replaces the one before."""
        count = documents.stop - documents.start
        shape = self.rows, _pitch(count)
        dots, mask = (room[: math.prod(shape)].reshape(shape) for room in (self.dots, self.mask))
        return Tile(dots, mask, self.scratch, count, documents.start, hidden)


def _pitch(documents: int) -> int:
    """The length of a tile's rows: whole cache lines, but not so even that rows share few sets."""
    lines = -(-documents // LINE)
    return LINE * (lines + (lines % 32 == 0))


def _hidden(exclude: Tensor | None, documents: slice) -> tuple[np.ndarray, np.ndarray]:
    """Where a tile's excluded documents stand in it, rows and columns."""
    if exclude is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    inside = (exclude >= documents.start) & (exclude < documents.stop)
    rows = torch.nonzero(inside).squeeze(1)
    return rows.numpy(), (exclude[rows] - documents.start).numpy()
