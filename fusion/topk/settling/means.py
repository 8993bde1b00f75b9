"""The order of float64 among means of largest cosines: near ties are scored canonically.

Two documents whose scores lie further apart than twice the proven bound stand in the right order.
What lies nearer is scored by the canonical cosines of ``exact.py``, and only those tokens that may
be the nearest to a query's token are looked at again: one or two of hundreds.
"""

import numpy as np

from fusion.topk.bounds import mean_bound
from fusion.topk.lanes import Piece, Tile
from fusion.topk.settling.exact import canonical_cosines, summed
from fusion.topk.tokens import Asked, TokenSearch

UPWARDS = 1.0001  # covers what the comparison itself rounds


def best_means(
    search: TokenSearch, left: Asked, documents: np.ndarray, scores: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """A query's best at each level: scores float64 and documents int64 [keep, or all there are].

    Args:
        search: Whose documents.
        left: The query.
        documents: int64 [m], ascending.
        scores: float64 [l, m], as an engine computed them.
    """
    tokens = len(left.rows)
    reach = [2 * UPWARDS * (bound + mean_bound(tokens)) for bound in search.bounds]
    chosen = [_contenders(*part, search.keep) for part in zip(scores, reach, strict=True)]
    tied = [
        places[_near(line[places], far)]
        for places, line, far in zip(chosen, scores, reach, strict=True)
    ]
    if any(map(len, tied)):
        scores, levels = scores.copy(), max(i for i, some in enumerate(tied, 1) if len(some))
        narrow = search.first(levels), left.first(levels)  # what is wider need not be read again
        _put_canonical(*narrow, documents, tied[:levels], reach, scores[:levels])
    found = []
    for places, line in zip(chosen, scores, strict=True):
        best = places[np.lexsort((places, -line[places]))[: search.keep]]
        found.append((line[best], documents[best]))
    return found


def _contenders(scores: np.ndarray, reach: float, keep: int) -> np.ndarray:
    """Which of scores [m] may be among the best, int64 [any], from the best down."""
    if len(scores) > keep:
        kth = np.partition(scores, len(scores) - keep)[len(scores) - keep]
        chosen = (scores >= kth - reach).nonzero()[0]
    else:
        chosen = np.arange(len(scores))
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def _near(scores: np.ndarray, reach: float) -> np.ndarray:
    """Which of descending scores [m] may change places with a neighbour, bool [m]."""
    near = np.zeros(len(scores), bool)
    with np.errstate(invalid="ignore"):  # documents without tokens: -inf follows -inf
        close = scores[:-1] - scores[1:] <= reach
    near[1:] |= close
    near[:-1] |= close
    return near


def _put_canonical(
    search: TokenSearch,
    left: Asked,
    documents: np.ndarray,
    tied: list[np.ndarray],
    reach: list[float],
    scores: np.ndarray,
) -> None:
    """Replace a query's scores [l, m] at the places that are tied at each level.

    Norms that were measured for all levels are as good as ``reach`` [any], others as their own.
    """
    own = [2 * UPWARDS * bound for bound in search.bounds]
    reach = [max(pair) for pair in zip(own, reach, strict=False)]
    wanted = np.zeros(scores.shape, bool)
    for level, places in enumerate(tied):
        wanted[level, places] = True
    some = np.flatnonzero(wanted.any(axis=0))
    for tile in search.tiles(documents[some], len(left.rows)):
        places = some[tile.places]
        means = _canonical_means(search, left, tile, wanted[:, places], reach)
        scores[:, places] = np.where(wanted[:, places], means, scores[:, places])


def _canonical_means(
    search: TokenSearch, left: Asked, tile: Tile, wanted: np.ndarray, reach: list[float]
) -> np.ndarray:
    """Means float64 [l, n] of a query's largest cosines with a tile's documents, where wanted.

    Near enough to be the largest are ``reach`` [l].
    """
    shape = len(search.dims), len(tile.places), len(left.rows)
    seen, best = np.full((2, *shape), -np.inf)
    queries = left.given.double().numpy()
    for piece in tile.pieces:
        found = (some for sides in search.sides(left, piece) for some in sides.cosines())
        for level, cosines in enumerate(found):
            if not wanted[level].any():
                continue
            largest = np.maximum.reduceat(cosines, piece.starts, axis=0)  # (n, t)
            np.maximum(seen[level], largest, out=seen[level])
            least = seen[level] - reach[level]
            least[~wanted[level]] = np.inf
            pairs = (cosines >= least.repeat(piece.counts, axis=0)).nonzero()
            _raise(best[level], search, (queries, search.dims[level]), piece, pairs)
    means = [summed(part) / len(queries) for part in best]
    return np.stack(means)


def _raise(
    best: np.ndarray,
    search: TokenSearch,
    asked: tuple[np.ndarray, int],
    piece: Piece,
    pairs: tuple[np.ndarray, ...],
) -> None:
    """Raise the largest cosines [n, t] to the canonical ones of pairs of tokens."""
    columns, rows = pairs
    if not len(rows):
        return
    queries, dim = asked
    used, places = np.unique(columns, return_inverse=True)
    exact = search.exact(piece.rows()[used])  # (c, D)
    cosines = canonical_cosines(queries[:, :dim], exact[:, :dim], rows, places)
    document = piece.starts.searchsorted(columns, side="right") - 1
    np.maximum.at(best, (document, rows), cosines)
