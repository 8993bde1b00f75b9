"""An affine map into a nested space, made elsewhere: a matrix and a bias."""

from typing import Any, Self

import numpy as np

from fusion.errors import FusionError
from fusion.space.compressor import FittedCompressor


class AffineMap(FittedCompressor):
    """``embeddings @ matrix + bias``; its columns are nested as whoever made it sorted them."""

    name = "affine"

    def __init__(self, matrix: np.ndarray, bias: np.ndarray | None = None) -> None:
        """Wrap a map.

        Args:
            matrix: ``[D, d]``, kept as float32.
            bias: ``[d]``; none by default.
        """
        in_dim, out_dim = matrix.shape
        super().__init__(out_dim)
        self.matrix = np.ascontiguousarray(matrix, dtype=np.float32)  # (D, d)
        self.bias = np.zeros(out_dim, np.float32) if bias is None else bias.astype(np.float32)
        if self.bias.shape != (out_dim,):
            raise ValueError(f"a map to {out_dim} columns has a bias of shape {self.bias.shape}")
        if not (np.isfinite(self.matrix).all() and np.isfinite(self.bias).all()):
            raise ValueError("a map holds NaN or infinite values")
        self._shape = (in_dim, out_dim)

    @classmethod
    def centred(cls, matrix: np.ndarray, mean: np.ndarray) -> Self:
        """The map ``(embeddings - mean) @ matrix``, with the mean folded into the bias."""
        return cls(matrix, -(mean @ matrix))

    def _fit(self, embeddings: np.ndarray, out_dim: int) -> None:
        raise FusionError("an affine map is made by what is fitted on pairs: see fusion.alignment")

    def _project(self, chunk: np.ndarray) -> np.ndarray:
        return chunk @ self.matrix + self.bias  # (rows, d)

    def _config(self) -> dict[str, Any]:
        return {}

    def _tensors(self) -> dict[str, np.ndarray]:
        return {"matrix": self.matrix, "bias": self.bias}

    @classmethod
    def _restore(cls, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        return cls(tensors["matrix"], tensors["bias"])
