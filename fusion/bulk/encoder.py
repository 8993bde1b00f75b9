"""A model as bulk encoding needs it: texts in, codes out, and what they depend on."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from fusion.bulk.shards import PRECISIONS

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class EncodeConfig:
    """How texts become embeddings."""

    model: str
    """An exported model: a folder or a hub id."""
    role: str = "document"
    """``document`` or ``query``."""
    truncate_dim: int | None = None
    """Width; all columns when None."""
    precision: str = "float32"
    """One of ``PRECISIONS``."""
    dtype: str = "float32"
    """Of the encoders' weights."""
    batch_size: int = 32
    """Texts that an encoder takes at once; padding makes it part of the result's last bits."""
    threads: int | None = None
    """Of each process on a CPU; by default all cores, and one for each actor of Ray."""

    def __post_init__(self) -> None:
        choices = {"role": ("document", "query"), "precision": tuple(PRECISIONS), "dtype": DTYPES}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                value = getattr(self, name)
                raise ValueError(f"{name} {value!r} is unknown; choose among {', '.join(known)}")
        if self.truncate_dim is not None and self.truncate_dim < 1:
            raise ValueError(f"truncate-dim must be at least 1, got {self.truncate_dim}")
        if self.batch_size < 1:
            raise ValueError(f"batch-size must be at least 1, got {self.batch_size}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")


class BulkEncoder(Protocol):
    """What a job needs of a model."""

    settings: dict[str, Any]
    """All that the codes depend on, besides the texts."""
    about: dict[str, Any]
    """What a reader of the codes needs."""

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Codes [n, width], and bool [n]: whether a row has a direction."""
        ...


class ModelEncoder:
    """An exported model on one device."""

    def __init__(self, config: EncodeConfig, device: str | None = None) -> None:
        """Load the model.

        Raises:
            FusionError: It cannot be had, or has not the width.
        """
        import torch

        from fusion.model.folder import load

        if config.threads:
            torch.set_num_threads(config.threads)
        self.config = config
        self.model: Any = load(
            config.model,
            truncate_dim=config.truncate_dim,
            device=device,
            model_kwargs={"dtype": config.dtype},
        )
        width: int = config.truncate_dim or int(self.model.get_embedding_dimension() or 0)
        self.settings = {
            "model": model_hash(self.model),
            "role": config.role,
            "width": width,
            "precision": config.precision,
            "encoder_dtype": config.dtype,
            "batch_size": config.batch_size,
        }
        empty = self._codes(np.zeros((1, width), np.float32))  # also checks the precision
        self.about = {
            "list_of": PRECISIONS[config.precision],
            "list_size": empty.shape[1],
            "bytes_per_vector": empty.nbytes,
            "ranges": self._ranges(width),
        }

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Codes [n, width], and bool [n]: whether a row has a direction."""
        vectors = self.model.encode(
            texts,
            prompt_name=self.config.role,
            batch_size=self.config.batch_size,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        vectors = np.asarray(vectors, dtype=np.float32)  # (n, d)
        norms = np.linalg.norm(vectors, axis=1)  # (n,)
        good = np.isfinite(norms) & (norms > 0)
        return self._codes(np.where(good[:, None], vectors, 0)), good

    def _codes(self, vectors: np.ndarray) -> np.ndarray:
        if self.config.precision in ("float32", "float16"):
            return vectors.astype(self.config.precision)
        codes = np.asarray(self.model.quantize(vectors.astype(np.float32), self.config.precision))
        return codes.astype(PRECISIONS[self.config.precision], copy=False)

    def _ranges(self, width: int) -> list[list[float]] | None:
        """Lowest and highest value of each column, where codes are levels between them."""
        if self.config.precision not in ("int8", "uint8", "int4"):
            return None
        return self.model.quantization_ranges(self.config.precision, width).tolist()


def model_hash(model: Any) -> str:  # noqa: ANN401 - a SentenceTransformer
    """SHA-256 of a model's settings, in which those of all its weights and vocabularies stand."""
    plain = json.dumps(asdict(model[0].settings), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()
