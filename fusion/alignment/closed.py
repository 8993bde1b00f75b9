"""Closed forms that bring two sides together, each from the moments of their pairs.

Columns come sorted by how well the two sides agree in them, so that a prefix is the best narrow
space; means are folded into the maps.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fusion.alignment.pairs import Moments
from fusion.space.affine import AffineMap


@dataclass(frozen=True, eq=False)
class Canonical:
    """Canonical directions of both sides, before they are weighted."""

    source: np.ndarray
    """float64 [D, r]: after centring, uncorrelated columns of unit (shrunk) variance."""
    target: np.ndarray
    """float64 [E, r], likewise."""
    correlations: np.ndarray
    """float64 [r], descending: of each pair of columns, under the shrunk covariances."""

    def maps(self, moments: Moments, width: int, power: float) -> tuple[AffineMap, AffineMap]:
        """The two maps: columns weighted by their correlation to a power (arXiv 2410.07610)."""
        weights = np.maximum(self.correlations[:width], 0.0) ** power  # (d,)
        return (
            AffineMap.centred(self.source[:, :width] * weights, moments.source_mean),
            AffineMap.centred(self.target[:, :width] * weights, moments.target_mean),
        )


def canonical(moments: Moments, shrinkage: float) -> Canonical:
    """Canonical correlation analysis with covariances shrunk towards multiples of the identity.

    ``C ← (1 - s) C + s tr(C)/D I`` on both sides; then the singular vectors of the whitened
    cross-covariance. Any whitening gives the same directions; Cholesky's is the quickest.

    Args:
        moments: Of the pairs.
        shrinkage: s, above 0 and at most 1.

    Raises:
        ValueError: The shrinkage is out of its bounds.
    """
    if not 0 < shrinkage <= 1:
        raise ValueError(f"shrinkage must be above 0 and at most 1, got {shrinkage}")
    left, right = (_root(_shrunk(c, shrinkage)) for c in (moments.source, moments.target))
    half = torch.linalg.solve_triangular(left, torch.from_numpy(moments.cross), upper=False)
    whitened = torch.linalg.solve_triangular(right, half.T, upper=False).T  # (D, E)
    u, correlations, v = torch.linalg.svd(whitened, full_matrices=False)
    source = torch.linalg.solve_triangular(left.T, u, upper=True).numpy()
    target = torch.linalg.solve_triangular(right.T, v.T, upper=True).numpy()
    # A pair of singular vectors may be turned round together; fix that, so that two fits agree.
    signs = np.sign(source[np.abs(source).argmax(axis=0), np.arange(source.shape[1])])  # (r,)
    return Canonical(source * signs, target * signs, correlations.numpy())


def procrustes(moments: Moments) -> AffineMap:
    """The rotation of the source onto the target that keeps all its angles.

    Between sides of unequal widths it has orthonormal columns, or rows. Only the source's mean is
    taken off: the target's vectors are to stay as they are.
    """
    u, _, v = torch.linalg.svd(torch.from_numpy(moments.cross), full_matrices=False)
    return AffineMap.centred((u @ v).numpy(), moments.source_mean)


def ridge(moments: Moments, penalty: float) -> AffineMap:
    """The least squares map of the source into the target's own space.

    The target's mean is not added back: a constant on all queries changes their ranking of targets
    for the worse, and says nothing of any of them.

    Args:
        moments: Of the pairs.
        penalty: In units of the source's mean variance, above 0.
    """
    if not penalty > 0:
        raise ValueError(f"penalty must be above 0, got {penalty}")
    raised = moments.source + penalty * _level(moments.source) * np.eye(len(moments.source))
    matrix = np.linalg.solve(raised, moments.cross)  # (D, E)
    return AffineMap.centred(matrix, moments.source_mean)


def _shrunk(covariance: np.ndarray, shrinkage: float) -> np.ndarray:
    identity = np.eye(len(covariance))
    return (1 - shrinkage) * covariance + shrinkage * _level(covariance) * identity


def _level(covariance: np.ndarray) -> float:
    return float(np.trace(covariance)) / len(covariance)


def _root(covariance: np.ndarray) -> Tensor:
    """The lower triangle L of C = L Lᵀ."""
    return torch.linalg.cholesky(torch.from_numpy(covariance))
