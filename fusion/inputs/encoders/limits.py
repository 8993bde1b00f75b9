"""How many tokens of a text an encoder reads, and where they begin."""

import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SLICE = 100_000  # characters that are tokenised at once, so that a book costs no gigabytes
QUIET = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}


@dataclass(frozen=True)
class Tokenizing:
    """How one encoder tokenises, and how much of a text it reads."""

    name: str
    """Of the encoder, for a person."""
    tokenizer: Any
    """Of transformers, or of tokenizers."""
    room: int | None
    """Tokens of a document that it reads, prompt and marks left out; None where it reads all."""

    def starts(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """The characters at which the tokens of each text begin, ascending."""
        slices = [(row, *part) for row, text in enumerate(texts) for part in _sliced(text)]
        found: list[array] = [array("q") for _ in texts]
        for (row, before, _), begun in zip(
            slices, self._starts([part for _, _, part in slices]), strict=True
        ):
            found[row].extend(before + start for start in begun)
        return found

    def _starts(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        if hasattr(self.tokenizer, "encode_batch"):
            encoded = self.tokenizer.encode_batch(texts, add_special_tokens=False)
            return [[start for start, _ in one.offsets] for one in encoded]
        if not self.tokenizer.is_fast:
            return [self._by_words(text) for text in texts]
        given = self.tokenizer(
            texts, add_special_tokens=False, return_offsets_mapping=True, **QUIET
        )
        return [[start for start, _ in one] for one in given["offset_mapping"]]

    def _by_words(self, text: str) -> list[int]:
        """Of a tokenizer that does not say where its tokens come from: each in its word."""
        found = []
        for word in re.finditer(r"\S+", text):
            found += [word.start()] * len(self.tokenizer.tokenize(word.group()))
        return found


def tokenizing_of(name: str, model: Any, prompt: str) -> Tokenizing:  # noqa: ANN401 - sentence-transformers'
    """That of a sentence-transformers model that sets a prompt before documents."""
    limit, tokenizer = model.max_seq_length, model.tokenizer
    if limit is None or not math.isfinite(limit):
        return Tokenizing(name, tokenizer, None)
    marks = len(tokenizer("", **QUIET)["input_ids"])
    words = tokenizer(prompt, add_special_tokens=False, **QUIET)["input_ids"] if prompt else ()
    return Tokenizing(name, tokenizer, max(1, int(limit) - marks - len(words)))


def shortest(encoders: Sequence[Tokenizing]) -> Tokenizing:
    """That which reads least of a text."""
    return min(encoders, key=lambda tokens: math.inf if tokens.room is None else tokens.room)


def _sliced(text: str) -> list[tuple[int, str]]:
    """Where the slices of a text begin, and they; cut between words."""
    parts, start = [], 0
    while start < len(text):
        end = start + SLICE
        if end < len(text):
            end = max(text.rfind(" ", start + 1, end), text.rfind("\n", start + 1, end)) + 1 or end
        parts.append((start, text[start:end]))
        start = end
    return parts
