"""How a row becomes a text and an id: one rule for training, measuring and encoding."""

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

NUL = "holds the character NUL, as UTF-16 and binary files do; texts are UTF-8"


class Unfit(ValueError):  # noqa: N818 - it says why, and of which row is the caller's to say
    """Why a value cannot be a text or an id."""


def text_of(fields: Sequence[Any]) -> str:
    """The text of a row: its fields as they stand, joined by spaces, without white space around.

    Fields that are missing or blank are left out. A field is a string (or its UTF-8 bytes); beside
    one, a number stands for its digits, as the title of a book may be a year.

    Returns:
        The text; empty where all fields are blank.

    Raises:
        Unfit: A field is something else, or all are numbers.

    Example:
        >>> text_of([1984, " It was a bright cold day. "])
        '1984  It was a bright cold day.'
    """
    known = [value for value in fields if not is_missing(value)]
    if known and all(map(_is_number, known)):
        raise Unfit(f"not text but {type(known[0]).__name__}")
    parts = map(field_text, known)
    return " ".join(part for part in parts if part.strip()).strip()


def field_text(value: Any) -> str:  # noqa: ANN401 - whatever stands in a file
    """A field as text; empty where it is missing.

    Raises:
        Unfit: It is neither text nor a number.
    """
    if isinstance(value, Unfit):  # of a reader that knows better why
        raise value
    if is_missing(value):
        return ""
    if _is_number(value):
        return _digits(value)
    if isinstance(value, bytes):
        value = _decoded(value)
    if not isinstance(value, str):
        raise Unfit(f"not text but {type(value).__name__}")
    if "\0" in value:
        raise Unfit(NUL)
    return _encodable(value)


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unfit(f"invalid UTF-8 at byte {error.start}") from None


def _encodable(value: str) -> str:
    """The same; JSON can write what UTF-8 cannot."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        place = f"half of a surrogate pair at character {error.start}"
        raise Unfit(f"{place}, which UTF-8 has not") from None
    return value


def id_of(values: Sequence[Any]) -> str:
    """The first id that is there, text or number; empty where there is none.

    Raises:
        Unfit: It is something else.
    """
    value = next(
        (value for value in values if not is_missing(value) and value not in ("", b"")), ""
    )
    if isinstance(value, UUID):
        return str(value)
    try:
        return field_text(value)
    except Unfit as error:
        too_large = isinstance(value, int) and not isinstance(value, bool)
        raise Unfit(
            f"its id is {error}" if too_large else "its id is neither text nor a number"
        ) from None


def is_missing(value: Any) -> bool:  # noqa: ANN401 - whatever stands in a file
    """Whether nothing is there: null, or the NaN that tables of floats have in its place."""
    return value is None or (isinstance(value, float | Decimal) and math.isnan(value))


def _is_number(value: Any) -> bool:  # noqa: ANN401 - whatever stands in a file
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _digits(value: Any) -> str:  # noqa: ANN401 - a number
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            raise Unfit(f"not text but {value}")
        # A column of whole numbers becomes one of floats when some are missing.
        return str(int(value)) if value == int(value) else str(value)
    if value.bit_length() >= 1024:  # Python refuses to write out thousands of digits
        raise Unfit("too large a number")
    return str(value)


def repeated(ids: Iterable[str]) -> str:
    """Say which ids occur more than once: how many, and the first of them; empty if none does."""
    seen: set[str] = set()
    twice = {key: None for key in ids if key in seen or seen.add(key)}  # type: ignore[func-returns-value]
    if not twice:
        return ""
    words = "1 id occurs" if len(twice) == 1 else f"{len(twice):,} ids occur"
    return f"{words} more than once, the first is {next(iter(twice))!r}"
