"""Files of lines: a text a line, or an object of JSON a line; in constant memory."""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from fusion.inputs.data.records import Unfit, field_text
from fusion.inputs.reading.rows import (
    EMPTY,
    LONGEST_TEXT,
    Fields,
    Items,
    Reject,
    Row,
    row_of,
    start_of,
)

LONGEST_LINE = 8 * LONGEST_TEXT  # of JSON lines: escapes, and fields that nobody asked for
MARK = b"\xef\xbb\xbf"  # of byte order, which is no text
PLAIN = Fields()


def read_lines(name: str, file: BinaryIO, raw: BinaryIO) -> Items:
    """Rows of plain text, one a line.

    Args:
        name: The file's, for ids.
        file: Its bytes.
        raw: What they come from, whose position says how much of the file was read.
    """
    for number, line in lines_of(file):
        whole = line is not None
        item = row_of(name, number, {"text": line}, PLAIN) if whole else _too_long(name, number)
        yield number, raw.tell(), item


def read_json(name: str, file: BinaryIO, raw: BinaryIO, fields: Fields) -> Items:
    """Rows of JSON lines; see ``read_lines``."""
    for number, line in lines_of(file):
        item = _too_long(name, number) if line is None else _parsed(name, number, line, fields)
        yield number, raw.tell(), item


def lines_of(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Lines with their numbers; None for one that is too long to be held in memory."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(MARK)
        if len(line) <= LONGEST_LINE or line.endswith(b"\n"):
            yield number, line.rstrip(b"\r\n")
            continue
        while (rest := file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
            pass
        yield number, None


def _too_long(name: str, number: int) -> Reject:
    return Reject(name, number, f"the line is longer than {LONGEST_LINE:,} bytes")


def _parsed(name: str, number: int, line: bytes, fields: Fields) -> Row | Reject:
    try:
        row = _object(line)
    except Unfit as error:
        return Reject(name, number, str(error), start_of(line))
    fields.note(row)
    return row_of(name, number, row, fields)


def _object(line: bytes) -> dict[str, Any]:
    text = field_text(line)
    if not text.strip():
        raise Unfit(EMPTY)
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unfit(f"not JSON: {error}"[:200]) from None
    if not isinstance(row, dict):
        raise Unfit("not a JSON object")
    return row
