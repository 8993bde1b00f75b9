"""Nested top-k over a corpus that arrives in chunks: a memory-mapped file, a generator, shards."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from fusion.search import cpu, keys
from fusion.search.norms import prefix_norms
from fusion.search.problem import Problem, Rows, as_tensor, check_dims, check_exclude, pose
from fusion.search.screening import screens

PIECE = 2**16  # documents searched at a time


class NestedSearcher:
    """Searches chunks as they come and merges their results exactly.

    The answer is that of one search over all chunks put together, bit for bit on exact data.
    Memory beyond the queries and the chunk itself stays below

        64 * l * q * k  +  200 MB a thread  +  12 * 65,536 * l   bytes

    whatever the size of the corpus: the best keys so far, those of the next piece and their merge;
    for each thread a tile and the survivors of one block of queries with their sorted copy; and the
    norms of a piece. A half-precision piece adds a float32 copy of one tile.

    Example:
        >>> import numpy as np
        >>> searcher = NestedSearcher(np.eye(1, 4, dtype=np.float32), dims=[2, 4], k=1)
        >>> for chunk in np.split(np.eye(4, dtype=np.float32)[::-1], 2):
        ...     searcher.add(chunk)
        >>> searcher.result()[1].tolist()
        [[[3]], [[3]]]
    """

    def __init__(
        self, queries: Rows, dims: Sequence[int], k: int, *, exclude: Rows | None = None
    ) -> None:
        """Keep the queries [q, d]; ``exclude`` [q] counts documents over all chunks, -1 for none.

        Raises:
            ValueError: If an argument does not fit, or a query is not finite.
        """
        self.queries = as_tensor(queries, "queries")
        self.dims = check_dims(dims, self.queries.shape[1])
        self.k = k
        self.exclude = check_exclude(exclude, len(self.queries), keys.LAST)
        self.seen = 0
        self._screened = screens(len(self.queries), PIECE, self.dims, k)
        self._own = [pose(self.queries, self.queries[:0], self.dims, k, None, None)]
        if self._own[0].wide:  # each level has scales of its own
            self._own = [
                pose(self.queries, self.queries[:0], [d], k, None, None) for d in self.dims
            ]
        shape = len(self.dims), len(self.queries), 0
        self._best = torch.empty(shape, dtype=torch.int64, device="cpu")

    def add(self, documents: Rows) -> None:
        """Search the next documents [c, d]; they are numbered on from those before.

        Raises:
            ValueError: If a document is not finite (it names the row over all chunks) or too
                narrow; nothing of its piece of 65,536 documents is taken in then.
        """
        rows = as_tensor(documents, "corpus")
        for start in range(0, len(rows), PIECE):
            self._add_piece(rows[start : start + PIECE])

    def result(self) -> tuple[Tensor, Tensor]:
        """Scores float32 and indices int64 [l, q, min(k, documents so far)], as nested_topk's."""
        scores, indices = keys.unpack(self._best)
        inverse = torch.cat([own.query_norms.inverse for own in self._own])  # (l, q)
        exponents = torch.cat([_exponents(own) for own in self._own])
        scores *= torch.ldexp(inverse, -exponents)[..., None]
        return scores.masked_fill_(indices < 0, -torch.inf), indices

    def _add_piece(self, piece: Tensor) -> None:
        exclude = None
        if self.exclude is not None:
            inside = (self.exclude >= self.seen) & (self.exclude < self.seen + len(piece))
            exclude = torch.where(inside, self.exclude - self.seen, -1)
        norms = prefix_norms(piece, self._checked(piece), first_row=self.seen)
        problems = [pose(self.queries, piece, self.dims, self.k, exclude, norms)]
        if problems[0].wide and len(self.dims) > 1:
            problems = [pose(self.queries, piece, [d], self.k, exclude, None) for d in self.dims]
        found = torch.cat(
            [_comparable(problem, self._screened) for problem in problems]
        )  # (l, q, k)
        found = torch.where(found == keys.EMPTY, found, found - self.seen)  # later documents
        self.seen += len(piece)
        self._best = keys.merge([self._best, found], min(self.k, self.seen))

    def _checked(self, piece: Tensor) -> tuple[int, ...]:
        if self.seen + len(piece) > keys.LAST:
            raise ValueError(f"a searcher numbers at most {keys.LAST} documents")
        return check_dims(self.dims, piece.shape[1])


def search_chunks(
    queries: Rows,
    chunks: Iterable[Rows],
    dims: Sequence[int],
    k: int,
    *,
    exclude: Rows | None = None,
) -> tuple[Tensor, Tensor]:
    """``nested_topk`` over the documents of all chunks; see ``NestedSearcher``."""
    searcher = NestedSearcher(queries, dims, k, exclude=exclude)
    for chunk in chunks:
        searcher.add(chunk)
    return searcher.result()


def _comparable(problem: Problem, screened: bool) -> Tensor:
    """Keys whose scores are free of the power of two that this problem scaled its queries by."""
    scores, indices = keys.unpack(cpu.search_keys(problem, screened))
    scores = torch.ldexp(scores, _exponents(problem)[..., None])
    return keys.pack_found(scores, indices)


def _exponents(problem: Problem) -> Tensor:
    """The exponent of each query's inverse norm, [l, q]: it moves against the query's scale."""
    return torch.frexp(problem.query_norms.inverse).exponent
