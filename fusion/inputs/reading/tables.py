"""Comma- and tab-separated tables with a heading, in constant memory."""

import csv
import io
from collections import Counter
from itertools import chain
from typing import BinaryIO

from fusion.inputs.reading.lines import LONGEST_LINE, MARK
from fusion.inputs.reading.rows import (
    EMPTY,
    Broken,
    Fields,
    Items,
    Reject,
    Row,
    check_columns,
    row_of,
    start_of,
)

DELIMITERS = ",;\t|"  # as spreadsheets of various countries write them
RAW = "surrogateescape"  # bytes that are no UTF-8 come back as they were
END = "\N{NULL}the end\N{NULL}"  # a line behind the last one: a quote left open swallows it


def read_table(name: str, file: BinaryIO, raw: BinaryIO, fields: Fields) -> Items:
    """Rows of a table, numbered as a spreadsheet does: the heading is row 1.

    Args:
        name: The file's, for ids.
        file: Its bytes.
        raw: What they come from, whose position says how much of the file was read.
        fields: Columns to read.

    Raises:
        Broken: It has no heading, or none of the columns; or a quote is never closed.
    """
    first = file.readline(LONGEST_LINE)
    head = first.removeprefix(MARK).decode("utf-8", RAW)
    if not head.strip():
        raise Broken("it has no heading in its first line")
    delimiter = "\t" if ".tsv" in name.lower()[-7:] else _delimiter(head)
    csv.field_size_limit(LONGEST_LINE)
    text = io.TextIOWrapper(file, encoding="utf-8", errors=RAW, newline="")
    try:
        rows = csv.reader(chain([head], text, [END]), delimiter=delimiter)
        columns = [column.strip() for column in next(rows)]
        check_columns(columns, fields)
        for number, row in enumerate(rows, 2):
            if row and row[-1].endswith(END):
                break
            yield number, raw.tell(), _row(name, number, columns, row, fields)
        if row != [END]:
            raise Broken("a quote is never closed")
    except csv.Error as error:
        raise Broken(f"{error}; perhaps a quote is never closed") from None
    finally:
        text.detach()


def _delimiter(head: str) -> str:
    counts = Counter(character for character in head if character in DELIMITERS)
    return max(DELIMITERS, key=lambda character: counts[character])  # the first of equals


def _row(
    name: str, number: int, columns: list[str], row: list[str], fields: Fields
) -> Row | Reject:
    if not row:
        return Reject(name, number, EMPTY)
    if len(row) != len(columns):
        words = f"has {len(row)} columns, its heading has {len(columns)}"
        return Reject(name, number, words, start_of(row[0].encode("utf-8", RAW)))
    cells = (cell.encode("utf-8", RAW) for cell in row)
    return row_of(name, number, dict(zip(columns, cells, strict=True)), fields)
