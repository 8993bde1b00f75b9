"""Rows out of text, JSON lines and parquet, one at a time; what cannot be a text says why."""

import gzip
import hashlib
import json
import logging
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, BinaryIO

from fusion.bulk.arrow import arrow, parquet
from fusion.bulk.reading.columns import ids_of, values_of
from fusion.bulk.reading.sources import Source
from fusion.errors import one_line
from fusion.inputs.data.jsonl import HEAD, is_json_lines, not_utf8
from fusion.inputs.data.prose import LINES, WARNING, is_one_document
from fusion.inputs.data.records import Unfit, field_text, id_of, is_missing, text_of

logger = logging.getLogger(__name__)

TITLE = "title"
LONGEST_TEXT = 1_000_000  # bytes; encoders read some kilobytes, so a longer row is a mistake
LONGEST_LINE = 8 * LONGEST_TEXT  # of JSON lines: escapes, and fields that nobody asked for
EMPTY = "empty"
BROKEN_OFF = "the file cannot be read from here on"
PARQUET_ROWS = 256  # at once, so that long texts do not add up
SHOWN = 80  # characters of a rejected row
BROKEN = (OSError, EOFError, zlib.error, arrow.ArrowException, UnicodeDecodeError)  # of names


@dataclass(frozen=True, slots=True)
class Row:
    """A text to encode."""

    id: str
    """Its own, or FILE:NUMBER; perhaps that of another row too."""
    text: str
    """Not empty, UTF-8, at most ``LONGEST_TEXT`` bytes."""
    metadata: dict[str, str | int | float] = field(default_factory=dict)
    """The fields that were asked for, where the row has them."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that cannot be encoded."""

    file: str
    """Name below the input folder."""
    row: int
    """Line or row from 1 on."""
    reason: str
    """Why, for a person."""
    start: str = ""
    """How it begins."""


@dataclass(frozen=True)
class Fields:
    """Where texts and ids stand in JSON lines and parquet."""

    text: tuple[str, ...] = ("text",)
    """Fields that are joined by spaces; one that a row does not have is left out."""
    id: str = ""
    """Field of the id, text or number; by default ``_id`` or ``id`` where there is one."""
    metadata: tuple[str, ...] = ()
    """Fields that are kept beside the text."""
    seen: set[str] = field(default_factory=set, compare=False, repr=False)
    """Fields that some row had so far."""

    def __post_init__(self) -> None:
        if not self.text:
            raise ValueError("text-fields is empty; name at least one field")

    @property
    def ids(self) -> tuple[str, ...]:
        """Fields to look for an id in."""
        return (self.id,) if self.id else ("_id", "id")

    @property
    def leave_titles_out(self) -> bool:
        """Whether rows have titles that nobody asked for, nor decided against."""
        return TITLE in self.seen and self.text == ("text",)

    @property
    def missed(self) -> list[str]:
        """Fields that were named and that no row had: slips of the pen, it may be."""
        named = [*self.text, *filter(None, [self.id]), *self.metadata]
        return [name for name in named if name not in self.seen] if len(named) > 1 else []


@dataclass
class Reader:
    """Rows of all sources, in their order, in constant memory."""

    sources: Sequence[Source]
    fields: Fields = field(default_factory=Fields)
    position: int = 0
    """Bytes of the sources that were read so far."""
    lost: dict[str, str] = field(default_factory=dict, init=False)
    """Why, by the names of sources that hold something of which nothing can be encoded, or that
    cannot be read to their ends."""
    warned: bool = field(default=False, init=False)
    """That the lines of a file may not be texts."""

    @property
    def size(self) -> int:
        """Bytes of the sources."""
        return sum(source.size for source in self.sources)

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this input from another one without reading it: names and sizes."""
        digest = hashlib.blake2b(digest_size=16)
        for source in self.sources:
            digest.update(f"{source.size} {source.name}\0".encode())
        return {"files": len(self.sources), "bytes": self.size, "digest": digest.hexdigest()}

    def __iter__(self) -> Iterator[Row | Reject]:
        before = 0
        self.lost.clear()
        for source in self.sources:
            first = _First(source)
            for place, item in _read_whole(source, self.fields):
                if first.add(item):
                    self._look_at(first)
                self.position = before + place
                yield item
            if len(first.lines) < LINES:
                self._look_at(first)
            if reason := first.end or ("" if first.rows else first.reason):
                self.lost[source.name] = reason
            before += source.size
            self.position = before

    def _look_at(self, first: "_First") -> None:
        """Say once that a file's lines may not be the texts that a person means."""
        if not self.warned and is_one_document(first.lines):
            self.warned = True
            logger.warning(WARNING, first.source.name)


@dataclass
class _First:
    """What a source begins with, and why it ends too early."""

    source: Source
    lines: list[str] = field(default_factory=list)
    """Of plain text."""
    rows: int = 0
    reason: str = ""
    """Of the first reject that holds something."""
    end: str = ""
    """Why nothing more can be read."""

    def add(self, item: Row | Reject) -> bool:
        """Take a row in; whether its lines are now all that are looked at."""
        if isinstance(item, Reject):
            if item.reason != EMPTY:
                self.reason = self.reason or item.reason
            if item.reason.startswith(BROKEN_OFF):
                self.end = f"row {item.row:,}: {item.reason}"
            return False
        self.rows += 1
        if self.rows > LINES or not self.source.name.lower().endswith((".txt", ".txt.gz")):
            return False
        self.lines.append(item.text)
        return self.rows == LINES


Item = tuple[int, int, Row | Reject]  # row from 1 on, bytes read, what it is


def _read_whole(source: Source, fields: Fields) -> Iterator[tuple[int, Row | Reject]]:
    """Bytes read and items; what cannot be read any further ends in a reject."""
    row = place = 0
    try:
        for row, place, item in _read(source, fields):  # noqa: B007 - of the last row
            yield place, item
    except BROKEN as error:
        words = f"{BROKEN_OFF}: {one_line(error)[:200]}"
        yield place, Reject(source.name, row + 1, words)


def _read(source: Source, fields: Fields) -> Iterator[Item]:
    if source.name.lower().endswith(".parquet"):
        yield from _read_parquet(source, fields)
        return
    is_json = is_json_lines(source.path)
    with source.path.open("rb") as raw:
        packed = source.name.lower().endswith(".gz")
        file: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        if reason := not_utf8(file.peek(HEAD)[:HEAD]):
            yield 1, source.size, Reject(source.name, 1, f"the file {reason}")
            return
        for number, line in _lines(file):
            if line is None:
                reason = f"the line is longer than {LONGEST_LINE:,} bytes"
                yield number, raw.tell(), Reject(source.name, number, reason)
            elif is_json:
                yield number, raw.tell(), _from_json(source.name, number, line, fields)
            else:
                yield number, raw.tell(), _check(source.name, number, [], [line], fields.text)


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Lines with their numbers; None for one that is too long to be held in memory."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")  # a byte order mark is no text
        if len(line) <= LONGEST_LINE or line.endswith(b"\n"):
            yield number, line.rstrip(b"\r\n")
            continue
        while (rest := file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
            pass
        yield number, None


def _from_json(file: str, number: int, line: bytes, fields: Fields) -> Row | Reject:
    try:
        row = _object(line)
    except Unfit as error:
        return Reject(file, number, str(error), _start(line))
    fields.seen.update(row.keys() & {*fields.text, *fields.ids, *fields.metadata, TITLE})
    keys = [row.get(name) for name in fields.ids]
    item = _check(file, number, keys, [row.get(name) for name in fields.text], fields.text)
    return _with(item, {name: row.get(name) for name in fields.metadata})


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


def _check(
    file: str, number: int, keys: list[Any], values: list[Any], names: Sequence[str]
) -> Row | Reject:
    try:
        if all(map(is_missing, values)):
            raise Unfit(f"has no {' or '.join(map(repr, names))}")
        text = text_of(values)
        if not text:
            raise Unfit(EMPTY)
        if (size := len(text.encode("utf-8"))) > LONGEST_TEXT:
            raise Unfit(f"too long: {size:,} bytes, at most {LONGEST_TEXT:,}")
        key = id_of(keys)
        if len(key) > LONGEST_TEXT:
            raise Unfit("its id is too long")
    except Unfit as error:
        shown = next((value for value in values if isinstance(value, str | bytes)), "")
        return Reject(file, number, str(error), _start(shown))
    return Row(key or f"{file}:{number}", text)


def _with(item: Row | Reject, values: dict[str, Any]) -> Row | Reject:
    """The row with those of the values that are texts or numbers."""
    if isinstance(item, Reject) or not values:
        return item
    plain = {}
    for name, value in values.items():
        with suppress(Unfit):
            plain[name] = value if isinstance(value, int | float) else field_text(value)
    return replace(item, metadata={key: value for key, value in plain.items() if value != ""})


def _start(value: str | bytes) -> str:
    if isinstance(value, bytes):
        value = value[: 4 * SHOWN].decode("utf-8", "backslashreplace")
    return value[:SHOWN].encode("utf-8", "backslashreplace").decode("utf-8")


def _read_parquet(source: Source, fields: Fields) -> Iterator[Item]:
    with parquet.ParquetFile(source.path, pre_buffer=False, buffer_size=1 << 16) as file:
        columns = file.schema_arrow.names
        texts = [name for name in fields.text if name in columns]
        if not texts:
            known = ", ".join(columns)[:200]
            raise EOFError(f"it has no column {' or '.join(fields.text)}, but {known}")
        if twice := [name for name in {*texts, *fields.ids} if columns.count(name) > 1]:
            raise EOFError(f"it has several columns {twice[0]}")
        ids = [name for name in fields.ids if name in columns]
        kept = [name for name in fields.metadata if columns.count(name) == 1]
        fields.seen.update((*texts, *ids, *kept, *{TITLE}.intersection(columns)))
        total, number = max(file.metadata.num_rows, 1), 0
        for batch in file.iter_batches(PARQUET_ROWS, columns=[*{*texts, *ids, *kept}]):
            keys = zip(*(ids_of(batch.column(name)) for name in ids), strict=True)
            values = zip(*(values_of(batch.column(name)) for name in texts), strict=True)
            beside = zip(*(values_of(batch.column(name)) for name in kept), strict=True)
            for key, value, more in zip_longest(keys, values, beside, fillvalue=()):
                number += 1
                item = _check(source.name, number, list(key), list(value), fields.text)
                item = _with(item, dict(zip(kept, more, strict=True)))
                yield number, source.size * number // total, item
