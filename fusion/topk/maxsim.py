"""MaxSim: exact late-interaction search over token vectors, every nested width in one pass."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fusion.ragged import Ragged
from fusion.topk.engines.maxima import mean_maxima
from fusion.topk.norms import PrefixNorms
from fusion.topk.problem import Rows
from fusion.topk.settling.exact import Run
from fusion.topk.settling.means import best_means
from fusion.topk.settling.settled import pool
from fusion.topk.tokens import TokenSearch, pose

BLOCK_TOKENS = 512  # of queries that read the documents together
BLOCK_SCORES = 2**21  # of their documents at all levels: 16 MB

Results = tuple[np.ndarray, np.ndarray]
"""Scores float32 and indices int64 [l, q, keep]."""


def maxsim_topk(
    queries: Ragged,
    documents: Ragged,
    dims: Sequence[int],
    k: int,
    candidates: Rows | None = None,
    *,
    norms: PrefixNorms | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the k best documents by MaxSim at the first ``d`` components, for every ``d``.

    The score is the mean over the query's tokens of the largest cosine with a token of the document
    (Khattab and Zaharia, ColBERT, 2020, divided by the number of the query's tokens). Tokens are
    normalised at each width; a token of zeros has the cosine 0 with every other.

    Args:
        queries: q items of one token or more, rows float32, bfloat16, float16 or int8 [t, D or
            wider], numpy or torch, on the CPU; need not be unit-norm.
        documents: c items of any number of tokens, of the same kinds, memory-mapped if you like.
            Half precision is computed in float32, and int8 too if queries are not int8 as well.
        dims: Ascending widths of the nested levels; D is the last one.
        k: Results a query.
        candidates: Integers [q, m], the documents that each query chooses from, -1 for none; one
            named twice counts once. Only their tokens are read. The whole corpus if None.
        norms: ``corpus_norms(documents.rows, dims)``, if you keep them between calls.

    Returns:
        Scores float32 [l, q, min(k, c)], descending, and indices int64 of the same shape. The order
        is that of float64 and a function of the rows alone: of no processor, library, tile or
        thread; ties go to the lower index. Scores of results that lie near one another are
        float64's, rounded; others may differ in their last bits from machine to machine. A document
        without tokens scores -inf and comes after all others. Where there are fewer candidates than
        results, the score is -inf and the index -1.

    Raises:
        TypeError: If rows are neither a numpy array nor a torch tensor.
        ValueError: If an argument does not fit, a query has no tokens, a candidate is unknown or a
            token that is read holds a value that is not finite; it names the item and the token.

    Memory beyond the arguments is that of a tile and, for a block of queries, of one score a
    document and level: about 40 MB a thread, or more where c * l or a query's tokens exceed 2**21
    or 4,096.

    Example:
        >>> import numpy as np
        >>> tokens = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 1]], np.float32)
        >>> documents = Ragged(tokens, [0, 2, 2, 3])  # of two tokens, of none, of one
        >>> scores, indices = maxsim_topk(Ragged(tokens, [0, 2, 3]), documents, dims=[2, 3], k=2)
        >>> indices.tolist()
        [[[0, 2], [2, 0]], [[0, 2], [2, 0]]]
        >>> np.round(scores[0].numpy(), 3).tolist()  # at 2 components
        [[1.0, 0.7070000171661377], [1.0, 0.7070000171661377]]
    """
    search = pose(queries, documents, dims, k, candidates, norms)
    shape = len(search.dims), len(queries), search.keep
    results = np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64)
    blocks = list(_blocks(search)) if search.keep else []
    threads = torch.get_num_threads()  # a pool has torch's own products run on one
    with pool() as run:
        if len(blocks) >= threads:
            list(run(lambda block: _search_block(search, block, (map, 1), results), blocks))
        else:  # too few queries for all threads: they share the documents
            for block in blocks:
                _search_block(search, block, (run, threads), results)
    return torch.from_numpy(results[0]), torch.from_numpy(results[1])


def _blocks(search: TokenSearch) -> Iterator[slice]:
    """Consecutive queries that are searched together: each alone where it has its candidates."""
    edges = search.query_offsets
    most = max(1, BLOCK_SCORES // (len(search.dims) * (len(search.offsets) - 1)))
    start, count = 0, len(edges) - 1
    while start < count:
        stop = int(edges.searchsorted(edges[start] + BLOCK_TOKENS, side="right")) - 1
        stop = start + 1 if search.candidates is not None else stop
        stop = max(start + 1, min(stop, start + most))
        yield slice(start, stop)
        start = stop


def _search_block(
    search: TokenSearch, block: slice, run: tuple[Run, int], results: Results
) -> None:
    """Write the best documents of a block of queries."""
    documents = np.arange(len(search.offsets) - 1)
    if search.candidates is not None:
        named = np.unique(search.candidates[block.start])
        documents = named[named >= 0]
    left = search.asked(block)
    scores = mean_maxima(search, left, documents, *run)  # (l, q, m)
    for row, query in enumerate(range(block.start, block.stop)):
        best = best_means(search, left.query(row), documents, scores[:, row])
        for level, found in enumerate(best):
            for whole, some in zip(results, found, strict=True):
                whole[level, query, : len(some)] = some
