"""Codes and rows out of shards: blocks that stream by, and what was kept beside some rows."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusion.bulk.writing.manifest import Manifest
from fusion.bulk.writing.shards import Shard
from fusion.errors import FusionError, one_line
from fusion.inputs.reading.arrow import arrow, parquet

BLOCK_ROWS, BLOCK_BYTES = 2**16, 2**23  # of codes that are scored at once, whichever comes first
NAMES = {"halffloat": "float16", "float": "float32"}  # of arrow, and of numpy
BROKEN = (OSError, arrow.ArrowException, IndexError)


@dataclass(frozen=True, eq=False)
class Block:
    """Codes of rows that follow one another."""

    first: int
    """The number of the first row, over all shards."""
    codes: np.ndarray
    """[n, items] as they are stored."""


@dataclass(frozen=True)
class Shards:
    """A finished encoding."""

    folder: Path
    manifest: Manifest

    def blocks(self) -> Iterator[Block]:
        """All codes in their order; the next block is read while one is scored.

        Raises:
            FusionError: A shard is missing, damaged or another one.
        """
        blocks = self._read_blocks()
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(next, blocks, None)
            while (block := coming.result()) is not None:
                coming = reader.submit(next, blocks, None)
                yield block

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Ids and what was kept beside them, of rows by their numbers over all shards.

        Raises:
            FusionError: A shard is missing, damaged or another one.
        """
        ends = np.cumsum([shard.rows for shard in self.manifest.shards])
        owners = np.searchsorted(ends, numbers, side="right")
        found: dict[int, dict[str, Any]] = {}
        for owner in np.unique(owners).tolist():
            shard = self.manifest.shards[owner]
            first = int(ends[owner]) - shard.rows
            own = [row for row, place in zip(numbers, owners, strict=True) if place == owner]
            table = self._read(shard, None)
            # Not by take(): it imports pyarrow.compute and pandas, half a second.
            found |= {row: table.slice(row - first, 1).to_pylist()[0] for row in own}
        return [found[row] for row in numbers]

    def columns(self, shard: Shard, names: Sequence[str]) -> list[list[Any]]:
        """What is kept of a shard's rows under some names.

        Raises:
            FusionError: The shard is missing, damaged or another one.
        """
        table = self._read(shard, list(names))
        return [table[name].to_pylist() for name in names]

    def codes(self, shard: Shard) -> np.ndarray:
        """Codes of a shard [n, items] as they are stored.

        Raises:
            FusionError: The shard is missing, damaged or another one.
        """
        column = self._read(shard, ["embedding"]).column(0)
        return _joined([_items(chunk) for chunk in column.chunks])

    def _read_blocks(self) -> Iterator[Block]:
        first, parts = 0, []
        for shard in self.manifest.shards:
            parts.append(self.codes(shard))
            rows = sum(map(len, parts))
            if rows >= BLOCK_ROWS or rows * parts[0].itemsize * parts[0].shape[1] >= BLOCK_BYTES:
                yield Block(first, _joined(parts))
                first, parts = first + rows, []
        if parts:
            yield Block(first, _joined(parts))

    def _read(self, shard: Shard, columns: list[str] | None) -> Any:  # noqa: ANN401 - a table
        """Some columns of a shard, or all but the embedding."""
        path = self.folder / shard.file
        try:
            with parquet.ParquetFile(path) as file:
                names = [name for name in file.schema_arrow.names if name != "embedding"]
                table = file.read(columns=columns or names, use_threads=False)
        except BROKEN as error:
            raise FusionError(f"{path} cannot be read: {one_line(error)[:200]}") from None
        if len(table) != shard.rows:
            raise FusionError(
                f"{path} has {len(table):,} rows, but its manifest says {shard.rows:,}: it is "
                "damaged; encode again with --resume"
            )
        return table


def _items(chunk: Any) -> np.ndarray:  # noqa: ANN401 - an array of lists of one size
    """The items of lists [n, items], in place: ``to_numpy`` imports pandas, half a second."""
    items, width = chunk.values, chunk.type.list_size
    kind = np.dtype(NAMES.get(str(items.type), str(items.type)))
    flat = np.frombuffer(items.buffers()[1], kind)[items.offset : items.offset + len(items)]
    return flat.reshape(-1, width)[chunk.offset : chunk.offset + len(chunk)]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
