"""Token vectors on disk, one ragged array a shard, read by rows as if they were one array."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.text import TextEncoder
from fusion.inputs.encoders.tokens import TokenKind, kept
from fusion.inputs.items import HASH_BYTES, Item, hash_item
from fusion.inputs.store.shelf import Records, Shelf
from fusion.samples import evenly_spaced

TOKEN_CHUNK = 128  # texts a shard: some 25 MB of a small encoder's token vectors
MAPPED = 64  # shards that are mapped at once: each holds a file open


@dataclass
class TokenShelf(Shelf):
    """The shards of one key: of one vector a token."""

    suffix: ClassVar[str] = ".safetensors"
    extra: ClassVar[dict[str, str]] = {"vectors": "tokens"}

    @property
    def chunk(self) -> int:
        """Texts a shard, at most."""
        return TOKEN_CHUNK

    def _embed(self, encoder: Any, texts: Sequence[Item], role: Role, advance: Any) -> None:  # noqa: ANN401 - as a shelf of vectors has them
        from safetensors.numpy import save

        tokens = encoder.encode_tokens(texts, role, advance)
        hashes = np.frombuffer(b"".join(map(hash_item, texts)), np.uint8)
        shard = {
            "hash": hashes.reshape(len(texts), HASH_BYTES),
            "tokens": tokens.lengths.astype(np.uint32),
            "offsets": tokens.vectors.offsets,
            "kinds": tokens.kinds,
            "vectors": tokens.vectors.rows,
        }
        self._keep(lambda file: file.write(save(shard)))

    def _records(self, path: Path) -> Records:
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            hashes = file.get_tensor("hash")
            return {
                "hash": hashes.view(f"V{HASH_BYTES}")[:, 0],
                "tokens": file.get_tensor("tokens"),
            }

    def open_texts(
        self, texts: Sequence[str], keep: Sequence[TokenKind]
    ) -> tuple[np.ndarray, Callable[[int], np.ndarray]]:
        """What is kept of texts that are all on the shelf.

        Returns:
            Offsets int64 [n + 1] of the kept tokens, and what gives a text's vectors float16 [t, D]
            by its number.
        """
        places = [self.where[hash_item(text)] for text in texts]
        shards = {name: self._kept(name, keep) for name in dict.fromkeys(n for n, _ in places)}
        counts = [
            int(np.count_nonzero(mask[offsets[row] : offsets[row + 1]]))
            for (offsets, mask), row in ((shards[name], row) for name, row in places)
        ]
        opened = lru_cache(MAPPED)(self._open)

        def read(text: int) -> np.ndarray:
            name, row = places[text]
            offsets, mask = shards[name]
            start, stop = int(offsets[row]), int(offsets[row + 1])
            return opened(name).get_slice("vectors")[start:stop][mask[start:stop]]

        return np.cumsum([0, *counts], dtype=np.int64), read

    def _open(self, name: str) -> Any:  # noqa: ANN401 - the library hides its type
        from safetensors import safe_open

        return safe_open(self.folder / name, framework="numpy")

    def _kept(self, name: str, keep: Sequence[TokenKind]) -> tuple[np.ndarray, np.ndarray]:
        """Offsets int64 [n + 1] of a shard's texts, and which of its tokens are kept, bool [t]."""
        shard = self._open(name)
        offsets = shard.get_tensor("offsets")
        return offsets, kept(shard.get_tensor("kinds"), offsets, keep)


@dataclass(frozen=True, eq=False)
class StoredTokens:
    """Token vectors of n texts that stay on disk until a slice of their rows is read.

    What reads arrays by slices of rows (``Blocks.transform`` does) takes them as an array [t, D].

    Example:
        >>> tokens[2:4].shape == (2, tokens.shape[1])
        True
    """

    name: str
    """Of the encoder."""
    dim: int
    offsets: np.ndarray
    """int64 [n + 1]: text i has the rows from ``offsets[i]`` up to ``offsets[i + 1]``."""
    read: Callable[[int], np.ndarray]
    """Gives float16 [t, dim] of a text by its number."""

    @classmethod
    def on(
        cls,
        shelf: TokenShelf,
        encoder: TextEncoder,
        texts: Sequence[str],
        keep: Sequence[TokenKind],
    ) -> "StoredTokens":
        """The kept tokens of texts that are all on the shelf."""
        offsets, read = shelf.open_texts(texts, keep)
        return cls(encoder.name, encoder.dim, offsets, read)

    @property
    def shape(self) -> tuple[int, int]:
        """Tokens and width."""
        return len(self), self.dim

    @property
    def ndim(self) -> int:
        """Always 2."""
        return 2

    def __len__(self) -> int:
        """Tokens of all texts."""
        return int(self.offsets[-1])

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Float16 ``[rows, dim]``; only the texts that these rows lie in are read."""
        start, stop, step = rows.indices(len(self))
        if stop <= start or step < 1:
            return np.empty((0, self.dim), np.float16)
        first, last = np.searchsorted(self.offsets, [start, stop - 1], side="right") - 1
        whole = np.concatenate([self.read(text) for text in range(first, last + 1)])
        before = int(self.offsets[first])
        return whole[start - before : stop - before : step]

    def sample(self, most: int) -> np.ndarray:
        """Float16 [at most ``most``, dim] of the tokens, evenly spaced over all of them."""
        wanted = evenly_spaced(len(self), most)
        texts = np.searchsorted(self.offsets, wanted, side="right") - 1  # (m,)
        starts = np.flatnonzero(np.diff(texts, prepend=-1))  # where another text begins
        parts = np.split(wanted, starts[1:])
        found = [
            self.read(int(text))[rows - self.offsets[text]]
            for text, rows in zip(texts[starts], parts, strict=True)
        ]
        return np.concatenate(found)
