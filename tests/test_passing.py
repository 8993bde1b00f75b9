"""A tile that holds all documents must give the plain stable order, whatever its scores."""

from dataclasses import replace

import numpy as np
import pytest

from fusion.topk.engines import passing
from fusion.topk.engines.passing import FILLED, Tile, best_of_tile, slots


def plainly(scores, keep):
    """The same by one stable sort; -inf and -1 for what must not be found."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :keep]
    best = np.take_along_axis(scores, order, axis=1)
    return best, np.where(best > -np.inf, order, -1)


def best_of(scores, keep, hidden=((), ())):
    """What is found when the tile's dot products must be scaled and begin at document 1000."""
    inverse = 2.0 ** np.random.default_rng(9).integers(-2, 3, scores.shape[1]).astype(np.float32)
    dots = np.pad(scores / inverse, [(0, 0), (0, 5)], constant_values=99)
    where = tuple(np.array(axis, np.int64) for axis in hidden)
    scratch = np.full(max(FILLED, dots.shape[1]), 99, np.float32)
    tile = Tile(dots, np.ones(dots.shape, bool), scratch, scores.shape[1], 1000, where)
    best = np.empty((len(scores), keep), np.float32)
    documents = np.empty(best.shape, np.int64)
    best_of_tile(tile, inverse, best, documents)
    return best, np.where(documents < 0, -1, documents - 1000)


def assert_best(scores, keep, hidden=((), ())):
    found = best_of(scores, keep, hidden)
    left = scores.copy()
    left[hidden] = -np.inf
    for part, expected in zip(found, plainly(left, keep), strict=True):
        np.testing.assert_array_equal(part, expected)


def normal(rows=23, width=1700, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


@pytest.fixture
def replaced(monkeypatch):
    """The rows for which a guess was not good enough."""
    rows, exactly = [], passing._exactly
    monkeypatch.setattr(passing, "_exactly", lambda *a: (rows.append(a[0]), exactly(*a))[1])
    return rows


@pytest.mark.parametrize("filled", [1, 3500, 2**19])
@pytest.mark.parametrize("keep", [1, 2, 100, 170, 171, 600, 1699, 1700])
def test_every_k_and_every_cut(monkeypatch, filled, keep):
    monkeypatch.setattr(passing, "FILLED", filled)
    assert_best(normal(), keep)


@pytest.mark.parametrize("width", [1, 7, 511, 513, 1031])
def test_awkward_widths(width):
    for keep in {1, max(1, width // 3), max(1, width - 1), width}:
        assert_best(normal(width=width), keep)


def test_a_guess_is_nearly_always_good_enough(replaced):
    assert_best(normal(300, 8674), 1000)
    assert len(replaced) < 10


def test_a_guess_is_as_good_where_alike_documents_lie_together(replaced):
    scores = normal(300, 8674) + np.float32(5) * (np.arange(8674) < 3000)
    for keep in (700, 1000):
        assert_best(scores, keep)
    assert len(replaced) < 20


@pytest.mark.parametrize("keep", [3, 400, 1000])
@pytest.mark.parametrize("values", [[0.0], [-1.0], [1, 2], [0, 0, 0, 0, 0, 0, 0, 5], [-3, -2, -1]])
def test_ties_that_exceed_every_buffer(replaced, keep, values):
    rng = np.random.default_rng(0)
    assert_best(rng.choice(np.array(values, np.float32), (9, 1700)), keep)
    assert replaced or len(values) > 1


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("keep", [3, 400])
def test_sorted_rows(order, keep):
    assert_best(np.sort(normal(), axis=1)[:, ::order], keep)


def test_one_row_of_another_size_beside_ordinary_ones():
    scores = normal()
    scores[3], scores[7], scores[8] = 0, scores[7] * 1e-30, scores[8] * 1e30
    for keep in (10, 900):
        assert_best(scores, keep)


@pytest.mark.parametrize("guess", [99, -99], ids=["nothing passes", "all pass"])
@pytest.mark.parametrize("rows", [slice(None), slice(2, 3), slice(-1, None)], ids=str)
def test_bad_guesses_are_replaced_row_by_row(monkeypatch, replaced, guess, rows):
    good = passing.guess_threshold

    def bad(scores, keep):
        threshold = good(scores, keep)
        threshold[rows] = guess
        return threshold

    monkeypatch.setattr(passing, "guess_threshold", bad)
    assert slots(300) < 1700
    assert_best(normal(), 300)
    assert len(replaced) >= len(range(23)[rows])


def test_hidden_documents_cost_no_other_its_place():
    scores = np.random.default_rng(0).integers(-9, 10, (6, 700)).astype(np.float32)
    hidden = ((0, 2, 5), tuple(np.argmax(scores, axis=1)[[0, 2, 5]]))
    for keep in (1, 100, 600, 699, 700):  # the last is one too many
        assert_best(scores, keep, hidden)
    assert_best(scores[:, :1], 1, ((0, 3), (0, 0)))


def test_documents_beside_their_scores():
    tile_scores = normal(4, 900)
    nothing = np.empty(0, np.int64)
    tile = Tile(tile_scores, np.ones((4, 900), bool), np.empty(FILLED, np.float32), 900, 70, ())
    tile = replace(tile, hidden=(nothing, nothing))
    (part,) = passing.passing(tile, np.ones(900, np.float32), 20)
    for row, count in enumerate(part.count):
        columns = part.documents()[row, :count] - 70
        assert (np.diff(columns) > 0).all()
        np.testing.assert_array_equal(tile_scores[row, columns], part.scores[row, :count])
