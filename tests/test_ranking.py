"""Ranking by coarse keys must give the exact order, whatever the scores."""

import numpy as np
import pytest

from fusion.topk.engines import ranking
from fusion.topk.engines.ranking import rank


def plainly(scores, count, keep):
    """The same by one stable sort a row."""
    found = np.full((len(scores), keep), -np.inf, np.float32)
    places = np.full((len(scores), keep), -1)
    for row, line in enumerate(scores):
        order = np.argsort(-line[: count[row]], kind="stable")[:keep]
        found[row, : len(order)] = line[order]
        places[row, : len(order)] = order + row * scores.shape[1]
    return found, places


def assert_ranked(scores, keep, count=None):
    count = np.full(len(scores), scores.shape[1]) if count is None else count
    expected, where = plainly(scores, count, keep)
    parts = list(rank(scores.copy(), count, keep))
    found = np.concatenate([part[1] for part in parts])
    places = np.where(found > -np.inf, np.concatenate([part[2] for part in parts]), -1)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(places, where)


@pytest.fixture
def sorted_rows(monkeypatch):
    """How many rows had to be sorted by their exact scores."""
    rows, argsort = [], np.argsort
    monkeypatch.setattr(
        ranking.np, "argsort", lambda *a, **k: (rows.append(len(a[0])), argsort(*a, **k))[1]
    )
    return rows


def normal(rows=9, width=1300, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


@pytest.mark.parametrize("keep", [1, 2, 100, 1283, 1284, 1285, 1299, 1300])
@pytest.mark.parametrize("cached", [1, 2000, 2**17])
def test_every_k_and_every_chunk(monkeypatch, keep, cached):
    monkeypatch.setattr(ranking, "CACHED", cached)
    assert_ranked(normal(), keep)


def test_rows_with_few_scores_and_none():
    count = np.array([0, 1, 2, 50, 99, 100, 101, 115, 116, 117, 300])
    scores = normal(11, 400)
    scores[:, 300:] = 99  # what lies beyond the count must never show
    assert_ranked(scores, 100, count)
    assert_ranked(scores[:1], 5, count[:1])
    assert_ranked(np.ones((2, 1), np.float32), 1)


def test_steps_that_tie_are_put_right_without_another_sort(sorted_rows):
    keys, bits = ranking._sorted_keys(normal(40), np.full(40, 1300))
    found = np.take_along_axis(normal(40), (keys & (2**bits - 1)).astype(np.int64), axis=1)
    assert (found[:, 1:] > found[:, :-1]).any()  # the disease
    assert_ranked(normal(40), 1000)
    assert len(sorted_rows) == 40  # only what this test itself expected


@pytest.mark.parametrize("keep", [5, 100, 1000])
def test_scores_closer_than_one_step_are_sorted_exactly(sorted_rows, keep):
    scores = 1 + normal() * np.float32(1e-6)
    scores[:, 7] = -100  # one far away makes all the others fall into a few steps
    assert_ranked(scores, keep)
    assert len(sorted_rows) > 9


def test_ties_of_steps_across_the_last_place():
    scores = np.linspace(1, 0, 800, dtype=np.float32)[None].repeat(3, axis=0)
    close = np.float32(0.5) + np.arange(60, dtype=np.float32) * np.float32(1e-7)
    scores[:, 400:460] = close  # ascending, all in one step
    for keep in (405, 430, 459, 460):
        assert_ranked(scores, keep)
    scores[:, 400:459] = close[58::-1]  # in order, but for the best of them, which stands last
    scores[:, -1] = -1000  # far away, so that all of these are in one step
    assert_ranked(scores, 405)


@pytest.mark.parametrize(
    "values",
    [
        [0.5],
        [-0.0, 0.0],
        [1, 2, 3],
        [-1e30, 1e30],
        [1e37, -1e37],
        [1e-45, 0, -1e-45],
        [1e-38, 1e-40, 1, -1],
    ],
    ids=str,
)
def test_few_values_and_extreme_ones(values):
    scores = np.random.default_rng(0).choice(np.array(values, np.float32), (6, 500))
    for keep in (1, 60, 500):
        assert_ranked(scores, keep)


@pytest.mark.parametrize("order", [1, -1])
def test_sorted_rows(order):
    assert_ranked(np.sort(normal(), axis=1)[:, ::order], 700)
