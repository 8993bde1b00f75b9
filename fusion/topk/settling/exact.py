"""Cosines in float64: those of many pairs by matrix products, and the canonical one of a pair."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion.topk.problem import Problem
from fusion.topk.products import sampled_products

Run = Callable[..., Any]
"""``map``, or that of a pool of threads."""

DOCUMENTS = 1024  # widened to float64 at a time: 8 MB at 1,024 components
DENSE = 1 / 16  # share of a matrix product from which on all of it is faster than the pairs
CACHED = 2**15  # terms that are summed at a time: 256 KB
STRANDS, STRANDED = 8, 128


def pair_cosines(problem: Problem, rows: np.ndarray, documents: np.ndarray, run: Run) -> np.ndarray:
    """Cosines of pairs at every level, float64 [l, n], each within ``error_bound64``.

    Args:
        problem: Whose queries and documents.
        rows: Queries int64 [n], ascending.
        documents: Documents int64 [n].
        run: What scores blocks of documents.
    """
    found = np.empty((len(problem.dims), len(rows)))
    wanted, places = numbered(documents, len(problem.corpus))
    blocks = (places // DOCUMENTS).astype(np.min_scalar_type(len(wanted) // DOCUMENTS))
    order = blocks.argsort(kind="stable")  # within a block still by query
    edges = blocks[order].searchsorted(np.arange(-(-len(wanted) // DOCUMENTS) + 1))
    queries = torch.from_numpy(problem.exact_queries())

    def score(block: int) -> None:
        chosen = order[edges[block] : edges[block + 1]]
        first = block * DOCUMENTS
        exact = problem.exact(wanted[first : first + DOCUMENTS])  # (c, D)
        pairs = rows[chosen], places[chosen] - first
        found[:, chosen] = _block_scores(queries, exact, problem.dims, pairs)

    list(run(score, range(len(edges) - 1)))
    return quotient(found, prefix_norms64(queries.numpy(), problem.dims).take(rows, axis=1))


def numbered(documents: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct documents, ascending, and where among them each one stands."""
    there = np.zeros(count, bool)
    there[documents] = True
    return there.nonzero()[0], (there.cumsum() - 1)[documents]


def _block_scores(
    queries: Tensor, documents: np.ndarray, dims: tuple[int, ...], pairs: tuple[np.ndarray, ...]
) -> np.ndarray:
    """Dot products over the documents' norms, float64 [l, n], of pairs in a block [q, D] [c, D]."""
    rows, columns = pairs
    scores = np.empty((len(dims), len(rows)))
    right = torch.from_numpy(documents)
    if len(rows) < DENSE * len(queries) * len(documents):
        for level, some in enumerate(sampled_products(queries, right, dims, rows, columns)):
            scores[level] = some
    else:
        dots = torch.zeros(len(queries), len(right), dtype=torch.float64, device="cpu")
        flat = dots.view(-1).numpy()
        places = rows * len(right) + columns
        for level, (a, b) in enumerate(pairwise((0, *dims))):
            dots.addmm_(queries[:, a:b], right[:, a:b].T)
            flat.take(places, out=scores[level])
    return quotient(scores, prefix_norms64(documents, dims).take(columns, axis=1))


def prefix_norms64(rows: np.ndarray, dims: tuple[int, ...]) -> np.ndarray:
    """Norms of every prefix, float64 [l, n]."""
    parts = [np.einsum("nd,nd->n", rows[:, a:b], rows[:, a:b]) for a, b in pairwise((0, *dims))]
    return np.sqrt(np.stack(parts).cumsum(axis=0))


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
