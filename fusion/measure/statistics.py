"""How sure a score is, and whether two methods differ: resampling over queries, seeded.

Scores are per query, one column a row of the report, so that all rows of a data set share their
resamples. Several data sets are averaged as their means are (each set counts the same, whatever its
number of queries), and are resampled each on its own. Draws and p-values follow from the seed on
every machine; means and intervals may differ in their last bits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
SEED = 0
_CHUNK_VALUES = 4_000_000  # 32 MB of float64 weights at a time


def bootstrap_means(
    scores: np.ndarray, seed: int | Sequence[int] = SEED, resamples: int = RESAMPLES
) -> np.ndarray:
    """Means of every column over queries drawn with replacement.

    Args:
        scores: float64 [q, m]; a query that is NaN in a column is not counted there.
        seed: One seed and one number of queries give one set of draws, whatever the columns.
        resamples: How many draws, r.

    Returns:
        float64 [r, m].
    """
    counted = np.isfinite(scores).astype(np.float64)
    return bootstrap_ratios(np.nan_to_num(scores), counted, seed, resamples)


def bootstrap_ratios(
    sums: np.ndarray,
    counts: np.ndarray,
    seed: int | Sequence[int] = SEED,
    resamples: int = RESAMPLES,
) -> np.ndarray:
    """Means over clusters of queries drawn with replacement, each with all of its queries.

    Args:
        sums: float64 [g, m], the sum of each cluster's scores.
        counts: float64 [g, m], how many queries it has.
        seed: One seed and one number of clusters give one set of draws, whatever the columns.
        resamples: How many draws, r.

    Returns:
        float64 [r, m].
    """
    rng = np.random.default_rng(seed)
    clusters = len(sums)
    means = []
    for size in _chunks(clusters, resamples):
        draws = rng.integers(0, clusters, size=(size, clusters))  # (r, g)
        cells = draws + np.arange(size)[:, None] * clusters
        weights = np.bincount(cells.ravel(), minlength=size * clusters)
        weights = weights.reshape(size, clusters).astype(np.float64)
        means.append(weights @ sums / np.maximum(weights @ counts, 1.0))
    return np.concatenate(means)


def intervals(means: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Percentile interval of each column of bootstrap means [r, m], as [m, 2]."""
    tails = [(1 - level) / 2, (1 + level) / 2]
    return np.quantile(means, tails, axis=0).T


@dataclass(frozen=True)
class Comparison:
    """One method's scores minus another's, over the same queries."""

    difference: float
    """Mean over the data sets of the mean difference."""
    ci95: tuple[float, float]
    """Bootstrap percentile interval of the difference."""
    p_value: float
    """Two-sided, of the paired randomisation test: how often randomly swapping the two methods'
    scores, query by query, gives a difference at least as large."""
    queries: int
    """Number of queries that both methods answered."""


def compare(
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Paired test of two methods over one or several data sets.

    Args:
        ours: Per-query scores float64 [q], one array a data set.
        theirs: The other method's scores of the same queries in the same order.
        seed: Of the draws.
        resamples: Number of bootstrap draws, and of random swaps.

    Raises:
        ValueError: The two do not hold the same queries.
    """
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape or a.ndim != 1:
            raise ValueError(
                f"scores of shapes {a.shape} and {b.shape} are not of the same queries"
            )
    differences = [(a - b)[:, None] for a, b in zip(ours, theirs, strict=True)]
    return compare_columns(differences, seed, resamples)[0]


def compare_columns(
    differences: Sequence[np.ndarray], seed: int = SEED, resamples: int = RESAMPLES
) -> list[Comparison]:
    """Many paired tests for the price of one: all columns share their draws.

    Args:
        differences: Per-query differences float64 [q, m] of m pairs of methods, one array a data
            set; NaN where a query was not counted.
        seed: Of the draws.
        resamples: Number of bootstrap draws, and of random swaps.

    Raises:
        ValueError: No data set, or a pair without a query in common on one of them.
    """
    if not differences:
        raise ValueError("nothing to compare: no data set was given")
    if not all(np.isfinite(d).any(axis=0).all() for d in differences):
        raise ValueError("the two methods have no query in common")
    observed = np.mean([np.nanmean(d, axis=0) for d in differences], axis=0)  # (m,)
    drawn = [bootstrap_means(d, (seed, i), resamples) for i, d in enumerate(differences)]
    swapped = [_swapped_means(d, (seed, i), resamples) for i, d in enumerate(differences)]
    # Equal sums may differ in their last bit.
    extreme = np.abs(np.mean(swapped, axis=0)) >= np.abs(observed) - 1e-12  # (r, m)
    p_values = (1 + extreme.sum(axis=0)) / (1 + resamples)  # the observed order is one of them
    counted = np.sum([np.isfinite(d).sum(axis=0) for d in differences], axis=0)
    return [
        Comparison(float(mean), (float(low), float(high)), float(p_value), int(queries))
        for mean, (low, high), p_value, queries in zip(
            observed, intervals(np.mean(drawn, axis=0)), p_values, counted, strict=True
        )
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment for testing several hypotheses at once: compare with .05 as before.

    Example: of .01, .04 and .03 the smallest counts three times, the next twice: .03, .06, .06.
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return adjusted.tolist()


def _swapped_means(difference: np.ndarray, seed: Sequence[int], resamples: int) -> np.ndarray:
    """Mean differences [r, m] after swapping the two methods for a random half of the queries."""
    rng = np.random.default_rng([*seed, 1])  # not the bootstrap's draws
    values = np.nan_to_num(difference)
    signs = (
        rng.integers(0, 2, size=(size, len(difference)), dtype=np.int8) * 2.0 - 1.0
        for size in _chunks(len(difference), resamples)
    )
    sums = np.concatenate([flips @ values for flips in signs])  # (r, m)
    return sums / np.isfinite(difference).sum(axis=0)


def _chunks(queries: int, resamples: int) -> Iterator[int]:
    size = max(1, _CHUNK_VALUES // max(queries, 1))
    for start in range(0, resamples, size):
        yield min(size, resamples - start)
