"""The best documents of a block of queries at one level, kept while scores stream past."""

import numpy as np

from fusion.search.passing import Tile, passing, slots
from fusion.search.ranking import rank
from fusion.search.thresholds import true_positions

CACHED = 2**18  # scores that are scaled and compared at a time: 1 MB


class Survivors:
    """A bounded buffer of scores and documents for each row, and the threshold to get in.

    Scores must come in ascending order of documents. So of equal scores in a row of the buffer the
    first is the one to keep, and a document that only equals the k-th score seen so far has lost:
    the comparison with the threshold is strict.
    """

    def __init__(self, rows: int, keep: int) -> None:
        self.keep = keep
        self.capacity = slots(keep)
        self.scores = np.zeros((rows, self.capacity), np.float32)
        self.documents = np.zeros((rows, self.capacity), np.int64)
        self.count = np.zeros(rows, np.int64)
        self.threshold = np.full((rows, 1), -np.inf, np.float32)
        self._empty = True

    def add(self, tile: Tile, inverse: np.ndarray) -> None:
        """Take in the scores of a tile: its dot products times the inverse norms [c]."""
        if self._empty:
            self._fill(tile, inverse)
        else:
            self._append(tile, inverse)
        self._empty = False

    def best(self, scores: np.ndarray, documents: np.ndarray) -> None:
        """Write the results to float32 and int64 [rows, keep]; -inf and -1 where there are too few.

        Afterwards the buffer is empty, ready for another level.
        """
        for rows, found, places in rank(self.scores, self.count, self.keep):
            scores[rows] = found
            self.documents.reshape(-1).take(places, out=documents[rows], mode="clip")
        if (self.count < self.keep).any():
            documents[np.arange(self.keep) >= self.count[:, None]] = -1
        self._empty = True

    def _fill(self, tile: Tile, inverse: np.ndarray) -> None:
        """Take in a first tile, of which many scores pass."""
        for part in passing(tile, inverse, self.keep):
            rows, width = part.rows, part.scores.shape[1]
            self.scores[rows, :width], self.documents[rows, :width] = part.scores, part.documents()
            self.count[rows], self.threshold[rows] = part.count, part.threshold

    def _put_best(self, row: int, scores: np.ndarray, documents: np.ndarray) -> None:
        """Fill a row with the best of more than it has room for."""
        _, best, places = next(rank(scores[None], np.array([len(scores)]), self.keep))
        self.scores[row, : self.keep] = best[0]
        self.documents[row, : self.keep] = documents[places[0]]
        self.count[row] = self.keep
        self.threshold[row] = best[0, -1]

    def _append(self, tile: Tile, inverse: np.ndarray) -> None:
        """Take in a later tile, of which few scores pass: all rows at once."""
        self._compare(tile, inverse)
        found = true_positions(tile.mask)
        begins = np.arange(len(tile.dots) + 1) * tile.dots.shape[1]
        edges = found.searchsorted(begins)
        fresh = edges[1:] - edges[:-1]
        columns = found - begins[:-1].repeat(fresh)
        scores = tile.dots.reshape(-1).take(found) * inverse.take(columns)
        documents = columns + tile.start
        if (self.count + fresh).max() > self.capacity:
            scores, documents, fresh = self._make_room(scores, documents, edges)
        free = np.arange(len(fresh)) * self.capacity + self.count - (fresh.cumsum() - fresh)
        slot = np.arange(len(scores)) + free.repeat(fresh)
        self.scores.reshape(-1)[slot], self.documents.reshape(-1)[slot] = scores, documents
        self.count += fresh

    def _compare(self, tile: Tile, inverse: np.ndarray) -> None:
        """Mark which scores exceed their row's threshold; a few rows at a time, in cache."""
        tile.mask[:, tile.documents :] = False
        step = max(1, CACHED // tile.documents)
        scratch = tile.scratch[: min(step, len(tile.dots)) * tile.documents]
        scratch = scratch.reshape(-1, tile.documents)  # fresh memory would cost a page fault each
        for first in range(0, len(tile.dots), step):
            rows = slice(first, first + step)
            dots = tile.dots[rows, : tile.documents]
            scores = np.multiply(dots, inverse, out=scratch[: len(dots)])
            np.greater(scores, self.threshold[rows], out=tile.mask[rows, : tile.documents])
        tile.mask[tile.hidden] = False

    def _make_room(
        self, scores: np.ndarray, documents: np.ndarray, edges: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reduce full rows to their best; what is still new to each row, and how much of it."""
        fresh = edges[1:] - edges[:-1]
        self._reduce((self.count > self.keep).nonzero()[0])
        crowded = self.count + fresh > self.capacity
        for row in crowded.nonzero()[0]:
            new, held = slice(edges[row], edges[row + 1]), slice(0, self.count[row])
            self._put_best(
                row,
                np.concatenate([self.scores[row, held], scores[new]]),
                np.concatenate([self.documents[row, held], documents[new]]),
            )
        row = np.arange(len(fresh)).repeat(fresh)
        new = ~crowded[row] & (scores > self.threshold[row, 0])
        return scores[new], documents[new], np.bincount(row[new], minlength=len(fresh))

    def _reduce(self, rows: np.ndarray) -> None:
        """Keep only the best of these rows and raise their thresholds to the worst of those."""
        documents = self.documents[rows].ravel()
        for part, best, places in rank(self.scores[rows], self.count[rows], self.keep):
            self.scores[rows[part], : self.keep] = best
            self.documents[rows[part], : self.keep] = documents.take(places)
            self.threshold[rows[part], 0] = best[:, -1]
        self.count[rows] = self.keep
