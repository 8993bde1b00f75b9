"""The scores of a first tile that may be among the best: found together with their thresholds."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from fusion.topk.engines.ranking import rank
from fusion.topk.engines.thresholds import exact_threshold, guess_threshold, true_positions

FILLED = 2**20  # scores that are worked on at a time: 4 MB
PASSED = 2**16  # slots for what passes of them
ROOM = 156  # slots beyond k: with k = 100 a row has 256


@dataclass(frozen=True)
class Tile:
    """The dot products of a block of queries with consecutive documents."""

    dots: np.ndarray
    """float32 [rows, pitch], contiguous; the columns from ``documents`` on mean nothing."""
    mask: np.ndarray
    """bool [rows, pitch], contiguous: room to work in."""
    scratch: np.ndarray
    """float32 [at least max(FILLED, pitch), rows * pitch for all but a first tile]: more of it."""
    documents: int
    """How many columns are documents."""
    start: int
    """The index of the first document."""
    hidden: tuple[np.ndarray, np.ndarray]
    """Rows and columns of what must not be found, at most one in each row."""

    @property
    def shown(self) -> np.ndarray:
        """The dots that mean something, float32 [rows, documents]; a view."""
        return self.dots[:, : self.documents]


@dataclass(frozen=True)
class Passing:
    """The scores of a few rows that exceed their thresholds, equal ones by ascending document."""

    rows: slice
    """Which rows of the tile."""
    scores: np.ndarray
    """float32 [rows, width]; what lies beyond a row's ``count`` means nothing."""
    count: np.ndarray
    """int64 [rows]: at least ``keep`` wherever the tile has as many, and at most its slots."""
    threshold: np.ndarray
    """float32 [rows, 1]."""
    found: np.ndarray
    """int64 [any]: flat positions, those of one row side by side."""
    begin: np.ndarray
    """int64 [rows, 1]: where in ``found`` a row begins."""
    offset: np.ndarray
    """int64 [rows, 1]: what to add to a row's positions for documents."""
    least: np.ndarray
    """float32 [rows]: the lowest score of all, hidden ones included."""

    def documents(self) -> np.ndarray:
        """The documents of the scores, int64 [rows, width]."""
        slots = np.arange(self.scores.shape[1])
        return self.found.take(self.begin + slots, mode="clip") + self.offset


def slots(keep: int) -> int:
    """Scores that a row has room for."""
    return keep + max(ROOM, keep // 2)


def best_of_tile(
    tile: Tile,
    inverse: np.ndarray,
    scores: np.ndarray,
    documents: np.ndarray,
    sizes: np.ndarray | None = None,
) -> None:
    """Write the best of a tile that holds all documents to float32 and int64 [rows, keep].

    Where a row has too few, the scores are -inf and the documents -1. The greatest size of a row's
    scores goes to ``sizes`` float32 [rows].
    """
    keep = scores.shape[1]
    for part in passing(tile, inverse, keep):
        best, where = scores[part.rows], documents[part.rows]
        shift = part.begin - np.arange(len(best))[:, None] * part.scores.shape[1]
        for rows, found, places in rank(part.scores, part.count, keep):
            best[rows] = found
            places += shift[rows]
            part.found.take(places, out=where[rows], mode="clip")
        where += part.offset
        if sizes is not None:
            np.maximum(-part.least, best[:, 0], out=sizes[part.rows])
        if (part.count < keep).any():
            where[np.arange(keep) >= part.count[:, None]] = -1


def above(tile: Tile, threshold: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where dot products times factors [c] exceed thresholds [rows, 1], before any rounding.

    Rows and columns, int64 [n], by ascending row and column.
    """
    tile.mask[:, tile.documents :] = False
    mask = tile.mask[:, : tile.documents]
    compare(tile.shown, threshold, factor, tile.scratch, mask)
    tile.mask[tile.hidden] = False
    return marked(tile.mask)


def compare(
    dots: np.ndarray,
    threshold: np.ndarray,
    factor: np.ndarray,
    scratch: np.ndarray,
    mask: np.ndarray,
) -> None:
    """Write to a mask [r, c] whether dots [r, c] times factors [c] exceed thresholds [r, 1].

    It looks at the sign of what a score lacks: numpy takes three times as long to multiply or
    compare rows of this length. The dots may be int32.
    """
    lack = torch.from_numpy(scratch[: dots.size]).view(dots.shape)
    scores = torch.from_numpy(dots)
    if dots.dtype != np.float32:  # a conversion of its own is faster than one on the way
        scores = lack.copy_(scores)
    left, right = torch.from_numpy(threshold), torch.from_numpy(factor)
    torch.addcmul(left, scores, right, value=-1, out=lack)
    if mask.shape[1] == 1:  # numpy 2.4 writes wrong signs to a strided column
        mask[...] = np.signbit(lack.numpy())
    else:
        np.signbit(lack.numpy(), out=mask)


def marked(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, int64 [n], of what is true in a contiguous mask, row by row."""
    return np.divmod(true_positions(mask), mask.shape[1])


def passing(tile: Tile, inverse: np.ndarray, keep: int) -> Iterator[Passing]:
    """Scale a tile by the inverse norms [c] and compare it, a few rows at a time, in cache."""
    pitch = tile.dots.shape[1]
    step = max(1, min(FILLED // pitch, PASSED // slots(keep)))
    scratch = tile.scratch[: min(step, len(tile.dots)) * pitch].reshape(-1, pitch)
    tile.mask[:, tile.documents :] = False
    hidden = np.full(len(tile.dots), -1)
    hidden[tile.hidden[0]] = tile.hidden[1]
    for first in range(0, len(tile.dots), step):
        rows = slice(first, min(first + step, len(tile.dots)))
        dots = tile.dots[rows, : tile.documents]
        scores = np.multiply(dots, inverse, out=scratch[: len(dots), : tile.documents])
        least = torch.from_numpy(scores).amin(dim=1).numpy()
        excluded = (hidden[rows] >= 0).nonzero()[0]
        scores[excluded, hidden[rows][excluded]] = -np.inf  # which exceeds no threshold
        threshold = guess_threshold(scores, keep)
        np.greater(scores, threshold, out=tile.mask[rows, : tile.documents])
        yield _gathered(scores, tile, rows, threshold, keep, least)


def _gathered(
    scores: np.ndarray,
    tile: Tile,
    rows: slice,
    threshold: np.ndarray,
    keep: int,
    least: np.ndarray,
) -> Passing:
    """What the mask of a few rows lets pass of their scores [r, c], laid side by side."""
    mask = tile.mask[rows]
    found = true_positions(mask)
    start = np.arange(len(mask) + 1) * mask.shape[1]
    edges = found.searchsorted(start)
    begin, count = edges[:-1], edges[1:] - edges[:-1]
    bad = ((count < keep) | (count > slots(keep))).nonzero()[0].tolist()
    again: list[np.ndarray] = []
    for row in bad:
        begin[row] = len(found) + sum(len(columns) for columns in again)
        columns, threshold[row] = _exactly(scores[row], keep)
        count[row] = len(columns)
        again.append(columns + start[row])
    found = np.concatenate([found, *again]) if again else found
    if not len(found):  # all is excluded; something has to be there to be taken and overwritten
        found = np.zeros(1, np.int64)
    passed = tile.scratch.take(found)
    side_by_side = np.zeros((len(mask), max(keep, count.max())), np.float32)
    for row, (first, n) in enumerate(zip(begin.tolist(), count.tolist(), strict=True)):
        side_by_side[row, :n] = passed[first : first + n]
    offset = tile.start - start[:-1, None]
    return Passing(rows, side_by_side, count, threshold, found, begin[:, None], offset, least)


def _exactly(scores: np.ndarray, keep: int) -> tuple[np.ndarray, float]:
    """The columns of a row [c] that exceed its exact threshold, of equal ones the first; and it."""
    threshold = exact_threshold(scores[None], keep)[0, 0]
    found = (scores > threshold).nonzero()[0]
    if len(found) > slots(keep):
        found = found[np.argsort(-scores[found], kind="stable")[:keep]]
        threshold = scores[found].min()
    return found, threshold
