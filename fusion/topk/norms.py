"""Norms of every prefix of every row in one pass, which also finds rows that cannot be ranked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

FLOAT32: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
"""What new tensors are, whatever torch's defaults have been set to."""

ROWS = 4096  # rows read at a time
SUMMED = 64  # squares that are summed in float32, at most, if the widths allow it
SIMD = 16  # numbers that a processor squares at once
SAFE = (2.0**-60, 2.0**60)  # squared norms whose float32 products neither overflow nor vanish
MOST = 1023  # the greatest power of two in float64
WIDE = 2.0**-80  # a prefix whose squared norm is this much below its row's needs a scale of its own


class NotFiniteError(ValueError):
    """A row holds NaN or infinity."""

    def __init__(self, name: str, row: int) -> None:
        super().__init__(f"{name} row {row} holds a value that is not finite: remove or repair it")
        self.row = row


@dataclass(frozen=True)
class PrefixNorms:
    """What a search must know of each row before it starts; worth keeping for a fixed corpus."""

    inverse: Tensor
    """float32 [l, n]: one over the norm of the row's first ``dims[l]`` components, 0 where they are
    all zero; of the scaled row where ``scale`` is given."""
    scale: Tensor | None
    """float64 [n]: powers of two to multiply the rows by, None where every row is of usual size."""
    wide: bool
    """Whether some prefix is so much smaller than its row that one scale cannot serve both."""
    dims: tuple[int, ...]
    """The widths that these norms belong to."""

    def first(self, levels: int) -> "PrefixNorms":
        """Of so many of the widths."""
        return PrefixNorms(self.inverse[:levels], self.scale, self.wide, self.dims[:levels])


def prefix_norms(
    rows: Tensor, dims: Sequence[int], name: str = "corpus", first_row: int = 0
) -> PrefixNorms:
    """Measure the norm of every nested prefix of every row.

    Args:
        rows: Floating point [n, d], any dtype and any strides.
        dims: Ascending widths, the last at most d.
        name: What an error calls these rows.
        first_row: What an error calls the first of them.

    Returns:
        The inverse norms, computed from float32 sums (float64 for rows of unusual size).

    Raises:
        ValueError: If a row holds a value that is not finite; it names the row.
    """
    n = len(rows)
    inverse = torch.empty(len(dims), n, **FLOAT32)
    scale = torch.ones(n, dtype=torch.float64, device="cpu")
    wide = False
    step = ROWS if rows.device.type == "cpu" else 2**16
    for start in range(0, n, step):
        block = rows[start : start + step, : dims[-1]].float()
        squared = _squared_on(block, dims)  # (rows, l)
        total = squared[:, -1]
        # NaN fails both comparisons, so a bad row always lands among the odd ones.
        usual = (squared[:, 0] > SAFE[0]) & (total < SAFE[1])
        if not usual.all():
            odd = torch.nonzero(~usual).squeeze(1)  # (odd,)
            measured = _measure_exactly(rows, odd + start, dims, (name, first_row))
            squared[odd], scale[odd + start] = measured
            wide |= _is_wide(squared[odd])
        inverse[:, start : start + step] = inverse_norms(squared).T
    return PrefixNorms(inverse, None if (scale == 1).all() else scale, wide, tuple(dims))


def usual_norms(squared: Tensor, dims: tuple[int, ...]) -> PrefixNorms | None:
    """Norms of rows with these squared prefix norms float64 [n, l], or None if one is unusual."""
    usual = (squared[:, 0] > SAFE[0]) & (squared[:, -1] < SAFE[1])  # NaN fails both
    if not usual.all():
        return None
    return PrefixNorms(squared.rsqrt().float().T.contiguous(), None, False, dims)


def summed_terms(dims: Sequence[int]) -> int:
    """How many squares are summed in the dtype of the rows; their sums are summed in float64."""
    unit = _unit(dims)
    return unit if unit >= SIMD else max(b - a for a, b in pairwise((0, *dims)))


def _unit(dims: Sequence[int]) -> int:
    """A width that all levels are multiples of, and not so wide that a sum of squares errs much."""
    unit = math.gcd(*dims)
    while unit > SUMMED and unit % 2 == 0:
        unit //= 2
    return unit


def prefix_squares(rows: np.ndarray, dims: Sequence[int]) -> Tensor:
    """Squared norms of every prefix, float64 [rows, l], from sums in the dtype of the rows."""
    return added_squares(sums_of_squares(rows, dims), dims)


def sums_of_squares(rows: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """Sums [rows, any] that add up to the squared norms of every prefix, in the rows' dtype."""
    unit = _unit(dims)
    if unit >= SIMD:  # equal units in one call read the rows once
        units = rows.reshape(len(rows), -1, unit)  # (rows, units, unit)
        return np.einsum("rus,rus->ru", units, units, dtype=rows.dtype)
    parts = [np.einsum("rs,rs->r", rows[:, a:b], rows[:, a:b]) for a, b in pairwise((0, *dims))]
    return np.stack(parts, axis=1)


def added_squares(sums: np.ndarray, dims: Sequence[int]) -> Tensor:
    """Squared norms of every prefix, float64 [rows, l], from ``sums_of_squares``."""
    unit, total = _unit(dims), sums.cumsum(axis=1, dtype=np.float64)
    return torch.from_numpy(total[:, np.array(dims) // unit - 1] if unit >= SIMD else total)


def _squared_on(rows: Tensor, dims: Sequence[int]) -> Tensor:
    """The same from a tensor, computed where it lies and brought to the CPU."""
    if rows.device.type == "cpu":
        return prefix_squares(rows.numpy(), dims)
    parts = [rows[:, a:b].double().square().sum(dim=1) for a, b in pairwise((0, *dims))]
    return torch.stack(parts, dim=1).cpu().cumsum(dim=1)


def _measure_exactly(
    rows: Tensor, odd: Tensor, dims: Sequence[int], name: tuple[str, int]
) -> tuple[Tensor, Tensor]:
    """Squared prefix norms float64 [odd, l] of scaled rows, and the scales float64 [odd].

    Where a norm lies outside the safe range, the scale is a power of two that brings it to about 1.
    """
    block = rows[odd.to(rows.device), : dims[-1]].to("cpu", torch.float64)  # (odd, d)
    finite = torch.isfinite(block).all(dim=1)
    if not finite.all():
        raise NotFiniteError(name[0], int(odd[torch.nonzero(~finite)[0, 0]]) + name[1])
    largest = torch.frexp(block.abs().amax(dim=1)).exponent  # (odd,) squares overflow float64 too
    squared = prefix_squares(times_two_to(block, -largest[:, None]).numpy(), dims)
    total = squared[:, -1]
    exponent = torch.frexp(total.sqrt()).exponent + largest
    low, high = (math.frexp(edge**0.5)[1] for edge in SAFE)
    far = (total > 0) & ((exponent < low) | (exponent > high))
    power = torch.where(far, -exponent, 0).clamp(max=MOST)
    squared = times_two_to(squared, 2 * (largest + power)[:, None])
    return squared, times_two_to(torch.ones_like(total), power)


def times_two_to(values: Tensor, power: Tensor) -> Tensor:
    """Float64 values times powers of two that may themselves lie outside of float64."""
    half = power.div(2, rounding_mode="floor")
    return torch.ldexp(torch.ldexp(values, half), power - half)


def _is_wide(squared: Tensor) -> bool:
    return bool(((squared > 0) & (squared < WIDE * squared[:, -1:])).any())


def inverse_norms(squared: Tensor) -> Tensor:
    """One over the norms of squared ones float64, float32; 0 of 0."""
    return squared.rsqrt().where(squared > 0, 0).float()
