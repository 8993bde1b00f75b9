"""A codebook: what turns float vectors into few bytes and back, fitted on training vectors only.

A vector's direction is all that is coded (scores are cosines): cut to ``dim`` columns, scaled to
unit norm, centred, rotated, and each coordinate given a level. Decoding divides out the norm of
what comes back, which costs no stored byte; a stored factor for each vector ranked no better.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .errors import FusionError
from .grids import gaussian_levels, nearest_level
from .packing import ROWS_AT_ONCE, pack, unpack
from .precision import Part, Precision
from .rotation import fitted_rotation, random_rotation
from .trellis import (
    LEAST_BITS,
    SHORT_STATES,
    states_of,
    trellis_encode,
    trellis_levels,
    trellis_states,
)

FORMAT = "fusion-codebook-1"
TENSORS = ("mean", "axes", "scale", "levels")
TRELLIS_UP_TO_BITS = 3
TINY = 1e-30  # a coordinate that never varied has spread 0: decoded it is the mean again


FLOAT_TYPES = {Precision.FLOAT32: "<f4", Precision.FLOAT16: "<f2"}  # little-endian on any machine


class Rotation(StrEnum):
    """What happens to the axes before coordinates are rounded."""

    NONE = "none"
    RANDOM = "random"
    FITTED = "fitted"


class Coding(StrEnum):
    """How a coordinate's bits name its level: by themselves, or with the bits before them."""

    SCALAR = "scalar"
    TRELLIS = "trellis"


@dataclass(frozen=True, eq=False)
class Codebook:
    """Fitted codes of one width and precision. Build it with ``Codebook.fit`` or ``load``.

    >>> book = Codebook.fit(training_vectors, "binary", dim=128)   # doctest: +SKIP
    >>> codes = book.encode(documents)                             # doctest: +SKIP
    >>> codes.shape == (len(documents), 16)                        # doctest: +SKIP
    >>> scores = book.score(queries, codes)                        # doctest: +SKIP
    """

    precision: Precision
    """How a coordinate is stored."""
    dim: int
    """Leading columns of a vector that are coded; the others are dropped."""
    mean: np.ndarray
    """float32 [d]: mean of the unit training vectors; zeros for the float precisions."""
    axes: np.ndarray
    """float32 [d, d]: orthogonal; column j is the direction that coded coordinate j measures."""
    scale: np.ndarray
    """float32 [d]: spread of each coded coordinate over the training vectors."""
    levels: np.ndarray
    """float32 [2**bits], or [states] of a trellis: levels of unit variance, those of one part
    after those of the other; empty for floats."""
    coding: Coding
    """Which of the two codings the levels are for; scalar for floats."""

    @classmethod
    def fit(
        cls,
        vectors: np.ndarray,
        precision: Precision | str,
        dim: int | None = None,
        *,
        seed: int = 0,
        rotation: Rotation | str = Rotation.RANDOM,
        coding: Coding | str | None = None,
    ) -> "Codebook":
        """Calibrate on training vectors (never on the vectors or queries of a test).

        On another machine the mean, the scale and a fitted rotation may differ in their last bits;
        a codebook that is to be the same everywhere is fitted once and saved.

        Args:
            vectors: float [n, D], n at least 1, any norm.
            precision: how a coordinate is stored; its parts are rotated each by itself.
            dim: leading columns to code; all of them when None.
            seed: of the random rotation.
            rotation: ``random`` makes coordinates alike and near Gaussian, as the levels assume;
                ``fitted`` turns them towards the training vectors' own scalar codes, which pays
                with 1 or 2 bits when the vectors to code are the training vectors.
            coding: ``trellis`` shares bits between neighbours: nearer levels from the same bytes,
                for about 0.3 ms a vector when encoding. None takes it up to 3 bits (more gain
                nothing), and ``scalar`` where a vector is too short for it.

        Raises:
            ValueError: an unknown name, a width that does not fit, a row that is not finite.
        """
        precision, rotation = Precision(precision), Rotation(rotation)
        dim = _checked_dim(vectors, dim)
        coding = _default_coding(precision, dim) if coding is None else Coding(coding)
        mean, axes = np.zeros(dim, np.float32), np.eye(dim, dtype=np.float32)
        if precision.is_float:
            scale, levels = np.ones(dim, np.float32), np.empty(0, np.float32)
            return cls(precision, dim, mean, axes, scale, levels, Coding.SCALAR)
        levels = np.concatenate(_levels(precision, dim, coding))  # first: it checks that they fit
        unit = _unit(vectors, dim, "training vectors")  # (n, d)
        if not len(unit):
            raise ValueError("training vectors: none given; a codebook needs at least one row")
        if len(unit) > 1:  # what all vectors share needs no bits; one vector would be all mean
            mean = unit.mean(axis=0)
        for part in precision.parts(dim):
            columns = part.columns
            if rotation is Rotation.RANDOM:
                axes[columns, columns] = random_rotation(part.length, seed)
            elif rotation is Rotation.FITTED:
                residuals = (unit - mean)[:, columns]
                axes[columns, columns] = fitted_rotation(residuals, part.bits, seed)
        scale = np.sqrt(np.mean(((unit - mean) @ axes) ** 2, axis=0)).astype(np.float32)  # (d)
        return cls(precision, dim, mean, axes, scale, levels, coding)

    @property
    def bytes_per_vector(self) -> int:
        """Bytes that one coded vector takes, all told."""
        return self.precision.bytes_of(self.dim)

    @property
    def widths(self) -> np.ndarray:
        """Bits of each coded coordinate, int64 [d]."""
        return self.precision.widths(self.dim)

    @property
    def centre(self) -> np.ndarray:
        """The mean in the coordinates of ``axes``, float32 [d]."""
        found = self.mean.astype(np.float64) @ self.axes.astype(np.float64)  # (d,)
        return found.astype(np.float32)

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Code vectors float [n, D >= dim] into uint8 [n, bytes_per_vector].

        Only the direction of a row is coded. A row of zeros has none and is coded like the
        nearest thing to it, an arbitrary vector; drop such rows before. The codes of a row depend
        on it and the codebook alone, not on the rows beside it or on the machine, but for a
        coordinate that lies within 1e-13 of the border between two levels.

        Raises:
            ValueError: a row with NaN or infinity (named), or too few columns.
        """
        unit = _unit(vectors, self.dim, "vectors")  # (n, d)
        if self.precision.is_float:
            raw = np.ascontiguousarray(unit.astype(FLOAT_TYPES[self.precision]))
            return raw.view(np.uint8).reshape(len(unit), self.bytes_per_vector)
        numbers = np.empty(unit.shape, np.uint8)
        for start in range(0, len(unit), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            standard = self._standard(unit[rows])  # (rows, d)
            for (columns, bits), levels in self._parts():
                if self.coding is Coding.TRELLIS:
                    numbers[rows, columns] = trellis_encode(standard[:, columns], levels, bits)
                else:
                    numbers[rows, columns] = nearest_level(standard[:, columns], levels)
        return pack(numbers, self.widths)

    def _standard(self, unit: np.ndarray) -> np.ndarray:
        """What is rounded to levels, float64 [n, d]: in float32 its last bits would differ.

        They turn on the machine and on how many rows are multiplied at once, and every bit of
        noise moves some coordinates over a border.
        """
        found = (unit - self.mean.astype(np.float64)) @ self.axes.astype(np.float64)  # (n, d)
        found /= np.maximum(self.scale, TINY)
        found[:, self.scale <= TINY] = 0  # decoded as the mean, whatever stands there
        return found

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Turn codes uint8 [n, bytes_per_vector] into unit vectors, float32 [n, dim].

        Equal codes give equal vectors, also on other machines: they are summed in float64.
        """
        named = self._coded_axes_view(codes)  # (n, d)
        # A product of equal rows may differ by where they stand in it: each is multiplied once.
        _, first, where = np.unique(codes, axis=0, return_index=True, return_inverse=True)
        rows = named[first].astype(np.float64) @ self.axes.T.astype(np.float64)  # (codes, d)
        return rows.astype(np.float32)[where.ravel()]

    def score(
        self, queries: np.ndarray, codes: np.ndarray, *, symmetric: bool = False
    ) -> np.ndarray:
        """Cosines of queries float [q, D >= dim] with coded documents, float32 [q, n].

        A plain product: the last bits turn on the machine and on where a document stands.

        Args:
            queries: float vectors of the same space as the training vectors.
            codes: uint8 [n, bytes_per_vector] from ``encode``.
            symmetric: code the queries too; by default they stay float, which ranks better.
        """
        documents = self._coded_axes_view(codes)  # (n, d)
        if symmetric:
            return self._coded_axes_view(self.encode(queries)) @ documents.T  # (q, n)
        return _unit(queries, self.dim, "queries") @ self.axes @ documents.T  # (q, n)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; nothing stands at ``path`` unless the write succeeded."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in TENSORS}
        partial = path.with_name(path.name + ".partial")
        # The library's own save_file lets only the owner read, whatever the umask.
        partial.write_bytes(save(tensors, {"codebook": json.dumps(self.about)}))
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "Codebook":
        """Read what ``save`` wrote.

        Raises:
            FusionError: no such file, or not an intact codebook.
        """
        try:
            with safe_open(path, framework="np") as file:
                about = json.loads((file.metadata() or {})["codebook"])
                tensors = {name: file.get_tensor(name) for name in TENSORS}
            return cls.restore(about, tensors)
        except FileNotFoundError:
            raise FusionError(f"{path}: no such file; fit a codebook and save it first") from None
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise FusionError(f"{path}: not an intact codebook ({error}); save it again") from None

    @property
    def about(self) -> dict[str, str | int]:
        """What is known of the codebook besides its tensors."""
        about: dict[str, str | int] = {"format": FORMAT, "dim": self.dim}
        return about | {"precision": str(self.precision), "coding": str(self.coding)}

    @classmethod
    def restore(cls, about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> "Codebook":
        """Put a codebook together from its ``about`` and its four tensors.

        Raises:
            KeyError, ValueError: they are not those of one codebook.
        """
        precision, coding = Precision(about["precision"]), Coding(about["coding"])
        book = cls(precision, int(about["dim"]), **tensors, coding=coding)
        book._check_tensors(about["format"])
        return book

    def _coded_axes_view(self, codes: np.ndarray) -> np.ndarray:
        """Unit decoded vectors in the coordinates of ``axes``, float32 [n, d]."""
        codes = np.asarray(codes)
        if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != self.bytes_per_vector:
            raise ValueError(
                f"codes: {codes.dtype} {codes.shape}, but this codebook's are uint8 "
                f"[n, {self.bytes_per_vector}]; decode with the codebook that encoded them"
            )
        if self.precision.is_float:
            raw = np.ascontiguousarray(codes).view(FLOAT_TYPES[self.precision])
            return _scaled_to_unit(raw.astype(np.float32))
        numbers = unpack(codes, self.widths)  # (n, d)
        standard = np.empty(numbers.shape, np.float32)
        for (columns, bits), levels in self._parts():
            named = numbers[:, columns]
            if self.coding is Coding.TRELLIS:
                named = trellis_states(named, bits, len(levels))
            standard[:, columns] = levels[named]
        return _scaled_to_unit(standard * self.scale + self.centre)

    def _parts(self) -> Iterator[tuple[Part, np.ndarray]]:
        """Each part, and its levels."""
        start = 0
        for part, count in zip(self.precision.parts(self.dim), self._level_counts(), strict=True):
            yield part, self.levels[start : start + count]
            start += count

    def _level_counts(self) -> list[int]:
        """How many levels each part has."""
        counts = _level_counts(self.precision, self.dim, self.coding)
        short = [SHORT_STATES] * len(counts)
        # Codebooks saved before long streams had more states.
        old = self.coding is Coding.TRELLIS and len(self.levels) == sum(short)
        return short if old else counts

    def _check_tensors(self, format_name: str) -> None:
        shapes = {"mean": (self.dim,), "axes": (self.dim, self.dim), "scale": (self.dim,)}
        shapes["levels"] = (0,)
        if not self.precision.is_float:
            shapes["levels"] = (sum(self._level_counts()),)
        if format_name != FORMAT:
            raise ValueError(f"format {format_name!r}, expected {FORMAT!r}")
        for name, shape in shapes.items():
            tensor = getattr(self, name)
            if tensor.shape != shape or tensor.dtype != np.float32:
                raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}, expected {shape}")
            if not np.isfinite(tensor).all():
                raise ValueError(f"{name} holds values that are not finite")


def _default_coding(precision: Precision, dim: int) -> Coding:
    pays = all(
        part.bits <= TRELLIS_UP_TO_BITS and part.length * part.bits >= LEAST_BITS
        for part in precision.parts(dim)
    )
    return Coding.TRELLIS if pays else Coding.SCALAR


def _level_counts(precision: Precision, dim: int, coding: Coding) -> list[int]:
    """How many levels each part takes; a ValueError where a trellis does not fit."""
    parts = precision.parts(dim)
    if coding is Coding.SCALAR:
        return [1 << part.bits for part in parts]
    for part in parts:
        if 1 << part.bits >= SHORT_STATES or part.length * part.bits < LEAST_BITS:
            raise ValueError(
                f"coding: a trellis takes 1 to 4 bits a coordinate and {LEAST_BITS} bits or more, "
                f"not {part.length} x {part.bits}; take coding='scalar'"
            )
    return [states_of(part.length * part.bits) for part in parts]


def _levels(precision: Precision, dim: int, coding: Coding) -> list[np.ndarray]:
    """The levels of each part."""
    parts = precision.parts(dim)
    if coding is Coding.SCALAR:
        return [gaussian_levels(part.bits) for part in parts]
    counts = _level_counts(precision, dim, coding)
    return [trellis_levels(part.bits, n) for part, n in zip(parts, counts, strict=True)]


def _checked_dim(vectors: np.ndarray, dim: int | None) -> int:
    shape = np.shape(vectors)
    if len(shape) != 2:
        raise ValueError(f"training vectors: shape {shape}, expected [n, D]")
    dim = shape[1] if dim is None else dim
    if not 1 <= dim <= shape[1]:
        raise ValueError(f"dim: {dim}, but the training vectors have {shape[1]} columns")
    return dim


def _unit(vectors: np.ndarray, dim: int, what: str) -> np.ndarray:
    """The first ``dim`` columns scaled to unit norm, float32 [n, dim]; zero rows stay zero."""
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or vectors.shape[1] < dim:
        raise ValueError(f"{what}: shape {vectors.shape}, expected [n, {dim}] or wider")
    kept = vectors[:, :dim].astype(np.float32)
    broken = np.flatnonzero(~np.isfinite(kept).all(axis=1))
    if len(broken):
        raise ValueError(f"{what}: row {broken[0]} holds NaN or infinity")
    return _scaled_to_unit(kept)


def _scaled_to_unit(rows: np.ndarray) -> np.ndarray:
    """Rows over their norms, found after dividing by the largest entry: no over- or underflow."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)
