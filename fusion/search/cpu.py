"""The CPU engine: one accumulated matrix product for all levels, filtered while it is in cache.

For a tile of queries and documents the scores of level i are those of level i - 1 plus the product
of one more segment of the columns. After each segment the tile is scaled by the documents' inverse
prefix norms and whatever exceeds its query's threshold is kept; everything else is forgotten.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fusion.search import keys
from fusion.search.passing import FILLED, Tile, best_of_tile, slots
from fusion.search.problem import Problem
from fusion.search.products import accumulated, tuned_products
from fusion.search.survivors import Survivors

TILE_SCORES = 5 * 2**20  # scores of a tile: 20 MB
TILE_DOCUMENTS = 8192
BUFFERED = 2**23  # scores that the survivors of all levels of one block may keep: 96 MB

Found = tuple[Tensor, Tensor]
"""Scores float32 and indices int64 [l, rows, keep], from the best down; -inf and -1 for none."""


@dataclass(frozen=True)
class Tiling:
    """How the work is cut; results never depend on it."""

    queries: int
    """Queries in a block, one block at a time a thread."""
    documents: int
    """Documents in a tile."""
    threads: int

    def __post_init__(self) -> None:
        """Refuse sizes that cannot make progress."""
        for field, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{field} must be at least 1, got {value}")


def default_tiling(problem: Problem) -> Tiling:
    """Tiles that stay in cache, yet wide enough that the first one gives a good threshold."""
    count = len(problem.corpus)
    tiles = max(1, round(count / max(TILE_DOCUMENTS, 8 * problem.keep)))
    documents = max(1, -(-count // tiles))
    buffered = BUFFERED // (len(problem.dims) * slots(problem.keep))
    most = max(1, min(buffered, TILE_SCORES // documents))
    queries = -(-len(problem.queries) // max(1, -(-len(problem.queries) // most)))
    return Tiling(max(1, queries), documents, torch.get_num_threads())


def search(problem: Problem, tiling: Tiling | None = None) -> Found:
    """Cosines and indices of every level, [l, q, keep]."""
    scores, indices = _search(problem, tiling or default_tiling(problem))
    return problem.cosines(scores, indices), indices


def search_keys(problem: Problem) -> Tensor:
    """The same as keys [l, q, keep], which can be merged with those of other documents."""
    return keys.pack_found(*_search(problem, default_tiling(problem)))


def _search(problem: Problem, tiling: Tiling) -> Found:
    """Indices of every level, and scores that are not yet divided by the norms of the queries."""
    blocks = list(_cut(len(problem.queries) if problem.keep else 0, tiling.queries))
    parts = [slice(0, len(problem.corpus))]
    if blocks and len(blocks) < tiling.threads:  # too few queries for all: share the documents
        parts = list(_cut(len(problem.corpus), -(-len(problem.corpus) // tiling.threads)))
    found = [_room(problem) for _ in parts]
    tasks = [
        (problem, block, part, tiling.documents, (scores[:, block], indices[:, block]))
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


def _room(problem: Problem) -> Found:
    """Room for the results of every level."""
    shape = len(problem.dims), len(problem.queries), problem.keep
    # Not numpy's: it asks for huge pages, for which a busy system first has to move memory about.
    return torch.empty(shape), torch.empty(shape, dtype=torch.int64)


def _cut(total: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, total)) for start in range(0, total, max(1, size)))


def _search_block(
    problem: Problem, block: slice, documents: slice, tile: int, found: Found
) -> None:
    """Write the best of a range of documents for a block of queries to ``found``."""
    queries = problem.queries[block]
    exclude = None if problem.exclude is None else problem.exclude[block]
    whole = documents.stop - documents.start <= tile
    survivors = [] if whole else [Survivors(len(queries), problem.keep) for _ in problem.dims]
    inverse = problem.corpus_norms.inverse.numpy()
    pitch = _pitch(min(tile, documents.stop - documents.start))
    # torch begins its arrays with a cache line, without which products take a third longer
    dots, scratch = torch.empty(len(queries), pitch), torch.empty(max(FILLED, pitch)).numpy()
    mask = torch.empty(dots.shape, dtype=torch.bool).numpy()
    for start in range(documents.start, documents.stop, tile):
        stop = min(start + tile, documents.stop)
        hidden = _hidden(exclude, start, stop)
        piece = Tile(dots.numpy(), mask, scratch, stop - start, start, hidden)
        rows = problem.documents(start, stop, problem.dims[-1])  # (c, d)
        for level in accumulated(dots[:, : len(rows)], queries, rows, problem.dims):
            best = found[0][level].numpy(), found[1][level].numpy()
            if whole:
                best_of_tile(piece, inverse[level, start:stop], *best)
                continue
            survivors[level].add(piece, inverse[level, start:stop])
            if stop == documents.stop:
                survivors[level].best(*best)


def _pitch(documents: int) -> int:
    """The length of a tile's rows: whole cache lines, but not so even that rows share few sets."""
    lines = -(-documents // 16)
    return 16 * (lines + (lines % 32 == 0))


def _hidden(exclude: Tensor | None, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Where a tile's excluded documents stand in it, rows and columns."""
    if exclude is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    rows = torch.nonzero((exclude >= start) & (exclude < stop)).squeeze(1)
    return rows.numpy(), (exclude[rows] - start).numpy()
