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
EMPTY = -(2**63)
"""The key of no document; below every other key."""


def pack(scores: Tensor, indices: Tensor) -> Tensor:
    """Keys of float32 scores and int64 indices of shapes that broadcast."""
    scores = scores + 0.0  # turns -0.0, which would lose its tie, into 0.0
    return (_ordered(scores.view(torch.int32)).long() << 32) | (LAST - indices)


def pack_found(scores: Tensor, indices: Tensor) -> Tensor:
    """Keys of results, in which the index -1 stands for no document."""
    return pack(scores, indices).masked_fill_(indices < 0, EMPTY)


def unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Scores float32 and indices int64 of keys; -inf and -1 where a key is empty."""
    scores = _ordered((keys >> 32).int()).view(torch.float32)
    indices = (keys & LAST).neg_().add_(LAST)
    empty = keys == EMPTY
    if empty.any():
        scores, indices = scores.masked_fill(empty, -torch.inf), indices.masked_fill(empty, -1)
    return scores, indices


def merge(parts: list[Tensor], keep: int) -> Tensor:
    """The best ``keep`` keys of each row over parts [..., any], sorted from the best down."""
    keys = torch.cat(parts, dim=-1)
    return torch.topk(keys, min(keep, keys.shape[-1]), dim=-1).values


def _ordered(bits: Tensor) -> Tensor:
    """Float bits to integers of the same order, and back: negative numbers have theirs flipped."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
