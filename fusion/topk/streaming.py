"""Nested top-k over a corpus that arrives in chunks: a memory-mapped file, a generator, shards."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from fusion.topk import keys
from fusion.topk.bounds import error_bound
from fusion.topk.engines import cpu
from fusion.topk.norms import prefix_norms
from fusion.topk.problem import Problem, Rows, as_tensor, check_dims, check_exclude, pose
from fusion.topk.settling.settled import settled
from fusion.topk.settling.ties import Ties, canonical

PIECE = 2**16  # documents searched at a time


class NestedSearcher:
    """Searches chunks as they come and merges their results exactly.

    The order is that of one search over all chunks put together. Every score is float64's, rounded.
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
        pose(self.queries, self.queries[:0], self.dims, k, None, None)  # which checks them
        shape = len(self.dims), len(self.queries), 0
        self._scores, self._documents = np.empty(shape), np.empty(shape, np.int64)

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
        return torch.from_numpy(self._scores).float(), torch.from_numpy(self._documents).clone()

    def _add_piece(self, piece: Tensor) -> None:
        exclude = None
        if self.exclude is not None:
            inside = (self.exclude >= self.seen) & (self.exclude < self.seen + len(piece))
            exclude = torch.where(inside, self.exclude - self.seen, -1)
        norms = prefix_norms(piece, self._checked(piece), first_row=self.seen)
        problems = [pose(self.queries, piece, self.dims, self.k, exclude, norms)]
        if problems[0].wide and len(self.dims) > 1:
            problems = [pose(self.queries, piece, [d], self.k, exclude, None) for d in self.dims]
        found = [self._better(problem) for problem in problems]
        scores, documents = (np.concatenate(parts) for parts in zip(*found, strict=True))
        documents[documents >= 0] += self.seen
        self.seen += len(piece)
        self._merge(scores, documents)

    def _better(self, problem: Problem) -> tuple[np.ndarray, np.ndarray]:
        """A piece's results [l, q, keep], of which those that may be among the best are exact."""
        plain, indices = (part.numpy() for part in settled(problem, cpu.search))
        bounds = np.array([2 * error_bound(d, problem.dims) for d in problem.dims])[:, None, None]
        levels = [self.dims.index(d) for d in problem.dims]
        places = (plain + bounds >= self._threshold()[levels]) & (indices >= 0)
        level, row, _ = places.nonzero()
        scores = np.full(plain.shape, -np.inf)
        scores[places] = canonical(Ties(problem, level, row, indices[places]))
        return scores, np.where(places, indices, -1)

    def _threshold(self) -> np.ndarray:
        """What the k-th of the best so far scores, [l, q, 1]; -inf while there are fewer."""
        full = self._scores.shape[2] == self.k
        return self._scores[..., -1:] if full else np.full((*self._scores.shape[:2], 1), -np.inf)

    def _merge(self, scores: np.ndarray, documents: np.ndarray) -> None:
        """Take results [l, q, any] of later documents among the best."""
        scores = np.concatenate([self._scores, scores], axis=2)
        documents = np.concatenate([self._documents, documents], axis=2)
        # Later documents stand behind, so a stable sort leaves ties to the lower index.
        order = np.argsort(-scores, axis=2, kind="stable")[..., : min(self.k, self.seen)]
        self._scores = np.take_along_axis(scores, order, axis=2)
        self._documents = np.take_along_axis(documents, order, axis=2)

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
