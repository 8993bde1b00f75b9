"""Which caption is right for which picture, and what a ranking is worth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusion.measure.crossmodal.rows import CUTOFFS


@dataclass(frozen=True, eq=False)
class Truth:
    """What belongs together. A caption that two pictures have is right for both of them.

    Example: of captions "a dog", "a cat", "a dog" that belong to the pictures 0, 0 and 1, the first
    and the last are right for both pictures, the second for picture 0 alone.
    """

    texts: np.ndarray
    """int64 [n], a number for each text, the same one for equal texts."""
    keys: np.ndarray
    """int64, ascending: each text and picture that belong together, ``text * m + picture``."""
    pictures: int
    """How many, m."""

    @classmethod
    def of(cls, texts: Sequence[str], owner: np.ndarray, pictures: int) -> "Truth":
        """From texts and their pictures; white space around a text makes no other one."""
        numbers: dict[str, int] = {}
        named = [numbers.setdefault(text.strip(), len(numbers)) for text in texts]
        known = np.array(named, dtype=np.int64)
        return cls(known, np.unique(known * pictures + owner), pictures)

    def of_texts(self, rows: np.ndarray) -> "Truth":
        """The same of some of the texts: what is right of them stays right."""
        return Truth(self.texts[rows], self.keys, self.pictures)

    def right_pictures(self, found: np.ndarray) -> "Hits":
        """Pictures int64 [n, k] found by each text."""
        asked = self.texts[:, None] * self.pictures + found  # (n, k)
        total = np.bincount(self.keys // self.pictures)
        return Hits(np.isin(asked, self.keys), total[self.texts])

    def right_texts(self, found: np.ndarray) -> "Hits":
        """Texts int64 [m, k] found by each picture."""
        asked = self.texts[found] * self.pictures + np.arange(self.pictures)[:, None]  # (m, k)
        texts, pictures = np.divmod(self.keys, self.pictures)
        copies = np.bincount(self.texts, minlength=int(texts.max()) + 1)  # of each in the gallery
        total = np.bincount(pictures, weights=copies[texts], minlength=self.pictures)
        return Hits(np.isin(asked, self.keys), total.astype(np.int64))


@dataclass(frozen=True, eq=False)
class Hits:
    """What of the rankings of q queries is right."""

    right: np.ndarray
    """bool [q, k]."""
    total: np.ndarray
    """int64 [q], how many would have been right for each."""

    def any_hit(self) -> np.ndarray:
        """float64 [q, CUTOFFS]: whether something right is among the first ones."""
        return np.stack([self.right[:, :k].any(axis=1) for k in CUTOFFS], axis=1).astype(np.float64)

    def fraction(self) -> np.ndarray:
        """float64 [q, CUTOFFS]: the share of all that is right among the first ones."""
        found = np.stack([self.right[:, :k].sum(axis=1) for k in CUTOFFS], axis=1)
        return found / np.maximum(self.total, 1)[:, None]

    def median_rank(self) -> float | None:
        """The median rank of the first right answer, from 1 on; None beyond what was ranked."""
        first = np.where(self.right.any(axis=1), self.right.argmax(axis=1) + 1.0, np.inf)
        middle = float(np.median(first))
        return middle if np.isfinite(middle) else None
