"""Weights of the blocks without labels: how well a text's query-like part finds the rest of it."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fusion.space.blocks import Normalization, check_shapes, row_norms

MAX_PAIRS = 9_000
"""More pairs than these, evenly spaced, do not move the weights."""
_MAX_SIMILARITIES = 400_000_000  # of all blocks together: 1.6 GB in float32
_ROWS = 512  # queries ranked at a time, so that one tile of scores stays in cache
_COARSE = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
_FINE = (-0.05, -0.025, 0.025, 0.05)  # steps around the best of the coarse grid
_ROUNDS = 2
_SIGMAS = 2.0  # by how many standard errors a block must earn its place


def choose_weights(
    queries: Sequence[np.ndarray],
    documents: Sequence[np.ndarray],
    normalize: Normalization = Normalization.PER_MODEL,
) -> tuple[float, ...]:
    """Squared weights of the blocks, relative to the best single one, from unlabelled text.

    Row i of the queries is a pseudo-query for row i of the documents, for example a paragraph's
    first sentence for the rest of the paragraph. The mean reciprocal rank of the right document
    among all of them is what one block after the other is weighted for; a block that does not
    raise it by two standard errors gets 0. Deterministic.

    Args:
        queries: one ``[n, d_i]`` array for each encoder, any norm.
        documents: one ``[n, d_i]`` array for each encoder, row by row.
        normalize: how the blocks will be fused.

    Returns:
        One weight for each block; the best single block has 1, none has more.

    Raises:
        ValueError: arrays that do not fit together, or a zero, NaN or infinite row.
    """
    similarities, lengths = _similarities(queries, documents, Normalization(normalize))
    count = len(similarities)

    def ranks(weights: Sequence[float]) -> Tensor:
        return _reciprocal_ranks(similarities, lengths, weights)  # (n,)

    single = [ranks([float(i == j) for j in range(count)]).mean().item() for i in range(count)]
    order = sorted(range(count), key=lambda i: -single[i])
    weights = [0.0] * count
    weights[order[0]] = 1.0
    for _ in range(_ROUNDS if count > 2 else 1):  # a line needs no second round
        before = list(weights)
        for block in order[1:]:
            weights[block] = _best_on_line(ranks, weights, block)
        if weights == before:
            break
    return tuple(weights)


def _best_on_line(
    ranks: Callable[[Sequence[float]], Tensor], weights: Sequence[float], block: int
) -> float:
    """The best weight of one block while the others stay; the lower one of equals."""
    tried: dict[float, Tensor] = {}

    def best(candidates: Sequence[float]) -> float:
        for value in candidates:
            if value not in tried:
                changed = [*weights[:block], value, *weights[block + 1 :]]
                tried[value] = ranks(changed)  # (n,)
        return max(sorted(tried), key=lambda value: tried[value].mean().item())

    around = best(_COARSE)
    top = best([round(around + step, 3) for step in _FINE if 0 < around + step <= 1])
    gain = tried[top] - tried[0.0]  # (n,)
    error = gain.std() / len(gain) ** 0.5
    return top if gain.mean() > _SIGMAS * error else 0.0


def _similarities(
    queries: Sequence[np.ndarray], documents: Sequence[np.ndarray], normalize: Normalization
) -> tuple[Tensor, Tensor]:
    """Dot products ``[blocks, n, n]`` of the blocks, and documents' squared norms ``[blocks, n]``.

    Unit-norm blocks under ``per-model``, as they come otherwise.
    """
    names = [f"block {i}" for i in range(len(documents))]
    dims = [block.shape[-1] for block in documents]
    for side in (documents, queries):
        check_shapes(side, names, dims)
    if len(queries[0]) != len(documents[0]) or len(queries[0]) < 2:
        raise ValueError(
            f"choosing weights needs pairs, got {len(queries[0])} queries "
            f"and {len(documents[0])} documents"
        )
    most = min(MAX_PAIRS, int((_MAX_SIMILARITIES / len(documents)) ** 0.5), len(queries[0]))
    rows = np.linspace(0, len(queries[0]) - 1, most).round().astype(np.int64)  # (n,)
    products = torch.empty(len(documents), most, most)  # (blocks, n, n)
    lengths = torch.ones(len(documents), most)  # (blocks, n)
    for i, (name, asked, given) in enumerate(zip(names, queries, documents, strict=True)):
        asked, given = (np.asarray(side, dtype=np.float32) for side in (asked, given))
        asked_norms, given_norms = (
            row_norms(side, name)[rows] for side in (asked, given)
        )  # (n, 1)
        asked, given = asked[rows], given[rows]  # (n, d_i)
        if normalize is Normalization.PER_MODEL:
            asked, given = asked / asked_norms, given / given_norms
        else:
            lengths[i] = torch.from_numpy(given_norms[:, 0] ** 2)
        torch.mm(torch.from_numpy(asked), torch.from_numpy(given).T, out=products[i])
    return products, lengths


def _reciprocal_ranks(similarities: Tensor, lengths: Tensor, weights: Sequence[float]) -> Tensor:
    """1 / rank ``[n]`` of each query's own document under the cosine of the weighted blocks."""
    used = [i for i, weight in enumerate(weights) if weight]
    # A query's norm changes no ranking; a document's does, unless all blocks are unit-norm.
    norms = torch.stack([weights[i] * lengths[i] for i in used]).sum(dim=0).sqrt()  # (n,)
    found = []
    for start in range(0, similarities.shape[1], _ROWS):
        scores = similarities[used[0], start : start + _ROWS] * weights[used[0]]  # (rows, n)
        for i in used[1:]:
            scores.add_(similarities[i, start : start + _ROWS], alpha=weights[i])
        scores.div_(norms)
        own = scores.diagonal(offset=start)[:, None]  # (rows, 1)
        found.append(1.0 / (1 + (scores > own).sum(dim=1)))
    return torch.cat(found)
