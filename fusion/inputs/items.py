"""What is embedded: a text, or a picture, which is named as one and never guessed from a text."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fusion.errors import FusionError
from fusion.paths import as_path

HASH_BYTES = 16  # so that a collision is out of the question
SHOWN = 40  # characters of a text that an error shows


@dataclass(frozen=True)
class Picture:
    """A picture, as the file that holds it."""

    path: Path

    @cached_property
    def digest(self) -> bytes:
        """Of the file's bytes: the same picture is the same under any name.

        Raises:
            FusionError: There is no such file, or it cannot be read.
        """
        if not self.path.is_file():
            raise FusionError(f"the picture {self.path} is missing, or is no file")
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise FusionError(f"the picture {self.path} cannot be read: {error.strerror}") from None
        return hashlib.blake2b(content, digest_size=HASH_BYTES, person=b"picture").digest()

    def __str__(self) -> str:
        return f"the picture {self.path.name}"


Item = str | Picture
"""What an encoder takes."""


def as_items(items: Sequence[Any]) -> list[Item]:
    """Texts as they are, and ``{"image": path}`` as pictures.

    Raises:
        ValueError: Something else is among them.

    Example:
        >>> as_items(["cat.jpg", {"image": "cat.jpg"}])  # the first is a text of seven letters
        ['cat.jpg', Picture(path=PosixPath('cat.jpg'))]
    """
    return [item if isinstance(item, str | Picture) else _picture(item) for item in items]


def hash_text(text: str) -> bytes:
    """The name of a text in the store."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()


def hash_item(item: Item) -> bytes:
    """The name of an item in the store; of a picture it is that of its content."""
    return hash_text(item) if isinstance(item, str) else item.digest


def check_texts(encoder: str, items: Sequence[object]) -> None:
    """Refuse pictures for an encoder of texts.

    Raises:
        FusionError: One is among the items.
    """
    other = next((item for item in items if not isinstance(item, str)), None)
    if other is not None:
        raise FusionError(
            f"encoder {encoder!r} embeds texts and got {other}; pictures need an encoder of them, "
            "for example efficientnet-lite0"
        )


def shown_item(item: Item) -> str:
    """An item in an error's line."""
    return f"text {item[:SHOWN]!r}" if isinstance(item, str) else str(item)


def _picture(item: object) -> Picture:
    if isinstance(item, Mapping) and list(item) == ["image"]:
        path = item["image"]
        if isinstance(path, str | Path):
            return Picture(as_path(str(path)))
    raise ValueError(f'an item is a text or {{"image": path}}, got {item!r:.80}')
