"""Samples that stand for the whole, whatever its order."""

import numpy as np


def evenly_spaced(n: int, most: int) -> np.ndarray:
    """Int64 indices of at most ``most`` of n rows, ascending, from the first one to the last.

    Every n // most-th row would not reach the end: with 8,000 rows and 4,096 wanted, not even the
    second half.
    """
    return np.linspace(0, n - 1, min(n, most)).round().astype(np.int64)
