"""Rows out of text, JSON lines and parquet, one at a time; what cannot be a text says why."""

import gzip
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from fusion.bulk.arrow import arrow, parquet
from fusion.errors import FusionError, one_line
from fusion.inputs.jsonl import KINDS, is_json_lines

TITLE = "title"
SUFFIXES = (*KINDS, ".parquet")
LONGEST_TEXT = 1_000_000  # bytes; encoders read some kilobytes, so a longer row is a mistake
LONGEST_LINE = 8 * LONGEST_TEXT  # of JSON lines: escapes, and fields that nobody asked for
PARQUET_ROWS = 256  # at once, so that long texts do not add up
SHOWN = 80  # characters of a rejected row
BROKEN = (OSError, EOFError, zlib.error, arrow.ArrowException)


@dataclass(frozen=True, slots=True)
class Row:
    """A text to encode."""

    id: str
    """Its own, or FILE:NUMBER; not checked to be unique."""
    text: str
    """Not empty, UTF-8, at most ``LONGEST_TEXT`` bytes."""


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
    """Field of the id, text or whole number; by default ``_id`` or ``id`` where there is one."""
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
        named = [*self.text, self.id] if self.id else self.text
        return [name for name in named if name not in self.seen] if len(named) > 1 else []


@dataclass(frozen=True)
class Source:
    """One input file."""

    path: Path
    name: str  # below the input folder, with forward slashes
    size: int


def find_sources(pattern: str, output: Path) -> list[Source]:
    """Files of an input: a file, a folder (all below it) or a glob, sorted by name.

    Raises:
        FusionError: There is none, it is of a kind that is not known, or lies in the output.
    """
    path = Path(pattern)
    if path.is_dir():
        root, found = path, [file for file in _walk(path) if _is_known(file)]
    elif path.exists():
        root, found = path.parent, [path]
        if not _is_known(path):
            raise FusionError(f"{path} is of no known kind; choose among {', '.join(SUFFIXES)}")
    else:
        root, found = _glob(path)
    if not found:
        raise FusionError(
            f"--input {pattern}: no such file, or no file of a known kind ({', '.join(SUFFIXES)})"
        )
    target = output.resolve()
    outside = [file for file in found if not file.resolve().is_relative_to(target)]
    # What lies in an output below an input folder was written there, by the run that goes on.
    if not outside or (len(outside) < len(found) and not path.is_dir()):
        inside = next(file for file in found if file not in outside)
        raise FusionError(f"--output {output} holds an input ({inside}); choose another folder")
    named = sorted((_name(file.relative_to(root)), file) for file in outside)
    return [Source(file, name, file.stat().st_size) for name, file in named]


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder, through links, each folder once; what is hidden stays so."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(place) / name for name in files if not name.startswith("."))


def _name(path: Path) -> str:
    """A path as text, also where its bytes are no UTF-8."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _glob(path: Path) -> tuple[Path, list[Path]]:
    parts = path.parts
    wild = next((row for row, part in enumerate(parts) if set(part) & set("*?[")), None)
    if wild is None:
        return path, []
    root = Path(*parts[:wild]) if wild else Path()
    try:
        return root, [file for file in root.glob(str(Path(*parts[wild:]))) if _is_known(file)]
    except ValueError as error:  # ** inside a name
        raise FusionError(f"--input {path}: {error}") from None


def _is_known(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


@dataclass
class Reader:
    """Rows of all sources, in their order, in constant memory."""

    sources: Sequence[Source]
    fields: Fields = field(default_factory=Fields)
    position: int = 0
    """Bytes of the sources that were read so far."""

    @property
    def size(self) -> int:
        """Bytes of the sources."""
        return sum(source.size for source in self.sources)

    def __iter__(self) -> Iterator[Row | Reject]:
        before, row = 0, 0
        for source in self.sources:
            row = 0
            try:
                for row, place, item in _read(source, self.fields):  # noqa: B007 - of the last row
                    self.position = before + place
                    yield item
            except BROKEN as error:
                words = one_line(error)[:200]
                yield Reject(source.name, row + 1, f"the file cannot be read from here on: {words}")
            before += source.size
            self.position = before


Item = tuple[int, int, Row | Reject]  # row from 1 on, bytes read, what it is


def _read(source: Source, fields: Fields) -> Iterator[Item]:
    if source.name.lower().endswith(".parquet"):
        yield from _read_parquet(source, fields)
        return
    is_json = is_json_lines(source.path)
    with source.path.open("rb") as raw:
        file: Any = gzip.GzipFile(fileobj=raw) if source.name.lower().endswith(".gz") else raw
        for number, line in _lines(file):
            if line is None:
                reason = f"the line is longer than {LONGEST_LINE:,} bytes"
                yield number, raw.tell(), Reject(source.name, number, reason)
                continue
            found = _from_json(line, fields) if is_json else (None, line)
            yield number, raw.tell(), _check(source.name, number, *found)


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


class _Unfit(Exception):  # noqa: N818 - not an error of ours
    """Why a value cannot be a text or an id, and how it begins."""


def _from_json(line: bytes, fields: Fields) -> tuple[Any, Any]:
    """Id and text of a line of JSON, or the reason as an ``_Unfit`` in the text's place."""
    if not line.strip():
        return None, b""
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return None, line  # found to be invalid where all texts are checked
    except (ValueError, RecursionError) as error:
        return None, _Unfit(f"not JSON: {error}"[:200])
    if not isinstance(row, dict):
        return None, _Unfit("not a JSON object")
    fields.seen.update(row.keys() & {*fields.text, *fields.ids, TITLE})
    key = next((row[name] for name in fields.ids if row.get(name) is not None), None)
    return key, _join([row[name] for name in fields.text if row.get(name) is not None], fields)


def _join(values: list, fields: Fields) -> Any:  # noqa: ANN401 - or what is wrong with it
    if not values:
        return _Unfit(f"has no {' or '.join(map(repr, fields.text))}")
    if len(values) == 1:
        return values[0]
    texts = [_text(value) for value in values]
    wrong = [text for text in texts if isinstance(text, _Unfit)]
    return wrong[0] if wrong else " ".join(str(text) for text in texts if text)


def _text(value: Any) -> str | _Unfit:  # noqa: ANN401 - whatever stands in a file
    if isinstance(value, _Unfit | str):
        return value
    if not isinstance(value, bytes):
        return _Unfit(f"not text but {type(value).__name__}")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        return _Unfit(f"invalid UTF-8 at byte {error.start}")


def _check(file: str, number: int, key: Any, value: Any) -> Row | Reject:  # noqa: ANN401
    reason, text = "", _text(value)
    if isinstance(text, _Unfit):
        reason = str(text)
    elif not text.strip():
        reason = "empty"
    else:
        try:
            if (size := len(text.encode("utf-8"))) > LONGEST_TEXT:
                reason = f"too long: {size:,} bytes, at most {LONGEST_TEXT:,}"
        except UnicodeEncodeError as error:
            reason = f"half of a surrogate pair at character {error.start}, which UTF-8 has not"
    if not reason:
        found = _id(key)
        if isinstance(found, str):
            return Row(found or f"{file}:{number}", str(text))
        reason = str(found)
    return Reject(file, number, reason, _start(value))


def _id(key: Any) -> str | _Unfit:  # noqa: ANN401 - whatever stands in a file
    if key is None:
        return ""
    if isinstance(key, int) and not isinstance(key, bool):
        # Python refuses to write out integers of thousands of digits.
        return str(key) if key.bit_length() < 1024 else _Unfit("its id is too large a number")
    text = _text(key)
    if isinstance(text, _Unfit) or any("\ud800" <= letter <= "\udfff" for letter in text):
        return _Unfit("its id is neither text nor a whole number")
    return text if len(text) <= LONGEST_TEXT else _Unfit("its id is too long")


def _start(value: Any) -> str:  # noqa: ANN401 - whatever stands in a file
    if isinstance(value, bytes):
        value = value[: 4 * SHOWN].decode("utf-8", "backslashreplace")
    if not isinstance(value, str):
        return ""
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
        ids = [name for name in fields.ids if name in columns][:1]
        fields.seen.update((*texts, *ids, *{TITLE}.intersection(columns)))
        total, number = max(file.metadata.num_rows, 1), 0
        for batch in file.iter_batches(PARQUET_ROWS, columns=[*texts, *ids]):
            read = {name: _values(batch.column(name)) for name in {*texts, *ids}}
            for row in range(batch.num_rows):
                number += 1
                values = [read[name][row] for name in texts if read[name][row] is not None]
                key = read[ids[0]][row] if ids else None
                place = source.size * number // total
                yield number, place, _check(source.name, number, key, _join(values, fields))


def _values(column: arrow.Array) -> list:
    """Values of a column; texts as bytes, since parquet does not vouch for their UTF-8."""
    if arrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kinds = {arrow.string(): arrow.binary(), arrow.large_string(): arrow.large_binary()}
    if column.type in kinds:
        return column.cast(kinds[column.type]).to_pylist()
    if arrow.types.is_integer(column.type) or column.type in kinds.values():
        return column.to_pylist()
    kind = str(column.type)
    return [_Unfit(f"not text but {kind}")] * len(column)
