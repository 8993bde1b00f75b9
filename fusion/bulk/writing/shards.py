"""Shards: parquet files of ids and embeddings that appear whole or not at all."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from fusion.errors import FusionError
from fusion.inputs.reading.arrow import arrow, parquet
from fusion.inputs.reading.rows import Row

NAME = re.compile(r"part-\d{6,12}\.parquet")
HEX = re.compile(r"[0-9a-f]{32,64}")
TEXT = "text"
OWN_COLUMNS = ("id", "embedding")


@dataclass(frozen=True)
class Chunk:
    """Rows that become one shard."""

    number: int
    """From 0 on."""
    rows: tuple[Row, ...]
    keep: tuple[str, ...] = ()
    """What is written beside the embeddings: ``text``, and names of metadata."""

    @property
    def digest(self) -> str:
        """Checksum of ids, texts and what is kept: tells whether a shard is of this very input."""
        digest = hashlib.blake2b(digest_size=16)
        for row in self.rows:
            for text in (
                row.id,
                row.text,
                *(f"{name}\0{self._kept(row, name)}" for name in self.keep),
            ):
                content = text.encode("utf-8")
                digest.update(len(content).to_bytes(8, "little") + content)
        return digest.hexdigest()

    def columns(self, chosen: np.ndarray) -> "Columns":
        """All but the embeddings of some rows, bool [n]; the others are lost."""
        rows = list(compress(self.rows, chosen))
        lost = tuple(row.id for row in compress(self.rows, ~chosen))
        beside = {name: [self._kept(row, name) for row in rows] for name in self.keep}
        return Columns(self.name, [row.id for row in rows], beside, self.digest, lost)

    def _kept(self, row: Row, name: str) -> str | None:
        value = row.text if name == TEXT else row.metadata.get(name)
        return None if value is None else str(value)

    @property
    def name(self) -> str:
        """Of the shard's file."""
        return f"part-{self.number:06}.parquet"


@dataclass(frozen=True)
class Columns:
    """All of a shard but its embeddings."""

    file: str
    ids: Sequence[str]
    beside: Mapping[str, Sequence[str | None]]
    """What is kept of the rows, by its name."""
    input: str
    """Checksum of the ids and texts that it is made from."""
    lost: tuple[str, ...] = ()
    """Ids of rows that are left out."""


@dataclass(frozen=True)
class Shard:
    """What is known of a shard that was written."""

    file: str
    rows: int
    bytes: int
    sha256: str
    """Of the file."""
    input: str
    """Checksum of the ids and texts that it was made from."""
    lost: tuple[str, ...] = ()
    """Ids of rows that are not in it: their embedding is zero or not finite."""

    def __post_init__(self) -> None:
        if not isinstance(self.file, str) or not NAME.fullmatch(self.file):
            raise ValueError(f"file {self.file!r} is no name of a shard")
        counts = (self.rows, self.bytes)
        if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts):
            raise ValueError(f"rows and bytes of {self.file} must be whole numbers, got {counts}")
        for checksum in (self.sha256, self.input):
            if not isinstance(checksum, str) or not HEX.fullmatch(checksum):
                raise ValueError(f"{self.file} has {checksum!r} for a checksum")
        if not all(isinstance(key, str) for key in self.lost):
            raise ValueError(f"lost rows of {self.file} must be named by text")

    @classmethod
    def of(cls, plain: Any) -> "Shard":  # noqa: ANN401 - whatever stands in a file
        """From what ``to_dict`` gave.

        Raises:
            ValueError: It is something else.
        """
        if not isinstance(plain, dict) or not isinstance(plain.get("lost", []), list):
            raise ValueError("a shard is described by something else than its fields")
        try:
            return cls(**{**plain, "lost": tuple(plain.get("lost", []))})
        except TypeError as error:
            raise ValueError(f"a shard is described by other fields: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        plain = asdict(self)
        return plain | {"lost": list(self.lost)}

    def is_whole(self, path: Path) -> bool:
        """Whether the file stands at a path as it was written."""
        try:
            return path.stat().st_size == self.bytes and sha256(path) == self.sha256
        except OSError:
            return False


def write_shard(path: Path, columns: Columns, codes: np.ndarray, about: dict[str, Any]) -> Shard:
    """Write a shard to its path, once it is whole.

    Args:
        path: In the folder of the output.
        columns: Of the n rows.
        codes: [n, width] as a ``Coder`` gives them.
        about: Goes into the file's metadata, so that a shard that was moved explains itself.

    Raises:
        FusionError: The disk is full, or cannot be written.
    """
    table = _table(columns, codes, about)
    is_float = codes.dtype.kind == "f"
    # Parquet has no integers below 32 bits: a dictionary of at most 256 codes brings them to 8.
    coded = [] if is_float else ["embedding.list.element"]
    packing = _packing(is_float) | dict.fromkeys(columns.beside, "zstd")
    partial = path.with_name(f"_{path.name}.partial")
    try:
        with partial.open("wb") as file:
            parquet.write_table(table, file, use_dictionary=coded, compression=packing)
            file.flush()
            os.fsync(file.fileno())
        size, checksum = partial.stat().st_size, sha256(partial)
        partial.replace(path)
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    finally:
        partial.unlink(missing_ok=True)
    return Shard(columns.file, len(codes), size, checksum, columns.input, columns.lost)


def _packing(is_float: bool) -> dict[str, str]:
    # Coordinates hardly compress; ids do.
    return {"id": "zstd", "embedding.list.element": "none" if is_float else "zstd"}


def _table(columns: Columns, codes: np.ndarray, about: dict[str, Any]) -> Any:  # noqa: ANN401
    kind = arrow.from_numpy_dtype(codes.dtype)
    values = arrow.array(np.ascontiguousarray(codes).reshape(-1), type=kind)
    element = arrow.field("element", kind, nullable=False)
    lists = arrow.FixedSizeListArray.from_arrays(values, type=arrow.list_(element, codes.shape[1]))
    fields = [
        arrow.field("id", arrow.string(), nullable=False),
        arrow.field("embedding", lists.type, nullable=False),
        *(arrow.field(name, arrow.string()) for name in columns.beside),
    ]
    schema = arrow.schema(fields, metadata={"fusion": json.dumps(about, sort_keys=True)})
    texts = (columns.ids, *columns.beside.values())
    ids, *beside = (arrow.array(values, type=arrow.string()) for values in texts)
    return arrow.Table.from_arrays([ids, lists, *beside], schema=schema)


def cannot_write(folder: Path, error: OSError) -> FusionError:
    """What to say of a full disk."""
    words = error.strerror or " ".join(str(error).split())
    return FusionError(
        f"{folder} cannot be written ({words}); what is whole there is kept: make room and go on "
        "with --resume"
    )


def sha256(path: Path) -> str:
    """Checksum of a file, as ``sha256sum`` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
