"""What an input holds, found out before any work is done on it."""

import logging
import re
from collections import Counter
from dataclasses import dataclass, field

from fusion.errors import FusionError
from fusion.inputs.reading.reader import Reader
from fusion.inputs.reading.rows import Fields, Reject, Row

logger = logging.getLogger(__name__)

WHOLE = 64_000_000  # bytes of input that are read twice: seconds, before minutes of embedding
SHOWN = 4  # reasons that are told


@dataclass
class Skipped:
    """What cannot be taken in, by the reasons."""

    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    """The first place of each reason."""

    def add(self, reject: Reject) -> None:
        """Count a row, or a file."""
        reason = re.sub(r"\d[\d,.]*", "…", reject.reason)
        self.reasons[reason] += 1
        self.first.setdefault(reason, f"{reject.file}:{reject.row}: {reject.reason}")

    def words(self) -> str:
        """One line for a person; empty where nothing is skipped."""
        told = self.reasons.most_common(SHOWN)
        parts = [f"{count:,} × {self.first[reason]}" for reason, count in told]
        more = "; …" if len(self.reasons) > SHOWN else ""
        return f"skipped {self.reasons.total():,} ({'; '.join(parts)}{more})" if parts else ""


def look_over(reader: Reader) -> None:
    """Read an input once and say what of it will be skipped, and why.

    Inputs of more than ``WHOLE`` bytes are not read twice: what they lack shows on the way.

    Raises:
        FusionError: No row is a text, no row has a field that was named, or rows of two files have
            one id.
    """
    if reader.size > WHOLE:
        return
    skipped, owners, rows = Skipped(), _Owners(), 0
    for source in reader.sources:
        one = Reader([source], reader.fields, warned=True)  # of lines the other way over them tells
        for item in one:
            if isinstance(item, Reject):
                skipped.add(item)
            else:
                rows += 1
                owners.add(item, source.name)
    check_fields(reader.fields)
    words = skipped.words()
    if not rows:
        raise FusionError(nothing(words, reader.fields))
    if words:
        logger.warning(words)


class _Owners:
    """Which file an id belongs to."""

    def __init__(self) -> None:
        self.files: dict[int, str] = {}  # by hashes: whole ids may be long

    def add(self, row: Row, file: str) -> None:
        if row.number and row.id == f"{file}:{row.number}":
            return
        if (other := self.files.setdefault(hash(row.id), file)) != file:
            raise FusionError(
                f"{file} and {other} both have a row with the id {row.id!r}: a search could not "
                "tell them apart; name a field that does with --id-field, or encode the files into "
                "folders of their own"
            )


def nothing(skipped: str, fields: Fields) -> str:
    """What to say of an input without a text."""
    there = f"; fields that there are: {', '.join(fields.known)}" if fields.known else ""
    return f"no row of the input can be encoded{f': {skipped}' if skipped else ''}{there}"


def check_fields(fields: Fields) -> None:
    """Refuse names of fields that no row has.

    Raises:
        FusionError: There are some.
    """
    if fields.known and (missed := fields.missed):
        raise FusionError(
            f"no row has the field {missed[0]!r}; fields that there are: {', '.join(fields.known)}"
        )
