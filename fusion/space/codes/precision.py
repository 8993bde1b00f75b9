"""How many bits each coordinate of a coded vector has."""

from bisect import bisect_right
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from .packing import packed_bytes

LEADING = 8  # an eighth of the coordinates, the first, has one bit more in binary+ and int2+
BITS = {"float32": 32, "float16": 16, "int8": 8, "int4": 4, "int3": 3, "int2": 2, "binary": 1}


class Part(NamedTuple):
    """Neighbouring coordinates that are stored alike."""

    columns: slice
    bits: int

    @property
    def length(self) -> int:
        """How many coordinates."""
        return self.columns.stop - self.columns.start


class Precision(StrEnum):
    """How a coordinate is stored.

    ``int2+`` and ``binary+`` give the leading eighth of the coordinates one bit more. A nested
    space varies most there, and beyond a few tens of bytes a bit is often worth more there than on
    yet another column: results.md shows where.
    """

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    INT4 = "int4"
    INT3 = "int3"
    INT2_PLUS = "int2+"
    INT2 = "int2"
    BINARY_PLUS = "binary+"
    BINARY = "binary"

    @property
    def is_float(self) -> bool:
        """Whether coordinates are stored as floats, with nothing to calibrate."""
        return self in (Precision.FLOAT32, Precision.FLOAT16)

    def parts(self, dim: int) -> list[Part]:
        """Runs of coordinates that have the same number of bits."""
        bits = BITS[self.removesuffix("+")]
        leading = dim // LEADING if self.endswith("+") else 0
        parts = [Part(slice(0, leading), bits + 1), Part(slice(leading, dim), bits)]
        return parts if leading else parts[1:]

    def widths(self, dim: int) -> np.ndarray:
        """Bits of each coordinate, int64 [dim]."""
        return np.concatenate([np.full(part.length, part.bits) for part in self.parts(dim)])

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ValueError(f"precision {value!r} is unknown; choose among {','.join(cls)}")

    def widest(self, size: int) -> int:
        """The most coordinates that fit into so many bytes; 0 where not even one does."""
        return bisect_right(range(8 * size + 1), size, key=self.bytes_of) - 1

    def bytes_of(self, dim: int) -> int:
        """Bytes of a vector: bits of all coordinates, rounded up."""
        return packed_bytes(self.widths(dim))
