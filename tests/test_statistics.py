"""Intervals and paired tests against exact enumeration, normal theory and known nulls."""

from itertools import product

import numpy as np
import pytest

from fusion.measure.statistics import bootstrap_means, compare, compare_columns, holm, intervals


def test_interval_is_normal_theory_for_many_queries():
    scores = np.random.default_rng(0).random((2000, 1))
    low, high = intervals(bootstrap_means(scores))[0]
    half = 1.96 * scores.std() / np.sqrt(2000)
    assert low == pytest.approx(scores.mean() - half, abs=half / 20)
    assert high == pytest.approx(scores.mean() + half, abs=half / 20)


def test_bootstrap_matches_every_possible_draw_of_three_queries():
    scores = np.array([0.0, 0.3, 1.0])
    exact = np.sort([np.mean(draw) for draw in product(scores, repeat=3)])
    drawn = np.sort(bootstrap_means(scores[:, None], resamples=200_000)[:, 0])
    assert drawn.mean() == pytest.approx(exact.mean(), abs=2e-3)
    assert drawn.std() == pytest.approx(exact.std(), abs=2e-3)
    np.testing.assert_allclose(np.unique(drawn.round(9)), np.unique(exact.round(9)))


def test_columns_share_their_draws():
    """A row's interval does not depend on which other rows were measured beside it."""
    scores = np.random.default_rng(1).random((50, 3))
    together = bootstrap_means(scores, resamples=500)
    alone = bootstrap_means(scores[:, 2:], resamples=500)
    np.testing.assert_allclose(together[:, 2:], alone, rtol=0, atol=1e-12)


def test_chunks_change_nothing(monkeypatch):
    scores = np.random.default_rng(2).random((40, 2))
    whole = bootstrap_means(scores, resamples=100), compare([scores[:, 0]], [scores[:, 1]])
    monkeypatch.setattr("fusion.measure.statistics._CHUNK_VALUES", 1000)
    np.testing.assert_allclose(bootstrap_means(scores, resamples=100), whole[0], atol=1e-12)
    assert compare([scores[:, 0]], [scores[:, 1]]) == whole[1]


def test_queries_that_are_not_counted_leave_the_mean():
    scores = np.array([[0.5], [np.nan], [0.5]])
    drawn = bootstrap_means(scores, resamples=500)
    assert set(drawn[:, 0]) <= {0.5, 0.0}, "0 only where all three draws fell on the NaN"
    assert np.mean(drawn == 0.5) == pytest.approx(1 - 1 / 27, abs=0.03)


def test_p_value_is_that_of_all_sign_flips():
    difference = np.array([0.3, 0.1, -0.05, 0.2, 0.15, 0.02])
    flips = np.array(list(product([1, -1], repeat=6))) @ difference / 6
    exact = np.mean(np.abs(flips) >= difference.mean() - 1e-12)
    got = compare([difference], [np.zeros(6)])
    assert got.difference == pytest.approx(0.12)
    assert got.queries == 6
    assert got.p_value == pytest.approx(exact, abs=0.01)
    assert got.ci95[0] < 0.12 < got.ci95[1]


def test_comparing_the_other_way_round_turns_the_sign():
    rng = np.random.default_rng(3)
    a, b = rng.random(80), rng.random(80)
    there, back = compare([a], [b]), compare([b], [a])
    assert there.difference == -back.difference
    assert there.p_value == back.p_value
    np.testing.assert_allclose(there.ci95, [-back.ci95[1], -back.ci95[0]], atol=1e-12)


def test_equal_methods_do_not_differ():
    scores = np.random.default_rng(4).random(30)
    got = compare([scores], [scores])
    assert got.difference == 0
    assert got.p_value == 1.0


def test_under_the_null_small_p_values_are_rare():
    rng = np.random.default_rng(5)
    p_values = [
        compare([rng.random(60)], [rng.random(60)], resamples=400).p_value for _ in range(200)
    ]
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.10


def test_each_data_set_counts_the_same():
    """A thousand queries that do not differ cannot drown ten that do."""
    big, small = np.full(1000, 0.5), np.full(10, 0.5)
    got = compare([big, small + 0.1], [big, small])
    assert got.difference == pytest.approx(0.05)
    assert got.p_value < 0.01
    assert got.queries == 1010


def test_data_sets_of_one_size_are_drawn_apart():
    """Were both drawn alike, equal scores would not average out: the interval is √2 narrower."""
    scores = np.random.default_rng(6).random(400)
    zero = np.zeros(400)
    one = np.ptp(compare([scores], [zero]).ci95)
    two = np.ptp(compare([scores, scores], [zero, zero]).ci95)
    assert two / one == pytest.approx(1 / np.sqrt(2), rel=0.05)


def test_scores_of_other_queries_are_refused():
    with pytest.raises(ValueError, match="not of the same queries"):
        compare([np.zeros(3)], [np.zeros(4)])
    with pytest.raises(ValueError, match="no query in common"):
        compare([np.array([np.nan, 1.0])], [np.array([1.0, np.nan])])
    with pytest.raises(ValueError, match="no data set"):
        compare([], [])


def test_many_comparisons_at_once_are_those_one_by_one():
    rng = np.random.default_rng(7)
    sets = [rng.random((50, 3)), rng.random((30, 3))]
    sets[0][4, 1] = np.nan
    together = compare_columns(sets, resamples=500)
    for column, got in enumerate(together):
        alone = compare([s[:, column] for s in sets], [np.zeros(50), np.zeros(30)], resamples=500)
        assert got.p_value == alone.p_value
        assert got.queries == alone.queries == (79 if column == 1 else 80)
        np.testing.assert_allclose(got.ci95, alone.ci95, atol=1e-12)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
