"""Batches of embeddings that already lie where they are needed: indices travel, rows do not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


class Rows:
    """Embeddings by index: resident on the device when they fit, else read from where they are.

    Args:
        embeddings: ``[n, D]``, in memory or memory-mapped.
        device: where batches are wanted.
    """

    def __init__(self, embeddings: np.ndarray, device: torch.device) -> None:
        self._embeddings = embeddings
        self._device = device
        self._resident: Tensor | None = None
        if device.type == "cuda" and 4 * embeddings.size < 0.6 * torch.cuda.mem_get_info(device)[0]:
            self._resident = torch.as_tensor(
                np.asarray(embeddings, dtype=np.float32), device=device
            )  # (n, D)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Float32 rows ``[b, D]`` on the device, for int64 indices ``[b]``."""
        if self._resident is not None:
            return self._resident[indices.to(self._device)]
        rows = np.asarray(self._embeddings[indices.cpu().numpy()], dtype=np.float32)  # (b, D)
        return torch.from_numpy(rows).to(self._device)


@dataclass(frozen=True)
class Subset:
    """Some rows of embeddings, taken out a slice at a time: what reads by slices needs no copy."""

    embeddings: np.ndarray
    """``[n, D]``, in memory or memory-mapped."""
    rows: np.ndarray
    """Int64 ``[m]``, the rows to take."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.rows), self.embeddings.shape[1]

    @property
    def ndim(self) -> int:
        """Always 2."""
        return 2

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> np.ndarray:
        return self.embeddings[self.rows[part]]  # (part, D)


@dataclass(frozen=True)
class Queries:
    """Query-like parts of the training texts, such as single sentences, by the text's index.

    Example:
        >>> queries = Queries(np.zeros((3, 2), np.float32), np.array([0, 2, 2]))
        >>> queries.of(torch.tensor([0, 1, 2]), turn=1)
        tensor([ 0, -1,  2])
    """

    embeddings: np.ndarray
    """``[m, D]``."""
    owners: np.ndarray
    """Int64 ``[m]``, ascending: the text that each is a part of."""

    def __post_init__(self) -> None:
        if len(self.owners) != len(self.embeddings) or (np.diff(self.owners) < 0).any():
            raise ValueError(
                f"owners must ascend, one for each of the {len(self.embeddings)} queries"
            )

    def of(self, indices: Tensor, turn: int) -> Tensor:
        """Int64 ``[b]``: one query of each text, another one each turn; -1 where it has none."""
        texts = indices.cpu().numpy()
        first, behind = (np.searchsorted(self.owners, texts, side) for side in ("left", "right"))
        count = behind - first  # (b,)
        rows = np.where(count > 0, first + turn % np.maximum(count, 1), -1)  # (b,)
        return torch.from_numpy(rows)


@dataclass(frozen=True)
class Batches:
    """Shuffled batches of indices; epoch e of a seed has the same batches in every run.

    Several processes share each batch out: the batches themselves do not depend on their number.
    The rest that fills no batch is left out of an epoch: a short batch would compare its texts with
    fewer others.
    """

    indices: Tensor
    """Int64 ``[n]``, the texts to draw from."""
    batch_size: int
    """Of all processes together."""
    steps: int
    """Batches of an epoch; ``len`` of the whole."""
    seed: int
    epoch: Callable[[], int]
    """Tells the epoch that is about to begin."""
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch())
        order = self.indices[torch.randperm(len(self.indices), generator=generator)]  # (n,)
        for step in range(self.steps):
            start = step * self.batch_size
            # Sorted, because a memory-mapped file is read faster in its own order.
            batch = order[start : start + self.batch_size].sort().values  # (b,)
            yield batch[self.rank :: self.world]


def split(n: int, held_back: float, seed: int) -> tuple[Tensor, Tensor]:
    """Int64 indices of training and of held-back texts, both sorted; at least two held back."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))  # (n,)
    held = min(max(round(n * held_back), 2), n)
    return order[held:].sort().values, order[:held].sort().values


class HeldBack:
    """The same batches every time, of equal size; a rest is left out unless it is all there is."""

    def __init__(self, indices: Tensor, batch_size: int) -> None:
        whole = len(indices) // batch_size * batch_size
        self._batches = indices[:whole].split(batch_size) if whole else (indices,)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._batches)
