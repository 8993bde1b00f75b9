"""Token vectors of a frozen encoder: one for each token of a text, and what kind of token it is."""

import string
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from fusion.errors import FusionError
from fusion.ragged import Ragged

HALF = np.float16
"""What token vectors are kept in: their cosines move by less than 0.001."""


class TokenKind(StrEnum):
    """What a token is; those of some kinds may be left out."""

    WORDS = "words"  # whatever is none of the others, also the unknown
    PUNCTUATION = "punctuation"
    SPECIAL = "special"  # [CLS], [SEP] and the like
    PROMPT = "prompt"  # what stands before the text, its special tokens aside


KINDS = tuple(TokenKind)
"""A token's kind is kept as its place in here."""
KEPT = (TokenKind.WORDS, TokenKind.PUNCTUATION, TokenKind.SPECIAL)


def checked_kinds(kinds: Sequence[str]) -> tuple[TokenKind, ...]:
    """Kinds of tokens by their names.

    Raises:
        ValueError: One is unknown or named twice.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"tokens {kind!r} are unknown; choose among {','.join(KINDS)}")
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"tokens names a kind twice: {','.join(kinds)}")
    return tuple(TokenKind(kind) for kind in kinds)


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of texts."""

    vectors: Ragged
    """Rows float16 [t, D], not normalised."""
    kinds: np.ndarray
    """uint8 [t], places in ``KINDS``."""
    lengths: np.ndarray
    """int64 [n], tokens of each text before it was cut, prompt included."""


def kept(kinds: np.ndarray, offsets: np.ndarray, wanted: Sequence[TokenKind]) -> np.ndarray:
    """Which tokens are kept, bool [t]: all of a text that would be left with none.

    Args:
        kinds: uint8 [t], places in ``KINDS``.
        offsets: int64 [n + 1], where the texts begin.
        wanted: The kinds to keep.

    Example:
        >>> kept(np.array([2, 0, 1, 2, 1, 2]), np.array([0, 4, 6]), [TokenKind.WORDS]).tolist()
        [False, True, False, False, True, True]
    """
    found = np.isin(kinds, [KINDS.index(TokenKind(kind)) for kind in wanted])  # (t,)
    before = np.concatenate([[0], np.cumsum(found)])  # (t + 1,)
    none = before[offsets[1:]] == before[offsets[:-1]]  # (n,)
    return found | np.repeat(none, np.diff(offsets))


def encode_tokens(
    model: Any,  # noqa: ANN401 - of sentence-transformers, which stays in its room
    name: str,
    texts: Sequence[str],
    prompt: str,
    batches: Sequence[list[int]],
    lengths: np.ndarray,
    advance: Callable[[int], object] | None = None,
) -> Tokens:
    """Run the model over texts and keep what it says of every token.

    Args:
        model: A transformer of sentence-transformers.
        name: Of the encoder.
        texts: n texts.
        prompt: Put before each of them.
        batches: Rows that go through the model together.
        lengths: int64 [n], tokens of each text before it is cut, prompt included.
        advance: Told how many texts were just finished, for a progress bar.

    Raises:
        FusionError: The model gives no token vectors, or one that is zero or not finite; the
            message names the text and the token.
    """
    found: list[tuple[np.ndarray, np.ndarray]] = [_NONE] * len(texts)
    marks: dict[int, bool] = {}
    for rows in batches:
        outputs: Any = model.encode(
            [texts[row] for row in rows],
            prompt=prompt or None,
            batch_size=len(rows),
            output_value=None,
            show_progress_bar=False,
        )
        for row, output in zip(rows, outputs, strict=True):
            found[row] = _of_one(model, name, texts[row], output, marks)
        if advance is not None:
            advance(len(rows))
    vectors = Ragged.of([vectors for vectors, _ in found])
    return Tokens(vectors, np.concatenate([kinds for _, kinds in found]), lengths)


_NONE = (np.empty((0, 0), HALF), np.empty(0, np.uint8))


def _of_one(
    model: Any,  # noqa: ANN401 - of sentence-transformers
    name: str,
    text: str,
    output: dict[str, Any],
    marks: dict[int, bool],
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors float16 [t, D] and kinds uint8 [t] of one text's output, padding left out."""
    if "token_embeddings" not in output or "input_ids" not in output:
        raise FusionError(f"encoder {name!r} gives no vectors of tokens: name a transformer")
    real = output["attention_mask"].bool()  # (padded,)
    vectors = output["token_embeddings"][real].float().cpu().numpy()  # (t, D)
    ids = output["input_ids"][real].cpu().numpy()  # (t,)
    half = vectors.astype(HALF)
    check_tokens(half, name, text)
    return half, kinds_of(model.tokenizer, ids, output.get("prompt_length") or 0, marks)


def check_tokens(vectors: np.ndarray, name: str, text: str) -> None:
    """Refuse token vectors ``[t, D]`` of a text that have no direction.

    Raises:
        FusionError: One is zero or not finite; the message names the text and the token.
    """
    norms = np.sqrt(np.einsum("td,td->t", vectors, vectors, dtype=np.float64))  # (t,)
    bad = ~np.isfinite(norms) | (norms == 0)
    if bad.any():
        first = int(bad.argmax())
        kind = "zero" if norms[first] == 0 else "not finite in float16"
        raise FusionError(
            f"encoder {name!r}: the vector of token {first} of {len(vectors)} is {kind} "
            f"(text {text[:40]!r}); remove or repair this text"
        )


def kinds_of(
    tokenizer: Any,  # noqa: ANN401 - of transformers
    ids: np.ndarray,
    prompt: int,
    marks: dict[int, bool],
) -> np.ndarray:
    """The kinds uint8 [t] of a text's tokens.

    Args:
        tokenizer: Of the encoder.
        ids: int64 [t].
        prompt: How many of them come before the text itself, special ones included.
        marks: Which ids are punctuation, as far as that is known; it learns the others.
    """
    for one in set(ids.tolist()) - marks.keys():
        marks[one] = is_punctuation(tokenizer.decode([one]))
    special = np.isin(ids, list(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}))  # (t,)
    marked = np.array([marks[one] for one in ids.tolist()], dtype=bool)  # (t,)
    kinds = np.where(marked, KINDS.index(TokenKind.PUNCTUATION), KINDS.index(TokenKind.WORDS))
    kinds[:prompt] = KINDS.index(TokenKind.PROMPT)
    kinds[special] = KINDS.index(TokenKind.SPECIAL)
    return kinds.astype(np.uint8)


def is_punctuation(piece: str) -> bool:
    """Whether a token's text has nothing but punctuation in it; a tokenizer's ``##`` is some."""
    piece = piece.strip()
    return bool(piece) and all(
        char in string.punctuation or unicodedata.category(char).startswith("P") for char in piece
    )
