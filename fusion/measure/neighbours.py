"""How much of the full concat's neighbourhoods a run keeps: its quality, seen without labels."""

from dataclasses import dataclass

import numpy as np

from fusion.runs.folder import Run
from fusion.runs.training import CALIBRATION_ROWS
from fusion.samples import evenly_spaced
from fusion.space.training.batches import split
from fusion.topk.nested import nested_topk

NEAREST = 10
MOST_QUERIES = 512  # a twentieth of a percent is not what anybody chooses a width by


@dataclass(frozen=True)
class Kept:
    """Shares of the nearest neighbours that a run's head keeps, at each of its widths."""

    shares: dict[int, float]
    """By width, from 0 to 1."""
    queries: int
    """Held-back texts whose neighbours were looked for."""
    texts: int
    """Texts among which they were looked for."""
    nearest: int = NEAREST
    """How many neighbours each of them has."""

    def __str__(self) -> str:
        widths = ", ".join(f"{dim} dims {share:.0%}" for dim, share in self.shares.items())
        return (
            f"{widths} of the {self.nearest} nearest by the full concat "
            f"({self.queries:,} held-back of {self.texts:,} texts)"
        )


def neighbours_kept(run: Run) -> Kept:
    """Compare the head's nearest neighbours of held-back texts with those of the full concat.

    Candidates are the run's calibration vectors, a few thousand of its texts at most.
    """
    vectors = run.calibration  # (c, D)
    queries = _held_back(run)  # (q,)
    k = min(NEAREST, len(vectors) - 1)
    head = run.compressors["head"].transform(vectors)  # (c, d)
    _, full = nested_topk(vectors[queries], vectors, [vectors.shape[1]], k, exclude=queries)
    _, found = nested_topk(head[queries], head, run.config.dims, k, exclude=queries)  # (l, q, k)
    kept = (found[..., None] == full[..., None, :]).any(dim=-1).double().mean(dim=(1, 2))  # (l,)
    shares = dict(zip(run.config.dims, kept.tolist(), strict=True))
    return Kept(shares, len(queries), len(vectors), k)


def _held_back(run: Run) -> np.ndarray:
    """Calibration rows of texts that the head was not trained on: int64 [q]."""
    count = run.environment["text_count"]
    _, held = split(count, run.config.train.validation, run.config.train.seed)
    rows = np.flatnonzero(np.isin(evenly_spaced(count, CALIBRATION_ROWS), held.numpy()))
    return rows[evenly_spaced(len(rows), MOST_QUERIES)]
