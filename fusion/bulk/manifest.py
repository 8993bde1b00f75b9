"""What stands in an output folder: its manifest, and the journal of a job that is under way.

The journal has one line a shard, written once the shard is whole; whoever holds its lock is the
only one to write into the folder. The manifest takes its place when the job is done, so a folder
with a manifest and no journal is finished.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from fusion.bulk.shards import Shard, cannot_write
from fusion.errors import FusionError
from fusion.output import check_output

logger = logging.getLogger(__name__)

FORMAT = 1
SHOWN = 40  # characters of a setting in an error
MANIFEST, JOURNAL, REJECTS = "manifest.json", "progress.jsonl", "rejects.jsonl"
OWN = ("part-*.parquet", "*.partial", MANIFEST, REJECTS)  # what --overwrite may remove


@dataclass(frozen=True)
class Manifest:
    """A finished output."""

    settings: dict[str, Any]
    """All that embeddings depend on, besides the texts."""
    shards: tuple[Shard, ...]
    rejected: int = 0
    about: dict[str, Any] = field(default_factory=dict)
    """What a reader of the embeddings needs: type, ranges, …."""

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    def write(self, folder: Path) -> None:
        """Write the file, whole or not at all."""
        plain = {
            "format": FORMAT,
            **self.about,
            "settings": self.settings,
            "rows": self.rows,
            "rejected": self.rejected,
            "bytes": sum(shard.bytes for shard in self.shards),
            "shards": [shard.to_dict() for shard in self.shards],
        }
        partial = folder / f"{MANIFEST}.partial"
        with partial.open("w", encoding="utf-8") as file:
            file.write(_laid_out(plain))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / MANIFEST)

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read what ``write`` wrote.

        Raises:
            FusionError: There is none, it is damaged, or of a newer format.
        """
        path = folder / MANIFEST
        try:
            plain = json.loads(path.read_bytes().decode("utf-8"))
            if not isinstance(plain, dict):
                raise ValueError("it is not an object")
            if not isinstance(plain.get("format"), int) or plain["format"] > FORMAT:
                raise ValueError(f"format {plain.get('format')!r}, this version reads {FORMAT}")
            settings, rejected = plain["settings"], plain["rejected"]
            if not isinstance(settings, dict) or not isinstance(rejected, int):
                raise ValueError("settings or rejected is not what it should be")
            if not isinstance(plain["shards"], list):
                raise ValueError("shards is not a list")
            shards = tuple(Shard.of(shard) for shard in plain["shards"])
            if plain["rows"] != sum(shard.rows for shard in shards):
                raise ValueError(f"rows is {plain['rows']!r}, but its shards have others")
        except FileNotFoundError:
            raise FusionError(f"{folder} has no {MANIFEST}: no finished encoding") from None
        except (OSError, ValueError, KeyError, RecursionError) as error:
            raise FusionError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from None
        own = {"format", "settings", "rows", "rejected", "bytes", "shards"}
        about = {key: value for key, value in plain.items() if key not in own}
        return cls(settings, shards, rejected, about)


def _laid_out(plain: dict[str, Any]) -> str:
    """JSON with a line for each field and for each shard: short to read, easy to grep."""
    lines = {key: json.dumps(value) for key, value in plain.items()}
    shards = ",\n  ".join(json.dumps(shard) for shard in plain["shards"])
    lines["shards"] = f"[\n  {shards}\n]"
    return "{\n" + ",\n".join(f'"{key}": {line}' for key, line in lines.items()) + "\n}\n"


@dataclass
class Journal:
    """The folder of a job that is under way."""

    folder: Path
    settings: dict[str, Any]
    shards: dict[str, Shard]
    """By file name, those of earlier runs."""
    file: BinaryIO

    def add(self, shard: Shard) -> None:
        """Note a shard that is whole."""
        self._append(shard.to_dict())
        self.shards[shard.file] = shard

    def start(self) -> None:
        """Go on behind the last whole line of a journal, or begin one."""
        self.file.seek(0)
        settings, _ = parse_journal(self.file)
        self.file.seek(0)
        whole = sum(len(line) for line in self.file if line.endswith(b"\n"))
        self.file.truncate(0 if settings is None else whole)
        if settings is None:
            self._append({"settings": self.settings})

    def finish(self, manifest: Manifest, rejects: bool) -> None:
        """Write the manifest, and remove what does not belong to a finished output."""
        try:
            manifest.write(self.folder)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        named = {shard.file for shard in manifest.shards}
        for path in self.folder.glob("part-*.parquet"):
            if path.name not in named:
                path.unlink()  # of an input that has become shorter
        if not rejects:
            (self.folder / REJECTS).unlink(missing_ok=True)
        self._clear()

    def forget(self) -> None:
        """Remove it, and the folder if nothing else lies in it."""
        self._clear()
        with suppress(OSError):
            self.folder.rmdir()

    def _clear(self) -> None:
        for path in self.folder.glob("*.partial"):
            path.unlink()  # of a run that was killed
        (self.folder / JOURNAL).unlink()

    def _append(self, plain: dict[str, Any]) -> None:
        try:
            self.file.write(json.dumps(plain).encode() + b"\n")
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise cannot_write(self.folder, error) from error


@contextmanager
def open_output(
    folder: Path, settings: dict[str, Any], *, resume: bool = False, overwrite: bool = False
) -> Iterator[Journal]:
    """Open an output folder, alone, and find out what is there already.

    Raises:
        FusionError: It is taken: by a process at work, by other settings, or by other things.
    """
    check_free(folder, resume, overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / JOURNAL).open("a+b")
    except OSError as error:
        raise cannot_write(folder, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, also killed
        except OSError:
            raise FusionError(f"another process is encoding into {folder}") from None
        if overwrite:
            file.truncate(0)
            for path in [path for pattern in OWN for path in folder.glob(pattern)]:
                path.unlink()
        journal = Journal(folder, settings, {}, file)
        try:
            for found, shards in _known(folder, file):
                _check_settings(folder, settings, found)
                journal.shards |= {shard.file: shard for shard in shards}
        except FusionError:
            if not file.seek(0, os.SEEK_END):
                (folder / JOURNAL).unlink()  # a finished folder stays as it was
            raise
        journal.start()
        with _forgotten_if_empty(journal):
            yield journal


@contextmanager
def _forgotten_if_empty(journal: Journal) -> Iterator[None]:
    """Leave nothing of a job that failed before its first shard: there is nothing to resume."""
    try:
        yield
    except FusionError:
        if not journal.shards:
            journal.forget()
        raise


def check_free(folder: Path, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that is taken, before any work is done; see ``check_output``."""
    check_output(folder, overwrite, resume, marks=(MANIFEST, JOURNAL), kind="an encoding")


def _known(folder: Path, file: BinaryIO) -> Iterator[tuple[dict[str, Any], Sequence[Shard]]]:
    """Settings and shards of a manifest, then of a journal; damaged ones say so."""
    if (folder / MANIFEST).exists():
        try:
            manifest = Manifest.read(folder)
            yield manifest.settings, manifest.shards
        except FusionError as error:
            logger.warning("%s; its shards are encoded again", error)
    file.seek(0)
    settings, shards = parse_journal(file)
    if settings is not None:
        yield settings, shards


def parse_journal(lines: Iterator[bytes] | BinaryIO) -> tuple[dict[str, Any] | None, list[Shard]]:
    """Settings and shards of a journal; lines that a kill or a disk has cut are left out."""
    settings: dict[str, Any] | None = None
    shards = []
    for number, line in enumerate(lines):
        try:
            plain = json.loads(line.decode("utf-8"))
            if number == 0:
                settings = plain["settings"] if isinstance(plain["settings"], dict) else None
            elif settings is not None:
                shards.append(Shard.of(plain))
        except (ValueError, KeyError, TypeError, RecursionError):
            logger.debug("line %d of the journal is cut", number + 1)
    return settings, shards


def _check_settings(folder: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    changed = [key for key in ours if ours[key] != theirs.get(key)]
    if changed:
        key = changed[0]
        raise FusionError(
            f"{folder} was encoded with {key}={_short(theirs.get(key))}, now it is "
            f"{_short(ours[key])}: resume with the same settings, or start anew with --overwrite"
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
