"""A score and its document in one integer, so that sorting decides ties the same way everywhere.

The high half of an int64 key holds the score's float32 bits in an order-preserving form, the low
half 2**32 - 1 - index: the greater key is the better score or, at equal scores, the lower index.
Keys are all different, so the order of a sort or a merge cannot depend on tiles, threads, chunks
or the engine.
"""

from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

LAST = 2**32 - 1
"""The highest index that a key can hold."""
EMPTY = -(2**63)
"""The key of no document; below every other key."""


@overload
def pack(scores: Tensor, indices: Tensor) -> Tensor: ...
@overload
def pack(scores: np.ndarray, indices: np.ndarray) -> np.ndarray: ...
def pack(scores: Tensor | np.ndarray, indices: Tensor | np.ndarray) -> Tensor | np.ndarray:
    """Keys of float32 scores and int64 indices of shapes that broadcast, numpy or torch."""
    scores = scores + 0.0  # turns -0.0, which would lose its tie, into 0.0
    if isinstance(scores, Tensor):
        return (_ordered(scores.view(torch.int32)).long() << 32) | (LAST - indices)
    return (_ordered(scores.view(np.int32)).astype(np.int64) << 32) | (LAST - indices)


def unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Scores float32 and indices int64 of keys; -inf and -1 where a key is empty."""
    scores = _ordered((keys >> 32).int()).view(torch.float32)
    indices = (keys & LAST).neg_().add_(LAST)
    empty = keys == EMPTY
    if empty.any():
        scores, indices = scores.masked_fill(empty, -torch.inf), indices.masked_fill(empty, -1)
    return scores, indices


def unpack_scores(keys: np.ndarray) -> np.ndarray:
    """Scores float32 of keys; -inf where a key is empty."""
    scores = _ordered((keys >> 32).astype(np.int32)).view(np.float32)
    return np.where(keys == EMPTY, np.float32(-np.inf), scores)


def merge(parts: list[Tensor], keep: int) -> Tensor:
    """The best ``keep`` keys of each row over parts [..., any], sorted from the best down."""
    keys = torch.cat(parts, dim=-1)
    return torch.topk(keys, min(keep, keys.shape[-1]), dim=-1).values


def _ordered(bits: Any) -> Any:  # noqa: ANN401 - numpy or torch, as given
    """Float bits to integers of the same order, and back: negative numbers have theirs flipped."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
