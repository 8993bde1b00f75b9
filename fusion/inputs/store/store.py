"""Embeddings on disk, never computed twice.

A store is a folder; in it, one folder for each encoder, role and prompt (the key); in that, shards
(see ``shelf.py``), of one vector a text or of one a token.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fusion.errors import FusionError
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.precomputed import PrecomputedEncoder
from fusion.inputs.encoders.text import TextEncoder
from fusion.inputs.encoders.tokens import KEPT, TokenKind
from fusion.inputs.items import as_items
from fusion.inputs.store.shelf import Shelf
from fusion.inputs.store.stored import Stored
from fusion.inputs.store.tokens import StoredTokens, TokenShelf
from fusion.paths import default_root

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """A folder of embeddings.

    Attributes:
        root: The folder; ``default_root()`` unless told otherwise.
        told: What was said of texts that are cut, each once.
    """

    root: Path = field(default_factory=default_root)
    told: set[str] = field(default_factory=set, compare=False, repr=False)

    def embed(
        self,
        encoder: TextEncoder,
        texts: Sequence[Any],
        role: Role,
        ids: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Embed texts or pictures, reading what is stored and storing what is new.

        Args:
            encoder: A frozen encoder.
            texts: n texts, or pictures as ``{"image": path}``; equal ones are embedded once, and
                pictures are equal by their content.
            role: Queries or documents.
            ids: Needed only by encoders that look embeddings up.

        Returns:
            float32 [n, dim], not normalised.

        Raises:
            FusionError: An embedding is zero or not finite (the message names row and encoder), or
                the disk is full.
        """
        return self.open(encoder, texts, role, ids)[:]

    def open(
        self,
        encoder: TextEncoder,
        texts: Sequence[Any],
        role: Role,
        ids: Sequence[str] | None = None,
    ) -> Stored:
        """Embed items as ``embed`` does, but leave the embeddings on disk until they are read."""
        texts = as_items(texts)
        read: Callable[[slice], np.ndarray]
        if isinstance(encoder, PrecomputedEncoder):  # they are on disk already
            read = encoder.reader(role, ids)
        else:
            shelf = Shelf.open(self.root, encoder, role)
            shelf.fill(encoder, texts, role)
            self._tell(shelf.cuts(encoder.name, texts, role))

            def read(rows: slice) -> np.ndarray:
                return shelf.gather(texts[rows], encoder.dim)

        return Stored(encoder.name, texts, encoder.dim, read)

    def open_tokens(
        self,
        encoder: TextEncoder,
        texts: Sequence[str],
        role: Role,
        keep: Sequence[TokenKind] = KEPT,
        ids: Sequence[str] | None = None,
    ) -> StoredTokens:
        """Embed every token of texts, and leave the vectors on disk until they are read.

        Args:
            encoder: A frozen transformer.
            texts: n texts; equal texts are embedded once.
            role: Queries or documents.
            keep: The kinds of tokens that are read; all are stored.
            ids: Needed only by encoders that look vectors up; those have no kinds.

        Raises:
            FusionError: The encoder gives no vectors of tokens, one of them is zero or not finite
                (the message names the text and the token), or the disk is full.
        """
        if isinstance(encoder, PrecomputedEncoder):
            return StoredTokens(encoder.name, encoder.dim, *encoder.token_reader(role, ids))
        shelf = TokenShelf.open(self.root, encoder, role)
        shelf.fill(encoder, texts, role)
        self._tell(shelf.cuts(encoder.name, texts, role))
        return StoredTokens.on(shelf, encoder, texts, keep)

    def _tell(self, words: str) -> None:
        if words and words not in self.told:
            self.told.add(words)
            logger.warning(words)

    def room(self, shape: tuple[int, int], dtype: type = np.float32) -> np.ndarray:
        """Numbers memory-mapped in a file without a name, which goes when this process does.

        Raises:
            FusionError: The store's disk has no room for it.
        """
        size = np.dtype(dtype).itemsize * shape[0] * shape[1]
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root) as file:
                os.posix_fallocate(file.fileno(), 0, size)  # else a full disk would be a bus error
                return np.memmap(file, dtype, "r+", shape=shape)
        except OSError as error:
            raise FusionError(
                f"{self.root} has no room for {size / 2**30:.1f} GiB of fused embeddings "
                f"({error.strerror}); make room, set FUSION_CACHE or give --max-texts"
            ) from error
