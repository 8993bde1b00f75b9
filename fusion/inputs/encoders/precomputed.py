"""``file:PATH``: embeddings that were computed elsewhere, looked up by the texts' ids.

``PATH`` is an ``.npy`` or ``.safetensors`` file (one tensor ``embeddings`` [n, d]) with a text file
of the same name and the suffix ``.ids.txt`` beside it, one id a line; or a folder with such a pair
named ``query`` and one named ``document`` where the two sides were embedded differently.

Where ``NAME.offsets.npy``, integers [n + 1], lies beside ``NAME.npy``, the rows [t, d] are vectors
of tokens: those of the i-th id from ``offsets[i]`` up to ``offsets[i + 1]``, maybe none.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusion.errors import FusionError
from fusion.inputs.data.jsonl import read_lines
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.tokens import HALF, check_tokens
from fusion.paths import as_path
from fusion.ragged import Ragged

SCHEME = "file:"
SUFFIXES = (".npy", ".safetensors")
OFFSETS = ".offsets.npy"
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


@dataclass(frozen=True)
class _Table:
    embeddings: np.ndarray  # (n, d), memory-mapped where the format allows
    row_of: dict[str, int]
    path: Path
    offsets: np.ndarray | None = None  # int64 (n + 1,), of vectors of tokens

    def places(self, name: str, ids: Sequence[str] | None) -> np.ndarray:
        """Where ids stand in the file, int64 [n]."""
        if ids is None:
            raise FusionError(f"{name} holds embeddings by id, and these texts have no ids")
        missing = [key for key in ids if key not in self.row_of]
        if missing:
            raise FusionError(
                f"{name} has no embedding for {len(missing)} of {len(ids)} ids, "
                f"the first is {missing[0]!r}"
            )
        return np.array([self.row_of[key] for key in ids], dtype=np.int64)


@dataclass(frozen=True)
class PrecomputedEncoder:
    """Looks embeddings up by id; satisfies ``fusion.inputs.encoders.text.TextEncoder``."""

    name: str
    dim: int
    fingerprint: dict[str, str]
    tables: dict[Role, _Table]

    @classmethod
    def open(cls, name: str) -> "PrecomputedEncoder":
        """Open ``file:PATH``.

        Raises:
            FusionError: A file is missing, unreadable, or has not one id for each row.
        """
        tables, width = _open(name)
        digest = hashlib.sha256()
        files = [table.path for table in tables.values()]
        files += [p.with_suffix(OFFSETS) for p in files if p.with_suffix(OFFSETS).is_file()]
        for path in dict.fromkeys(files):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return cls(name, width, {"source": "file", "weights": digest.hexdigest()}, tables)

    def encode(
        self,
        texts: Sequence[str],
        role: Role,
        ids: Sequence[str] | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> np.ndarray:
        """Look up float32 [n, dim]; see ``TextEncoder.encode``.

        Raises:
            FusionError: No ids were given, or one of them is not in the file.
        """
        embeddings = self.reader(role, ids)(slice(None))
        if advance is not None:
            advance(len(embeddings))
        return embeddings

    def reader(self, role: Role, ids: Sequence[str] | None) -> Callable[[slice], np.ndarray]:
        """What gives float32 [rows, dim] for a slice of the ids.

        Raises:
            FusionError: No ids were given, or one of them is not in the file.
        """
        table = self.tables[role]
        if table.offsets is not None:
            raise FusionError(f"{self.name} holds vectors of tokens: use it with --tokens")
        places = table.places(self.name, ids)  # (n,)
        return lambda rows: np.asarray(table.embeddings[places[rows]], dtype=np.float32)

    def token_reader(
        self, role: Role, ids: Sequence[str] | None
    ) -> tuple[np.ndarray, Callable[[int], np.ndarray]]:
        """Offsets int64 [n + 1] of the ids' tokens, and what gives those of one, float16 [t, dim].

        Raises:
            FusionError: No ids were given, one of them is not in the file, or the file holds one
                vector a text. What is given raises it for a token that is zero or not finite; the
                message names the id and the token.
        """
        table = self.tables[role]
        if table.offsets is None:
            raise FusionError(
                f"{self.name} holds one vector a text; vectors of tokens have their offsets in "
                f"{table.path.with_suffix(OFFSETS).name} beside them"
            )
        offsets, places = table.offsets, table.places(self.name, ids)  # (m + 1,), (n,)
        known = list(ids or ())

        def read(text: int) -> np.ndarray:
            start, stop = offsets[places[text]], offsets[places[text] + 1]
            with np.errstate(over="ignore"):  # what float16 cannot hold is named
                rows = np.asarray(table.embeddings[start:stop]).astype(HALF)
            check_tokens(rows, self.name, known[text])
            return rows

        return np.cumsum([0, *np.diff(offsets)[places]], dtype=np.int64), read


def width_of(name: str) -> int:
    """The width of ``file:PATH``; its embeddings are not read.

    Raises:
        FusionError: As ``PrecomputedEncoder.open``.
    """
    return _open(name)[1]


def _open(name: str) -> tuple[dict[Role, _Table], int]:
    """The tables of both roles, and their width."""
    path = as_path(name.removeprefix(SCHEME))
    if path.is_dir():
        tables = {role: _read(_find(path, role)) for role in Role}
    else:
        tables = dict.fromkeys(Role, _read(path))
    widths = {table.embeddings.shape[1] for table in tables.values()}
    if len(widths) > 1:
        raise FusionError(f"{name}: queries and documents have different widths {widths}")
    return tables, widths.pop()


def _find(folder: Path, role: Role) -> Path:
    for suffix in SUFFIXES:
        if (folder / f"{role}{suffix}").is_file():
            return folder / f"{role}{suffix}"
    raise FusionError(f"{folder} has no {role}.npy or {role}.safetensors")


def _read(path: Path) -> _Table:
    if path.suffix not in SUFFIXES or not path.is_file():
        raise FusionError(f"file:{path} is not an existing .npy or .safetensors file or a folder")
    ids_path = path.with_suffix(".ids.txt")
    if not ids_path.is_file():
        raise FusionError(f"file:{path} needs its ids, one a line, in {ids_path.name} beside it")
    embeddings = _read_matrix(path)
    if embeddings.ndim != 2 or 0 in embeddings.shape or embeddings.dtype.kind not in "fiu":
        raise FusionError(
            f"file:{path} holds {embeddings.dtype} of shape {embeddings.shape}, not rows of numbers"
        )
    row_of, offsets = _read_ids(ids_path), _read_offsets(path, embeddings)
    if offsets is not None:
        if len(row_of) != len(offsets) - 1:
            raise FusionError(
                f"file:{path} has offsets of {len(offsets) - 1} texts and {ids_path.name} has "
                f"{len(row_of)} ids"
            )
        return _Table(embeddings, row_of, path, offsets)
    if len(row_of) != len(embeddings):
        raise FusionError(
            f"file:{path} has shape {embeddings.shape} and {ids_path.name} has {len(row_of)} ids"
        )
    return _Table(embeddings, row_of, path)


def _read_offsets(path: Path, rows: np.ndarray) -> np.ndarray | None:
    """Offsets of vectors of tokens, int64 [n + 1]; None for one vector a text."""
    beside = path.with_suffix(OFFSETS)
    if not beside.is_file():
        return None
    try:
        return Ragged(rows, np.load(beside, allow_pickle=False)).offsets
    except (OSError, ValueError, EOFError) as error:
        raise FusionError(f"{beside} does not fit file:{path}: {error}") from error


def _read_ids(path: Path) -> dict[str, int]:
    row_of: dict[str, int] = {}
    for number, (_, key) in enumerate(read_lines(path)):
        if row_of.setdefault(key, number) != number:
            raise FusionError(f"{path} holds the id {key!r} twice")
    return row_of


def _read_matrix(path: Path) -> np.ndarray:
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        return _map_safetensors(path)
    except Exception as error:
        raise FusionError(f"file:{path} cannot be read: {error}") from error


def _map_safetensors(path: Path) -> np.ndarray:
    """The tensor ``embeddings``, memory-mapped: the library's own reader takes a copy."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as tensors:  # checks every offset of the header
        if "embeddings" not in tensors.keys():  # noqa: SIM118 - no iter
            raise ValueError("it holds no tensor 'embeddings'")
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))["embeddings"]
    if header["dtype"] not in DTYPES:
        raise ValueError(f"its dtype is {header['dtype']}; save it as one of {', '.join(DTYPES)}")
    start = 8 + size + header["data_offsets"][0]
    return np.memmap(path, DTYPES[header["dtype"]], "r", start, tuple(header["shape"]))
