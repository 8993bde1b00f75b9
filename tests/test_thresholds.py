"""Thresholds must let the k best pass, and positions be found whatever their number."""

import numpy as np
import pytest

from fusion.topk.engines.thresholds import exact_threshold, guess_threshold, true_positions


def test_the_bound_of_group_maxima_never_exceeds_the_kth_score():
    rng = np.random.default_rng(1)
    for width, keep in [(2000, 1), (2000, 100), (512, 170), (513, 10), (30, 30)]:
        scores = rng.standard_normal((20, width)).astype(np.float32)
        threshold = guess_threshold(scores, keep)
        assert ((scores > threshold).sum(axis=1) >= keep).all()


def test_a_guess_for_a_large_k_lets_a_little_more_pass():
    scores = np.random.default_rng(1).standard_normal((200, 8674)).astype(np.float32)
    passing = (scores > guess_threshold(scores, 1000)).sum(axis=1)
    assert (passing >= 1000).mean() > 0.9
    assert 1050 < passing.mean() < 1300


def test_the_exact_threshold_lets_k_pass():
    scores = np.random.default_rng(1).standard_normal((20, 300)).astype(np.float32)
    for keep in (1, 77, 300):
        assert ((scores > exact_threshold(scores, keep)).sum(axis=1) == keep).all()
    assert (exact_threshold(scores, 301) == -np.inf).all()


@pytest.mark.parametrize("share", [0, 0.001, 0.04, 0.06, 0.5, 1])
@pytest.mark.parametrize("shape", [(3, 800), (3, 801), (1, 7)])
def test_true_positions(share, shape):
    mask = np.random.default_rng(0).random(shape) < share
    np.testing.assert_array_equal(true_positions(mask), np.flatnonzero(mask))
