"""Cosines of pairs: by float32 products of few columns, by float64 products, and canonical ones."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion.topk.bounds import PIECE
from fusion.topk.norms import prefix_squares
from fusion.topk.problem import Problem
from fusion.topk.products import sampled_products, segments

Run = Callable[..., Any]
"""``map``, or that of a pool of threads."""
Pairs = tuple[np.ndarray, np.ndarray]
"""Queries, ascending, and places among a block of documents, int64 [p]."""
Segments = Iterable[Iterable[Tensor]]
"""See ``sampled_products``."""
Score = Callable[[slice, Pairs, np.ndarray], Iterable[np.ndarray]]
"""Scores float64 [p] at each level of pairs, by ascending query, of a block of documents.

Last come the levels int64 [p] beyond which a score is not asked for.
"""

DOCUMENTS = 2048  # read at a time: as float64 16 MB at 1,024 components
COLUMNS = 128  # of documents that are float64 at a time: 2 MB
DENSE = 1 / 16  # share of a matrix product from which on all of it is faster than the pairs
CACHED = 2**15  # terms that are summed at a time: 256 KB
STRANDS, STRANDED = 8, 128


def exact_cosines(
    problem: Problem, levels: np.ndarray, rows: np.ndarray, documents: np.ndarray, run: Run
) -> np.ndarray:
    """Cosines float64 [n] of results, each within ``error_bound64``.

    Args:
        problem: Whose queries and documents.
        levels: int64 [n].
        rows: Queries int64 [n].
        documents: int64 [n].
        run: What scores blocks of documents.
    """
    asked = torch.from_numpy(problem.exact_queries())
    queries = _contiguous(asked, problem.dims, COLUMNS)
    wanted, places = _longest_first(documents, levels, len(problem.corpus))
    norms = np.empty((len(problem.dims), len(wanted)))

    def score(block: slice, pairs: Pairs, last: np.ndarray) -> Iterable[np.ndarray]:
        rows = problem.exact_rows(wanted[block])  # (c, D)
        exact = _as_float64(rows, problem.dims, norms[:, block])
        if len(last) < DENSE * len(asked) * len(rows):
            return sampled_products(queries, exact, *pairs, last)
        room = torch.zeros(len(asked), len(rows), dtype=torch.float64, device="cpu")
        return _all_products(room, queries, exact, pairs)

    dots = _by_blocks((levels, rows, places), norms.shape, run, score)
    scores = quotient(dots, norms[levels, places])
    return quotient(scores, prefix_norms64(asked.numpy(), problem.dims)[levels, rows])


def piece_cosines(
    problem: Problem, levels: np.ndarray, rows: np.ndarray, documents: np.ndarray, run: Run
) -> np.ndarray:
    """The same from float32, each within ``piece_bounds``, for a third of the price."""
    queries = _contiguous(problem.queries, problem.dims, PIECE)
    wanted, places = _longest_first(documents, levels, len(problem.corpus))

    def score(block: slice, pairs: Pairs, last: np.ndarray) -> Iterable[np.ndarray]:
        pieces = segments(problem.chosen(wanted[block]), problem.dims, PIECE)
        return sampled_products(queries, pieces, *pairs, last)

    shape = len(problem.dims), len(wanted)
    scores = _by_blocks((levels, rows, places), shape, run, score)
    scores *= problem.corpus_norms.inverse.numpy()[levels, documents]
    scores *= problem.query_norms.inverse.numpy()[levels, rows]
    return scores


def _contiguous(rows: Tensor, dims: tuple[int, ...], width: int) -> list[list[Tensor]]:
    """The segments of rows that are multiplied again and again."""
    return [[part.contiguous() for part in level] for level in segments(rows, dims, width)]


def _longest_first(
    documents: np.ndarray, levels: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The distinct documents, those of the widest levels first, and where each one stands."""
    last = np.full(count, -1)
    np.maximum.at(last, documents, levels)
    wanted = (last >= 0).nonzero()[0]
    wanted = wanted[np.argsort(-last[wanted], kind="stable")]
    last[wanted] = np.arange(len(wanted))
    return wanted, last[documents]


def _by_blocks(
    results: tuple[np.ndarray, ...], shape: tuple[int, int], run: Run, score: Score
) -> np.ndarray:
    """Scores float64 [n] of results, whose pairs are scored once for all levels.

    Args:
        results: Levels, queries and places among the documents, int64 [n].
        shape: How many levels and documents there are.
        run: What scores blocks of documents.
        score: See ``Score``.
    """
    levels, rows, places = results
    blocks, columns = np.divmod(places, DOCUMENTS)
    queries = rows.max() + 1
    keys = (blocks * queries + rows) * DOCUMENTS + columns
    order = torch.from_numpy(keys).argsort().numpy()  # a radix sort: three times as fast as numpy's
    ordered = keys[order]
    fresh = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    pair = np.empty(len(keys), np.int64)
    pair[order] = fresh.cumsum() - 1
    last = np.maximum.reduceat(levels[order], fresh.nonzero()[0])
    rows, columns = np.divmod(ordered[fresh], DOCUMENTS)
    count = -(-shape[1] // DOCUMENTS)
    edges = rows.searchsorted(np.arange(count + 1) * queries)
    found = np.empty((shape[0], len(rows)))

    def fill(block: int) -> None:
        some, first = slice(*edges[block : block + 2]), block * DOCUMENTS
        pairs = rows[some] - block * queries, columns[some]
        scores = score(slice(first, first + DOCUMENTS), pairs, last[some])
        for level, line in zip(range(last[some].max() + 1), scores, strict=False):
            found[level, some] = line

    list(run(fill, range(count)))
    return found[levels, pair]


def numbered(documents: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct documents, ascending, and where among them each one stands."""
    there = np.zeros(count, bool)
    there[documents] = True
    return there.nonzero()[0], (there.cumsum() - 1)[documents]


def _as_float64(rows: Tensor, dims: tuple[int, ...], norms: np.ndarray) -> Segments:
    """The segments of rows [n, d], one after another in the same room; norms [l, n] are written."""
    squares = np.zeros(len(rows))
    room = torch.empty(len(rows) * COLUMNS, dtype=torch.float64, device="cpu")
    for level, parts in enumerate(segments(rows, dims, COLUMNS)):
        yield _converted(parts, room, squares, norms[level])


def _converted(
    parts: list[Tensor], room: Tensor, squares: np.ndarray, norms: np.ndarray
) -> Iterator[Tensor]:
    """Each part [n, any] in that room; its squares are added to those of the rows [n]."""
    for part in parts:
        exact = room[: part.numel()].view(part.shape)
        exact.copy_(part)
        squares += np.vecdot(exact.numpy(), exact.numpy())
        yield exact
    np.sqrt(squares, out=norms)


def _all_products(
    room: Tensor, queries: Segments, documents: Segments, pairs: Pairs
) -> Iterator[np.ndarray]:
    """What ``sampled_products`` yields, from whole products that are summed in a room of zeros."""
    places = pairs[0] * room.shape[1] + pairs[1]
    for left, right in zip(queries, documents, strict=True):
        for one, other in zip(left, right, strict=True):
            room.addmm_(one, other.T)
        yield room.view(-1).numpy().take(places)


def prefix_norms64(rows: np.ndarray, dims: tuple[int, ...]) -> np.ndarray:
    """Norms of every prefix of rows float64 [n, d], float64 [l, n]."""
    return prefix_squares(rows, dims).sqrt_().numpy().T


def quotient(scores: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Scores over norms, in place; 0 where the norm is."""
    np.divide(scores, norms, out=scores, where=norms > 0)
    scores[norms == 0] = 0.0
    return scores


def canonical_cosines(
    queries: np.ndarray, documents: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """The cosines float64 [n] by which ties are settled: a function of two rows and their width.

    Every operation works number by number, as IEEE 754 defines it, in an order that is written
    here, so no processor, library, neighbour or thread can change a bit of the result. The dot
    product is divided first by the document's norm, which rounds equal cosines alike.

    Args:
        queries: float64 [q, d].
        documents: float64 [c, d].
        rows: Queries int64 [n].
        columns: Documents int64 [n].
    """
    scores = np.empty(len(rows))
    for part in _cached(scores, documents):
        scores[part] = summed(documents.take(columns[part], 0) * queries.take(rows[part], 0))
    scores = quotient(scores, canonical_norms(documents).take(columns))
    return quotient(scores, canonical_norms(queries).take(rows))


def canonical_norms(rows: np.ndarray) -> np.ndarray:
    """Norms float64 [n] of rows float64 [n, d], summed in the same order."""
    norms = np.empty(len(rows))
    for part in _cached(norms, rows):
        norms[part] = np.sqrt(summed(rows[part] * rows[part]))
    return norms


def _cached(results: np.ndarray, rows: np.ndarray) -> Iterator[slice]:
    """Parts of the results whose terms, as wide as the rows, stay in cache."""
    step = max(1, CACHED // max(1, rows.shape[1]))
    return (slice(first, first + step) for first in range(0, len(results), step))


def summed(terms: np.ndarray) -> np.ndarray:
    """Sums float64 [n] of terms [n, d] in the order in which numpy adds up a contiguous row.

    That is the order of the float64 reference, and a good one: errors grow with the logarithm of d.
    """
    return _pairwise(np.ascontiguousarray(terms.T))


def _pairwise(terms: np.ndarray) -> np.ndarray:
    """Sums [n] of terms [d, n]: halves of at most 128 terms, in eight strands."""
    width = len(terms)
    if width > STRANDED:
        half = width // 2 - width // 2 % STRANDS
        return _pairwise(terms[:half]) + _pairwise(terms[half:])
    whole = width - width % STRANDS
    total = np.zeros(terms.shape[1])
    if whole:
        s = terms[:STRANDS].copy()
        for first in range(STRANDS, whole, STRANDS):
            s += terms[first : first + STRANDS]
        total = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))
    for term in terms[whole:]:
        total = total + term
    return total
