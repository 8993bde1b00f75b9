"""Compressors: fused embeddings ``[n, D]`` become nested ones, behind one ``fit / transform``.

Nested means that the first d columns of an output are its d-dimensional vector. Outputs are not
unit-norm; whoever compares them slices first and normalises then.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from fusion.errors import FusionError
from fusion.space.compressor import FORMAT, Compressor, FittedCompressor, chunks
from fusion.space.head import FusionHead, HeadConfig
from fusion.space.recipe import TrainConfig

NOTHING = 1e-6  # of the greatest eigenvalue: float32 products leave up to 1e-7 where nothing is

__all__ = [
    "PCA",
    "Compressor",
    "FirstK",
    "Gaussian",
    "HeadCompressor",
    "RandomK",
    "load_compressor",
]


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
    Components are the same on all machines but for rounding, and for those whose eigenvalues tie.
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
        # A negative power would blow up what is weak, above all the components that few texts leave
        # empty: those beyond half as many as there are texts are scaled like the last before them.
        last = values[min(len(values), max(1, len(embeddings) // 2)) - 1]
        relative = np.clip(values / values[0], max(NOTHING, last / values[0]), None)  # (D,)
        # An eigenvector's sign is arbitrary; fix it, so that two fits agree:
        # bit for bit on one machine, and on another but for rounding.
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
    _settle_null_space(values, vectors)
    values = np.clip(values[::-1], 0.0, None)  # (D,) rounding makes small ones negative
    if values[0] == 0:
        raise ValueError("embeddings to fit on are all equal or zero: there is nothing to keep")
    return values, vectors[:, ::-1], mean


def _settle_null_space(values: np.ndarray, vectors: np.ndarray) -> None:
    """Choose the eigenvectors of the eigenvalue zero, in place; values ascend.

    Any basis will do, and eigh's turns with the last bits of the embeddings. This one is drawn from
    a fixed seed and moves no further than the null space itself.
    """
    none = values <= NOTHING * values[-1]
    if none.any():
        basis = vectors[:, none]  # (D, m)
        drawn = np.random.default_rng(0).standard_normal(basis.shape)
        vectors[:, none] = np.linalg.qr(basis @ (basis.T @ drawn))[0]


class HeadCompressor(FittedCompressor):
    """A trained head, always in eval mode."""

    name = "head"

    def __init__(
        self,
        dims: Sequence[int],
        config: TrainConfig | None = None,
        head: FusionHead | None = None,
    ) -> None:
        """Wrap a head, or train one in ``fit``.

        Args:
            dims: increasing widths that it is trained for; the last is the width of the output.
            config: how ``fit`` trains, or how the head was trained.
            head: a trained head.
        """
        super().__init__(dims[-1])
        self.dims = tuple(dims)
        self.config = config or TrainConfig()
        if head is not None:
            self._hold(head)

    @property
    def head(self) -> FusionHead:
        """The head itself, in eval mode."""
        self._fitted()
        return self._head

    def _hold(self, head: FusionHead) -> None:
        self._head = head.eval()
        self._shape = (head.config.in_dim, head.config.out_dim)

    def _fit(self, embeddings: np.ndarray, out_dim: int) -> None:
        from fusion.space.training import fit_head  # lightning takes seconds to import

        self._hold(fit_head(embeddings, self.config, self.dims).head)

    def _project(self, chunk: np.ndarray) -> np.ndarray:
        device = self._head.linear.weight.device
        rows = torch.from_numpy(
            np.require(chunk, requirements="W")
        )  # torch warns of read-only maps
        with torch.inference_mode():
            return self._head(rows.to(device)).cpu().numpy()  # (rows, d)

    def _config(self) -> dict[str, Any]:
        return {
            "dims": list(self.dims),
            "train": self.config.to_dict(),
            "head": asdict(self._head.config),
        }

    def _tensors(self) -> dict[str, np.ndarray]:
        return {key: value.cpu().numpy() for key, value in self._head.state_dict().items()}

    @classmethod
    def _restore(cls, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        head = FusionHead(HeadConfig(**config["head"]))
        head.load_state_dict({key: torch.from_numpy(value) for key, value in tensors.items()})
        return cls(config["dims"], TrainConfig(**config["train"]), head)


_KINDS: dict[str, type[FittedCompressor]] = {
    kind.name: kind for kind in (FirstK, RandomK, Gaussian, PCA, HeadCompressor)
}


def load_compressor(path: Path | str) -> FittedCompressor:
    """Read what any compressor's ``save`` wrote.

    Raises:
        FusionError: the file is missing, is not safetensors, or holds no compressor.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get(FORMAT)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no iter
    except (OSError, SafetensorError) as error:
        raise FusionError(f"cannot read a compressor from {path}: {error}") from error
    if header is None:
        raise FusionError(f"{path} holds tensors but no compressor (no {FORMAT} in its header)")
    try:
        config = json.loads(header)
        if config["name"] not in _KINDS:
            raise FusionError(f"{path} holds the unknown compressor {config['name']!r}")
        compressor = _KINDS[config["name"]]._restore(config, tensors)
        compressor._shape = (config["in_dim"], config["out_dim"])
        _try_out(compressor)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        raise FusionError(f"{path} holds no compressor that this version knows: {error}") from error
    return compressor


def _try_out(compressor: FittedCompressor) -> None:
    """Raise ValueError unless one vector goes through, at the widths that were written down."""
    if any(type(dim) is not int or dim < 1 for dim in (compressor.in_dim, compressor.out_dim)):
        raise ValueError(f"its widths are {compressor.in_dim} and {compressor.out_dim}")
    found = compressor.transform(np.zeros((1, compressor.in_dim), dtype=np.float32))
    if found.shape != (1, compressor.out_dim):
        raise ValueError(f"it gives {found.shape[1]} columns, not {compressor.out_dim}")
