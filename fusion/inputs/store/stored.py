"""Embeddings that stay on disk until a slice of them is read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fusion.errors import FusionError
from fusion.inputs.items import Item, shown_item


@dataclass(frozen=True)
class Stored:
    """Embeddings of n texts, ``[n, dim]``, read a slice at a time.

    What reads arrays by slices of rows (``Blocks.transform`` does) takes them as an array.

    Example:
        >>> stored[2:4].shape == (2, stored.shape[1])
        True
    """

    name: str
    """Of the encoder."""
    texts: Sequence[Item]
    dim: int
    read: Callable[[slice], np.ndarray]
    """Gives float32 ``[rows, dim]`` for a slice of rows."""

    @property
    def shape(self) -> tuple[int, int]:
        """Texts and width."""
        return len(self.texts), self.dim

    @property
    def ndim(self) -> int:
        """Always 2."""
        return 2

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Float32 ``[rows, dim]``, checked.

        Raises:
            FusionError: An embedding is zero or not finite; the message names row and encoder.
        """
        start, _, step = rows.indices(len(self))
        embeddings = self.read(rows)  # (rows, dim)
        check_embeddings(embeddings, self.name, self.texts[rows], range(start, len(self), step))
        return embeddings


def check_embeddings(
    embeddings: np.ndarray, name: str, texts: Sequence[Item], rows: Sequence[int] | None = None
) -> None:
    """Refuse embeddings that have no direction.

    Args:
        embeddings: ``[n, dim]``.
        name: Of the encoder.
        texts: n texts.
        rows: Their numbers, for the message; from 0 on by default.

    Raises:
        FusionError: A row is zero or not finite; the message names the row and the encoder.
    """
    norms = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float64))  # (n,)
    bad = ~np.isfinite(norms) | (norms == 0)
    if bad.any():
        first = int(bad.argmax())
        kind = "zero" if norms[first] == 0 else "not finite"
        raise FusionError(
            f"encoder {name!r}: the embedding of row {rows[first] if rows else first} is {kind} "
            f"({shown_item(texts[first])}; {int(bad.sum())} such rows); remove or repair these "
            "texts"
        )
