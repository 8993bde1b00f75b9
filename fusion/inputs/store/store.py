"""Embeddings on disk, never computed twice.

A store is a folder; in it, one folder for each encoder, role and prompt (the key); in that, shards:
``.npy`` files of (text hash, embedding) records, named after their own checksum. A shard appears
under its name only when it is whole, so a killed run leaves whole shards and the next run goes on.
Chunks of the input have fixed borders and one process at a time works on a chunk, so what is in a
shard depends on the input alone, and on one machine so does every byte of it. Another processor,
number of threads or version of torch sums in another order: the last bits of embeddings differ.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fusion.errors import FusionError
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.cuts import Cuts
from fusion.inputs.encoders.precomputed import PrecomputedEncoder
from fusion.inputs.encoders.text import TextEncoder
from fusion.inputs.items import HASH_BYTES, Item, as_items, hash_item
from fusion.inputs.store.stored import Stored
from fusion.locks import lock
from fusion.paths import default_root

logger = logging.getLogger(__name__)

CHUNK = 512  # texts a shard: half a minute of a small encoder on two cores, all that a kill costs


@dataclass(frozen=True)
class Store:
    """A folder of embeddings.

    Attributes:
        root: The folder; ``default_root()`` unless told otherwise.
        told: What was said of texts that are cut, each once.
    """

    root: Path = field(default_factory=default_root)
    told: set[str] = field(default_factory=set, compare=False, repr=False)

    def embed(
        self,
        encoder: TextEncoder,
        texts: Sequence[Any],
        role: Role,
        ids: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Embed texts or pictures, reading what is stored and storing what is new.

        Args:
            encoder: A frozen encoder.
            texts: n texts, or pictures as ``{"image": path}``; equal ones are embedded once, and
                pictures are equal by their content.
            role: Queries or documents.
            ids: Needed only by encoders that look embeddings up.

        Returns:
            float32 [n, dim], not normalised.

        Raises:
            FusionError: An embedding is zero or not finite (the message names row and encoder), or
                the disk is full.
        """
        return self.open(encoder, texts, role, ids)[:]

    def open(
        self,
        encoder: TextEncoder,
        texts: Sequence[Any],
        role: Role,
        ids: Sequence[str] | None = None,
    ) -> Stored:
        """Embed items as ``embed`` does, but leave the embeddings on disk until they are read."""
        texts = as_items(texts)
        read: Callable[[slice], np.ndarray]
        if isinstance(encoder, PrecomputedEncoder):  # they are on disk already
            read = encoder.reader(role, ids)
        else:
            shelf = Shelf.open(self.root, encoder, role)
            shelf.fill(encoder, texts, role)
            self._tell(shelf.cuts(encoder.name, texts, role))

            def read(rows: slice) -> np.ndarray:
                return shelf.gather(texts[rows], encoder.dim)

        return Stored(encoder.name, texts, encoder.dim, read)

    def _tell(self, words: str) -> None:
        if words and words not in self.told:
            self.told.add(words)
            logger.warning(words)

    def room(self, shape: tuple[int, int]) -> np.ndarray:
        """Float32 memory-mapped in a file without a name, which goes when this process does.

        Raises:
            FusionError: The store's disk has no room for it.
        """
        size = 4 * shape[0] * shape[1]
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root) as file:
                os.posix_fallocate(file.fileno(), 0, size)  # else a full disk would be a bus error
                return np.memmap(file, np.float32, "r+", shape=shape)
        except OSError as error:
            raise FusionError(
                f"{self.root} has no room for {size / 2**30:.1f} GiB of fused embeddings "
                f"({error.strerror}); make room, set FUSION_CACHE or give --max-texts"
            ) from error


@dataclass
class Shelf:
    """The shards of one key."""

    folder: Path
    shards: set[str]  # file names; they are opened only to be read, since a process may open few
    where: dict[bytes, tuple[str, int]]  # text hash -> shard, row
    limit: int | None = None  # tokens that the encoder reads
    cut: dict[bytes, int] = field(default_factory=dict)  # text hash -> tokens beyond the limit
    silent: set[str] = field(default_factory=set)  # shards that do not know their texts' tokens

    @classmethod
    def open(cls, root: Path, encoder: TextEncoder, role: Role) -> "Shelf":
        """Open, or make, the shelf of an encoder and a role."""
        prompt = encoder.fingerprint.get(f"{role}_prompt", "")
        parts = {k: v for k, v in encoder.fingerprint.items() if not k.endswith("_prompt")}
        # Encoders without prompts embed queries as they embed documents: one shelf serves both.
        key = json.dumps({**parts, "dim": encoder.dim, "prompt": prompt}, sort_keys=True)
        folder = root / hashlib.sha256(key.encode()).hexdigest()[:24]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "key.json").exists():
                with _alone(folder):
                    partial = folder / "partial-key"
                    partial.write_text(key + "\n", encoding="utf-8")
                    partial.replace(folder / "key.json")
        except OSError as error:
            raise FusionError(
                f"the store {root} cannot be written ({error.strerror}); set FUSION_CACHE"
            ) from error
        shelf = cls(folder, set(), {}, getattr(encoder, "limit", None))
        shelf.refresh()
        return shelf

    def refresh(self) -> None:
        """Take in shards that appeared since the last look; drop damaged ones, by name."""
        for path in sorted(self.folder.glob("*.npy")):
            if path.name in self.shards or path.name.startswith("partial-"):
                continue
            records = _read_shard(path)
            if records is None:
                logger.warning("the shard %s is damaged; its texts are embedded again", path.name)
                path.unlink(missing_ok=True)
                continue
            self.shards.add(path.name)
            for row, key in enumerate(records["hash"]):
                self.where.setdefault(key.tobytes(), (path.name, row))
            self._note_cuts(path.name, records)

    def _note_cuts(self, name: str, records: np.ndarray) -> None:
        if self.limit is None:
            return
        if "tokens" not in (records.dtype.names or ()):  # of an earlier version
            self.silent.add(name)
            return
        for row in np.flatnonzero(records["tokens"] > self.limit):
            self.cut[records["hash"][row].tobytes()] = int(records["tokens"][row])

    def cuts(self, name: str, texts: Sequence[Item], role: Role) -> str:
        """What to say of texts, all on the shelf, that the encoder does not read to their end."""
        if self.limit is None or not self.cut:
            return ""
        keys = [hash_item(text) for text in texts]
        cuts = Cuts(name, self.limit)
        cuts.add(self.cut.get(key, 0) for key in keys)
        untold = any(self.where[key][0] in self.silent for key in keys) if self.silent else False
        return cuts.words("queries" if role is Role.QUERY else "texts", untold)

    def fill(self, encoder: TextEncoder, texts: Sequence[Item], role: Role) -> None:
        """Embed what is missing, a chunk at a time."""
        unique = _firsts(texts)
        missing = sum(hash_item(text) not in self.where for text in unique)
        if not missing:
            return
        bar = tqdm(total=missing, desc=f"{encoder.name} {role}", unit="text", disable=None)
        with bar:
            for start in range(0, len(unique), CHUNK):
                chunk = unique[start : start + CHUNK]
                if all(hash_item(text) in self.where for text in chunk):
                    continue
                with _alone(self.folder) as alone:
                    # Of a killed process; or of a living one, where the disk has no locks.
                    for stale in self.folder.glob("partial-*") if alone else ():
                        stale.unlink(missing_ok=True)
                    self.refresh()  # another process may have done this chunk meanwhile
                    todo = [text for text in chunk if hash_item(text) not in self.where]
                    if todo:
                        self._embed(encoder, todo, role, bar.update)
                        self.refresh()

    def _embed(
        self,
        encoder: TextEncoder,
        texts: Sequence[Item],
        role: Role,
        advance: Callable[[int], object],
    ) -> None:
        if self.limit is None:
            self._write(texts, encoder.encode(texts, role, advance=advance))
            return
        tokens = np.zeros(len(texts), dtype=np.uint32)
        options: dict[str, Any] = {"advance": advance, "tokens": tokens}
        self._write(texts, encoder.encode(texts, role, **options), tokens)

    def gather(self, texts: Sequence[Item], dim: int) -> np.ndarray:
        """Read the embeddings of texts that are all on the shelf: float32 [n, dim]."""
        out = np.empty((len(texts), dim), dtype=np.float32)
        places: dict[str, tuple[list[int], list[int]]] = {}
        for row, text in enumerate(texts):
            shard, record = self.where[hash_item(text)]
            rows, records = places.setdefault(shard, ([], []))
            rows.append(row)
            records.append(record)
        for shard, (rows, records) in places.items():
            mapped = np.load(self.folder / shard, mmap_mode="r", allow_pickle=False)
            out[rows] = mapped["embedding"][records]
        return out

    def _write(
        self, texts: Sequence[Item], embeddings: np.ndarray, tokens: np.ndarray | None = None
    ) -> None:
        kind: list[Any] = [("hash", f"V{HASH_BYTES}"), ("embedding", "<f4", embeddings.shape[1:])]
        records = np.empty(len(texts), kind + ([] if tokens is None else [("tokens", "<u4")]))
        if tokens is not None:
            records["tokens"] = tokens
        records["hash"] = np.frombuffer(
            b"".join(hash_item(text) for text in texts), dtype=f"V{HASH_BYTES}"
        )
        records["embedding"] = embeddings
        partial = self.folder / f"partial-{os.getpid()}.npy"
        try:
            with partial.open("wb") as file:
                np.save(file, records, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.folder / f"{_checksum(partial)}.npy")
        except OSError as error:
            raise FusionError(
                f"the store {self.folder.parent} cannot be written ({error.strerror}); what is "
                "stored stays usable: make room or set FUSION_CACHE"
            ) from error
        finally:
            partial.unlink(missing_ok=True)


def _firsts(items: Sequence[Item]) -> list[Item]:
    """Each item once; two files of one content are one picture."""
    found: dict[bytes, Item] = {}
    for item in items:
        found.setdefault(hash_item(item), item)
    return list(found.values())


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """One process at a time; False where the disk has no locks, and two may do the same work."""
    with (folder / "lock").open("w") as file:
        yield lock(file, wait=True)


def _checksum(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_shard(path: Path) -> np.ndarray | None:
    """The records, memory-mapped; None for a file that is not what it was when it was written."""
    try:
        if _checksum(path) != path.stem:
            return None
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError):  # another process may have removed a damaged one
        return None
    except OSError as error:  # of a disk, or of too many open files: that is no damage
        raise FusionError(f"the store's {path} cannot be read ({error.strerror})") from error
