"""Scores of packed codes by looking them up: no vector is decoded while a query waits.

Neighbouring coordinates are looked up together, under all the bits that name their levels: a
trellis's last bits too, which lie before them in the stream or, at its start, at its end. A query's
table holds what those coordinates add to its dot product; another one, to the square of a norm.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .codebook import Codebook, Coding

MOST_BITS = 16
"""Of a key: a table of 256 KB stays in a core's cache while a block of codes is looked up in it."""
MOST_BYTES = 2**24
"""Of a query's tables; wide vectors have smaller ones, and so more of them."""


@dataclass(frozen=True, eq=False)
class Leveled:
    """Coordinates whose levels are named alike, one after the other in the stream."""

    count: int
    """How many coordinates."""
    bits: int
    """That each one adds to the stream."""
    levels: np.ndarray
    """float32 [2**window]: the level that the last ``window`` bits of the stream name."""

    @property
    def window(self) -> int:
        """Bits that name a level; more than ``bits`` in a trellis, whose stream bites its tail."""
        return len(self.levels).bit_length() - 1


@dataclass(frozen=True, eq=False)
class Group:
    """Coordinates that are looked up together."""

    columns: slice
    """Among all coordinates."""
    stretches: tuple[tuple[int, int], ...]
    """First bit and end of what makes its key, in the stream of the whole row."""
    named: np.ndarray
    """float32 [keys, columns]: their levels; groups of the same length share it."""


class Tables:
    """Codes of any width and precision, scored by tables.

    >>> tables = Tables.of(book)                                          # doctest: +SKIP
    >>> keys = tables.keys(np.ascontiguousarray(codes.T))                 # doctest: +SKIP
    >>> cosines = tables.dots(tables.asked(query), keys) / tables.norms(keys)  # doctest: +SKIP
    """

    def __init__(self, parts: Sequence[Leveled], scale: np.ndarray, centre: np.ndarray) -> None:
        """Take how levels are named, and float32 [d] what makes coordinates of them."""
        self.scale, self.centre = scale.astype(np.float32), centre.astype(np.float32)
        for most in range(MOST_BITS, 7, -1):
            self.groups = list(_groups(parts, most))
            if sum(4 * len(group.named) for group in self.groups) <= MOST_BYTES:
                break

    @classmethod
    def of(cls, book: Codebook) -> "Tables":
        """The tables of a codebook of integers; queries are to be given in its axes."""
        parts = [Leveled(part.length, part.bits, levels) for part, levels in book._parts()]
        assert book.coding is Coding.TRELLIS or all(part.window == part.bits for part in parts)
        return cls(parts, book.scale, book.centre)

    def keys(self, columns: np.ndarray) -> list[np.ndarray]:
        """What to look up in each group's table: uint16 [n] of codes uint8 [bytes, n]."""
        return [_key(columns, group.stretches) for group in self.groups]

    def asked(self, query: np.ndarray) -> list[np.ndarray]:
        """The tables of a query float32 [d], float32 [keys] of each group."""
        return [self._weighed(group, query[group.columns]) for group in self.groups]

    def dots(self, asked: Sequence[np.ndarray], keys: Sequence[np.ndarray]) -> np.ndarray:
        """Dot products float32 [n] of a query's tables with codes' keys."""
        return _looked_up(asked, keys)

    def norms(self, keys: Sequence[np.ndarray]) -> np.ndarray:
        """Norms float32 [n] of what codes stand for."""
        return np.sqrt(_looked_up(self._squares, keys))

    def decode(self, keys: Sequence[np.ndarray]) -> np.ndarray:
        """What codes' keys stand for, float32 [n, d], not scaled to unit norm."""
        found = np.empty((len(keys[0]), len(self.scale)), np.float32)
        for group, key in zip(self.groups, keys, strict=True):
            found[:, group.columns] = group.named.take(key, axis=0)
        found *= self.scale
        found += self.centre
        return found

    @cached_property
    def _squares(self) -> list[np.ndarray]:
        """What each group adds to the square of a norm, float32 [keys]."""
        return [self._squared(group) for group in self.groups]

    def _squared(self, group: Group) -> np.ndarray:
        scale, centre = self.scale[group.columns], self.centre[group.columns]
        found = group.named**2 @ scale**2
        found += group.named @ (2 * scale * centre)
        return found + centre @ centre

    def _weighed(self, group: Group, query: np.ndarray) -> np.ndarray:
        found = group.named @ (query * self.scale[group.columns])
        return found + query @ self.centre[group.columns]


def _groups(parts: Sequence[Leveled], most: int) -> Iterator[Group]:
    """Runs of as many coordinates as have a key of at most so many bits, one at least."""
    column = before = 0
    for part in parts:
        length = max(1, 1 + (most - part.window) // part.bits)
        shared: dict[int, np.ndarray] = {}
        for first in range(0, part.count, length):
            stop = min(first + length, part.count)
            count = stop - first
            if count not in shared:
                shared[count] = _named(part, count)
            end = stop * part.bits
            start = end - part.window - (count - 1) * part.bits
            stretches = [(before + max(start, 0), before + end)]
            if start < 0:
                whole = part.count * part.bits
                stretches.insert(0, (before + whole + start, before + whole))
            yield Group(slice(column + first, column + stop), tuple(stretches), shared[count])
        column += part.count
        before += part.count * part.bits


def _named(part: Leveled, count: int) -> np.ndarray:
    """The levels of so many neighbours under every key, float32 [keys, count]."""
    keys = np.arange(1 << (part.window + (count - 1) * part.bits))
    back = np.arange(count)[::-1] * part.bits
    return part.levels[(keys[:, None] >> back) & (len(part.levels) - 1)].astype(np.float32)


def _key(columns: np.ndarray, stretches: Sequence[tuple[int, int]]) -> np.ndarray:
    """The bits of stretches of the stream, one behind the other: uint16 [n]."""
    found = _stretch(columns, *stretches[0])
    for start, stop in stretches[1:]:
        more = _stretch(columns, start, stop)
        found = (found.astype(np.uint32) << np.uint32(stop - start)) | more
    return found.astype(np.uint16, copy=False)


def _stretch(columns: np.ndarray, start: int, stop: int) -> np.ndarray:
    """The bits of one stretch, at most 25, as uint8, uint16 or uint32 [n]."""
    first, last = start // 8, (stop - 1) // 8
    kind = (np.uint8, np.uint16, np.uint32, np.uint32)[last - first]
    found = columns[first].astype(kind)
    for byte in columns[first + 1 : last + 1]:
        found <<= kind(8)
        found |= byte
    if rest := 8 * (last + 1) - stop:
        found >>= kind(rest)
    if start % 8:
        found &= kind((1 << (stop - start)) - 1)
    return found


def _looked_up(tables: Sequence[np.ndarray], keys: Sequence[np.ndarray]) -> np.ndarray:
    """The sums over groups of what their tables hold under their keys, float32 [n]."""
    total = tables[0].take(keys[0])
    room = np.empty_like(total)
    for table, key in zip(tables[1:], keys[1:], strict=True):
        table.take(key, out=room, mode="clip")  # which, unlike "raise", copies nothing
        total += room
    return total
