"""Pictures with captions: a folder with ``captions.jsonl``, by its path or by name.

A line holds ``image`` (a path in the folder), ``split`` and ``captions``, a list or one string;
``captions_de`` and the like hold other languages, which ``NAME:de`` asks for.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusion.errors import FusionError
from fusion.inputs.data.jsonl import parse_object, read_lines
from fusion.inputs.data.records import Unfit, text_of
from fusion.inputs.items import Picture
from fusion.paths import as_path, root_of

logger = logging.getLogger(__name__)

CAPTIONS = "captions.jsonl"
FIELD = "captions"


@dataclass(frozen=True, eq=False)
class Captions:
    """Pictures of one split, and texts that each belong to one of them."""

    name: str
    """As it was asked for, of a path only the folder's name: ``flickr8k:de``."""
    split: str
    pictures: list[Picture]
    """m pictures."""
    picture_ids: list[str]
    """As they stand in the file."""
    texts: list[str]
    """n captions, those of a picture beside one another."""
    owner: np.ndarray
    """int64 [n], the picture of each caption; ascending."""

    @property
    def text_ids(self) -> list[str]:
        """The picture's id, ``#`` and the caption's number, from 0 on."""
        first = np.searchsorted(self.owner, self.owner)
        return [
            f"{self.picture_ids[row]}#{number - start}"
            for number, (row, start) in enumerate(zip(self.owner, first, strict=True))
        ]

    def digest(self, pictures: bool = True) -> str:
        """Of the texts and their owners, and of the pictures if they are looked at."""
        digest = hashlib.sha256()
        for picture in self.pictures if pictures else ():
            digest.update(picture.digest)
        digest.update("\0".join(self.texts).encode())
        digest.update(self.owner.astype("<i8").tobytes())
        return digest.hexdigest()

    def first(self, most: int | None) -> "Captions":
        """The first pictures, at most so many, with all of their captions."""
        if most is None or most >= len(self.pictures):
            return self
        count = int(np.searchsorted(self.owner, most))
        return Captions(
            self.name, self.split, self.pictures[:most], self.picture_ids[:most],
            self.texts[:count], self.owner[:count],
        )  # fmt: skip

    def summary(self) -> dict[str, Any]:
        """What it is, for the environment of results."""
        counts = {"pictures": len(self.pictures), "texts": len(self.texts)}
        return {"name": self.name, "split": self.split, **counts}


def load_captions(name: str, split: str) -> Captions:
    """Load the pictures and captions of a split.

    Args:
        name: A folder, a name of one in ``$FUSION_DATA/multimodal``, or either with ``:`` and a
            language behind it.
        split: As the lines name it.

    Raises:
        FusionError: It is nowhere, a line is malformed, a picture is missing, or nothing is in the
            split.
    """
    folder, language = _found(name)
    field = f"{FIELD}_{language}" if language else FIELD
    rows, without = [], 0
    for row in _rows(folder, split):
        texts = _texts_of(row, field)
        rows += [(row["image"], texts)] if texts else []
        without += not texts
    if not rows:
        raise FusionError(_nothing(folder, split, field))
    if without:
        said = (name, without, len(rows) + without, split, field)
        logger.warning("%s: %d of %d pictures of %s have no %s and are left out", *said)
    pictures = [Picture(folder / image) for image, _ in rows]
    _check_there(folder, pictures)
    called = folder.resolve().name + (f":{language}" if language else "")
    counts = [len(texts) for _, texts in rows]
    owner = np.repeat(np.arange(len(rows)), counts)
    every = [text for _, texts in rows for text in texts]
    return Captions(called, split, pictures, [image for image, _ in rows], every, owner)


def is_captions(name: str) -> bool:
    """Whether a name means pictures with captions."""
    return _folder_of(name) is not None


def splits_of(name: str) -> list[str]:
    """The splits that the lines name."""
    folder, _ = _found(name)
    return sorted({row["split"] for _, row in _objects(folder)})


def settled_captions(name: str) -> str:
    """The name with an absolute path in it if it means a folder of its own."""
    found = _folder_of(name)
    if found is None:
        return name
    folder, language = found
    plain = name.removesuffix(f":{language}") if language else name
    if folder != as_path(plain):
        return name
    return str(folder.absolute()) + (f":{language}" if language else "")


def _found(name: str) -> tuple[Path, str]:
    found = _folder_of(name)
    if found is None:
        root = "" if root_of("FUSION_DATA") else " ($FUSION_DATA is not set)"
        raise FusionError(
            f"pictures {name!r} not found: no such folder with {CAPTIONS} here or in "
            f"$FUSION_DATA/multimodal{root}"
        )
    return found


def _folder_of(name: str) -> tuple[Path, str] | None:
    """The folder, and the language asked for."""
    plain, _, language = name.rpartition(":")
    root = root_of("FUSION_DATA")
    for part, tongue in ((name, ""), (plain, language)):
        places = [as_path(part), *([root / "multimodal" / part] if root else [])] if part else []
        for folder in places:
            if (folder / CAPTIONS).is_file():
                return folder, tongue
    return None


def _objects(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    path = folder / CAPTIONS
    for number, line in read_lines(path):
        row = parse_object(path, number, line)
        if not all(isinstance(row.get(key), str) and row[key] for key in ("image", "split")):
            raise FusionError(f"{path}:{number} needs the strings 'image' and 'split'")
        yield number, row


def _rows(folder: Path, split: str) -> Iterator[dict[str, Any]]:
    """The lines of a split, each picture once."""
    seen: set[str] = set()
    for number, row in _objects(folder):
        if row["split"] != split:
            continue
        if row["image"] in seen:
            raise FusionError(f"{folder / CAPTIONS}:{number} holds {row['image']!r} again")
        seen.add(row["image"])
        yield row | {"line": f"{folder / CAPTIONS}:{number}"}


def _texts_of(row: dict[str, Any], field: str) -> list[str]:
    """The captions of a line; none where the field is missing."""
    found = row.get(field) or []
    try:
        texts = [text_of([text]) for text in ([found] if isinstance(found, str) else found)]
    except (Unfit, TypeError) as error:
        raise FusionError(f"{row['line']}: {field} is no list of texts: {error}") from None
    if not all(texts):
        raise FusionError(f"{row['line']}: a text in {field} is empty")
    return texts


def _nothing(folder: Path, split: str, field: str) -> str:
    rows = [row for _, row in _objects(folder)]
    splits = sorted({row["split"] for row in rows})
    if split not in splits:
        return (
            f"{folder / CAPTIONS} has no split {split!r}; it has {', '.join(splits) or 'nothing'}"
        )
    prefix = f"{FIELD}_"
    known = sorted({key.removeprefix(prefix) for row in rows for key in row if prefix in key})
    return (
        f"{folder / CAPTIONS} has no {field!r} in its split {split!r}; languages behind a colon: "
        f"{', '.join(known) or 'none'}"
    )


def _check_there(folder: Path, pictures: list[Picture]) -> None:
    missing = [picture for picture in pictures if not picture.path.is_file()]
    if missing:
        raise FusionError(
            f"{folder}: {len(missing):,} of {len(pictures):,} pictures are missing, the first is "
            f"{missing[0].path.relative_to(folder)}"
        )
