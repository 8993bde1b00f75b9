"""A row of the report: one data set, direction, method, width and precision, and what it scored."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

CUTOFFS = (1, 5, 10)


class Direction(StrEnum):
    """What asks, and what is found."""

    TEXT_TO_IMAGE = "text-to-image"
    IMAGE_TO_TEXT = "image-to-text"


class Protocol(StrEnum):
    """What stands in the gallery of texts."""

    ALL_CAPTIONS = "all-captions"
    """Every caption; a picture is right with any of its own (Karpathy)."""
    ONE_CAPTION = "one-caption"
    """One caption a picture, averaged over which one: as hard as the other direction."""


@dataclass(frozen=True, eq=False)
class CrossRow:
    """One line of ``results.json``, and the per-picture scores that it was averaged from.

    Numbers under different definitions have different names: ``recall`` is whether anything right
    is among the first k, ``fraction`` how much of what is right is there.
    """

    data: str
    split: str
    method: str
    dim: int
    """Leading columns that were scored."""
    precision: str
    """How the gallery was stored; what asks stays float32."""
    bytes_per_vector: int
    seed: int
    """Of the codes' rotation."""
    direction: Direction
    protocol: Protocol
    queries: int
    gallery: int
    recall: tuple[float, ...]
    """At CUTOFFS, from 0 to 1."""
    recall_ci95: tuple[tuple[float, float], ...]
    """Bootstrap percentile intervals over whole pictures."""
    fraction: tuple[float, ...]
    """At CUTOFFS: the mean share of all that is right."""
    median_rank: float | None
    """Of the first right answer, from 1 on; None beyond what was ranked."""
    rsum: float | None = None
    """Sum of the six recalls of both directions, in percent, as the field quotes it; only of all
    captions."""
    rsum_ci95: tuple[float, float] | None = None
    hits: np.ndarray = field(default_factory=lambda: np.empty((0, 3)), repr=False)
    """float64 [pictures, CUTOFFS]: how many queries of each picture were right."""

    @property
    def name(self) -> str:
        """Unique within one evaluation: the key of its per-picture scores on disk."""
        variant = f"{self.method}/{self.dim}/{self.precision}/{self.seed}"
        return f"{self.data}/{self.split}/{self.direction}/{self.protocol}/{variant}"

    def to_dict(self) -> dict[str, Any]:
        """The line of ``results.json``."""
        line: dict[str, Any] = {
            "data": self.data,
            "split": self.split,
            "method": self.method,
            "dim": self.dim,
            "precision": self.precision,
            "bytes_per_vector": self.bytes_per_vector,
            "seed": self.seed,
            "direction": str(self.direction),
            "protocol": str(self.protocol),
            "queries": self.queries,
            "gallery": self.gallery,
        }
        for place, k in enumerate(CUTOFFS):
            line[f"recall_at_{k}"] = self.recall[place]
            line[f"recall_at_{k}_ci95"] = list(self.recall_ci95[place])
            line[f"fraction_at_{k}"] = self.fraction[place]
        line["median_rank"] = self.median_rank
        if self.rsum is not None and self.rsum_ci95 is not None:
            line |= {"rsum": self.rsum, "rsum_ci95": list(self.rsum_ci95)}
        return line
