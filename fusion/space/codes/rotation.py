"""Rotations that spread a vector's information evenly over its coordinates before coding."""

import numpy as np

from .grids import gaussian_levels, nearest_level

FITTING_ROWS = 8192  # more rows move a rotation of a thousand axes no further
FITTING_STEPS = 20  # the error falls by less than a thousandth a step from here on


def random_rotation(dim: int, seed: int) -> np.ndarray:
    """A uniformly random orthogonal matrix, float32 [d, d], from a seed.

    QR of a Gaussian matrix, with the signs of R's diagonal folded in: without them the
    distribution is not uniform (Mezzadri, "How to generate random matrices from the classical
    compact groups", 2007). It is worked out in float64, so that machines agree but for an entry
    that lies halfway between two float32.
    """
    gaussian = np.random.default_rng(seed).standard_normal((dim, dim))
    orthogonal, upper = np.linalg.qr(gaussian)
    return (orthogonal * np.sign(np.diagonal(upper))).astype(np.float32)


def fitted_rotation(residuals: np.ndarray, bits: int, seed: int) -> np.ndarray:
    """The rotation whose coded coordinates lie nearest to the training vectors.

    Starts from a random rotation and alternates between coding the rotated vectors and the
    orthogonal Procrustes problem: with one bit this is iterative quantisation (Gong and
    Lazebnik, CVPR 2011), with more the same idea with Lloyd and Max's levels for signs.

    Args:
        residuals: float32 [n, d], training vectors less their mean.
        bits: of the code that the rotation is for, 1 to 8.
        seed: of the first rotation, and of the rows used where there are more than enough.

    Returns:
        float32 [d, d], orthogonal; from machine to machine it may differ, since its products do.
    """
    dim = residuals.shape[1]
    if len(residuals) > FITTING_ROWS:
        chosen = np.random.default_rng(seed).choice(len(residuals), FITTING_ROWS, replace=False)
        residuals = residuals[np.sort(chosen)]
    spread = np.sqrt(np.mean(residuals**2))
    axes, levels = random_rotation(dim, seed), gaussian_levels(bits)
    if not spread > 0:
        return axes
    for _ in range(FITTING_STEPS):
        coded = levels[nearest_level(residuals @ axes / spread, levels)]  # (n, d)
        left, _, right = np.linalg.svd(residuals.T @ coded)
        axes = (left @ right).astype(np.float32)
    return axes
