"""Small integers of mixed bit widths, packed into bytes without a wasted bit between them.

A row is one big-endian bit stream: coordinate 0 first, each number's highest bit first; only the
last byte of a row is padded, with zeros. Widths 3, 1, 4 and numbers 5, 0, 9 give ``101 0 1001``,
one byte, 0xA9.
"""

import numpy as np

ROWS_AT_ONCE = 4096  # the unpacked stream takes a byte a bit: bound it, whatever the corpus


def packed_bytes(widths: np.ndarray) -> int:
    """Bytes that a row of numbers of these bit widths takes: the sum of widths, rounded up."""
    return -(-int(np.sum(widths, dtype=np.int64)) // 8)


def pack(numbers: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Pack rows of small integers.

    Args:
        numbers: uint8 [n, d]; number j of a row is below ``2**widths[j]``.
        widths: int [d], bits of each coordinate, 1 to 8.

    Returns:
        uint8 [n, ceil(sum(widths) / 8)].
    """
    column, shift = _stream(widths)
    packed = np.empty((len(numbers), packed_bytes(widths)), dtype=np.uint8)
    for start in range(0, len(numbers), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        packed[rows] = np.packbits((numbers[rows][:, column] >> shift) & 1, axis=1)
    return packed


def unpack(packed: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Undo ``pack``: uint8 [n, bytes] to uint8 [n, d]."""
    column, shift = _stream(widths)
    starts = np.searchsorted(column, np.arange(len(widths)))
    numbers = np.empty((len(packed), len(widths)), dtype=np.uint8)
    for start in range(0, len(packed), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        bits = np.unpackbits(packed[rows], axis=1, count=len(column))  # (n, bits)
        numbers[rows] = np.add.reduceat(bits << shift, starts, axis=1, dtype=np.uint8)
    return numbers


def _stream(widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each bit of the stream, whose it is and how far above that number's lowest bit."""
    column = np.repeat(np.arange(len(widths)), widths)
    ends = np.cumsum(widths)
    shift = ends[column] - 1 - np.arange(len(column))
    return column, shift.astype(np.uint8)
