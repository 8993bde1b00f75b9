"""The query vectors of an exported model, without torch where its encoders are plain ones."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError

from fusion.errors import FusionError
from fusion.model.light.bert import Bert
from fusion.model.light.head import FOLDERS, Head
from fusion.model.light.layers import module_names
from fusion.model.light.static import Static
from fusion.model.modules.files import check_files
from fusion.model.modules.settings import CONFIG, EncoderEntry, FusionSettings
from fusion.model.place import find_model

KINDS = (Bert, Static)


class QueryEncoder(Protocol):
    """Turns queries into vectors."""

    def __call__(self, queries: Sequence[str]) -> np.ndarray:
        """Unit vectors float32 [q, d]."""
        ...


def query_encoder(model: str | Path, dim: int) -> QueryEncoder:
    """What encodes queries as ``fusion.load(model, truncate_dim=dim).encode_query`` does.

    Models of BERTs and static embeddings are run by numpy, the others by
    sentence-transformers, which takes seconds to import.

    Raises:
        FusionError: The model cannot be had, or is damaged.
    """
    folder = find_model(model)
    if folder is not None and can_be_light(folder):
        return LightModel(folder, dim)
    return _by_torch(str(model), dim)


def can_be_light(folder: Path) -> bool:
    """Whether numpy can run all modules of a model; what is damaged is left to the other way."""
    try:
        settings = FusionSettings.read(folder / CONFIG)
        first, head, last = module_names(folder)
        return (
            (first, last) == ("FusedEncoder", "Normalize")
            and Head.reads(folder / FOLDERS[head])
            and all(_kind(folder / entry.path) for entry in settings.encoders)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


class LightModel:
    """An exported model as a function of queries."""

    def __init__(self, folder: Path, dim: int) -> None:
        """Check and open a model's files.

        Raises:
            FusionError: A file is missing or damaged.
        """
        try:
            self.settings = FusionSettings.read(folder / CONFIG)
            check_files(self.settings, lambda name: folder / name)
            places = [folder / entry.path for entry in self.settings.encoders]
            self.encoders: list[Any] = [_kind(place)(place) for place in places]  # type: ignore[misc]
            self.head, self.dim = Head(folder / FOLDERS[module_names(folder)[1]]), dim
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise FusionError(f"{folder} cannot be loaded: {error}") from error

    def __call__(self, queries: Sequence[str]) -> np.ndarray:
        """Unit vectors float32 [q, d]."""
        fused = np.stack([self._fused(query) for query in queries])  # (q, D)
        return _unit(self.head(fused)[:, : self.dim])

    def _fused(self, query: str) -> np.ndarray:
        blocks = [
            self._block(entry, encoder.encode(entry.query_prompt + query))
            for entry, encoder in zip(self.settings.encoders, self.encoders, strict=True)
        ]
        fused = np.concatenate(blocks)  # (D,)
        return _unit(fused) if self.settings.normalize == "global" else fused

    def _block(self, entry: EncoderEntry, embedding: np.ndarray) -> np.ndarray:
        block = embedding[: entry.dim].astype(np.float32)
        block = _unit(block) if self.settings.normalize == "per-model" else block
        return block * np.float32(math.sqrt(entry.weight))


def _by_torch(model: str, dim: int) -> QueryEncoder:
    from fusion.model.folder import load

    loaded = load(model, truncate_dim=dim)
    return lambda queries: np.asarray(loaded.encode_query(list(queries), show_progress_bar=False))


def _kind(folder: Path) -> type[Bert] | type[Static] | None:
    return next((kind for kind in KINDS if kind.reads(folder)), None)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows over their norms, as ``unit_rows`` of the model's modules has it."""
    norms = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=-1, keepdims=True))
    return rows / np.where(norms > 0, norms, 1).astype(np.float32)
