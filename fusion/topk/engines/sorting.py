"""Sorting rows of 32-bit integers, also on processors on which numpy is slow at it.

numpy sorts by AVX-512: up to 512 integers in registers, more by first splitting them in two with an
instruction that Zen 4 takes a hundred cycles for. There it is faster to sort runs that fit and to
exchange halves between them until all are in order.
"""

import timeit
from functools import cache

import numpy as np

LAST = 2**31 - 1  # sorts behind every key
RUN = 512  # integers that are sorted in registers
MOST = 3  # runs; the number of exchanges grows with its square


def runs_of(width: int) -> int:
    """In how many runs rows of a width are best sorted, 1 for all at once."""
    runs = -(-width // RUN)
    return runs if 1 < runs <= MOST and runs_are_faster() else 1


def sort_in_runs(rows: np.ndarray, runs: int) -> None:
    """Sort int32 [n, width] along the rows, in place; the width is a multiple of ``runs``."""
    parts = np.split(rows, runs, axis=1)
    room = np.empty_like(parts[0])
    for last in range(runs - 1, 0, -1):
        for left in range(last):
            _exchange(parts[left], parts[left + 1], room)
    for part in parts:
        part.sort(axis=1)


def _exchange(left: np.ndarray, right: np.ndarray, room: np.ndarray) -> None:
    """Bring the smaller half of two runs [n, m] to the left; Batcher's bitonic split."""
    left.sort(axis=1)
    np.invert(right, out=right)
    right.sort(axis=1)
    np.invert(right, out=right)  # now descending
    np.minimum(left, right, out=room)
    np.maximum(left, right, out=right)
    left[:] = room


@cache
def runs_are_faster() -> bool:
    """Whether sorting three runs beats sorting whole rows on this processor."""
    rows = np.random.default_rng(0).integers(0, LAST, (32, 3 * RUN), dtype=np.int32)

    def seconds(runs: int) -> float:
        return min(timeit.repeat(lambda: sort_in_runs(rows.copy(), runs), number=1, repeat=5))

    return seconds(3) < 0.9 * seconds(1)
