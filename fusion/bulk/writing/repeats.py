"""Ids that occur more than once, found among any number of rows in constant memory."""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from fusion.bulk.writing.shards import cannot_write
from fusion.inputs.reading.arrow import parquet

HASH = np.dtype("<u8")
PART = 2**22


class Repeats:
    """Eight bytes for each id, in a file without a name that is sorted in the end."""

    def __init__(self, folder: Path) -> None:
        """Take the folder on whose disk the file lies; it goes when this process does."""
        self.folder = folder
        self._file: IO[bytes] | None = None

    def add(self, ids: Iterable[str]) -> None:
        """Note the ids of some rows.

        Raises:
            FusionError: The disk is full.
        """
        try:
            self._file = self._file or tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 - kept
            self._file.write(b"".join(map(hash_of, ids)))
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def find(self, shards: Iterable[Path]) -> tuple[int, str]:
        """How many ids occur more than once, and the first of them as it stands in the shards."""
        if self._file is None or not self._file.tell():
            return 0, ""
        hashes = np.memmap(self._file, HASH, "r+")  # (n,)
        hashes.sort()
        twice = np.unique(np.concatenate(list(_equal_neighbours(hashes))))  # (m,) ascending
        first = next((key for key in _ids(shards) if _is_in(key, twice)), "") if len(twice) else ""
        return len(twice), first


def _equal_neighbours(ascending: np.ndarray) -> Iterator[np.ndarray]:
    """Numbers that stand beside their like, a part at a time."""
    for start in range(0, len(ascending), PART):
        part = np.asarray(ascending[start : start + PART + 1])
        yield part[1:][part[1:] == part[:-1]]


def _ids(shards: Iterable[Path]) -> Iterator[str]:
    for path in shards:
        yield from parquet.read_table(path, columns=["id"])["id"].to_pylist()


def _is_in(key: str, ascending: np.ndarray) -> bool:
    wanted = np.frombuffer(hash_of(key), HASH)[0]
    place = int(np.searchsorted(ascending, wanted))
    return place < len(ascending) and ascending[place] == wanted


def hash_of(key: str) -> bytes:
    """Eight bytes that tell an id from all others, but for one chance in many millions."""
    return hashlib.blake2b(key.encode("utf-8"), digest_size=HASH.itemsize).digest()
