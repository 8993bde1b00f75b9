"""One training over several processes: one batch out of the shares of all.

Row i of a batch belongs to the process i modulo their number. Every process gathers the outputs of
all and takes the loss of the whole batch, so that each text is compared with all others, whichever
process they came from. That costs each the cosines of the whole batch, which the head's own
products outweigh up to some thousand texts a batch.
"""

from typing import Any

import torch
from torch import Tensor, distributed


def gather_rows(share: Tensor, total: int) -> Tensor:
    """The rows ``[total, d]`` of a whole batch, out of every process's share ``[b, d]``.

    Without a process group the share is the batch. Differentiable: where each process takes the
    same loss of what it gets, and gradients are averaged over the processes (which
    DistributedDataParallel does), they are those of one process that has all rows.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return share
    return _Gathered.apply(share, total)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, share: Tensor, total: int) -> Tensor:  # noqa: ANN401 - torch has no public type for it
        world = distributed.get_world_size()
        most = -(-total // world)
        padded = share.new_zeros(most, share.shape[1])  # (most, d) shares differ by a row at most
        padded[: len(share)] = share
        every = [torch.empty_like(padded) for _ in range(world)]  # world x (most, d)
        distributed.all_gather(every, padded)
        return torch.stack(every, dim=1).view(world * most, -1)[:total]  # (total, d)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        world = distributed.get_world_size()
        # Each process sees the gradient of its own rows only: their sum is wanted, not their mean.
        return grad[distributed.get_rank() :: world] * world, None
