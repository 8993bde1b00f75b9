"""Scores of stored codes: what a manifest says of them becomes cosines with float queries."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fusion.bulk.writing.manifest import Manifest
from fusion.bulk.writing.precisions import PLAIN
from fusion.errors import FusionError
from fusion.model.place import SHELF
from fusion.space.codes import Codebook, Precision, load_from_shelf
from fusion.space.codes.tables import Leveled, Tables

FEW = 8
"""Queries up to which tables are faster than decoding a block for all of them."""
Score = Callable[[Any], np.ndarray]
"""Of what ``Scorer.take`` gave to cosines float32 [q, n]."""


class Scorer(Protocol):
    """Scores codes of one kind."""

    def take(self, codes: np.ndarray) -> Any:  # noqa: ANN401 - of the scorer's own kind
        """Codes [n, items] with all that does not depend on the queries."""
        ...

    def scores(self, queries: np.ndarray) -> Score:
        """What scores codes for queries float32 [q, d]."""
        ...

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The vectors float [n, d] that codes stand for, of any norm."""
        ...


@dataclass(frozen=True, eq=False)
class Linear:
    """Columns by themselves, each a number times a step: floats, int8, uint8."""

    step: np.ndarray | None = None
    """float32 [d]; None for floats."""
    shift: np.ndarray | None = None
    """float32 [d], what a code of 0 stands for."""

    def take(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes [n, d], and the inverse norms float32 [n] of what they stand for."""
        return codes, _inverse(np.linalg.norm(self.decode(codes), axis=1))

    def scores(self, queries: np.ndarray) -> Score:
        """See ``Scorer``."""
        unit = _unit(queries)
        weights = unit if self.step is None else unit * self.step  # (q, d)
        shift = np.float32(0) if self.shift is None else (unit @ self.shift)[:, None]

        def score(taken: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
            codes, inverse = taken
            return (weights @ codes.astype(np.float32, copy=False).T + shift) * inverse

        return score

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """See ``Scorer``."""
        rows = codes.astype(np.float32, copy=False)
        return rows if self.step is None else rows * self.step + self.shift


@dataclass(frozen=True, eq=False)
class Packed:
    """Columns that share bytes: looked up for a few queries, decoded a block for many."""

    tables: Tables
    book: Codebook | None = None
    """Whose codes they are; None for plain ones."""

    def take(self, codes: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Keys uint16 [n] of each group, and inverse norms float32 [n] of what they stand for."""
        keys = self._keys(codes)
        return keys, _inverse(self.tables.norms(keys))

    def scores(self, queries: np.ndarray) -> Score:
        """See ``Scorer``."""
        unit = _unit(queries)
        asked = unit if self.book is None else unit @ self.book.axes  # (q, d)
        if len(asked) > FEW:
            return lambda taken: (asked @ self.tables.decode(taken[0]).T) * taken[1]
        by_query = [self.tables.asked(query) for query in asked]
        return lambda taken: (
            np.stack([self.tables.dots(query, taken[0]) for query in by_query]) * taken[1]
        )

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """See ``Scorer``."""
        if self.book is not None:
            return self.book.decode(codes)
        return self.tables.decode(self._keys(codes))

    def _keys(self, codes: np.ndarray) -> list[np.ndarray]:
        return self.tables.keys(np.ascontiguousarray(_unsigned(codes).T))


def scorer_of(manifest: Manifest, model: Path) -> Scorer:
    """What scores the codes of an encoding.

    Args:
        manifest: Of the encoding.
        model: Folder of the model, whose codebook fitted codes need.

    Raises:
        FusionError: The manifest names codes that this version has not, or the model lacks them.
    """
    settings = manifest.settings
    precision, dim = str(settings.get("precision")), int(settings.get("width", 0))
    if settings.get("codes", "plain") == "fitted":
        return _fitted(precision, dim, model)
    if precision not in PLAIN or dim < 1:
        raise FusionError(f"the codes are {precision!r} of width {dim}, which this version has not")
    if precision in ("float32", "float16"):
        return Linear()
    if precision in ("binary", "ubinary"):
        signs = Leveled(dim, 1, np.array([-1, 1], np.float32))
        return Packed(Tables([signs], np.ones(dim), np.zeros(dim)))
    ranges = np.asarray(manifest.about.get("ranges"), np.float32)
    if ranges.shape != (2, dim):
        raise FusionError(f"the manifest lacks the ranges of {precision} codes; encode again")
    return _ranged(precision, *ranges)


def _ranged(precision: str, low: np.ndarray, high: np.ndarray) -> Scorer:
    """As ``FusedModel.dequantize`` has it: a code stands for the middle of its level."""
    if precision == "int4":
        levels = np.arange(16, dtype=np.float32) + 0.5
        return Packed(Tables([Leveled(len(low), 4, levels)], (high - low) / 16, low))
    step = (high - low) / 255
    return Linear(step, low + step * (128.5 if precision == "int8" else 0.5))


def _fitted(precision: str, dim: int, model: Path) -> Scorer:
    book = load_from_shelf(model / SHELF, Precision(precision), dim)
    return Packed(Tables.of(book), book)


def _unsigned(codes: np.ndarray) -> np.ndarray:
    """Signed bytes, which hold bits less 128, as the bits themselves."""
    return codes.view(np.uint8) ^ np.uint8(128) if codes.dtype == np.int8 else codes


def _inverse(norms: np.ndarray) -> np.ndarray:
    return np.divide(1, norms, out=np.zeros(len(norms), np.float32), where=norms > 0)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)
