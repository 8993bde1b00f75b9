"""A score and its document in one integer, so that sorting decides ties the same way everywhere.

The high half of an int64 key holds the score's float32 bits in an order-preserving form, the low
half 2**32 - 1 - index: the greater key is the better score or, at equal scores, the lower index.
Keys are all different, so the order of a sort or a merge cannot depend on tiles, threads, chunks
or the engine.
"""

import torch
from torch import Tensor

LAST = 2**32 - 1
"""The highest index that a key can hold."""
EMPTY = torch.iinfo(torch.int64).min
"""The key of no document; below every other key."""


def pack(scores: Tensor, indices: Tensor) -> Tensor:
    """Keys of float32 scores and int64 indices (shapes that broadcast)."""
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 turns -0.0, which would lose its tie, into 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.long() << 32) | (LAST - indices)


def unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Scores float32 and indices int64 of keys; -inf and -1 where a key is empty."""
    ordered = (keys >> 32).int()
    scores = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
    empty = keys == EMPTY
    return scores.masked_fill(empty, -torch.inf), (LAST - (keys & LAST)).masked_fill(empty, -1)


def merge(parts: list[Tensor], keep: int) -> Tensor:
    """The best ``keep`` keys of each row over parts [..., any], sorted from the best down."""
    keys = torch.cat(parts, dim=-1)
    return torch.topk(keys, min(keep, keys.shape[-1]), dim=-1).values
