"""A row as all readers give it: a text to encode, or why there is none."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fusion.inputs.data.records import Unfit, field_text, id_of, is_missing, text_of

TITLE = "title"
LONGEST_TEXT = 1_000_000  # bytes; encoders read some kilobytes, so a longer row is a mistake
LONGEST_DOCUMENT = 16 * LONGEST_TEXT  # bytes of a file that is one document
EMPTY = "empty"
BROKEN_OFF = "the file cannot be read from here on"
SHOWN = 80  # characters of a rejected row
NAMES = 40  # of fields that are remembered, to name them
Plain = str | int | float


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a document."""

    start: int
    """Character of the text that it begins at."""
    end: int
    """Character behind it."""
    level: int
    """1 for the highest."""


@dataclass(frozen=True, slots=True)
class Row:
    """A text to encode."""

    id: str
    """Its own, the name of its file, or FILE:NUMBER; perhaps that of another row too."""
    text: str
    """Not empty, UTF-8, at most ``LONGEST_TEXT`` bytes (a document: ``LONGEST_DOCUMENT``)."""
    metadata: dict[str, Plain] = field(default_factory=dict)
    """The ``title`` and the fields that were asked for, where the row has them; of a chunk also
    ``start`` and ``end``, characters of its document's text."""
    headings: tuple[Heading, ...] = field(default=(), compare=False)
    """Of a document, in their order."""
    number: int = field(default=0, compare=False)
    """Line or row of its file from 1 on; 0 for a document."""


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


class Broken(Exception):  # noqa: N818 - it says why, and of which file is the caller's to say
    """Why a file cannot be read any further."""


Item = tuple[int, int, Row | Reject]
"""Row from 1 on, bytes of the file that were read, what it is."""
Items = Iterator[Item]


@dataclass(frozen=True)
class Fields:
    """Where texts, ids and metadata stand in JSON lines and tables."""

    text: tuple[str, ...] = ("text",)
    """Fields that are joined by spaces; one that a row does not have is left out."""
    id: str = ""
    """Field of the id, text or number; by default ``_id`` or ``id`` where there is one."""
    metadata: tuple[str, ...] = ()
    """Fields that are kept beside the text; ``title`` always is."""
    seen: set[str] = field(default_factory=set, compare=False, repr=False)
    """Fields that were asked for and that some row had so far."""
    known: dict[str, None] = field(default_factory=dict, compare=False, repr=False)
    """Fields that there are, in the order in which they came, the first ``NAMES`` of them."""

    def __post_init__(self) -> None:
        if not self.text:
            raise ValueError("text-fields is empty; name at least one field")

    @property
    def ids(self) -> tuple[str, ...]:
        """Fields to look for an id in."""
        return (self.id,) if self.id else ("_id", "id")

    @property
    def kept(self) -> tuple[str, ...]:
        """Fields that become metadata."""
        return tuple(dict.fromkeys((TITLE, *self.metadata)))

    @property
    def all(self) -> tuple[str, ...]:
        """Fields to read, each once."""
        return tuple(dict.fromkeys((*self.text, *self.ids, *self.kept)))

    @property
    def leave_titles_out(self) -> bool:
        """Whether rows have titles that nobody asked for, nor decided against."""
        return TITLE in self.seen and self.text == ("text",)

    @property
    def missed(self) -> list[str]:
        """Fields that were named and that no row had: slips of the pen, it may be."""
        named = [*self.text, *filter(None, [self.id]), *self.metadata]
        if len(named) == 1 or not self.known:  # documents have no fields that one may name
            return []
        return [name for name in named if name not in self.seen]

    def note(self, names: Sequence[str] | Mapping[str, Any]) -> None:
        """Remember the fields that a row or a table has."""
        self.seen.update(name for name in self.all if name in names)
        if len(self.known) < NAMES:
            self.known.update(dict.fromkeys(list(map(str, names))[: NAMES - len(self.known)]))


def check_columns(names: list[str], fields: Fields) -> None:
    """Remember the columns of a table.

    Raises:
        Broken: None of them holds the text, or two have a name that is asked for.
    """
    fields.note(names)
    if not any(text in names for text in fields.text):
        known = ", ".join(names)[:200]
        raise Broken(f"it has no column {' or '.join(fields.text)}, but {known}")
    if twice := [wanted for wanted in fields.all if names.count(wanted) > 1]:
        raise Broken(f"it has several columns {twice[0]}")


def row_of(file: str, number: int, values: Mapping[str, Any], fields: Fields) -> Row | Reject:
    """A row of a table, by the names of its fields, as a text, or why it is none."""
    parts = [values.get(name) for name in fields.text]
    try:
        if all(map(is_missing, parts)):
            raise Unfit(f"has no {' or '.join(map(repr, fields.text))}")
        text = checked(text_of(parts), LONGEST_TEXT)
        key = id_of([values.get(name) for name in fields.ids])
        if len(key) > LONGEST_TEXT:
            raise Unfit("its id is too long")
    except Unfit as error:
        shown = next((value for value in parts if isinstance(value, str | bytes)), "")
        return Reject(file, number, str(error), start_of(shown))
    metadata = {name: plain for name in fields.kept if (plain := _plain(name, values.get(name)))
                is not None}  # fmt: skip
    return Row(key or f"{file}:{number}", text, metadata, number=number)


def checked(text: str, longest: int) -> str:
    """The same text.

    Raises:
        Unfit: It is empty, or has more than ``longest`` bytes.
    """
    if not text:
        raise Unfit(EMPTY)
    check_size(len(text.encode("utf-8")), longest)
    return text


def check_size(size: int, longest: int) -> None:
    """Refuse more bytes than that.

    Raises:
        Unfit: There are more.
    """
    if size > longest:
        raise Unfit(f"too long: {size:,} bytes, at most {longest:,}")


def start_of(value: str | bytes) -> str:
    """How a rejected row begins, as UTF-8 can write it."""
    if isinstance(value, bytes):
        value = value[: 4 * SHOWN].decode("utf-8", "backslashreplace")
    return value[:SHOWN].encode("utf-8", "backslashreplace").decode("utf-8")


def _plain(name: str, value: Any) -> Plain | None:  # noqa: ANN401 - whatever stands in a file
    """A value as metadata: text or a number; None where nothing is there."""
    if is_missing(value) or value == b"":  # an empty cell
        return None
    if name == TITLE:
        return _title(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        fits = math.isfinite(value) if isinstance(value, float) else abs(value) < 2**63
        return value if fits else None
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "")


def _title(value: Any) -> str | None:  # noqa: ANN401 - whatever stands in a file
    try:
        return field_text(value).strip() or None
    except Unfit:
        return None
