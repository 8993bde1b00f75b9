"""Rows out of files of every kind, one at a time; what cannot be a text says why."""

import gzip
import hashlib
import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fusion.errors import one_line
from fusion.inputs.data.jsonl import HEAD, not_utf8
from fusion.inputs.data.prose import LINES, WARNING, is_one_document
from fusion.inputs.data.records import Unfit
from fusion.inputs.reading.chunks import Chunker, Chunking
from fusion.inputs.reading.kinds import PACKED, Kind
from fusion.inputs.reading.lines import read_json, read_lines
from fusion.inputs.reading.pages.documents import read_document
from fusion.inputs.reading.rows import BROKEN_OFF, EMPTY, Broken, Fields, Items, Reject, Row
from fusion.inputs.reading.sources import Source
from fusion.inputs.reading.tables import read_table

logger = logging.getLogger(__name__)

BROKEN = (OSError, EOFError, zlib.error, Broken, UnicodeDecodeError)  # the last one: of names


@dataclass
class Reader:
    """Rows of all sources, in their order, in constant memory."""

    sources: Sequence[Source]
    fields: Fields = field(default_factory=Fields)
    chunker: Chunker | None = None
    """What takes long texts apart; none are where it is missing."""
    position: int = 0
    """Bytes of the sources that were read so far."""
    lost: dict[str, str] = field(default_factory=dict, init=False)
    """Why, by the names of sources that hold something of which nothing can be encoded, or that
    cannot be read to their ends."""
    warned: bool = False
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

    @property
    def settings(self) -> dict[str, Any]:
        """What rows depend on besides the files, as far as it is not as usual."""
        plain = {"text_fields": list(self.fields.text), "id_field": self.fields.id}
        chunking = self.chunker.chunking if self.chunker else Chunking()
        return plain if chunking == Chunking() else plain | {"chunking": asdict(chunking)}

    def __iter__(self) -> Iterator[Row | Reject]:
        rows = self._rows()
        return self.chunker.apart(rows) if self.chunker else rows

    def _rows(self) -> Iterator[Row | Reject]:
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
        if self.rows > LINES or self.source.kind is not Kind.LINES:
            return False
        self.lines.append(item.text)
        return self.rows == LINES


def _read_whole(source: Source, fields: Fields) -> Iterator[tuple[int, Row | Reject]]:
    """Bytes read and items; what cannot be read any further ends in a reject."""
    row = place = 0
    try:
        for row, place, item in _read(source, fields):  # noqa: B007 - of the last row
            yield place, item
    except BROKEN as error:
        words = f"{BROKEN_OFF}: {one_line(error)[:200]}"
        yield place, Reject(source.name, row + 1, words)


def _read(source: Source, fields: Fields) -> Items:
    if source.kind is Kind.PARQUET:
        from fusion.inputs.reading.parquets import read_parquet  # pyarrow is an extra

        yield from read_parquet(source.name, source.path, source.size, fields)
        return
    with source.path.open("rb") as raw:
        packed = source.name.lower().endswith(PACKED)
        file: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        if reason := not_utf8(file.peek(HEAD)[:HEAD]):
            yield 1, source.size, Reject(source.name, 1, f"the file {reason}")
        elif source.kind is Kind.LINES:
            yield from read_lines(source.name, file, raw)
        elif source.kind is Kind.JSON_LINES:
            yield from read_json(source.name, file, raw, fields)
        elif source.kind is Kind.TABLE:
            yield from read_table(source.name, file, raw, fields)
        else:
            yield 1, source.size, _document(source, file, fields)


def _document(source: Source, file: Any, fields: Fields) -> Row | Reject:  # noqa: ANN401 - a file
    try:
        return read_document(source.name, source.kind, file, fields)
    except Unfit as error:
        return Reject(source.name, 1, str(error))
