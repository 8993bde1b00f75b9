"""The exact order of rows of scores, from sorting integers of 32 bits.

A sort key holds how far a score lies below the best of its row, in coarse steps, and the score's
position: numpy sorts such integers eight at a time, and no scores have to be moved along. Scores
that fall into one step may then stand in the wrong order, about one pair in a thousand scores;
they are found by comparing neighbours and swapped. Where there are too many, the row is sorted
again by its exact scores.
"""

from collections.abc import Iterator

import numpy as np

from fusion.topk.engines.sorting import LAST, runs_of, sort_in_runs

KEY_BITS = 31
STEP_BITS = 22  # float32 products could not tell more steps apart
MARGIN = 16  # scores beyond k that are ordered, since steps may tie across the k-th
PASSES = 8  # over the neighbours of what was swapped
TINY = np.float32(1e-30)
CACHED = 2**17  # scores that are ranked at a time: 512 KB


Ranked = tuple[slice, np.ndarray, np.ndarray]


def rank(scores: np.ndarray, count: np.ndarray, keep: int) -> Iterator[Ranked]:
    """The best scores of every row from the best down, equal ones by ascending position.

    Args:
        scores: float32 [rows, width], contiguous, all finite; overwritten from ``count`` on.
        count: int64 [rows], how many scores a row has.
        keep: How many to find, at most width.

    Yields:
        A few rows at a time, which are still in cache: which rows; their scores float32 [r, keep],
        -inf where a row has too few; and where these stand in ``scores.ravel()``, int64 of the
        same shape.
    """
    width = min(scores.shape[1], max(keep, int(count.max(initial=0))))
    step = max(1, CACHED // width)
    for first in range(0, len(scores), step):
        rows = slice(first, first + step)
        found, places = _rank(scores[rows], count[rows], keep, width)
        places += first * scores.shape[1]
        yield rows, found, places


def _rank(
    scores: np.ndarray, count: np.ndarray, keep: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same for a few rows, none with more than ``width`` scores."""
    keys, bits = _sorted_keys(scores[:, :width], count)
    edge = min(keep + MARGIN, width)
    start = np.arange(len(scores))[:, None] * scores.shape[1]
    places = (keys[:, :edge] & (2**bits - 1)).astype(np.int64)  # (rows, edge)
    places += start
    found = scores.reshape(-1).take(places, mode="clip")
    if (count < edge).any():
        found[np.arange(edge) >= count[:, None]] = -np.inf
    rows = _repair(found, places)
    if edge < width:
        torn = (keys[:, keep - 1] >> bits == keys[:, edge - 1] >> bits) & (count > edge)
        rows = np.concatenate([rows, np.flatnonzero(torn)])
    for row in rows:
        order = np.argsort(-scores[row, : count[row]], kind="stable")[:edge]
        places[row, : len(order)] = order + start[row]
        found[row, : len(order)] = scores[row, order]
    return found[:, :keep], places[:, :keep]


def _sorted_keys(scores: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, int]:
    """Ascending keys int32 [rows, width], the best score first, and the bits of a position."""
    position = np.arange(scores.shape[1], dtype=np.int32)
    full = int(count.min(initial=len(position)))  # columns that every row has
    beyond = position[full:] >= count.astype(np.int32)[:, None]
    np.copyto(scores[:, full:], scores[:, :1].copy(), where=beyond)
    best, worst = scores.max(axis=1, keepdims=True), scores.min(axis=1, keepdims=True)  # (rows, 1)
    bits = (scores.shape[1] - 1).bit_length()
    last = 2.0 ** min(STEP_BITS, KEY_BITS - bits) - 2
    # Each operation rounds monotonically, so a better score never gets a later step.
    steps = np.subtract(best, scores)
    steps *= np.float32(last) / np.maximum(best - worst, TINY)
    runs = runs_of(scores.shape[1])
    padded = np.full((len(scores), -(-scores.shape[1] // runs) * runs), LAST, np.int32)
    keys = padded[:, : scores.shape[1]]
    keys[:] = steps
    keys <<= bits
    keys |= position
    np.copyto(keys[:, full:], LAST, where=beyond)
    sort_in_runs(padded, runs)
    return keys, bits


def _repair(found: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Swap neighbours [rows, edge] that are out of order; the rows in which some still are."""
    edge = found.shape[1]
    scores, position = found.reshape(-1), places.reshape(-1)
    wrong = np.flatnonzero(found[:, 1:] > found[:, :-1])
    wrong += wrong // max(1, edge - 1)  # now in the flat arrays
    for _ in range(PASSES):
        if not len(wrong):
            return wrong
        wrong = wrong[np.diff(wrong, prepend=-2) > 1]  # pairs that do not overlap
        for array in (scores, position):
            array[wrong], array[wrong + 1] = array[wrong + 1], array[wrong]
        near = np.sort(np.concatenate([wrong - 1, wrong + 1]))
        near = near[(near >= 0) & (near % edge < edge - 1)]
        wrong = near[scores[near + 1] > scores[near]]
    return np.unique(wrong // edge)
