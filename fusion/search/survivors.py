"""The best keys of a block of queries at one level, kept while scores stream past."""

import numpy as np
import torch

from fusion.search import keys

SAMPLE = 512  # scores a row that the first threshold is guessed from; sorted in vector registers
ROOM = 156  # slots beyond k: with k = 100 a row has 256, the widest that numpy sorts in registers


class Survivors:
    """A bounded buffer of keys for each row, and the threshold that a new score must exceed.

    Scores must come in ascending order of documents. A document that only equals the k-th score
    seen so far then loses to it by its index, so the comparison with the threshold is strict.
    """

    def __init__(self, rows: int, keep: int) -> None:
        self.keep = keep
        self.capacity = keep + max(ROOM, keep * 3 // 4)
        self.buffer = np.full((rows, self.capacity), keys.EMPTY)
        self.count = np.zeros(rows, np.int64)
        self.threshold = np.full((rows, 1), -np.inf, np.float32)
        self._fresh = True

    def add(self, scores: np.ndarray, start: int, mask: np.ndarray) -> None:
        """Take in one tile.

        Args:
            scores: float32 [rows, c], contiguous; -inf marks what must not be found.
            start: The index of the first column's document.
            mask: bool [rows, c], contiguous, overwritten.
        """
        if self._fresh:
            self.threshold, self._fresh = guess_threshold(scores, self.keep), False
            np.greater(scores, self.threshold, out=mask)
            short = np.count_nonzero(mask, axis=1) < self.keep  # the guess was too high
            self.threshold[short] = -np.inf
        np.greater(scores, self.threshold, out=mask)
        found = np.flatnonzero(mask)  # ascending, so row by row
        if len(found):
            width = scores.shape[1]
            edges = np.searchsorted(found, np.arange(len(scores) + 1) * width)
            packed = keys.pack(scores.ravel()[found], start + found % width)
            self._store(packed, edges)

    def best(self) -> np.ndarray:
        """The keys of the results, int64 [rows, keep], from the best down; EMPTY where too few."""
        self.buffer.sort(axis=1)
        return self.buffer[:, : -self.keep - 1 : -1]

    def _store(self, packed: np.ndarray, edges: np.ndarray) -> None:
        """Append the keys ``packed[edges[r]:edges[r + 1]]`` to every row r."""
        fresh = np.diff(edges)
        if (self.count + fresh).max() > self.capacity:
            self._compact(np.flatnonzero(self.count > self.keep))
            crowded = np.flatnonzero(self.count + fresh > self.capacity)
            self._absorb(crowded, packed, edges)
            fresh[crowded] = 0
        self._append(packed, edges, fresh)

    def _append(self, packed: np.ndarray, edges: np.ndarray, fresh: np.ndarray) -> None:
        if fresh.sum() < len(packed):  # the keys of absorbed rows are no longer needed
            packed = packed[np.repeat(fresh > 0, np.diff(edges))]
            edges = np.concatenate([[0], np.cumsum(fresh)])
        free = np.arange(len(fresh)) * self.capacity + self.count - edges[:-1]
        self.buffer.ravel()[np.arange(len(packed)) + np.repeat(free, fresh)] = packed
        self.count += fresh

    def _compact(self, rows: np.ndarray) -> None:
        """Forget what lies below the k-th key of these rows and raise their thresholds to it."""
        if len(rows):
            self._replace(rows, self.buffer[rows])

    def _absorb(self, rows: np.ndarray, packed: np.ndarray, edges: np.ndarray) -> None:
        """Take in more keys a row than the buffer has slots."""
        if not len(rows):
            return
        widest = int(np.diff(edges)[rows].max())
        wide = np.full((len(rows), self.capacity + widest), keys.EMPTY)
        wide[:, : self.capacity] = self.buffer[rows]
        for line, row in zip(wide, rows, strict=True):
            new = packed[edges[row] : edges[row + 1]]
            line[self.capacity : self.capacity + len(new)] = new
        self._replace(rows, wide)

    def _replace(self, rows: np.ndarray, candidates: np.ndarray) -> None:
        """Set these rows to the best keys of ``candidates`` (overwritten), which fill them."""
        edge = candidates.shape[1] - self.keep
        candidates.partition(edge, axis=1)
        self.buffer[rows] = keys.EMPTY
        self.buffer[rows, : self.keep] = candidates[:, edge:]
        lowest = candidates[:, edge]
        self.count[rows] = np.where(lowest == keys.EMPTY, 0, self.keep)
        self.threshold[rows, 0] = keys.unpack_scores(lowest)


def guess_threshold(scores: np.ndarray, keep: int) -> np.ndarray:
    """A float32 [rows, 1] that at least ``keep`` scores of a row exceed, and few more, probably.

    For a small k it is certain: the k-th largest maximum of disjoint groups is a lower bound of the
    k-th score. Otherwise it is guessed from evenly spaced scores, two and a half standard
    deviations to the safe side, and whoever uses it must count what passes.
    """
    rows, width = scores.shape
    groups = min(SAMPLE, width)
    if keep <= groups // 3 or groups == width:
        whole = scores[:, : width // groups * groups].reshape(rows, -1, groups)  # (rows, m, groups)
        sample, rank = torch.from_numpy(whole).amax(dim=1).numpy(), keep
    else:
        share = keep / width
        sample = scores[:, :: -(-width // SAMPLE)]
        spread = np.sqrt(sample.shape[1] * share * (1 - share))
        rank = int(sample.shape[1] * share + 2.5 * spread + 2)
    if rank > sample.shape[1]:
        return np.full((rows, 1), -np.inf, np.float32)
    edge = np.sort(sample, axis=1)[:, sample.shape[1] - rank, None]  # (rows, 1)
    return np.nextafter(edge, np.float32(-np.inf))
