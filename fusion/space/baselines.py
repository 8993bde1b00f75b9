"""Compressors that learn nothing: the first columns, random ones, and random projections."""

from typing import Any, Self

import numpy as np

from fusion.space.compressor import FittedCompressor


class FirstK(FittedCompressor):
    """The first columns as they are: what truncation without training gives."""

    name = "first-k"

    def _fit(self, embeddings: np.ndarray, out_dim: int) -> None:
        self._columns = np.arange(out_dim)  # (d,)

    def _project(self, chunk: np.ndarray) -> np.ndarray:
        return chunk[:, self._columns]  # (rows, d)

    def _config(self) -> dict[str, Any]:
        return {}

    def _tensors(self) -> dict[str, np.ndarray]:
        return {"columns": self._columns}

    @classmethod
    def _restore(cls, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        restored = cls(config["out_dim"])
        restored._columns = tensors["columns"]
        return restored


class RandomK(FirstK):
    """Columns in a random order; the seed fixes it."""

    name = "random-k"

    def __init__(self, out_dim: int | None = None, seed: int = 0) -> None:
        super().__init__(out_dim)
        self.seed = seed

    def _fit(self, embeddings: np.ndarray, out_dim: int) -> None:
        order = np.random.default_rng(self.seed).permutation(embeddings.shape[1])  # (D,)
        self._columns = order[:out_dim]  # (d,)

    def _config(self) -> dict[str, Any]:
        return {"seed": self.seed}

    @classmethod
    def _restore(cls, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        restored = cls(config["out_dim"], config["seed"])
        restored._columns = tensors["columns"]
        return restored


class Gaussian(FittedCompressor):
    """A random Gaussian projection; the seed fixes it. May be wider than its input."""

    name = "gaussian"

    def __init__(self, out_dim: int | None = None, seed: int = 0) -> None:
        super().__init__(out_dim)
        self.seed = seed

    def _may_widen(self) -> bool:
        return True

    def _fit(self, embeddings: np.ndarray, out_dim: int) -> None:
        # One row of normals for each output: a narrower projection is a prefix of a wider one.
        rng = np.random.default_rng(self.seed)
        normals = rng.standard_normal((out_dim, embeddings.shape[1]), dtype=np.float32)
        self._matrix = normals.T / np.float32(np.sqrt(embeddings.shape[1]))  # (D, d)

    def _project(self, chunk: np.ndarray) -> np.ndarray:
        return chunk @ self._matrix  # (rows, d)

    def _config(self) -> dict[str, Any]:
        return {"seed": self.seed}

    def _tensors(self) -> dict[str, np.ndarray]:
        return {"matrix": self._matrix}

    @classmethod
    def _restore(cls, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        restored = cls(config["out_dim"], config["seed"])
        restored._matrix = tensors["matrix"]
        return restored
