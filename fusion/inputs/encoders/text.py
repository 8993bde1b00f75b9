"""Frozen text encoders under one roof: a name becomes a model that embeds texts.

``names.py`` says what a name means. ``file:PATH`` stands for embeddings that somebody else computed
(see ``precomputed.py``).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from safetensors import SafetensorError

from fusion.errors import FusionError, one_line
from fusion.inputs.data.hub import hub_reachable
from fusion.inputs.encoders.catalogue import CATALOGUE, EncoderCard, Modality, Role
from fusion.inputs.encoders.fingerprints import fingerprint_of
from fusion.inputs.encoders.limits import Tokenizing, tokenizing_of
from fusion.inputs.encoders.multilingual import MULTILINGUAL, load_multilingual
from fusion.inputs.encoders.names import check_encoder, folder_of, not_to_be_had
from fusion.inputs.encoders.packaged import WORDLLAMA, checked_weights, load_wordllama
from fusion.inputs.encoders.pictures import load_pictures
from fusion.inputs.encoders.precomputed import SCHEME, PrecomputedEncoder
from fusion.inputs.encoders.tokens import Tokens, encode_tokens
from fusion.inputs.items import check_texts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16")
UNLOADABLE = (
    OSError, ValueError, RuntimeError, SafetensorError, TypeError, AttributeError, AssertionError,
)  # fmt: skip
"""What libraries let out when a model's files are missing, damaged or of another kind."""
# Padding is wasted work and large batches leave the CPU's caches: 8 passages, or more texts where
# they are short, were the fastest on CPUs; a GPU wants to be full.
TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 65536}
TEXTS_PER_BATCH = 8
STATIC_BATCH = 512
IDS_ONLY = {"return_attention_mask": False, "return_token_type_ids": False}


class TextEncoder(Protocol):
    """What the store and the blocks need of an encoder."""

    @property
    def name(self) -> str:
        """As the person typed it."""
        ...

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        ...

    @property
    def fingerprint(self) -> dict[str, str]:
        """What an embedding depends on besides role and text."""
        ...

    def encode(
        self,
        texts: Sequence[Any],
        role: Role,
        ids: Sequence[str] | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> np.ndarray:
        """Embed texts, or pictures.

        Args:
            texts: n texts; pictures are ``{"image": path}``.
            role: Which prompt to use.
            ids: The texts' ids; only encoders that look embeddings up need them.
            advance: Told how many texts were just finished, for a progress bar.

        Returns:
            float32 [n, dim], not normalised.
        """
        ...


@dataclass(frozen=True)
class FrozenEncoder:
    """A sentence-transformers model in eval mode, without its trailing ``Normalize``.

    Attributes:
        name: As the person typed it.
        model: The model; its last module gives raw, not unit-norm, embeddings.
        card: Its row of the catalogue; made from the model's own configuration for other models.
        fingerprint: What an embedding depends on besides role and text.
    """

    name: str
    model: "SentenceTransformer"
    card: EncoderCard
    fingerprint: dict[str, str]

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        return self.card.dim

    def encode(
        self,
        texts: Sequence[str],
        role: Role,
        ids: Sequence[str] | None = None,
        advance: Callable[[int], object] | None = None,
        tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        """Embed texts, batched by length; see ``TextEncoder.encode``.

        ``tokens``, int [n], takes the length of each text before it was cut, prompt included.
        """
        check_texts(self.name, texts)
        out = np.empty((len(texts), self.dim), dtype=np.float32)
        lengths = self._lengths(texts)
        if tokens is not None and lengths is not None:
            tokens[:] = lengths + self._prompt_length(role)
        for rows in self._batches(len(texts), lengths):
            embeddings = self.model.encode(
                [texts[row] for row in rows],
                prompt=self.card.prompt(role),
                batch_size=len(rows),
                convert_to_tensor=True,
                show_progress_bar=False,
            )
            out[rows] = embeddings.float().cpu().numpy()
            if advance is not None:
                advance(len(rows))
        return out

    def encode_tokens(
        self,
        texts: Sequence[str],
        role: Role,
        advance: Callable[[int], object] | None = None,
    ) -> Tokens:
        """Embed every token of n texts, at least one, batched by length.

        Raises:
            FusionError: The encoder has no tokens that read one another, or a token's vector is
                zero or not finite; the message names the text and the token.
        """
        lengths = self._lengths(texts)
        if lengths is None:
            raise FusionError(
                f"encoder {self.name!r} has no vectors of tokens in their context: name a "
                "transformer, for example minilm"
            )
        batches = list(self._batches(len(texts), lengths))
        whole = lengths + self._prompt_length(role)
        prompt = self.card.prompt(role)
        return encode_tokens(self.model, self.name, texts, prompt, batches, whole, advance)

    @property
    def limit(self) -> int | None:
        """Tokens that it reads of a text, prompt included; None where it reads them all."""
        limit = self.model.max_seq_length
        return int(limit) if limit is not None and np.isfinite(limit) else None

    @property
    def tokens(self) -> Tokenizing:
        """What it reads of a document."""
        return tokenizing_of(self.name, self.model, self.card.document_prompt)

    def _lengths(self, texts: Sequence[str]) -> np.ndarray | None:
        """Int [n], tokens of whole texts; None for static embeddings, which pad and cut nothing."""
        if self.limit is None:
            return None
        found = self.model.tokenizer(list(texts), verbose=False, **IDS_ONLY)["input_ids"]
        return np.array([len(ids) for ids in found], dtype=np.int64)

    def _prompt_length(self, role: Role) -> int:
        prompt = self.card.prompt(role)
        found = self.model.tokenizer(prompt, add_special_tokens=False, **IDS_ONLY)["input_ids"]
        return len(found) if prompt else 0

    def _batches(self, count: int, lengths: np.ndarray | None) -> Iterator[list[int]]:
        limit = self.limit
        if limit is None or lengths is None:
            for start in range(0, count, STATIC_BATCH):
                yield list(range(start, min(start + STATIC_BATCH, count)))
            return
        budget = TOKENS_PER_BATCH["cuda" if self.model.device.type == "cuda" else "cpu"]
        read = np.minimum(lengths, limit)
        yield from batches_by_tokens(read, budget, TEXTS_PER_BATCH)


def batches_by_tokens(lengths: np.ndarray, budget: int, least: int = 1) -> Iterator[list[int]]:
    """Group rows of similar length so that a padded batch holds at most ``budget`` tokens.

    Args:
        lengths: int [n], tokens of each text.
        budget: Tokens of a padded batch.
        least: So many texts are in a batch whatever their lengths.

    Yields:
        Row indices of one batch, longest texts first (so that memory peaks at the start).
    """
    batch: list[int] = []
    for row in np.argsort(-lengths, kind="stable").tolist():
        if len(batch) >= least and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def load_encoder(name: str, dtype: str = "float32", device: str = "auto") -> TextEncoder:
    """Load a frozen encoder once, by its name.

    Args:
        name: A name of the catalogue, a folder, a hub id, or ``file:PATH``.
        dtype: ``float32`` or ``bfloat16``; what the encoder computes in.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        FusionError: The encoder cannot be had here; the message says what was tried.
        ValueError: An unknown dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f"encoder dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
    if name.startswith(SCHEME):
        return PrecomputedEncoder.open(name)
    check_encoder(name)
    card, folder = CATALOGUE.get(name), folder_of(name)
    if device == "cuda" and not _sees_cuda():
        raise FusionError("device cuda was asked for, but torch sees none; use cpu or auto")
    if card is not None and card.modality is Modality.IMAGE:
        return load_pictures(card, dtype, _device(device))
    if card is not None and card.name == MULTILINGUAL:
        return load_multilingual(card, dtype, "cpu" if device == "auto" else device)
    try:
        model = _load_model(str(folder or name), card, dtype, None if device == "auto" else device)
    except UNLOADABLE as error:
        logger.debug("loading %s failed", name, exc_info=True)
        if folder is not None or (card is not None and card.package):
            raise FusionError(
                f"encoder {name!r} cannot be loaded: {one_line(error)[:200]}"
            ) from error
        raise FusionError(not_to_be_had(name, card)) from error
    model = strip_normalize(model).eval().requires_grad_(False)
    card = card or _card_of(name, model)
    return FrozenEncoder(
        name,
        model,
        card,
        fingerprint_of(folder, card, model.max_seq_length, dtype, model.device.type),
    )


def _device(device: str) -> str:
    if device == "auto":
        return "cuda" if _sees_cuda() else "cpu"
    return device


def _sees_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _load_model(
    name: str, card: EncoderCard | None, dtype: str, device: str | None
) -> "SentenceTransformer":
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # "Loading weights" bars say nothing to a person
    if card is not None and card.package == WORDLLAMA:
        return load_wordllama(card, getattr(torch, dtype), device)
    packaged = checked_weights(card).parent if card is not None and card.package else None
    source = str(packaged or (card.source if card is not None else name))
    return SentenceTransformer(
        source,
        revision=card.revision if card is not None and packaged is None else None,
        device=device,
        local_files_only=not (packaged or Path(name).is_dir() or hub_reachable()),
        # "auto" would keep a float16 checkpoint in float16, see transformers 5.
        model_kwargs={"dtype": getattr(torch, dtype)},
    )


def strip_normalize(model: "SentenceTransformer") -> "SentenceTransformer":
    """Remove trailing ``Normalize`` modules, in place.

    With one left in, ``--normalize none`` would silently mean per-model normalisation.
    """
    from sentence_transformers.sentence_transformer.modules import Normalize

    while len(model) > 1 and isinstance(model[-1], Normalize):
        model.pop(-1)
    return model


def _card_of(name: str, model: "SentenceTransformer") -> EncoderCard:
    prompts = model.prompts or {}
    pooling = next((m for m in model if type(m).__name__ == "Pooling"), None)
    mode = str(getattr(pooling, "pooling_mode", "mean"))
    dim = model.get_embedding_dimension()
    if dim is None:
        raise FusionError(f"encoder {name!r} does not say how wide its embeddings are")
    return EncoderCard(
        name=name,
        source=name,
        revision="",
        dim=dim,
        pooling=mode,  # type: ignore[arg-type]  # other people's models may pool in other ways
        licence="unknown",
        reference="the model's own configuration",
        query_prompt=prompts.get("query") or "",
        document_prompt=prompts.get("document") or prompts.get("passage") or "",
    )
