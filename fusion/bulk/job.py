"""The job: rows in, shards out; what is whole on disk is not computed again.

On one machine a job that was killed and went on ends in the bytes of one that was not. Another
processor, number of threads or version of torch sums in another order, so that there the last bits
of embeddings differ, and now and then a code.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from fusion.bulk.engine import Engine
from fusion.bulk.progress import Progress
from fusion.bulk.writing.journal import Journal, open_output
from fusion.bulk.writing.manifest import MODEL_PATH, REJECTS, Manifest
from fusion.bulk.writing.repeats import Repeats
from fusion.bulk.writing.shards import (
    OWN_COLUMNS,
    Chunk,
    Shard,
    cannot_write,
    write_shard,
)
from fusion.errors import FusionError
from fusion.inputs.reading.reader import Reader
from fusion.inputs.reading.rows import Reject, Row

logger = logging.getLogger(__name__)

SHARD_ROWS = 4096
SHARD_BYTES = 64_000_000  # of text: long rows make shorter shards, so that memory stays bounded
HOPELESS = 10_000  # rejected rows without a single good one: a wrong field, not wrong rows


@dataclass
class Rejects:
    """Rows that could not be encoded, in a file that appears when the job is done."""

    folder: Path
    strict: bool = False
    count: int = 0
    first: str = ""
    file: IO[str] | None = None

    def add(self, reject: Reject) -> None:
        """Write a row down.

        Raises:
            FusionError: The job is strict, or the disk is full.
        """
        words = f"{reject.file}:{reject.row}: {reject.reason}"
        if self.strict:
            raise FusionError(f"{words}; repair the row, or leave --strict out")
        self.count += 1
        self.first = self.first or words
        self._write({key: value for key, value in asdict(reject).items() if value != ""})

    def add_lost(self, shards: list[Shard]) -> None:
        """Write down the rows of shards that have no embedding."""
        for shard in shards:
            for key in shard.lost:
                self.count += 1
                self._write({"id": key, "reason": "its embedding is zero or not finite"})

    def close(self) -> None:
        """Give the file its name."""
        if self.file:
            self.file.close()
            self._partial.replace(self.folder / REJECTS)

    @property
    def _partial(self) -> Path:
        return self.folder / f"{REJECTS}.partial"

    def _write(self, plain: dict[str, Any]) -> None:
        try:
            if self.file is None:
                self.file = self._partial.open("w", encoding="utf-8")
            self.file.write(json.dumps(plain, ensure_ascii=False) + "\n")
        except OSError as error:
            raise cannot_write(self.folder, error) from error


@dataclass
class Chunks:
    """Cuts rows into chunks; borders depend on the rows alone."""

    reader: Reader
    rejects: Rejects
    shard_rows: int
    repeats: Repeats
    keep: tuple[str, ...] = ()
    """What is written beside the embeddings."""
    good: int = field(default=0, init=False)
    told: bool = field(default=False, init=False)
    """That titles are left out."""

    def __iter__(self) -> Iterator[Chunk]:
        rows: list[Row] = []
        size = number = 0
        for item in self.reader:
            if isinstance(item, Reject):
                self.rejects.add(item)
                if self.rejects.count >= HOPELESS and not self.good:
                    raise self.nothing()
                continue
            self.good += 1
            rows.append(item)
            size += len(item.text)
            if len(rows) >= self.shard_rows or size >= SHARD_BYTES:
                yield self._noted(Chunk(number, tuple(rows), self.keep))
                rows, size, number = [], 0, number + 1
        if rows:
            yield self._noted(Chunk(number, tuple(rows), self.keep))

    def _noted(self, chunk: Chunk) -> Chunk:
        """Say, before anything of it is encoded, what a person may want otherwise."""
        self.repeats.add(row.id for row in chunk.rows)
        if self.reader.fields.leave_titles_out and not self.told:
            self.told = True
            logger.warning("titles are left out; --text-fields title,text takes them in")
        return chunk

    def tell_at_the_end(self, shards: list[Path]) -> None:
        """Say what only all rows together show."""
        for name in self.reader.fields.missed:
            logger.warning("no row has the field %r", name)
        count, first = self.repeats.find(shards)
        if count:
            words = "1 id occurs" if count == 1 else f"{count:,} ids occur"
            logger.warning(
                "%s more than once, the first is %r: a database would keep one row of each",
                words,
                first,
            )

    def nothing(self) -> FusionError:
        """What to say when no row is a text."""
        first = f"; the first: {self.rejects.first}" if self.rejects.first else ""
        return FusionError(
            f"no row of the input can be encoded ({self.rejects.count:,} rejected{first})"
        )


@dataclass(frozen=True)
class JobConfig:
    """How a job treats its rows and its folder."""

    shard_rows: int = SHARD_ROWS
    """Rows of a shard: what a kill costs at most, for each device."""
    strict: bool = False
    """Stop at the first row that cannot be encoded."""
    resume: bool = False
    """Go on with a folder."""
    overwrite: bool = False
    """Replace a folder's encoding, once the new one is whole."""
    keep: tuple[str, ...] = ()
    """What is kept beside embeddings: ``text``, and names of metadata."""

    def __post_init__(self) -> None:
        if self.shard_rows < 1:
            raise ValueError(f"shard-rows must be at least 1, got {self.shard_rows}")
        if len(set(self.keep)) < len(self.keep):
            raise ValueError(f"keep names one twice: {','.join(self.keep)}")
        if taken := [name for name in OWN_COLUMNS if name in self.keep]:
            raise ValueError(f"keep names {taken[0]!r}, which shards hold anyway; leave it out")


def encode_rows(reader: Reader, folder: Path, engine: Engine, config: JobConfig) -> Manifest:
    """Encode all rows of a reader into a folder of shards.

    Raises:
        FusionError: The folder is taken or cannot be written, no row can be encoded, or (strict)
            one cannot.
    """
    settings = {**engine.encoder.settings, "shard_rows": config.shard_rows, **reader.settings}
    if config.keep:
        settings["keep"] = list(config.keep)
    ways = {"resume": config.resume, "overwrite": config.overwrite}
    with open_output(folder, settings, reader.identity, **ways) as journal:
        rejects = Rejects(journal.folder, config.strict)
        try:
            repeats = Repeats(journal.folder)
            chunks = Chunks(reader, rejects, config.shard_rows, repeats, config.keep)
            shards = list(_fill(chunks, journal, engine, config))
            if not shards:
                raise chunks.nothing()
            paths = [journal.path(shard.file) for shard in shards]
            journal.check_all_known({path.name for path in paths})
            chunks.tell_at_the_end(paths)
            for cuts in engine.encoder.cuts.values():
                if words := cuts.words():
                    logger.warning(words)
            rejects.add_lost(shards)
            rejects.close()
        finally:
            if rejects.file:
                rejects.file.close()
        about = engine.encoder.about
        manifest = Manifest(settings, tuple(shards), rejects.count, about, reader.identity)
        journal.finish(manifest, rejects.count > 0)
    return manifest


def _fill(chunks: Chunks, journal: Journal, engine: Engine, config: JobConfig) -> list[Shard]:
    """Shards of all chunks; only those that are not there yet, or are damaged, are encoded."""
    done: dict[int, Shard] = {}
    about = {**engine.encoder.settings, **engine.encoder.about, "ranges": None}
    about.pop(MODEL_PATH, None)
    with Progress(chunks.reader) as progress:

        def missing() -> Iterator[Chunk]:
            for chunk in chunks:
                known = journal.known(chunk)
                if known is None:
                    yield chunk
                elif not known.is_whole(journal.path(known.file)):
                    logger.warning("the shard %s is damaged; it is encoded again", chunk.name)
                    yield chunk
                else:
                    done[chunk.number] = known
                    progress.skip(len(chunk.rows))

        for chunk, codes, kept in engine.run(missing()):
            if config.strict and not kept.all():
                key = chunk.rows[int(kept.argmin())].id
                raise FusionError(f"the embedding of {key!r} is zero or not finite (--strict)")
            journal.begin()
            columns = chunk.columns(kept)
            shard = write_shard(journal.path(columns.file), columns, codes[kept], about)
            journal.add(shard)
            done[chunk.number] = shard
            progress.add(len(chunk.rows))
    return [done[number] for number in sorted(done)]
