"""The order of float64 among means of largest cosines: near ties are scored canonically.

Two documents whose scores lie further apart than twice the proven bound stand in the right order.
What lies nearer is scored by the canonical cosines of ``exact.py``, and only those tokens that may
be the nearest to a query's token are looked at again: one or two of hundreds.
"""

import numpy as np

from fusion.topk.bounds import maxsim_bounds, mean_bound
from fusion.topk.settling.exact import canonical_cosines, summed
from fusion.topk.tokens import Asked, Piece, Tile, TokenSearch

UPWARDS = 1.0001  # covers what the comparison itself rounds


def best_means(
    search: TokenSearch, query: int, documents: np.ndarray, scores: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """A query's best at each level: scores float64 and documents int64 [keep, or all there are].

    Args:
        search: Whose queries and documents.
        query: Its index.
        documents: int64 [m], ascending.
        scores: float64 [l, m], as an engine computed them.
    """
    tokens = int(search.query_offsets[query + 1] - search.query_offsets[query])
    reach = [2 * UPWARDS * (b + mean_bound(tokens)) for b in maxsim_bounds(search.dims)]
    chosen = [_contenders(*part, search.keep) for part in zip(scores, reach, strict=True)]
    tied = [
        places[_near(line[places], far)]
        for places, line, far in zip(chosen, scores, reach, strict=True)
    ]
    if any(map(len, tied)):
        scores = scores.copy()
        _put_canonical(search, search.asked(slice(query, query + 1)), documents, tied, scores)
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
    scores: np.ndarray,
) -> None:
    """Replace a query's scores [l, m] at the places that are tied at each level."""
    wanted = np.zeros(scores.shape, bool)
    for level, places in enumerate(tied):
        wanted[level, places] = True
    some = np.flatnonzero(wanted.any(axis=0))
    for tile in search.tiles(documents[some], len(left.rows)):
        places = some[tile.places]
        means = _canonical_means(search, left, tile, wanted[:, places])
        scores[:, places] = np.where(wanted[:, places], means, scores[:, places])


def _canonical_means(
    search: TokenSearch, left: Asked, tile: Tile, wanted: np.ndarray
) -> np.ndarray:
    """Means float64 [l, n] of a query's largest cosines with a tile's documents, where wanted."""
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
            least = seen[level] - 2 * UPWARDS * maxsim_bounds(search.dims)[level]
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
