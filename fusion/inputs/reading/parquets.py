"""Rows of parquet, a few at a time, of the columns that are asked for only."""

import gzip
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fusion.inputs.reading.arrow import arrow, parquet
from fusion.inputs.reading.columns import ids_of, metadata_of, values_of
from fusion.inputs.reading.kinds import PACKED
from fusion.inputs.reading.rows import Broken, Fields, Items, check_columns, row_of

ROWS = 256  # at once, so that long texts do not add up


def read_parquet(name: str, path: Path, size: int, fields: Fields) -> Items:
    """Rows of a file of parquet of ``size`` bytes.

    Raises:
        Broken: It cannot be read, or has none of the columns.
    """
    try:
        with _opened(path) as source:
            yield from _rows(name, source, size, fields)
    except arrow.ArrowException as error:
        raise Broken(str(error)) from error


@contextmanager
def _opened(path: Path) -> Iterator[Path | IO[bytes]]:
    """The file; a packed one is unpacked on disk, since parquet is read from its end."""
    if not path.name.lower().endswith(PACKED):
        yield path
        return
    with gzip.open(path) as packed, tempfile.TemporaryFile() as whole:
        shutil.copyfileobj(packed, whole)
        yield whole


def _rows(name: str, source: Path | IO[bytes], size: int, fields: Fields) -> Items:
    with parquet.ParquetFile(source, pre_buffer=False, buffer_size=1 << 16) as file:
        names = file.schema_arrow.names
        check_columns(names, fields)
        wanted = [column for column in fields.all if column in names]
        total, number = max(file.metadata.num_rows, 1), 0
        for batch in file.iter_batches(ROWS, columns=wanted):
            for values in _values(batch, wanted, fields):
                number += 1
                yield number, size * number // total, row_of(name, number, values, fields)


def _values(batch: Any, names: list[str], fields: Fields) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """Rows of a batch of arrow, by the names of their columns."""
    columns = []
    for name in names:
        column = batch.column(name)
        if name in fields.ids:
            columns.append(ids_of(column))
        elif name in fields.text:
            columns.append(values_of(column))
        else:
            columns.append(metadata_of(column))
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))
