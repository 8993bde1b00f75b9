"""What a compressor is: its protocol, and what the implementations share."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np

from fusion.errors import FusionError
from fusion.output import write_tensors

FORMAT = "fusion.compressor"
"""The key of a file's metadata under which the configuration stands as JSON."""
_ROWS = 16_384  # rows handled at a time, so that a memory-mapped input never has to fit in memory


@runtime_checkable
class Compressor(Protocol):
    """What every compressor offers."""

    name: ClassVar[str]

    @property
    def in_dim(self) -> int:
        """Width of the input, known after ``fit``."""

    @property
    def out_dim(self) -> int:
        """Width of the output, known after ``fit``."""

    def fit(self, embeddings: np.ndarray) -> Self:
        """Learn from ``[n, in_dim]`` training embeddings; never from those that are measured."""

    def transform(self, embeddings: np.ndarray) -> np.ndarray:
        """Float32 ``[n, out_dim]``, nested, not unit-norm."""

    def save(self, path: Path | str) -> None:
        """Write one safetensors file, whole or not at all; ``load_compressor`` reads it."""


class FittedCompressor(ABC):
    """What the compressors share: checks, work in chunks of rows, and one file format."""

    name: ClassVar[str]

    def __init__(self, out_dim: int | None = None) -> None:
        if out_dim is not None and out_dim < 1:
            raise ValueError(f"out_dim must be positive, got {out_dim}")
        self._wanted = out_dim
        self._shape: tuple[int, int] | None = None  # (in_dim, out_dim) once fitted

    @property
    def in_dim(self) -> int:
        """Width of the input."""
        return self._fitted()[0]

    @property
    def out_dim(self) -> int:
        """Width of the output."""
        return self._fitted()[1]

    def fit(self, embeddings: np.ndarray) -> Self:
        """Learn from ``[n, in_dim]`` training embeddings."""
        if embeddings.ndim != 2 or len(embeddings) == 0:
            raise ValueError(
                f"embeddings to fit on must be [n, D] with n > 0, got {list(embeddings.shape)}"
            )
        in_dim = embeddings.shape[1]
        out_dim = self._wanted or in_dim
        if out_dim > in_dim and not self._may_widen():
            raise ValueError(f"out_dim {out_dim} is more than the input's {in_dim} dims")
        self._fit(embeddings, out_dim)
        self._shape = (in_dim, out_dim)
        return self

    def transform(self, embeddings: np.ndarray) -> np.ndarray:
        """Float32 ``[n, out_dim]``, nested, not unit-norm."""
        in_dim, out_dim = self._fitted()
        if embeddings.ndim != 2 or embeddings.shape[1] != in_dim:
            raise ValueError(
                f"{self.name} was fitted on [n, {in_dim}] embeddings, got {list(embeddings.shape)}"
            )
        out = np.empty((len(embeddings), out_dim), dtype=np.float32)
        for rows, chunk in chunks(embeddings):
            out[rows] = self._project(chunk)  # (rows, out_dim)
        return out

    def save(self, path: Path | str) -> None:
        """Write one safetensors file: the tensors, and the configuration as JSON in its header."""
        in_dim, out_dim = self._fitted()
        config = {"name": self.name, "in_dim": in_dim, "out_dim": out_dim, **self._config()}
        tensors = {k: np.asarray(v, order="C") for k, v in self._tensors().items()}
        write_tensors(Path(path), tensors, {FORMAT: json.dumps(config)})

    def _fitted(self) -> tuple[int, int]:
        if self._shape is None:
            raise FusionError(f"{self.name} is not fitted yet: call fit(embeddings) first")
        return self._shape

    def _may_widen(self) -> bool:
        return False

    @abstractmethod
    def _fit(self, embeddings: np.ndarray, out_dim: int) -> None:
        """Learn; ``embeddings`` and ``out_dim`` are checked."""

    @abstractmethod
    def _project(self, chunk: np.ndarray) -> np.ndarray:
        """Float32 ``[rows, in_dim]`` to ``[rows, out_dim]``."""

    @abstractmethod
    def _config(self) -> dict[str, Any]:
        """JSON values that, with the tensors, give the compressor back."""

    @abstractmethod
    def _tensors(self) -> dict[str, np.ndarray]:
        """What was learned."""

    @classmethod
    @abstractmethod
    def _restore(cls, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        """The inverse of ``_config`` and ``_tensors``."""


def chunks(array: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Slices of rows and their float32 contents."""
    for start in range(0, len(array), _ROWS):
        rows = slice(start, min(start + _ROWS, len(array)))
        yield rows, np.asarray(array[rows], dtype=np.float32)  # (rows, d)
