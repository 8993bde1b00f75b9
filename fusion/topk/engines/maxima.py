"""The late-interaction engine: an accumulated product a tile, then each document's largest cosines.

The products of a tile stay in cache while they are scaled and the maximum over the tokens of each
document is taken; the means over the tokens of queries are a hundredth of the work.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fusion.topk.lanes import Tile
from fusion.topk.tokens import Asked, TokenSearch


def mean_maxima(
    search: TokenSearch, left: Asked, documents: np.ndarray, run: Callable[..., Any], threads: int
) -> np.ndarray:
    """Means over queries' tokens of the largest cosines with documents, float64 [l, q, m].

    Args:
        search: Whose documents.
        left: The queries.
        documents: int64 [m]; -inf is the mean of one without tokens.
        run: What scores tiles: ``map``, or that of a pool of threads.
        threads: How many of them.
    """
    scores = np.full((len(search.dims), len(left.counts), len(documents)), -np.inf)

    def score(tile: Tile) -> None:
        best = _maxima(search, left, tile)
        means = np.add.reduceat(best, left.starts, axis=2, dtype=np.float64) / left.counts
        scores[:, :, tile.places] = means.transpose(0, 2, 1)

    list(run(score, search.tiles(documents, len(left.rows), threads)))
    return scores


def _maxima(search: TokenSearch, left: Asked, tile: Tile) -> np.ndarray:
    """The largest cosine of each token with each document of a tile, float32 [l, n, t]."""
    shape = len(search.dims), len(tile.places), len(left.rows)
    best = np.full(shape, -np.inf, np.float32)
    for piece in tile.pieces:
        for sides in search.sides(left, piece):
            some = best[sides.levels]
            np.maximum(some, sides.largest(piece.fold), out=some)
    return best
