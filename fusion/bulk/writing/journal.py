"""The journal of a job that is under way, and what it may do in its folder.

The journal has one line a shard, written once the shard is whole; whoever holds its lock is the
only one to write into the folder. The manifest takes its place when the job is done, so a folder
with a manifest and no journal is finished. What is in the folder goes on with the input and the
settings that it was made from. What replaces it is made beside it, with a journal of its own.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from fusion.bulk.writing.manifest import MANIFEST, REJECTS, Manifest, earlier, find
from fusion.bulk.writing.replacing import BESIDE, SHARDS, clear, is_whole, take_place, waiting
from fusion.bulk.writing.shards import Chunk, Shard, cannot_write
from fusion.errors import FusionError
from fusion.locks import lock
from fusion.output import check_output

logger = logging.getLogger(__name__)

JOURNAL = "_progress.jsonl"
NAMES = (MANIFEST, REJECTS, JOURNAL)
SHOWN = 40  # characters of a setting in an error
OWN = (SHARDS, MANIFEST, REJECTS, earlier(MANIFEST), earlier(REJECTS))
"""What --overwrite may replace."""
ANEW = "start anew with --overwrite, or choose another --output"


@dataclass
class Journal:
    """The folder of a job that is under way."""

    folder: Path
    settings: dict[str, Any]
    input: dict[str, Any]
    """What is encoded, as ``Reader.identity`` has it."""
    file: BinaryIO
    overwrite: bool = False
    beside: bool = False
    """Whether this is a new encoding that waits to take the place of an earlier one."""
    shards: dict[str, Shard] = field(default_factory=dict)
    """By file name, those of earlier runs."""
    finished: bool = False
    """Whether an earlier run has encoded the whole input."""
    begun: bool = field(default=False, init=False)
    """Whether this run has written anything."""

    def look(self) -> None:
        """Take in what earlier runs have made.

        Raises:
            FusionError: They had other settings or another input, or nothing tells what they had.
        """
        if find(self.folder, MANIFEST).is_file():
            try:
                manifest = Manifest.read(self.folder)
            except FusionError as error:
                raise FusionError(f"{error}; {ANEW}") from None
            self._take(manifest.settings, manifest.input, list(manifest.shards))
            self.finished = True
        self.file.seek(0)
        head, shards = parse_journal(self.file)
        if head is not None:
            self._take(head["settings"], head.get("input", {}), shards)
        elif not self.finished and self._there():
            raise FusionError(f"nothing in {self.folder} tells what its shards hold; {ANEW}")

    def _take(self, settings: dict, source: dict, shards: list[Shard]) -> None:
        _check_settings(self.folder, self.settings, settings)
        if source and source != self.input:
            theirs, ours = _counted(source), _counted(self.input)
            raise self._other(f"was {theirs}, now it is {'others' if ours == theirs else ours}")
        self.shards |= {shard.file: shard for shard in shards}

    def known(self, chunk: Chunk) -> Shard | None:
        """The shard that an earlier run has made of a chunk.

        Raises:
            FusionError: It made it of other rows.
        """
        shard = self.shards.get(chunk.name)
        if shard is None and self.finished:
            raise self._other(f"had no row {chunk.rows[0].id!r}")
        if shard is not None and shard.input != chunk.digest:
            raise self._other(f"had other rows in the place of {chunk.name}")
        return shard

    def path(self, file: str) -> Path:
        """Where a shard lies."""
        return self.folder / (waiting(file) if self.beside else file)

    def _there(self) -> list[Path]:
        """Shards, whoever made them."""
        return list(self.folder.glob(self.path(SHARDS).name))

    def check_all_known(self, named: set[str]) -> None:
        """Refuse to finish where shards lie that are none of the input's.

        Raises:
            FusionError: There are some.
        """
        there = {path.name for path in self._there()}
        if left := (there | {self.path(file).name for file in self.shards}) - named:
            raise self._other(f"had the rows of {min(left)} too")

    def _other(self, how: str) -> FusionError:
        return FusionError(
            f"{self.folder} was encoded from another input: that {how}; resume with the same "
            f"input, or {ANEW}"
        )

    def add(self, shard: Shard) -> None:
        """Note a shard that is whole."""
        self._append(shard.to_dict())
        self.shards[shard.file] = shard

    def begin(self) -> None:
        """Make ready to write shards, once: only now goes what was begun before."""
        if self.begun:
            return
        self.begun = True
        if self.overwrite:
            self.file.truncate(0)  # from here on nothing tells what the folder holds
            for path in self._there():
                path.unlink()
        self.file.seek(0)
        head, _ = parse_journal(self.file)
        self.file.seek(0)
        whole = sum(len(line) for line in self.file if line.endswith(b"\n"))
        self.file.truncate(0 if head is None else whole)
        if head is None:
            self._append({"settings": self.settings, "input": self.input})

    def finish(self, manifest: Manifest, rejects: bool) -> None:
        """Write the manifest, and remove what does not belong to a finished output."""
        try:
            manifest.write(self.folder)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        if not rejects:
            (self.folder / REJECTS).unlink(missing_ok=True)
        for name in NAMES:
            (self.folder / earlier(name)).unlink(missing_ok=True)
        self.clear()

    def clear(self) -> None:
        """Remove the journal, and what is partial."""
        for path in self.folder.glob("*.partial"):
            path.unlink()  # of a run that was killed
        Path(self.file.name).unlink(missing_ok=True)

    def step_back(self) -> None:
        """Leave the folder as it was, where nothing was made; remove it if nothing lies in it."""
        if not self.shards if self.begun else not self.file.seek(0, os.SEEK_END):
            self.clear()
            with suppress(OSError):
                self.folder.rmdir()

    def _append(self, plain: dict[str, Any]) -> None:
        try:
            self.file.write(json.dumps(plain).encode() + b"\n")
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise cannot_write(self.folder, error) from error


@contextmanager
def open_output(
    folder: Path,
    settings: dict[str, Any],
    source: dict[str, Any],
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Iterator[Journal]:
    """Open an output folder, alone, and find out what is there already.

    Raises:
        FusionError: It is taken: by a process at work, by another input or other settings, or by
            other things.
    """
    check_free(folder, resume, overwrite)
    with _alone(folder) as file:
        if is_whole(folder):  # a kill has come between
            _replace(folder, file)
        if not _goes_beside(folder, file, overwrite):
            with _at_work(Journal(folder, settings, source, file, overwrite)) as journal:
                yield journal
            return
        with (
            _at_work(Journal(folder, settings, source, file, overwrite=True)),
            _alone(folder / BESIDE) as own,
            _at_work(Journal(folder / BESIDE, settings, source, own, overwrite, True)) as journal,
        ):
            yield journal
        _replace(folder, file)
        Path(file.name).unlink()


@contextmanager
def _alone(folder: Path) -> Iterator[BinaryIO]:
    """The journal of a folder, which nobody else has."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = find(folder, JOURNAL).open("a+b")
    except OSError as error:
        raise cannot_write(folder, error) from error
    with file:
        _lock(folder, file)
        yield file


@contextmanager
def _at_work(journal: Journal) -> Iterator[Journal]:
    """A journal that knows what is there, unless that is overwritten."""
    try:
        if not journal.overwrite:
            journal.look()
        yield journal
    except FusionError:
        journal.step_back()
        raise


def _goes_beside(folder: Path, file: BinaryIO, overwrite: bool) -> bool:
    """Whether an encoding is replaced, or was begun to be: it is gone on with."""
    if overwrite:
        file.seek(0)
        return bool(file.read(1)) or any(any(folder.glob(pattern)) for pattern in OWN)
    begun = folder / BESIDE / JOURNAL
    if not begun.is_file():
        return False
    with begun.open("rb") as lines:
        if parse_journal(lines)[0] is not None:
            return True
    clear(folder)  # a kill has come before the first shard
    return False


def _replace(folder: Path, file: BinaryIO) -> None:
    """Put the new encoding in the place of the earlier one, of which the journal tells no more."""
    file.truncate(0)
    take_place(folder)


def _lock(folder: Path, file: BinaryIO) -> None:
    try:
        if not lock(file):
            logger.warning(
                "the disk of %s has no locks: see to it that no other process encodes into it",
                folder,
            )
    except BlockingIOError:
        raise FusionError(f"another process is encoding into {folder}") from None
    except OSError as error:
        raise FusionError(f"{folder} cannot be locked ({error.strerror})") from error


def check_free(folder: Path, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that is taken, before any work is done; see ``check_output``."""
    marks = (MANIFEST, JOURNAL, earlier(MANIFEST), earlier(JOURNAL))
    check_output(folder, overwrite, resume, marks=marks, kind="an encoding")


def parse_journal(lines: Iterator[bytes] | BinaryIO) -> tuple[dict[str, Any] | None, list[Shard]]:
    """First line and shards of a journal; lines that a kill or a disk has cut are left out."""
    head: dict[str, Any] | None = None
    shards = []
    for number, line in enumerate(lines):
        try:
            plain = json.loads(line.decode("utf-8"))
            if number == 0:
                parts = (plain["settings"], plain.get("input", {}))
                head = plain if all(isinstance(part, dict) for part in parts) else None
            elif head is not None:
                shards.append(Shard.of(plain))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            logger.debug("line %d of the journal is cut", number + 1)
    return head, shards


def _check_settings(folder: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    changed = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
    if changed:
        key = changed[0]
        raise FusionError(
            f"{folder} was encoded with {key}={_short(theirs.get(key))}, now it is "
            f"{_short(ours.get(key))}: resume with the same settings; or {ANEW}"
        )


def _counted(source: dict[str, Any]) -> str:
    files, size = source.get("files"), source.get("bytes")
    return f"{files} {'file' if files == 1 else 'files'} of {size} bytes"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
