"""The CPU engine: one accumulated matrix product for all levels, filtered while it is in cache.

For a tile of queries and documents the scores of level i are those of level i - 1 plus the product
of one more segment of the columns. After each segment the tile is scaled by the documents' inverse
prefix norms and whatever exceeds its query's threshold is kept; everything else is forgotten.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import starmap

import numpy as np
import torch
from torch import Tensor

from fusion.search import keys
from fusion.search.problem import Problem
from fusion.search.products import accumulated, tuned_products
from fusion.search.survivors import CACHED, Survivors, Tile, slots

TILE_SCORES = 3 * 2**19  # scores of a tile: 6 MB
TILE_DOCUMENTS = 4096
BUFFER_KEYS = 2**23  # keys that the survivors of all levels of one block may take: 64 MB


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
    buffered = BUFFER_KEYS // (len(problem.dims) * slots(problem.keep))
    most = max(1, min(buffered, TILE_SCORES // documents))
    queries = -(-len(problem.queries) // max(1, -(-len(problem.queries) // most)))
    return Tiling(max(1, queries), documents, torch.get_num_threads())


def search(problem: Problem, tiling: Tiling | None = None) -> tuple[Tensor, Tensor]:
    """Scores and indices of every level, [l, q, keep]."""
    shape = len(problem.dims), len(problem.queries), problem.keep
    # numpy asks for huge pages, which saves thousands of page faults
    scores, indices = (torch.from_numpy(np.empty(shape, t)) for t in (np.float32, np.int64))
    for block, best in _search_blocks(problem, tiling or default_tiling(problem)):
        scores[:, block], indices[:, block] = problem.finish(best, block)
    return scores, indices


def search_keys(problem: Problem) -> Tensor:
    """The same as keys [l, q, keep], which can be merged with those of other documents."""
    found = torch.full((len(problem.dims), len(problem.queries), problem.keep), keys.EMPTY)
    for block, best in _search_blocks(problem, default_tiling(problem)):
        found[:, block] = best
    return found


def _search_blocks(problem: Problem, tiling: Tiling) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of queries and their best keys [l, rows, keep]."""
    blocks = list(_cut(len(problem.queries) if problem.keep else 0, tiling.queries))
    ranges = [slice(0, len(problem.corpus))]
    if len(blocks) < tiling.threads:  # too few queries for all threads: share the documents
        ranges = list(_cut(len(problem.corpus), -(-len(problem.corpus) // tiling.threads)))
    tasks = [(problem, block, part, tiling.documents) for block in blocks for part in ranges]
    with tuned_products(), ExitStack() as stack:
        results: Iterator[Tensor] = starmap(_search_block, tasks)
        if tiling.threads > 1:
            pool = stack.enter_context(ThreadPoolExecutor(tiling.threads))
            results = pool.map(_search_block, *zip(*tasks, strict=True)) if tasks else results
        for block in blocks:
            found = [next(results) for _ in ranges]
            yield block, found[0] if len(found) == 1 else keys.merge(found, problem.keep)


def _cut(total: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, total)) for start in range(0, total, max(1, size)))


def _search_block(problem: Problem, block: slice, documents: slice, tile: int) -> Tensor:
    """The best keys [l, rows, keep] of a block of queries among a range of documents."""
    queries = problem.queries[block]
    exclude = None if problem.exclude is None else problem.exclude[block]
    survivors = [Survivors(len(queries), problem.keep) for _ in problem.dims]
    inverse = problem.corpus_norms.inverse.numpy()
    pitch = _pitch(min(tile, documents.stop - documents.start))
    dots = torch.empty(len(queries), pitch)
    mask, scratch = np.empty(dots.shape, bool), np.empty(max(CACHED, pitch), np.float32)
    for start in range(documents.start, documents.stop, tile):
        stop = min(start + tile, documents.stop)
        hidden = _hidden(exclude, start, stop)
        piece = Tile(dots.numpy(), mask, scratch, stop - start, start, hidden)
        rows = problem.documents(start, stop, problem.dims[-1])  # (c, d)
        for level in accumulated(dots[:, : len(rows)], queries, rows, problem.dims):
            survivors[level].add(piece, inverse[level, start:stop])
    return torch.from_numpy(np.stack([level.best() for level in survivors]))


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
