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
from fusion.space.affine import AffineMap
from fusion.space.baselines import FirstK, Gaussian, RandomK
from fusion.space.compressor import FORMAT, Compressor, FittedCompressor
from fusion.space.head import FusionHead, HeadConfig
from fusion.space.pca import PCA
from fusion.space.training.recipe import TrainConfig

__all__ = [
    "PCA",
    "AffineMap",
    "Compressor",
    "FirstK",
    "Gaussian",
    "HeadCompressor",
    "RandomK",
    "load_compressor",
]


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
        from fusion.space.training.fit import fit_head  # lightning takes seconds to import

        self._hold(fit_head(embeddings, self.config, self.dims))

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
    kind.name: kind for kind in (FirstK, RandomK, Gaussian, PCA, AffineMap, HeadCompressor)
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
