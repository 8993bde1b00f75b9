"""Cosines of pairs: by float32 products of few columns, by float64 products, and canonical ones."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion.topk.bounds import PIECE
from fusion.topk.norms import prefix_squares
from fusion.topk.problem import Problem
from fusion.topk.products import sampled_products

Run = Callable[..., Any]
"""``map``, or that of a pool of threads."""
Pairs = tuple[np.ndarray, np.ndarray]
"""Queries, ascending, and places among a block of documents, int64 [p]."""
Score = Callable[[slice, Pairs], np.ndarray]

DOCUMENTS = 2048  # read at a time: as float64 16 MB at 1,024 components
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
    queries = torch.from_numpy(problem.exact_queries())
    wanted, places = numbered(documents, len(problem.corpus))
    norms = np.empty((len(problem.dims), len(wanted)))

    def score(block: slice, pairs: Pairs) -> np.ndarray:
        exact = problem.exact(wanted[block])  # (c, D)
        norms[:, block] = prefix_norms64(exact, problem.dims)
        return _dots(queries, torch.from_numpy(exact), problem.dims, pairs)

    dots = _by_blocks((levels, rows, places), norms.shape, run, score)
    scores = quotient(dots, norms[levels, places])
    return quotient(scores, prefix_norms64(queries.numpy(), problem.dims)[levels, rows])


def piece_cosines(
    problem: Problem, levels: np.ndarray, rows: np.ndarray, documents: np.ndarray, run: Run
) -> np.ndarray:
    """The same from float32, each within ``piece_bounds``, for a third of the price."""
    wanted, places = numbered(documents, len(problem.corpus))

    def score(block: slice, pairs: Pairs) -> np.ndarray:
        return _in_pieces(problem.queries, problem.chosen(wanted[block]), problem.dims, pairs)

    shape = len(problem.dims), len(wanted)
    scores = _by_blocks((levels, rows, places), shape, run, score)
    scores *= problem.corpus_norms.inverse.numpy()[levels, documents]
    scores *= problem.query_norms.inverse.numpy()[levels, rows]
    return scores


def _by_blocks(
    results: tuple[np.ndarray, ...], shape: tuple[int, int], run: Run, score: Score
) -> np.ndarray:
    """Scores float64 [n] of results, whose pairs are scored once for all levels.

    Args:
        results: Levels, queries and places among the documents, int64 [n].
        shape: How many levels and documents there are.
        run: What scores blocks of documents.
        score: Scores float64 [l, p] of a block's pairs, by ascending query.
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
    rows, columns = np.divmod(ordered[fresh], DOCUMENTS)
    count = -(-shape[1] // DOCUMENTS)
    edges = rows.searchsorted(np.arange(count + 1) * queries)
    found = np.empty((shape[0], len(rows)))

    def fill(block: int) -> None:
        some, first = slice(*edges[block : block + 2]), block * DOCUMENTS
        pairs = rows[some] - block * queries, columns[some]
        found[:, some] = score(slice(first, first + DOCUMENTS), pairs)

    list(run(fill, range(count)))
    return found[levels, pair]


def _in_pieces(
    queries: Tensor, documents: Tensor, dims: tuple[int, ...], pairs: Pairs
) -> np.ndarray:
    """Dot products float64 [l, p] of pairs, whose columns are multiplied ``PIECE`` at a time."""
    ends = [end for a, b in pairwise((0, *dims)) for end in (*range(a + PIECE, b, PIECE), b)]
    scores, total, level = np.empty((len(dims), len(pairs[0]))), np.zeros(len(pairs[0])), 0
    products = sampled_products(queries, documents, ends, *pairs, apart=True)
    for end, dots in zip(ends, products, strict=True):
        total += dots
        if end == dims[level]:
            scores[level] = total
            level += 1
    return scores


def numbered(documents: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct documents, ascending, and where among them each one stands."""
    there = np.zeros(count, bool)
    there[documents] = True
    return there.nonzero()[0], (there.cumsum() - 1)[documents]


def _dots(queries: Tensor, documents: Tensor, dims: tuple[int, ...], pairs: Pairs) -> np.ndarray:
    """Dot products float64 [l, p] of pairs in a block [q, D] [c, D]."""
    rows, columns = pairs
    scores = np.empty((len(dims), len(rows)))
    if len(rows) < DENSE * len(queries) * len(documents):
        for level, some in enumerate(sampled_products(queries, documents, dims, rows, columns)):
            scores[level] = some
        return scores
    dots = torch.zeros(len(queries), len(documents), dtype=torch.float64, device="cpu")
    flat = dots.view(-1).numpy()
    places = rows * len(documents) + columns
    for level, (a, b) in enumerate(pairwise((0, *dims))):
        dots.addmm_(queries[:, a:b], documents[:, a:b].T)
        flat.take(places, out=scores[level])
    return scores


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
