"""The order of float64, from float32 scores: near ties are settled, whatever an engine rounds.

An engine's score lies within a proven distance of the true cosine. So two results whose scores lie
further apart than twice that stand in the right order, and whatever is not among the results stays
behind a last one that lies so far behind the k-th. What lies nearer is scored again in float64, and
what even that cannot tell apart by the canonical score of ``exact.py``, then by the lower index.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from fusion.topk.bounds import error_bounds
from fusion.topk.problem import Problem
from fusion.topk.products import tuned_products
from fusion.topk.settling.exact import DOCUMENTS, Run, pair_cosines
from fusion.topk.settling.exhaustive import best_exactly
from fusion.topk.settling.ties import Ties, in_order

Found = tuple[Tensor, Tensor]
Engine = Callable[[Problem], Found]

MARGIN, SPARE = 12, 16  # results beyond k that an engine is asked for, one more for so many of k
SECOND = 64  # results beyond twice k, for queries whose k-th result ties with all of those
CROWDED = 32  # times k: in fewer documents scores lie so close that float64 products cost less
SETTLED = 2**21  # results that are looked at together
UPWARDS = np.float32(1.0001)  # covers what the comparison itself rounds


def settled(problem: Problem, engine: Engine) -> Found:
    """An engine's results in the order of float64, [l, q, keep]; scores of near ties are exact."""
    if problem.settled or not problem.keep or not len(problem.queries):
        return engine(problem)
    if problem.corpus.device.type == "cpu" and problem.keep * CROWDED > len(problem.corpus):
        problem = problem.doubled()
    shape = len(problem.dims), len(problem.queries), problem.keep
    results = np.empty(shape, np.float32), np.empty(shape, np.int64)
    rows, keep = np.arange(len(problem.queries)), problem.keep
    for wanted in (keep + MARGIN + keep // SPARE, 2 * keep + SECOND):
        found = engine(problem.some(rows, min(wanted, len(problem.corpus))))
        left = _settle(problem, rows, [part.cpu().numpy() for part in found], results)
        rows = rows[left.any(axis=0)]  # their ends are still open
        if not len(rows):
            break
    else:
        for level, there in enumerate(left[:, left.any(axis=0)]):
            if there.any():
                _put_exactly(problem, level, rows[there], results)
    scores, indices = (torch.from_numpy(part).to(problem.corpus.device) for part in results)
    return scores, indices


def _settle(
    problem: Problem, rows: np.ndarray, found: list[np.ndarray], results: tuple[np.ndarray, ...]
) -> np.ndarray:
    """Write the settled results of queries [r]; at which levels ends are open, bool [l, r]."""
    left = np.empty((len(problem.dims), len(rows)), bool)
    step = max(1, SETTLED // max(1, found[0].shape[0] * found[0].shape[2]))
    with pool() as run:
        for first in range(0, len(rows), step):
            part = slice(first, first + step)
            asked = problem.some(rows[part], problem.keep)
            scores, indices = (np.ascontiguousarray(some[:, part]) for some in found)
            left[:, part] = _settle_block(asked, scores, indices, run)
            for whole, some in zip(results, (scores, indices), strict=True):
                whole[:, rows[part]] = some[..., : problem.keep]
    return left


def _settle_block(
    problem: Problem, scores: np.ndarray, indices: np.ndarray, run: Run
) -> np.ndarray:
    """Bring results [l, q, any] into order, in place, but for those whose ends are open, [l, q]."""
    near, left = _near(problem, scores)
    chained = near.copy()
    chained[..., 1:] |= near[..., :-1]
    places = np.flatnonzero(chained)
    if len(places):
        level, row, _ = np.unravel_index(places, scores.shape)
        ties = Ties(problem, level, row, indices.reshape(-1)[places])
        ends = ~near.reshape(-1)[places]
        chains = np.cumsum(ends) - ends  # a chain ends where the next result is not near
        exact, documents = in_order(ties, chains, _exact(ties, run))
        indices.reshape(-1)[places] = documents
        scores.reshape(-1)[places] = exact
    return left


def _near(problem: Problem, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which results the next one might belong before, [l, q, any]; where the end is open, [l, q].

    The end is open where all that an engine found beyond the k-th result might belong before it.
    Nothing is near where it is, since those results are looked for again.
    """
    keep, wanted = problem.keep, scores.shape[2]
    bounds = error_bounds(problem.dims, problem.double)
    constant, slope = (np.array(part)[:, None, None] for part in bounds)
    largest = np.abs(scores[..., [0, -1]]).max(axis=2, keepdims=True).clip(max=1.0)
    reach = (2 * UPWARDS * (constant + slope * largest)).astype(np.float32)
    reach[problem.query_norms.inverse.numpy() == 0] = -1  # all scores are 0, and in order
    near = np.zeros(scores.shape, bool)
    with np.errstate(invalid="ignore"):  # beyond the last document -inf follows -inf
        np.less_equal(scores[..., :-1] - scores[..., 1:], reach, out=near[..., :-1])
    left = np.zeros(scores.shape[:2], bool)
    if wanted > keep:
        beyond = near[..., keep - 1 : -1]
        np.logical_and.accumulate(beyond, axis=2, out=beyond)
        if wanted < len(problem.corpus):
            left = beyond[..., -1].copy()
            near[left] = False
    return near, left


def _exact(ties: Ties, run: Run) -> np.ndarray:
    """Float64 scores [n] of results, of which those of several levels are scored together."""
    keys = ties.rows * len(ties.problem.corpus) + ties.documents
    order = keys.argsort(kind="stable")
    ordered = keys[order]
    fresh = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    pairs = np.empty(len(keys), np.int64)
    pairs[order] = fresh.cumsum() - 1
    rows, documents = np.divmod(ordered[fresh], len(ties.problem.corpus))
    return pair_cosines(ties.problem, rows, documents, run)[ties.levels, pairs]


def _put_exactly(
    problem: Problem, level: int, rows: np.ndarray, results: tuple[np.ndarray, ...]
) -> None:
    """Write the results of queries [r] at one level, found by float64 products alone."""
    asked = problem.some(rows, problem.keep)
    step = max(1, SETTLED // max(problem.keep, DOCUMENTS))
    for first in range(0, len(rows), step):
        part = np.arange(first, min(first + step, len(rows)))
        found = best_exactly(asked.some(part, problem.keep), level)
        for whole, some in zip(results, found, strict=True):
            whole[level, rows[part]] = some


@contextmanager
def pool() -> Iterator[Run]:
    """``map``, by as many threads as torch has."""
    threads = torch.get_num_threads()
    with tuned_products():
        if threads == 1:
            yield map
        else:
            with ThreadPoolExecutor(threads) as workers:
                yield workers.map
