"""The order of float64, from float32 scores: near ties are settled, whatever an engine rounds.

An engine's score lies within a proven distance of the true cosine. So two results whose scores lie
further apart than twice that stand in the right order, and whatever is not among the results stays
behind a last one that lies so far behind the k-th. What lies nearer is scored again by float32
products of few columns, whose bound is small; what these cannot tell apart in float64; what even
that cannot by the canonical score of ``exact.py``, then by the lower index.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fusion.topk.bounds import accumulated_bounds, error_bounds, piece_bounds
from fusion.topk.problem import Problem
from fusion.topk.products import tuned_products
from fusion.topk.settling.exact import DOCUMENTS, Run, exact_cosines, piece_cosines
from fusion.topk.settling.exhaustive import best_exactly
from fusion.topk.settling.ties import UPWARDS, Rung, Ties, in_order, last_rungs

Found = tuple[Tensor, Tensor]
Engine = Callable[[Problem], Found]
Cosines = Callable[[Problem, np.ndarray, np.ndarray, np.ndarray, Run], np.ndarray]

MARGIN, SPARE = 8, 32  # results beyond k that an engine is asked for, one more for so many of k
SECOND = 64  # results beyond twice k, for queries whose k-th result ties with all of those
CROWDED = 32  # times k: in fewer documents scores lie so close that float64 products cost less
SETTLED = 2**21  # results that are settled together


def settled(problem: Problem, engine: Engine) -> Found:
    """An engine's results in the order of float64, [l, q, keep]; scores of near ties are exact."""
    if problem.settled or not problem.keep or not len(problem.queries):
        return engine(problem)
    if problem.corpus.device.type == "cpu" and problem.keep * CROWDED > len(problem.corpus):
        problem = problem.doubled()
    rows, keep = np.arange(len(problem.queries)), problem.keep
    results: tuple[np.ndarray, ...] = ()
    for wanted in (keep + MARGIN + keep // SPARE, 2 * keep + SECOND):
        asked = problem.some(rows, min(wanted, len(problem.corpus)))
        sizes = np.full((len(problem.dims), len(rows)), np.inf, np.float32)
        tensors = engine(replace(asked, sizes=sizes))
        found = tuple(np.ascontiguousarray(part.cpu().numpy()) for part in tensors)
        left = _settle(problem, rows, found, sizes)
        best = tuple(part[..., :keep] for part in found)
        if not results:  # of all queries: nothing has to be moved
            results = best
        else:
            for whole, some in zip(results, best, strict=True):
                whole[:, rows] = some
        rows = rows[left.any(axis=0)]  # their ends are still open
        if not len(rows):
            break
    else:
        _put_exactly(problem, rows, left[:, left.any(axis=0)], results)
    scores, indices = (torch.from_numpy(part).to(problem.corpus.device) for part in results)
    return scores, indices


def _settle(
    problem: Problem, rows: np.ndarray, found: tuple[np.ndarray, ...], sizes: np.ndarray
) -> np.ndarray:
    """Settle results [l, r, any] of queries in place; at which levels ends are open, bool [l, r].

    What was found is contiguous.
    """
    asked = problem.some(rows, problem.keep)
    near, left = _near(asked, found[0], sizes)
    chained = near.copy()
    chained[..., 1:] |= near[..., :-1]
    with pool() as run:
        rungs = _rungs(asked, run)
        for part in _parts(np.count_nonzero(chained, axis=(0, 2))):
            _settle_some(asked, rungs, (chained, near, *found), part)
    return left


def _parts(counts: np.ndarray) -> Iterator[slice]:
    """Consecutive queries, which have so many results [q] to settle, no more of them than that."""
    numbers = counts.cumsum() // SETTLED
    edges = [0, *(np.diff(numbers).nonzero()[0] + 1), len(counts)]
    return (slice(a, b) for a, b in pairwise(edges) if counts[a:b].any())


def _settle_some(
    problem: Problem, rungs: Sequence[Rung], arrays: tuple[np.ndarray, ...], part: slice
) -> None:
    """Bring the results [l, q, any] of some queries into order, in place."""
    chained, near, scores, indices = arrays
    _, queries, wanted = near.shape
    starts = (np.arange(len(near)) * queries + part.start) * wanted
    found = [np.flatnonzero(level[part]) for level in chained]
    places = np.concatenate([at + start for at, start in zip(found, starts, strict=True)])
    levels = np.repeat(np.arange(len(near)), [len(at) for at in found])
    ties = Ties(problem, levels, places // wanted - levels * queries, indices.take(places))
    ends = ~near.take(places)
    chains = np.cumsum(ends) - ends  # a chain ends where the next result is not near
    exact, documents = in_order(ties, chains, rungs)
    indices.reshape(-1)[places] = documents
    scores.reshape(-1)[places] = exact


def _near(problem: Problem, scores: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which results the next one might belong before, [l, q, any]; where the end is open, [l, q].

    The end is open where all that an engine found beyond the k-th result might belong before it.
    Nothing is near where it is, since those results are looked for again.
    """
    keep, wanted = problem.keep, scores.shape[2]
    near = np.zeros(scores.shape, bool)
    reach = _reach(problem, scores, sizes)
    reach[problem.query_norms.inverse.numpy() == 0] = -1  # all scores are 0, and in order
    with np.errstate(invalid="ignore"):  # beyond the last document -inf follows -inf
        for level, some in enumerate(scores):  # which stays in cache
            distance = some[:, :-1] - some[:, 1:]
            np.less_equal(distance, reach[level], out=near[level, :, :-1])
    left = np.zeros(scores.shape[:2], bool)
    if wanted > keep:
        beyond = near[..., keep - 1 : -1]
        np.logical_and.accumulate(beyond, axis=2, out=beyond)
        if wanted < len(problem.corpus):
            left = beyond[..., -1].copy()
            near[left] = False
    return near, left


def _reach(problem: Problem, scores: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """How far below another result a later one is certain to be worse, float32 [l, q, 1]."""
    largest = np.abs(scores[..., [0, -1]]).max(axis=2).clip(max=1.0)
    bounds = error_bounds(problem.dims, problem.double, problem.rounded)
    constant, slope = (np.array(part)[:, None] for part in bounds)
    bound = constant + slope * largest
    if not problem.double and np.isfinite(sizes).any():
        asked, known = problem.query_norms.inverse.numpy(), problem.corpus_norms.inverse.numpy()
        cosines = np.minimum(sizes * asked + constant + slope, 1.0)
        shares = np.stack([(known * norms).max(axis=1) for norms in _norms(known)])  # (l, l)
        sums = (cosines * _norms(asked))[:, None] * asked * shares[..., None]
        constant, slope = accumulated_bounds(problem.dims, sums, problem.rounded)
        bound = np.minimum(bound, constant + slope * largest)
    return (2 * UPWARDS * bound)[..., None].astype(np.float32)


def _norms(inverse: np.ndarray) -> np.ndarray:
    """What inverse norms are those of, 0 where they are 0."""
    return np.divide(1, inverse, out=np.zeros_like(inverse), where=inverse > 0)


def _rungs(problem: Problem, run: Run) -> tuple[Rung, ...]:
    """What settles near ties, each for what the one before cannot tell apart."""

    def by(cosines: Cosines) -> Callable[[Ties], np.ndarray]:
        return lambda ties: cosines(problem, ties.levels, ties.rows, ties.documents, run)

    last = last_rungs(problem, by(exact_cosines))
    if problem.double:  # an engine's scores were better than those of the first rung
        return last
    bounds = piece_bounds(problem.dims, problem.rounded)
    return Rung(by(piece_cosines), bounds), *last


def _put_exactly(
    problem: Problem, rows: np.ndarray, left: np.ndarray, results: tuple[np.ndarray, ...]
) -> None:
    """Write those results of queries [r] that are ``left`` [l, r], by float64 products alone."""
    step = max(1, SETTLED // max(problem.keep, DOCUMENTS))
    for level, there in enumerate(left):
        for first in range(0, np.count_nonzero(there), step):
            part = rows[there][first : first + step]
            found = best_exactly(problem.some(part, problem.keep), level)
            for whole, some in zip(results, found, strict=True):
                whole[level, part] = some


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
