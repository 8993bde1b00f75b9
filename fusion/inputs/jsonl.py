"""Lines of text and of JSON out of files, plain or gzipped, with errors that name the line."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from fusion.errors import FusionError

KINDS = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz")
"""Ends of the names of files of texts, in any case."""


def is_json_lines(path: Path) -> bool:
    """Whether its name says that each line is JSON; the whole of its end, as of ``KINDS``."""
    return path.name.lower().endswith((".jsonl", ".jsonl.gz"))


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """Read BEIR's rows, objects with the strings ``_id`` and ``text``.

    Raises:
        FusionError: A line is something else; the message has its number.
    """
    for number, line in read_lines(path):
        row = parse_object(path, number, line)
        if not isinstance(row.get("_id"), str) or not isinstance(row.get("text"), str):
            raise FusionError(f"{path}:{number} needs the strings '_id' and 'text'")
        yield row


def parse_object(path: Path, number: int, line: str) -> dict:
    """Parse one line as a JSON object.

    Raises:
        FusionError: It is something else.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FusionError(f"{path}:{number} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise FusionError(f"{path}:{number} is not a JSON object")
    if "\\u" in line and not all(map(_is_unicode, row.values())):
        raise FusionError(f"{path}:{number} holds half of a surrogate pair")
    return row


def _is_unicode(value: object) -> bool:
    """False for a string that JSON can write and UTF-8 cannot: no tokenizer takes it."""
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that hold something, with their numbers from 1 on.

    Raises:
        FusionError: The file is not UTF-8, or its gzip stream is broken.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:  # a byte order mark is no text
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\n")
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FusionError(f"{path} cannot be read: {error}") from error
