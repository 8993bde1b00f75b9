"""Lines of text and of JSON out of files, plain or gzipped, with errors that name the line."""

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusion.errors import FusionError
from fusion.inputs.data.records import NUL, Unfit, id_of

HEAD = 4096  # bytes that tell what a file is
NULS = 0.02  # share of them in it: UTF-16 has one for each Latin letter or space of any script
MARKS = {  # of those that begin alike, the longer one first
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
SIGNS = {  # what files of other kinds begin with, whatever they are called
    b"PK\x03\x04": "a zip archive, as .docx, .xlsx, .odt and .epub are",
    b"%PDF-": "a PDF",
    b"\xd0\xcf\x11\xe0": "a file of Office, perhaps with a password",
    b"\x1f\x8b": "packed by gzip, so its name should end in .gz",
    b"PAR1": "parquet, so its name should end in .parquet",
    b"{\\rtf": "rich text",
}


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read BEIR's rows, objects with an ``_id`` and the string ``text``, and their lines' numbers.

    The id may be a number, or stand under ``id``, as everywhere; here it is a string under ``_id``.

    Raises:
        FusionError: A line is something else; the message has its number.
    """
    for number, line in read_lines(path):
        row = parse_object(path, number, line)
        try:
            key = id_of([row.get("_id"), row.get("id")])
        except Unfit as error:
            raise FusionError(f"{path}:{number}: {error}") from None
        if not key or not isinstance(row.get("text"), str):
            raise FusionError(f"{path}:{number} needs an '_id' and the string 'text'")
        yield number, row | {"_id": key}


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
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rb") as raw:
            if reason := not_utf8(raw.peek(HEAD)[:HEAD]):
                raise FusionError(f"{path} cannot be read: it {reason}")
            # Lines end where encoding ends them; and a byte order mark is no text.
            file = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="\n")
            for number, line in enumerate(file, 1):
                if "\0" in line:
                    raise FusionError(f"{path}:{number} {NUL}")
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FusionError(f"{path} cannot be read: {error}") from error


def not_utf8(head: bytes) -> str:
    """Why a file that begins so is none of UTF-8 text; empty where it may be one."""
    mark = next((name for mark, name in MARKS.items() if head.startswith(mark)), "")
    if mark:
        return f"is {mark}; convert it: iconv -f {mark} -t UTF-8"
    if kind := next((kind for sign, kind in SIGNS.items() if head.startswith(sign)), ""):
        return f"is {kind}; convert it to text"
    return NUL if head.count(b"\0") > NULS * len(head) else ""
