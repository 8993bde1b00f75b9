"""Rotations that spread a vector's information evenly over its coordinates before coding."""

import numpy as np


def random_rotation(dim: int, seed: int) -> np.ndarray:
    """A uniformly random orthogonal matrix, float32 [d, d], from a seed.

    QR of a Gaussian matrix, with the signs of R's diagonal folded in: without them the
    distribution is not uniform (Mezzadri, "How to generate random matrices from the classical
    compact groups", 2007).
    """
    gaussian = np.random.default_rng(seed).standard_normal((dim, dim))
    orthogonal, upper = np.linalg.qr(gaussian)
    return (orthogonal * np.sign(np.diagonal(upper))).astype(np.float32)
