"""Blocks: the embeddings of several encoders, normalised, weighted and set side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Protocol, Self

import numpy as np

_ROWS = 16_384  # rows read at a time, so that a memory-mapped store never has to fit in memory


class Readable(Protocol):
    """What is read a slice of rows at a time: an array, or embeddings that stay on disk."""

    @property
    def ndim(self) -> int:
        """2."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


class Normalization(StrEnum):
    """What happens to the encoders' embeddings before they stand side by side."""

    NONE = "none"  # each block keeps the norm that its encoder gave it
    PER_MODEL = "per-model"  # each block is unit-norm
    GLOBAL = "global"  # the whole concatenated vector is unit-norm


@dataclass(frozen=True)
class Blocks:
    """How the embeddings of several encoders become one vector.

    Under ``per-model`` the cosine of two fused vectors is the mean of the encoders' cosines,
    weighted by ``weights``: a block is scaled by the square root of its weight.

    Example:
        >>> blocks = Blocks(("a", "b"), (1, 2), weights=(1.0, 0.25))
        >>> blocks.transform([np.array([[2.0]]), np.array([[3.0, 4.0]])])
        array([[1. , 0.3, 0.4]], dtype=float32)
    """

    names: tuple[str, ...]
    """Names of the encoders, in the order of their columns."""
    dims: tuple[int, ...]
    """Width of each encoder's embeddings."""
    normalize: Normalization = Normalization.PER_MODEL
    """Which vectors are made unit-norm."""
    weights: tuple[float, ...] = ()
    """Squared weight of each block under cosine; empty means one for each."""

    def __post_init__(self) -> None:
        weights = self.weights or (1.0,) * len(self.names)
        # A frozen dataclass is filled in through object; lists and strings come from YAML and JSON.
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "dims", tuple(int(d) for d in self.dims))
        object.__setattr__(self, "normalize", Normalization(self.normalize))
        object.__setattr__(self, "weights", tuple(float(w) for w in weights))
        self._check()

    def _check(self) -> None:
        if not self.names:
            raise ValueError("names is empty: blocks need at least one encoder")
        if len(self.dims) != len(self.names):
            raise ValueError(f"dims has {len(self.dims)} entries for {len(self.names)} encoders")
        if len(self.weights) != len(self.names):
            raise ValueError(
                f"weights has {len(self.weights)} entries for {len(self.names)} encoders "
                f"({', '.join(self.names)}): give one weight for each, or auto"
            )
        if min(self.dims) < 1:
            raise ValueError(f"dims must be positive, got {self.dims}")
        # Beyond these bounds float32 holds neither a scaled block nor its squared norm.
        if not all(w == 0 or 1e-9 <= w <= 1e9 for w in self.weights) or not any(self.weights):
            raise ValueError(
                f"weights must be 0 or more (from 1e-9 to 1e9) and not all 0, got {self.weights}"
            )

    @property
    def width(self) -> int:
        """Columns of the fused vector."""
        return sum(self.dims)

    def transform(
        self, embeddings: Sequence[Readable], out: np.ndarray | None = None
    ) -> np.ndarray:
        """Fuse one ``[n, d_i]`` array per encoder into a float32 ``[n, width]`` array.

        Args:
            embeddings: arrays, or what reads like one a slice of rows at a time.
            out: float32 ``[n, width]`` to write into, a memory-mapped file for example.

        Raises:
            ValueError: the arrays do not fit the blocks, or a row is zero, NaN or infinite; the
                message names the encoder and the row.
        """
        check_shapes(embeddings, self.names, self.dims)
        shape = (len(embeddings[0]), self.width)
        fused = np.empty(shape, dtype=np.float32) if out is None else out  # (n, d)
        start = 0
        for name, block, weight in zip(self.names, embeddings, self.weights, strict=True):
            stop = start + block.shape[1]
            unit = self.normalize is Normalization.PER_MODEL
            for rows, chunk in _chunks(block):
                norms = row_norms(chunk, name, rows.start)  # (n, 1)
                scaled = chunk / norms if unit else chunk  # (n, d_i)
                fused[rows, start:stop] = scaled * np.float32(np.sqrt(weight))
            start = stop
        if self.normalize is Normalization.GLOBAL:
            for rows, chunk in _chunks(fused):
                fused[rows] = chunk / row_norms(chunk, "all blocks together", rows.start)
        return fused

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or YAML; ``from_dict`` takes them back."""
        plain = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else str(v) for k, v in plain.items()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """Blocks from what ``to_dict`` gave."""
        return cls(**plain)


def check_shapes(embeddings: Sequence[Readable], names: Sequence[str], dims: Sequence[int]) -> None:
    """Raise ValueError unless there is one ``[n, d_i]`` array for each encoder, of equal n."""
    if len(embeddings) != len(names):
        raise ValueError(f"{len(embeddings)} arrays given for the encoders {', '.join(names)}")
    for name, dim, block in zip(names, dims, embeddings, strict=True):
        if block.ndim != 2 or block.shape[1] != dim:
            raise ValueError(f"embeddings of {name} must be [n, {dim}], got {list(block.shape)}")
        if len(block) != len(embeddings[0]):
            raise ValueError(
                f"embeddings of {name} have {len(block)} rows, "
                f"those of {names[0]} {len(embeddings[0])}"
            )


def row_norms(chunk: np.ndarray, name: str, first_row: int = 0) -> np.ndarray:
    """Norms of the rows, ``[n, 1]``; a zero, NaN or infinite row is a ValueError naming it."""
    # Summed in float64 and rounded once: the same bits from any library and any order of summation.
    squares = np.einsum("nd,nd->n", chunk, chunk, dtype=np.float64)  # (n,)
    norms = np.sqrt(squares).astype(np.float32)[:, None]  # (n, 1)
    bad = ~(np.isfinite(norms) & (norms > 0))[:, 0]  # (n,)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        kind = "a zero vector" if norms[row, 0] == 0 else "not finite (NaN or infinite)"
        raise ValueError(
            f"embedding of {name} in row {first_row + row} is {kind}; is that text empty?"
        )
    return norms


def _chunks(array: Readable) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, len(array), _ROWS):
        rows = slice(start, min(start + _ROWS, len(array)))
        yield rows, np.asarray(array[rows], dtype=np.float32)  # (rows, d_i)
