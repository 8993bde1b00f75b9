"""All rows of an input at once, for who learns from them."""

import logging
from pathlib import Path

from fusion.errors import FusionError
from fusion.inputs.reading.reader import Reader
from fusion.inputs.reading.rows import BROKEN_OFF, EMPTY, Fields, Reject, Row
from fusion.inputs.reading.sources import find_sources
from fusion.inputs.reading.survey import Skipped, check_fields, nothing

FILE = "the file "  # begins the reason of a reject that is no row
logger = logging.getLogger(__name__)


def read_rows(
    pattern: Path, fields: Fields | None = None, lines: bool = False, most: int | None = None
) -> list[Row]:
    """Rows of a file, a folder or a glob, at most the first so many.

    Of a file that is named itself every row has to be a text, or blank; in a folder what cannot be
    taken in is skipped, counted and told.

    Raises:
        FusionError: There is no text, or a row that is none, or no row has a field that was named.
    """
    fields = fields or Fields()
    rows: list[Row] = []
    skipped, named = Skipped(), pattern.is_file()
    for item in Reader(find_sources(str(pattern), lines=lines), fields):
        if isinstance(item, Row):
            rows.append(item)
        elif named and item.reason != EMPTY:
            raise FusionError(_refused(pattern, item, fields))
        else:
            skipped.add(item)
        if most is not None and len(rows) >= most:
            break
    if not rows:
        raise FusionError(f"{pattern} holds no text: {nothing(skipped.words(), fields)}")
    if most is None or len(rows) < most:
        check_fields(fields)
    if skipped.reasons and not named:
        logger.warning("%s: %s", pattern, skipped.words())
    return rows


def _refused(path: Path, reject: Reject, fields: Fields) -> str:
    """What to say of a row of a file that was named itself."""
    if reject.reason.startswith(BROKEN_OFF):
        return f"{path}: {reject.reason}"
    if reject.reason.startswith(FILE):
        return f"{path} cannot be read: it {reject.reason.removeprefix(FILE)}"
    there = f"; fields that there are: {', '.join(fields.known)}" if fields.known else ""
    known = there if reject.reason.startswith("has no") else ""
    return f"{path}:{reject.row}: {reject.reason}{known}"
