"""The oracle itself, against hand-worked cases and the plainest possible loop."""

import math

import numpy as np

from fusion.topk.reference import reference_topk


def test_hand_worked_levels():
    corpus = np.array([[1, 0, 0, 9], [1, 1, 0, 0], [0, 1, 1, 0]])
    scores, indices = reference_topk(np.array([[1, 1, 0, 0]]), corpus, [2, 4], k=3)
    assert indices.tolist() == [[[1, 0, 2]], [[1, 2, 0]]]
    expected = [[1, math.sqrt(0.5), math.sqrt(0.5)], [1, 0.5, 1 / math.sqrt(2 * 82)]]
    np.testing.assert_allclose(scores[:, 0], expected, rtol=1e-15)


def test_agrees_with_a_loop_over_pairs():
    rng = np.random.default_rng(0)
    queries, corpus = rng.standard_normal((5, 12)), rng.standard_normal((17, 12))
    scores, indices = reference_topk(queries, corpus, [3, 12], k=4)
    for level, dim in enumerate([3, 12]):
        for row, q in enumerate(queries[:, :dim]):
            pairs = sorted(
                ((-math.fsum(q * c) / math.hypot(*q) / math.hypot(*c), j))
                for j, c in enumerate(corpus[:, :dim])
            )
            assert indices[level, row].tolist() == [j for _, j in pairs[:4]]
            np.testing.assert_allclose(scores[level, row], [-s for s, _ in pairs[:4]], rtol=1e-12)


def test_ties_zero_vectors_and_exclusion():
    corpus = np.array([[1.0, 0], [0, 0], [1, 0], [-1, 0]])
    scores, indices = reference_topk(
        np.array([[2.0, 0], [0, 0]]), corpus, [1, 2], k=9, exclude=np.array([0, -1])
    )
    assert indices[1].tolist() == [[2, 1, 3, -1], [0, 1, 2, 3]]
    assert scores[1].tolist() == [[1, 0, -1, -np.inf], [0, 0, 0, 0]]


def test_equal_cosines_of_different_length_stay_ties():
    # 0.1 and 0.3 are not multiples in binary; 1:2:4 are, and their cosines must tie exactly.
    row = np.array([0.3, 0.1, 0.7])
    _, indices = reference_topk(row[None], np.stack([4 * row, row, 2 * row]), [2, 3], k=3)
    assert indices.tolist() == [[[0, 1, 2]], [[0, 1, 2]]]
