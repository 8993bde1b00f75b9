"""The plain engine: one matrix product and one top-k a level, on any device that torch has."""

import numpy as np
import torch
from torch import Tensor

from fusion.topk import keys
from fusion.topk.problem import Problem
from fusion.topk.products import accumulated

DOCUMENTS = 2**16  # read at a time, which bounds the float32 copy of a half-precision corpus
SCORES = 2**23  # held at a time


def search(problem: Problem) -> tuple[Tensor, Tensor]:
    """Scores and indices of every level, [l, q, keep]."""
    levels = [_search_level(problem, level) for level in range(len(problem.dims))]
    return problem.finish(torch.stack(levels))


def _search_level(problem: Problem, level: int) -> Tensor:
    device = problem.corpus.device
    best = torch.full((len(problem.queries), problem.keep), keys.EMPTY, device=device)  # (q, k)
    for start in range(0, len(problem.corpus), DOCUMENTS):
        documents = problem.documents(start, start + DOCUMENTS, problem.dims[level])  # (c, d)
        inverse = problem.corpus_norms.inverse[level, start : start + DOCUMENTS].to(device)  # (c,)
        rows = max(1, SCORES // len(documents))
        for first in range(0, len(best), rows):
            block = slice(first, first + rows)
            queries = problem.queries[block, : problem.dims[level]].to(device)
            scores = _products(queries, documents, problem.double) * inverse  # (q, c)
            found = _keys(scores, start, problem.exclude, block)
            best[block] = keys.merge([best[block], found], problem.keep)
    return best


def _products(queries: Tensor, documents: Tensor, double: bool) -> Tensor:
    """Dot products [q, c]."""
    if documents.device.type != "cpu":
        return queries @ documents.T
    room = np.empty((len(queries), len(documents)), np.float32)
    list(accumulated(room, queries, documents, [documents.shape[1]], double))
    return torch.from_numpy(room)


def _keys(scores: Tensor, start: int, exclude: Tensor | None, block: slice) -> Tensor:
    indices = torch.arange(start, start + scores.shape[1], device=scores.device)
    found = keys.pack(scores, indices)
    if exclude is not None:
        found.masked_fill_(indices == exclude[block, None].to(scores.device), keys.EMPTY)
    return found
