"""What a training is judged by: texts that it never learned from, each among all the texts.

A text's neighbours are among all that there are. Compared with only the few others that are held
back, it has no near ones to rank, and the loss looks best before the near ones have been learned.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fusion.samples import evenly_spaced
from fusion.space.head import FusionHead
from fusion.space.training.losses import NeighbourKL, nested_cosines
from fusion.space.training.plan import Plan

MOST_JUDGED = 512
"""Held-back texts, and as many of their queries: more of them choose alike."""
MOST_CANDIDATES = 4096
"""Texts that each of them is compared with: all, or so many evenly spaced, eight times as many as
in a batch. More of them would cost a training of 10,000 texts half its time again."""
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the start: what is tried beside the least share that may be kept."""
WORTH = 0.01
"""Of the start's loss: so much must a larger share of it save."""


class HeldBackTexts:
    """Held-back texts and queries among all texts, where a head puts them and where they belong.

    Args:
        plan: the texts; those that it holds back are judged.
        loss: what compares the head with the teacher.
        teacher: ``[D, D]``, the teacher's map; None for the fused space itself.
        device: where the heads are that will be judged.
    """

    def __init__(
        self, plan: Plan, loss: NeighbourKL, teacher: Tensor | None, device: torch.device
    ) -> None:
        self.dims, self.device = plan.dims, device
        held = _some(plan.held.numpy(), MOST_JUDGED)  # (h,)
        others = np.setdiff1d(np.arange(len(plan.embeddings)), held, assume_unique=True)
        others = _some(others, MOST_CANDIDATES - len(held))
        parts = [plan.embeddings[held], plan.embeddings[others]]
        self.judged, self.candidates, self.queries = len(held), len(held) + len(others), 0
        if plan.queries:
            theirs = np.flatnonzero(np.isin(plan.queries.owners, held))
            parts.append(plan.queries.embeddings[_some(theirs, MOST_JUDGED)])
            self.queries = len(parts[-1])
        # Held-back texts come first, so that row i of what is judged is candidate i.
        self._rows = torch.from_numpy(np.concatenate(parts, dtype=np.float32)).to(device)
        target = self._rows if teacher is None else self._rows @ teacher.to(device)  # (t + q, D)
        self._level = loss.level(self._cosines(target), self.queries)

    @torch.no_grad()
    def loss(self, head: FusionHead) -> Tensor:
        """The training's loss (a scalar) of these texts and queries, of each kind the mean."""
        student = head(self._rows).float()  # (t + q, d)
        with torch.autocast(self.device.type, enabled=False):
            widths = nested_cosines(*self._sides(student), self.dims)
            losses = [
                self._level(cosines, dim / self.dims[-1])[0]
                for dim, cosines in zip(self.dims, widths, strict=True)
            ]
        return torch.stack(losses).sum()

    def share_of_start(self, shares: Sequence[float], at: Callable[[float], FusionHead]) -> float:
        """How much of its start a head had better keep.

        Few texts teach a head what holds for them alone; between it and its start lie better maps
        for others. Of two shares with all but equal losses, which is taken may depend on how the
        machine sums.

        Args:
            shares: what may be taken, ascending; the last is 1, the start itself.
            at: the head with a share of its start.

        Returns:
            The least share with a loss that no other betters by ``WORTH`` of the start's.
        """
        losses = [self.loss(at(share)).item() for share in shares]
        enough = min(losses) + WORTH * abs(losses[-1])  # of texts all alike they round below 0
        return next(share for share, loss in zip(shares, losses, strict=True) if loss <= enough)

    def __str__(self) -> str:
        return f"{self.judged:,} held-back texts among {self.candidates:,}"

    def _sides(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """What is judged ``[h + q, d]`` and the candidates ``[t, d]``."""
        texts, queries = vectors.split([self.candidates, self.queries])
        return torch.cat([texts[: self.judged], queries]), texts

    def _cosines(self, vectors: Tensor) -> Tensor:
        """Cosines ``[h + q, t]`` of all columns."""
        (cosines,) = nested_cosines(*self._sides(vectors), vectors.shape[1:])
        return cosines


def _some(rows: np.ndarray, most: int) -> np.ndarray:
    return rows[evenly_spaced(len(rows), most)]
