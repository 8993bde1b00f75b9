"""Compressors: fused embeddings ``[n, D]`` become nested ones, behind one ``fit / transform``.

Nested means that the first d columns of an output are its d-dimensional vector. Outputs are not
unit-norm; whoever compares them slices first and normalises then.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fusion.errors import FusionError

_ROWS = 16_384  # rows handled at a time, so that a memory-mapped input never has to fit in memory
_FORMAT = "fusion.compressor"  # the metadata key under which the configuration stands


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
    _loaders: ClassVar[dict[str, type["FittedCompressor"]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - passed on as they are
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            FittedCompressor._loaders[cls.name] = cls

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
        path = Path(path)
        partial = path.with_name(f"{path.name}.partial")
        tensors = {k: np.ascontiguousarray(v) for k, v in self._tensors().items()}
        try:
            save_file(tensors, partial, metadata={_FORMAT: json.dumps(config)})
            partial.replace(path)  # a killed run leaves the old file or the new one, never half
        finally:
            partial.unlink(missing_ok=True)

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


def load_compressor(path: Path | str) -> FittedCompressor:
    """Read what any compressor's ``save`` wrote.

    Raises:
        FusionError: the file is missing, is not safetensors, or holds no compressor.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get(_FORMAT)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no iter
    except (OSError, SafetensorError) as error:
        raise FusionError(f"cannot read a compressor from {path}: {error}") from error
    if header is None:
        raise FusionError(f"{path} holds tensors but no compressor (no {_FORMAT} in its header)")
    config = json.loads(header)
    known = FittedCompressor._loaders
    if config["name"] not in known:
        raise FusionError(f"{path} holds the unknown compressor {config['name']!r}")
    compressor = known[config["name"]]._restore(config, tensors)
    compressor._shape = (config["in_dim"], config["out_dim"])
    return compressor


def chunks(array: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Slices of rows and their float32 contents."""
    for start in range(0, len(array), _ROWS):
        rows = slice(start, min(start + _ROWS, len(array)))
        yield rows, np.asarray(array[rows], dtype=np.float32)  # (rows, d)


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


class PCA(FittedCompressor):
    """Principal components, uncentred by default: the eigenvectors of XᵀX.

    Cosine is measured from the origin, so the uncentred form is the best linear keeper of the
    matrix of dot products (Eckart-Young), and subtracting a mean would change every cosine.
    """

    name = "pca"

    def __init__(
        self, out_dim: int | None = None, *, centred: bool = False, power: float = 0.0
    ) -> None:
        """Choose the variant.

        Args:
            out_dim: components to keep; all of them by default.
            centred: subtract the training mean first.
            power: scale each component by its eigenvalue (relative to the largest) to this power:
                0 leaves it as it is, -0.1 lifts the weak ones a little, -0.5 whitens.
        """
        super().__init__(out_dim)
        if not np.isfinite(power):
            raise ValueError(f"power must be finite, got {power}")
        self.centred = centred
        self.power = power

    @property
    def matrix(self) -> np.ndarray:
        """Float32 ``[D, d]``, the components as columns, scaled."""
        self._fitted()
        return self._matrix

    @property
    def mean(self) -> np.ndarray:
        """Float32 ``[D]``, what is subtracted; zero when uncentred."""
        self._fitted()
        return self._mean

    @property
    def explained(self) -> np.ndarray:
        """Float32 ``[d]``, each component's share of the second moment (variance if centred)."""
        self._fitted()
        return self._explained

    def _fit(self, embeddings: np.ndarray, out_dim: int) -> None:
        values, vectors, mean = _principal(embeddings, self.centred)
        # Weak components of a short training set would be blown up by a negative power.
        relative = np.clip(values / values[0], 1e-6, None)  # (D,)
        # An eigenvector's sign is arbitrary; fix it, so that two fits agree bit for bit.
        largest = np.abs(vectors).argmax(axis=0)  # (D,)
        signs = np.sign(vectors[largest, np.arange(len(values))])  # (D,)
        scaled = vectors * (signs * relative**self.power)  # (D, D)
        self._matrix = np.ascontiguousarray(scaled[:, :out_dim], dtype=np.float32)  # (D, d)
        self._mean = mean.astype(np.float32)  # (D,)
        self._explained = (values / values.sum())[:out_dim].astype(np.float32)  # (d,)

    def _project(self, chunk: np.ndarray) -> np.ndarray:
        return (chunk - self._mean if self.centred else chunk) @ self._matrix  # (rows, d)

    def _config(self) -> dict[str, Any]:
        return {"centred": self.centred, "power": self.power}

    def _tensors(self) -> dict[str, np.ndarray]:
        return {"matrix": self._matrix, "mean": self._mean, "explained": self._explained}

    @classmethod
    def _restore(cls, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        restored = cls(config["out_dim"], centred=config["centred"], power=config["power"])
        restored._matrix, restored._mean = tensors["matrix"], tensors["mean"]
        restored._explained = tensors["explained"]
        return restored


def _principal(embeddings: np.ndarray, centred: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues descending ``[D]``, eigenvectors as columns ``[D, D]``, mean ``[D]``; float64."""
    dim = embeddings.shape[1]
    moment, total = np.zeros((dim, dim)), np.zeros(dim)
    for _, chunk in chunks(embeddings):
        moment += chunk.T @ chunk  # (D, D)
        total += chunk.sum(axis=0, dtype=np.float64)  # (D,)
    moment /= len(embeddings)
    mean = total / len(embeddings) if centred else np.zeros(dim)
    if not np.isfinite(moment).all():
        raise ValueError("embeddings to fit on hold NaN or infinite values")
    values, vectors = np.linalg.eigh(moment - np.outer(mean, mean))
    values = np.clip(values[::-1], 0.0, None)  # (D,) rounding makes small ones negative
    if values[0] == 0:
        raise ValueError("embeddings to fit on are all equal or zero: there is nothing to keep")
    return values, vectors[:, ::-1], mean
