"""Pairs of rows that belong together, and the moments that closed forms are made of."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fusion.samples import evenly_spaced

_ROWS = 16_384  # rows handled at a time


@dataclass(frozen=True, eq=False)
class Pairs:
    """Rows of two sides; several source rows may belong to one target row.

    Example:
        >>> captions, pictures = np.ones((3, 4)), np.ones((2, 8))
        >>> Pairs(captions, pictures, owner=np.array([0, 0, 1])).source_of(np.array([1]))
        array([2])
    """

    source: np.ndarray
    """float32 [n, D]."""
    target: np.ndarray
    """float32 [m, E]."""
    owner: np.ndarray
    """int64 [n], the target row that each source row belongs to."""

    def __post_init__(self) -> None:
        shapes = self.source.shape, self.target.shape, self.owner.shape
        if self.source.ndim != 2 or self.target.ndim != 2 or self.owner.shape != shapes[0][:1]:
            raise ValueError(f"pairs need [n, D], [m, E] and [n] owners, got {shapes}")
        if len(self.owner) and not 0 <= self.owner.min() <= self.owner.max() < len(self.target):
            raise ValueError(f"owners must name rows of the {len(self.target)} target rows")

    def source_of(self, targets: np.ndarray) -> np.ndarray:
        """int64: the source rows that belong to some of the target rows, ascending."""
        return np.flatnonzero(np.isin(self.owner, targets))

    def of(self, targets: np.ndarray) -> "Pairs":
        """The pairs of some target rows, which are ascending and each there once."""
        rows = self.source_of(targets)
        owner = np.searchsorted(targets, self.owner[rows])
        return Pairs(self.source[rows], self.target[targets], owner)

    def split(self, share: float, seed: int, most: int) -> "tuple[Pairs, Pairs]":
        """What is learned from, and at most ``most`` target rows with all of theirs held back."""
        count = min(most, max(1, round(share * len(self.target))))
        held = np.sort(np.random.default_rng(seed).permutation(len(self.target))[:count])
        return self.of(np.setdiff1d(np.arange(len(self.target)), held)), self.of(held)

    def thinned(self, most: int) -> "Pairs":
        """At most so many target rows, evenly spaced."""
        return self.of(evenly_spaced(len(self.target), most))


@dataclass(frozen=True, eq=False)
class Moments:
    """Means and covariances over pairs, float64: a target row counts once for each of its pairs."""

    source_mean: np.ndarray
    """[D]."""
    target_mean: np.ndarray
    """[E]."""
    source: np.ndarray
    """[D, D], covariance."""
    target: np.ndarray
    """[E, E], covariance."""
    cross: np.ndarray
    """[D, E], covariance of source and target."""

    @classmethod
    def of(cls, pairs: Pairs) -> "Moments":
        """The moments of pairs.

        Raises:
            ValueError: A side does not vary at all, or holds NaN or infinite values.
        """
        count, rows = len(pairs.owner), len(pairs.target)
        if count < 2 or rows < 2:
            raise ValueError(f"two pairs at least are needed, got {count} of {rows} targets")
        times = np.bincount(pairs.owner, minlength=rows).astype(np.float64)  # (m,)
        source_mean = pairs.source.mean(axis=0, dtype=np.float64)
        target_mean = times @ pairs.target.astype(np.float64) / count
        source, target = np.zeros((len(source_mean),) * 2), np.zeros((len(target_mean),) * 2)
        grouped = np.zeros((rows, len(source_mean)))  # sums over the pairs of each target row
        for part, chunk in _centred(pairs.source, source_mean):
            source += chunk.T @ chunk
            np.add.at(grouped, pairs.owner[part], chunk)
        cross = np.zeros((len(source_mean), len(target_mean)))
        for part, chunk in _centred(pairs.target, target_mean):
            target += chunk.T @ (chunk * times[part, None].astype(np.float32))
            cross += grouped[part].astype(np.float32).T @ chunk
        found = cls(source_mean, target_mean, source / count, target / count, cross / count)
        found._check()
        return found

    def _check(self) -> None:
        for name, covariance in (("source", self.source), ("target", self.target)):
            if not np.isfinite(covariance).all():
                raise ValueError(f"the {name} side holds NaN or infinite values")
            if np.trace(covariance) <= 0:
                raise ValueError(f"all rows of the {name} side are equal: nothing to learn from")


def _centred(rows: np.ndarray, mean: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Slices of rows and their float32 contents, less the mean."""
    for start in range(0, len(rows), _ROWS):
        part = slice(start, min(start + _ROWS, len(rows)))
        yield part, (rows[part] - mean).astype(np.float32)
