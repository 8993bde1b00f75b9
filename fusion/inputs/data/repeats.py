"""What a source names twice: equal rows are counted and said, rows that differ are refused."""

import logging
from collections.abc import Hashable, Iterable
from typing import TypeVar

from fusion.errors import FusionError

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
SHOWN = 40  # characters of an id or a text in a message


def each_once(source: str, rows: Iterable[tuple[Key, Value]]) -> dict[Key, Value]:
    """Rows by their keys, in the order in which they first come.

    Args:
        source: What the rows are read from, for a person.
        rows: Keys (an id, or several as a tuple) and what stands there.

    Raises:
        FusionError: A key stands there with two different values: nobody can say which one counts.
    """
    found: dict[Key, Value] = {}
    repeated: list[Key] = []
    for key, value in rows:
        if key not in found:
            found[key] = value
        elif found[key] == value:
            repeated.append(key)
        else:
            raise FusionError(
                f"{source} holds {shown(key)} twice, as {shown(found[key])} and as {shown(value)}: "
                "take one of them out"
            )
    if repeated:
        logger.warning(
            "%s: %d rows repeat an earlier one word for word (the first is %s); each counts once",
            source, len(repeated), shown(repeated[0]),
        )  # fmt: skip
    return found


def shown(thing: object) -> str:
    """An id, a text or a number as a message shows it, cut where it is long."""
    if isinstance(thing, tuple):
        thing = " ".join(str(part) for part in thing if part != "")
    if not isinstance(thing, str):
        return str(thing)
    return repr(thing if len(thing) <= SHOWN else f"{thing[:SHOWN]}…")
