"""Sorting in runs must be sorting, whether it is faster here or not."""

import numpy as np
import pytest
from test_ranking import assert_ranked, normal

from fusion.topk.engines import ranking, sorting
from fusion.topk.engines.sorting import LAST, RUN, runs_of, sort_in_runs


@pytest.mark.parametrize("runs", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("length", [1, 2, 255, 512, 600])
def test_runs_end_up_in_order(runs, length):
    rng = np.random.default_rng(0)
    for low, high in [(-(2**31), LAST), (0, 3), (LAST - 1, LAST), (7, 7)]:
        rows = rng.integers(low, high, (5, runs * length), dtype=np.int32, endpoint=True)
        for tried in (rows, np.sort(rows, axis=1), -np.sort(~rows, axis=1)):
            expected = np.sort(tried, axis=1)
            sort_in_runs(tried, runs)
            np.testing.assert_array_equal(tried, expected)


@pytest.mark.parametrize("faster", [True, False])
def test_only_what_fits_few_runs_is_sorted_in_them(monkeypatch, faster):
    monkeypatch.setattr(sorting, "runs_are_faster", lambda: faster)
    widths = [1, RUN, RUN + 1, 2 * RUN, 2 * RUN + 1, 3 * RUN, 3 * RUN + 1]
    assert [runs_of(width) for width in widths] == ([1, 1, 2, 2, 3, 3, 1] if faster else [1] * 7)


def test_the_processor_is_asked_once(monkeypatch):
    times = iter([[3.0, 1.0], [2.0, 2.0], [1.9, 9.0], [2.0, 2.0]])
    monkeypatch.setattr(sorting.timeit, "repeat", lambda *_, **__: next(times))
    assert sorting.runs_are_faster.__wrapped__()
    assert not sorting.runs_are_faster.__wrapped__()


@pytest.mark.parametrize("runs", [1, 2, 3])
@pytest.mark.parametrize("width", [513, 1300, 1537])
def test_the_ranking_does_not_depend_on_it(monkeypatch, runs, width):
    monkeypatch.setattr(ranking, "runs_of", lambda _: runs)
    count = np.array([0, 1, width // 2, width - 1, width])
    for keep in (1, width // 2, width - 1, width):
        assert_ranked(normal(5, width), keep, count)
        assert_ranked(np.round(normal(5, width)), keep, count)
