"""The best keys of a block of queries at one level, kept while scores stream past."""

from dataclasses import dataclass

import numpy as np
import torch

from fusion.search import keys

SAMPLE = 512  # scores a row that the first threshold is found from; numpy sorts them in registers
ROOM = 156  # slots beyond k: with k = 100 a row has 256, the widest that numpy sorts in registers
CACHED = 2**16  # scores that are scaled and compared at a time: 256 KB


@dataclass(frozen=True)
class Tile:
    """The dot products of a block of queries with consecutive documents."""

    dots: np.ndarray
    """float32 [rows, pitch], contiguous; the columns from ``documents`` on mean nothing."""
    mask: np.ndarray
    """bool [rows, pitch], contiguous: room to work in."""
    scratch: np.ndarray
    """float32 [at least max(CACHED, documents)]: more of it."""
    documents: int
    """How many columns are documents."""
    start: int
    """The index of the first document."""
    hidden: tuple[np.ndarray, np.ndarray]
    """Rows and columns of what must not be found, at most one in each row."""


class Survivors:
    """A bounded buffer of keys for each row, and the threshold that a new score must exceed.

    Scores must come in ascending order of documents. A document that only equals the k-th score
    seen so far then loses to it by its index, so the comparison with the threshold is strict.
    """

    def __init__(self, rows: int, keep: int) -> None:
        self.keep = keep
        self.capacity = slots(keep)
        self.buffer = np.full((rows, self.capacity), keys.EMPTY)
        self.count = np.zeros(rows, np.int64)
        self.threshold = np.full((rows, 1), -np.inf, np.float32)
        self._untouched = True

    def add(self, tile: Tile, inverse: np.ndarray) -> None:
        """Take in the scores of a tile: its dot products times the inverse norms [c]."""
        found = true_positions(self._compare(tile, inverse))  # ascending, so row by row
        if len(found) or self._untouched:
            begins = np.arange(len(tile.dots) + 1) * tile.dots.shape[1]
            edges = np.searchsorted(found, begins)
            fresh = np.diff(edges)
            columns = found - np.repeat(begins[:-1], fresh)
            scores = np.take(tile.dots, found) * np.take(inverse, columns)
            packed = keys.pack(scores, columns + tile.start)
            if self._untouched:
                self._redo(tile, inverse, fresh)
            self._store(packed, edges, fresh)
        self._untouched = False

    def _compare(self, tile: Tile, inverse: np.ndarray) -> np.ndarray:
        """Where a score exceeds its row's threshold; a few rows at a time, which stay in cache."""
        step = max(1, CACHED // tile.documents)
        scratch = tile.scratch[: min(step, len(tile.dots)) * tile.documents]
        scratch = scratch.reshape(-1, tile.documents)  # fresh memory would cost a page fault each
        tile.mask[:, tile.documents :] = False
        for first in range(0, len(tile.dots), step):
            rows = slice(first, first + step)
            dots = tile.dots[rows, : tile.documents]
            scores = np.multiply(dots, inverse, out=scratch[: len(dots)])
            if self._untouched:
                self.threshold[rows] = guess_threshold(
                    scores, self.keep + bool(len(tile.hidden[0]))
                )
            np.greater(scores, self.threshold[rows], out=tile.mask[rows, : tile.documents])
        tile.mask[tile.hidden] = False
        return tile.mask

    def best(self) -> np.ndarray:
        """The keys of the results, int64 [rows, keep], from the best down; EMPTY where too few."""
        used = max(self.keep, int(self.count.max(initial=0)))
        self.buffer[:, :used].sort(axis=1)
        return self.buffer[:, :used][:, : -self.keep - 1 : -1]

    def _redo(self, tile: Tile, inverse: np.ndarray, fresh: np.ndarray) -> None:
        """Take all scores of rows whose guessed threshold let fewer than ``keep`` pass."""
        rows = np.flatnonzero((fresh < self.keep) & (self.threshold[:, 0] > -np.inf))
        if len(rows):
            whole = keys.pack(
                tile.dots[rows, : tile.documents] * inverse, np.arange(tile.documents) + tile.start
            )
            column = np.full(len(tile.dots), -1)
            column[tile.hidden[0]] = tile.hidden[1]
            whole[np.arange(tile.documents) == column[rows, None]] = keys.EMPTY
            self._replace(rows, whole)
            fresh[rows] = 0

    def _store(self, packed: np.ndarray, edges: np.ndarray, fresh: np.ndarray) -> None:
        """Append the first ``fresh[r]`` of the keys ``packed[edges[r]:edges[r + 1]]`` to row r."""
        if (self.count + fresh).max() > self.capacity:
            self._replace(full := np.flatnonzero(self.count > self.keep), self.buffer[full])
            crowded = np.flatnonzero(self.count + fresh > self.capacity)
            self._absorb(crowded, packed, edges)
            fresh[crowded] = 0
        if fresh.sum() < len(packed):  # the keys of rows that were served otherwise
            packed = packed[np.repeat(fresh > 0, np.diff(edges))]
            edges = np.concatenate([[0], np.cumsum(fresh)])
        free = np.arange(len(fresh)) * self.capacity + self.count - edges[:-1]
        self.buffer.ravel()[np.arange(len(packed)) + np.repeat(free, fresh)] = packed
        self.count += fresh

    def _absorb(self, rows: np.ndarray, packed: np.ndarray, edges: np.ndarray) -> None:
        """Take in more keys a row than the buffer has slots."""
        widest = int(np.diff(edges)[rows].max(initial=0))
        wide = np.full((len(rows), self.capacity + widest), keys.EMPTY)
        wide[:, : self.capacity] = self.buffer[rows]
        for line, row in zip(wide, rows, strict=True):
            new = packed[edges[row] : edges[row + 1]]
            line[self.capacity : self.capacity + len(new)] = new
        self._replace(rows, wide)

    def _replace(self, rows: np.ndarray, candidates: np.ndarray) -> None:
        """Keep only the best of ``candidates`` (overwritten) in these rows; raise their thresholds.

        A row with too few candidates keeps empty slots among its first ``keep``, which is harmless.
        """
        edge = candidates.shape[1] - self.keep
        candidates.partition(edge, axis=1)
        self.buffer[rows, : self.keep] = candidates[:, edge:]
        self.buffer[rows, self.keep :] = keys.EMPTY
        self.count[rows] = self.keep
        self.threshold[rows, 0] = keys.unpack_scores(candidates[:, edge])


def slots(keep: int) -> int:
    """Keys that a row has room for."""
    return keep + max(ROOM, keep // 2)


def guess_threshold(scores: np.ndarray, keep: int) -> np.ndarray:
    """A float32 [rows, 1] that at least ``keep`` scores of a row exceed, and few more, probably.

    For a small k it is certain: the k-th largest maximum of disjoint groups is a lower bound of the
    k-th score. Otherwise it is guessed from evenly spaced scores, two standard deviations to the
    safe side, and whoever uses it must count what passes.
    """
    rows, width = scores.shape
    groups = min(SAMPLE, width)
    if keep <= groups // 3 or groups == width:
        whole = scores[:, : width // groups * groups].reshape(rows, -1, groups)  # (rows, m, groups)
        sample, rank = torch.from_numpy(whole).amax(dim=1).numpy(), keep
    else:
        share = keep / width
        sample = scores[:, :: -(-width // SAMPLE)]
        spread = np.sqrt(sample.shape[1] * share * max(0.0, 1 - share))
        rank = int(sample.shape[1] * share + 2 * spread + 2)
    if rank > sample.shape[1]:
        return np.full((rows, 1), -np.inf, np.float32)
    edge = np.sort(sample, axis=1)[:, sample.shape[1] - rank, None]  # (rows, 1)
    return np.nextafter(edge, np.float32(-np.inf))


def true_positions(mask: np.ndarray) -> np.ndarray:
    """Ascending flat positions of what is true in a contiguous mask."""
    flat = mask.reshape(-1)
    if len(flat) % 8 or np.count_nonzero(flat) * 100 > len(flat):
        return np.flatnonzero(flat)
    words = flat.view(np.uint64)  # eight at a time, where nearly all are false
    hit = np.flatnonzero(words != 0)
    inside = np.flatnonzero(words[hit].view(bool))
    return hit[inside >> 3] * 8 + (inside & 7)
