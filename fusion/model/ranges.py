"""Grids of quantised output: fitted once on training vectors, they travel with the model."""

from collections.abc import Sequence

import numpy as np

# Half of the range of the 16 evenly spaced levels that lose least of a Gaussian, in deviations.
INT4_REACH = 2.68


def fit_ranges(outputs: np.ndarray, dims: Sequence[int]) -> dict[str, np.ndarray]:
    """Ranges for unit vectors at every width, in the form that sentence-transformers takes.

    Args:
        outputs: float32 [n, d], the compressor's outputs for training texts.
        dims: Widths.

    Returns:
        ``int8.WIDTH`` and ``int4.WIDTH``, float32 [2, width] (lowest and highest value of each
        column), and ``norms``, float32 [d]: how long the first columns of a unit vector are.
    """
    unit = _unit(outputs)  # (n, d)
    norms = np.sqrt(np.cumsum(np.square(unit, dtype=np.float64).mean(axis=0)))  # (d,)
    ranges = {"norms": np.maximum(norms, 1e-12).astype(np.float32)}
    for dim in dims:
        cut = _unit(outputs[:, :dim])  # (n, width)
        # One step for all columns, and zero in the middle of a level: integer dot products are then
        # float ones times a constant, which is all that most vector databases can compute.
        step = np.abs(cut).max() / 127
        low = np.full(dim, -128.5 * step)
        ranges[f"int8.{dim}"] = np.stack([low, low + 255 * step]).astype(np.float32)
        mean, spread = cut.mean(axis=0), np.maximum(cut.std(axis=0), 1e-9)
        reach = INT4_REACH * spread
        ranges[f"int4.{dim}"] = np.stack([mean - reach, mean + reach]).astype(np.float32)
    return ranges


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)
