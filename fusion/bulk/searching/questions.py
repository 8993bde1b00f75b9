"""Queries out of a file: lines of text, JSON lines as BEIR has them, or vectors."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusion.errors import FusionError
from fusion.inputs.data.jsonl import parse_object, read_lines
from fusion.inputs.data.records import Unfit, id_of, text_of

LINES, JSON_LINES, VECTORS = (".txt", ".txt.gz"), (".jsonl", ".jsonl.gz"), ".npy"


@dataclass(frozen=True, eq=False)
class Questions:
    """What is asked, in the order of the file."""

    ids: list[str]
    texts: list[str]
    """Empty for vectors."""
    vectors: np.ndarray | None = None
    """float32 [q, d]."""

    @property
    def named(self) -> list[str]:
        """A text for each query, for a person."""
        return self.texts or ["a vector"] * len(self.ids)

    @property
    def asked(self) -> list[str] | np.ndarray:
        """What ``Index.search_many`` takes."""
        return self.texts if self.vectors is None else self.vectors


def read_questions(path: Path) -> Questions:
    """The queries of a file; a line without an id is called by its number.

    Raises:
        FusionError: The file cannot be had, is of another kind, or a line is no query.
    """
    if not path.is_file():
        raise FusionError(f"--queries {path}: no such file")
    if path.suffix.lower() == VECTORS:
        return _vectors(path)
    if not path.name.lower().endswith(LINES + JSON_LINES):
        known = ", ".join([*LINES, *JSON_LINES, VECTORS])
        raise FusionError(f"--queries {path} is of no known kind; choose among {known}")
    found = list(_rows(path) if path.name.lower().endswith(JSON_LINES) else _lines(path))
    if not found:
        raise FusionError(f"--queries {path} holds no query")
    ids, texts = zip(*found, strict=True)
    return Questions(list(ids), list(texts))


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in read_lines(path):
        yield str(number), line.strip()


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in read_lines(path):
        row = parse_object(path, number, line)
        try:
            text = text_of([row.get("text")])
            key = id_of([row.get("_id"), row.get("id")]) or str(number)
        except Unfit as error:
            raise FusionError(f"{path}:{number}: {error}") from None
        if not text:
            raise FusionError(f"{path}:{number} has no 'text', or an empty one")
        yield key, text


def _vectors(path: Path) -> Questions:
    try:
        rows = np.load(path, allow_pickle=False)
        if rows.ndim != 2 or rows.dtype.kind != "f" or not len(rows):
            raise ValueError(f"it holds {rows.dtype} of shape {list(rows.shape)}")
    except (OSError, ValueError, EOFError) as error:
        raise FusionError(f"--queries {path} holds no rows of vectors: {error}") from None
    return Questions([str(row) for row in range(1, len(rows) + 1)], [], rows.astype(np.float32))
