"""Long documents taken apart into chunks that an encoder reads to their end.

A chunk ends where a sentence or a section does, and has the headings above it before its text.
"""

import logging
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from fusion.inputs.encoders.limits import Tokenizing
from fusion.inputs.reading.rows import TITLE, Heading, Reject, Row

logger = logging.getLogger(__name__)

AUTO, NONE = "auto", "none"
SIZE = 200  # tokens of a chunk, where nobody says otherwise
LEAST = 16  # tokens that a chunk may be asked to have
SMALL = 4  # a section of less than a chunk's fourth goes together with the next one
ABOVE = 3  # headings above a chunk take a third of it at most
BETWEEN = " > "  # headings
GAP_TOKENS = 2  # that ``BETWEEN`` may take
BATCH, BATCH_BYTES = 64, 1_000_000  # rows that are tokenised at once
ENDS = re.compile(
    r"\n\s*\n"  # paragraphs
    r"|(?<=[.!?…])[\"'”’)\]]*\s+(?=[^\sa-z])"  # sentences
    r"|(?<=[。！？])"
    r"|\n(?=\s*(?:[-*•|]|\d+[.)]))"  # items of a list, rows of a table
)
LINES, WORDS = re.compile(r"\n"), re.compile(r"\s+")


@dataclass(frozen=True)
class Chunking:
    """How long texts are taken apart."""

    size: int | str = AUTO
    """Tokens of a chunk at most; ``auto`` takes only those apart that no encoder would read to
    their end, and ``none`` takes none apart."""
    overlap: int = 0
    """Tokens that a chunk repeats of the one before it, at most."""

    def __post_init__(self) -> None:
        is_number = isinstance(self.size, int) and self.size >= LEAST
        if self.size not in (AUTO, NONE) and not is_number:
            raise ValueError(
                f"chunk must be a number of tokens from {LEAST} on, auto or none, got {self.size}"
            )
        if self.overlap and self.size == NONE:
            raise ValueError("chunk-overlap needs chunks; leave it out, or --chunk none")
        longest = (self.size if isinstance(self.size, int) else SIZE) // 2
        if not 0 <= self.overlap <= longest:
            raise ValueError(f"chunk-overlap must be from 0 to {longest}, got {self.overlap}")

    def check(self, tokens: Tokenizing) -> None:
        """Refuse chunks that an encoder would cut.

        Raises:
            ValueError: They are longer than what it reads.
        """
        if isinstance(self.size, int) and tokens.room is not None and self.size > tokens.room:
            raise ValueError(
                f"chunk {self.size} is above the limit of {tokens.name}, which reads {tokens.room} "
                "tokens of a text"
            )


def chunk_size(text: str) -> int | str:
    """``200`` as a number, ``auto`` and ``none`` as they stand; what else ``Chunking`` refuses."""
    return int(text) if text.isdecimal() else text


@dataclass
class Chunker:
    """Takes rows apart, in constant memory."""

    tokens: Tokenizing
    """Of the encoder that reads least."""
    chunking: Chunking = Chunking()
    texts: int = field(default=0, init=False)
    """That were taken apart so far."""
    chunks: int = field(default=0, init=False)
    """That they became."""

    def __post_init__(self) -> None:
        self.chunking.check(self.tokens)

    @property
    def size(self) -> int:
        """Tokens of a chunk at most."""
        if isinstance(self.chunking.size, int):
            return self.chunking.size
        return min(SIZE, self.tokens.room or SIZE)

    @property
    def fits(self) -> int | None:
        """Tokens of a text that stays whole; None where all do."""
        if self.chunking.size == AUTO:
            return self.tokens.room
        return None if self.chunking.size == NONE else self.size

    def apart(self, rows: Iterable[Row | Reject]) -> Iterator[Row | Reject]:
        """The rows in their order; chunks in the place of those that are too long."""
        if self.fits is None:
            yield from rows
            return
        waiting: list[Row | Reject] = []
        length = 0
        for row in rows:
            waiting.append(row)
            length += len(row.text) if isinstance(row, Row) else 0
            if len(waiting) >= BATCH or length >= BATCH_BYTES:
                yield from self._apart(waiting)
                waiting, length = [], 0
        yield from self._apart(waiting)

    def _apart(self, rows: list[Row | Reject]) -> Iterator[Row | Reject]:
        # A token has at least one byte, so most rows need not be looked at.
        long = [r for r in rows if isinstance(r, Row) and len(r.text.encode()) > (self.fits or 0)]
        starts = dict(zip(map(id, long), self.tokens.starts([r.text for r in long]), strict=True))
        for row in rows:
            begun = starts.get(id(row), ())
            if isinstance(row, Row) and len(begun) > (self.fits or 0):
                yield from self._chunks(row, begun)
            else:
                yield row

    def _chunks(self, row: Row, starts: Sequence[int]) -> Iterator[Row]:
        self._tell()
        self.texts += 1
        cutter = _Cutter(row, starts, self.size, self.chunking.overlap, self.tokens)
        for number, (start, end) in enumerate(cutter.spans(), 1):
            self.chunks += 1
            above, here, _ = cutter.above(start)
            text = f"{BETWEEN.join(above)}\n{row.text[start:end]}" if above else row.text[start:end]
            metadata = {**row.metadata, "start": start, "end": end}
            if above or here:
                metadata[TITLE] = BETWEEN.join([*above, *here])
            yield Row(f"{row.id}#{number}", text, metadata, number=row.number)

    def _tell(self) -> None:
        if not self.texts:
            logger.info(
                "texts of more than %d tokens (%s) are taken apart into chunks of at most %d, at "
                "sentences and headings; --chunk none leaves them whole",
                self.fits, self.tokens.name, self.size,
            )  # fmt: skip

    def words(self) -> str:
        """What was done, for a person; empty where nothing was."""
        if not self.texts:
            return ""
        return f"{self.chunks:,} of {self.texts:,} long texts, at most {self.size} tokens each"


@dataclass
class _Cutter:
    """Finds the borders of one text's chunks."""

    row: Row
    starts: Sequence[int]
    """Of tokens, by characters."""
    size: int
    overlap: int
    tokens: Tokenizing

    def __post_init__(self) -> None:
        text, title = self.row.text, str(self.row.metadata.get(TITLE, ""))
        self.text = text
        first = self.row.headings[0] if self.row.headings else None
        opens = bool(title) and text.startswith(title)
        is_heading = first is not None and title == text[first.start : first.end]
        # A title that is no heading stands above all that does not begin with it.
        is_above = bool(title) and not is_heading and (opens or not self.row.number)
        self.title = title if is_above else ""
        self.title_end = len(title) if opens else 0
        self.title_tokens = len(self.tokens.starts([title])[0]) + GAP_TOKENS if is_above else 0

    def spans(self) -> Iterator[tuple[int, int]]:
        """Start and end of each chunk, in characters, without white space around."""
        for start, end in self._grouped():
            yield from self._split(start, end)

    def above(self, start: int) -> tuple[list[str], list[str], int]:
        """Headings above a chunk, the highest first, that which it begins with, and their cost.

        The cost is in tokens that are left over for the chunk's own text.
        """
        path = self._path(start)
        words = [self.text[heading.start : heading.end] for heading in path]
        here = [words.pop()] if path and path[-1].start == start else []
        costs = [self._count(h.start, h.end) + GAP_TOKENS for h in path[: len(words)]]
        if self.title and start >= self.title_end:
            words, costs = [self.title, *words], [self.title_tokens, *costs]
        while sum(costs) > self.size // ABOVE:  # the nearest ones say most
            words, costs = words[1:], costs[1:]
        return words, here, sum(costs)

    def _path(self, start: int) -> list[Heading]:
        """Headings of the sections that a character is in, the highest first."""
        path: list[Heading] = []
        for heading in self.row.headings:
            if heading.start > start:
                break
            path = [above for above in path if above.level < heading.level]
            path.append(heading)
        return path

    def _count(self, start: int, end: int) -> int:
        """Tokens between two characters."""
        return bisect_left(self.starts, end) - bisect_left(self.starts, start)

    def _room(self, start: int) -> int:
        """Tokens that are left for the text of a chunk below its headings."""
        return self.size - self.above(start)[2]

    def _grouped(self) -> list[tuple[int, int]]:
        """Sections, small ones together with what follows them as far as a chunk holds both."""
        borders = [0, *(h.start for h in self.row.headings if h.start), len(self.text)]
        groups: list[tuple[int, int]] = []
        for start, end in pairwise(borders):
            if groups:
                first, last = groups[-1]
                is_small = self._count(first, last) < self.size // SMALL
                if is_small and self._count(first, end) <= self._room(first):
                    groups[-1] = (first, end)
                    continue
            groups.append((start, end))
        return groups

    def _split(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Chunks of about the same length out of a section; one of whatever fits."""
        room = min(self._room(start), self._room(end - 1))
        if self._count(start, end) <= self._room(start):
            units = [(start, end)]
        else:
            units = self._units(start, end, room, (ENDS, LINES, WORDS))
        first = 0
        while first < len(units):
            begin, last = self._begin(units, first, room), first + 1
            left = self._count(units[first][0], end)  # in chunks of about the same length
            target = left / max(1, -(-left // max(1, room - self.overlap)))
            while (
                last < len(units)
                and self._count(units[first][0], units[last][0]) < target
                and self._count(begin, units[last][1]) <= room
            ):
                last += 1
            span = self._stripped(begin, units[last - 1][1])
            if span[0] < span[1]:
                yield span
            first = last

    def _begin(self, units: list[tuple[int, int]], first: int, room: int) -> int:
        """Where a chunk begins that repeats the end of the one before it."""
        row = first
        while (
            row
            and self._count(units[row - 1][0], units[first][0]) <= self.overlap
            and self._count(units[row - 1][0], units[first][1]) <= room
        ):
            row -= 1
        return units[row][0]

    def _units(
        self, start: int, end: int, room: int, ways: tuple[re.Pattern[str], ...]
    ) -> list[tuple[int, int]]:
        """What is not taken apart: sentences; lines, words or tokens of those that are too long."""
        if self._count(start, end) <= room and ways != (ENDS, LINES, WORDS):
            return [(start, end)]
        if not ways:
            low, high = bisect_left(self.starts, start), bisect_left(self.starts, end)
            cuts = [self.starts[row] for row in range(low + room, high, room)]
            return list(pairwise([start, *cuts, end]))
        borders = [match.end() for match in ways[0].finditer(self.text, start, end)]
        parts = pairwise([start, *(border for border in borders if start < border < end), end])
        return [unit for part in parts for unit in self._units(*part, room, ways[1:])]

    def _stripped(self, start: int, end: int) -> tuple[int, int]:
        part = self.text[start:end]
        return start + len(part) - len(part.lstrip()), end - (len(part) - len(part.rstrip()))
