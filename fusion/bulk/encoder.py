"""A model as bulk encoding needs it: texts in, codes out, and what they depend on."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fusion.bulk.writing.coders import coder_of, described
from fusion.bulk.writing.manifest import MODEL_PATH
from fusion.bulk.writing.precisions import KINDS, PRECISIONS, kind_of
from fusion.inputs.encoders.cuts import Cuts
from fusion.inputs.encoders.limits import Tokenizing, shortest, tokenizing_of
from fusion.model.modules.settings import PROMPTS
from fusion.model.place import fingerprint, place_of

DTYPES = ("float32", "bfloat16", "float16")
CutCounts = dict[str, tuple[int, dict[int, int]]]
"""By the encoders' names: texts, and how many of those that were cut have so many tokens."""


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
    codes: str = ""
    """``plain`` or ``fitted``; by default plain where the precision has plain codes."""
    dtype: str = "float32"
    """Of the encoders' weights."""
    batch_size: int = 32
    """Texts that an encoder takes at once; padding makes it part of the result's last bits."""
    threads: int | None = None
    """Of each process on a CPU; by default all cores, and one for each actor of Ray."""

    def __post_init__(self) -> None:
        choices = {"role": ("document", "query"), "precision": PRECISIONS, "dtype": DTYPES}
        choices["codes"] = ("", *KINDS)
        for name, known in choices.items():
            if getattr(self, name) not in known:
                value = getattr(self, name)
                words = ", ".join(filter(None, known))
                raise ValueError(f"{name} {value!r} is unknown; choose among {words}")
        kind_of(self.precision, self.codes)
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
    cuts: dict[str, Cuts]
    """By the encoders' names, how many of the texts so far were too long for them."""

    @property
    def tokens(self) -> Tokenizing:
        """Those of the encoder that reads least of a text."""
        ...

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
        first: Any = self.model[0]
        self.settings = {
            "model": fingerprint(first.settings),
            "role": config.role,
            "width": width,
            "precision": config.precision,
            "codes": kind_of(config.precision, config.codes),
            "encoder_dtype": config.dtype,
            "batch_size": config.batch_size,
        }
        self.cuts = self._listen()
        self.coder = coder_of(self.model, config.model, config.precision, config.codes, width)
        self.about = described(self.coder, width) | {MODEL_PATH: place_of(config.model)}

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
        return self.coder.encode(np.where(good[:, None], vectors, 0)), good

    @property
    def tokens(self) -> Tokenizing:
        """Those of the encoder that reads least of a text."""
        first = self.model[0]
        prompts = first.prompts_for(PROMPTS[self.config.role])
        return shortest(
            [
                tokenizing_of(Path(entry.name).name, encoder, prompt)
                for entry, encoder, prompt in zip(
                    first.settings.encoders, first.encoders, prompts, strict=True
                )
            ]
        )

    def _listen(self) -> dict[str, Cuts]:
        """Count, while texts are tokenised for their embeddings, those that are cut."""
        first = self.model[0]
        cuts = {}
        for entry, encoder in zip(first.settings.encoders, first.encoders, strict=True):
            if encoder.max_seq_length is not None and math.isfinite(encoder.max_seq_length):
                cuts[entry.name] = Cuts(Path(entry.name).name, int(encoder.max_seq_length))

        def hear(row: int, lengths: list[int]) -> None:
            name = first.settings.encoders[row].name
            if name in cuts:
                cuts[name].add(lengths)

        first.hear = hear
        return cuts


def take_cuts(encoder: BulkEncoder) -> CutCounts:
    """What a process has counted since it was last asked, as plain values."""
    return {name: cuts.take() for name, cuts in encoder.cuts.items()}


def add_cuts(encoder: BulkEncoder, counts: CutCounts) -> None:
    """Count what another process has counted."""
    for name, (texts, lengths) in counts.items():
        encoder.cuts[name].add_all(texts, lengths)
