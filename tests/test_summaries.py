"""Fewer vectors an item: nested, near the best that any choice of candidates reaches."""

from itertools import combinations

import numpy as np
import pytest

from fusion.ragged import Ragged
from fusion.space import summaries as module
from fusion.space.summaries import first_vectors, summaries, summary, ward_sums


def unit(count, d, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def covered(vectors, chosen):
    """The item's MaxSim with its summary."""
    return float((vectors @ chosen.T).max(axis=1).mean())


def plain_ward(vectors):
    """Members of the groups, by trying all pairs: the cost of a merger by its definition."""
    groups, found = [[i] for i in range(len(vectors))], []

    def spread(group):
        rows = vectors[group].astype(np.float64)
        return ((rows - rows.mean(axis=0)) ** 2).sum()

    while len(groups) > 1:
        a, b = min(
            combinations(range(len(groups)), 2),
            key=lambda ab: (
                spread(groups[ab[0]] + groups[ab[1]])
                - spread(groups[ab[0]])
                - spread(groups[ab[1]])
            ),
        )
        found.append(groups[a] + groups[b])
        groups = [g for i, g in enumerate(groups) if i not in (a, b)] + [found[-1]]
    return found


@pytest.mark.parametrize("count", [2, 3, 7, 24])
def test_groups_are_those_of_ward(count):
    vectors = unit(count, 5, seed=count)
    wanted = [vectors[group].astype(np.float64).sum(axis=0) for group in plain_ward(vectors)]
    assert np.allclose(
        sorted(ward_sums(vectors).tolist()), sorted(np.array(wanted).tolist()), atol=1e-5
    )


def test_every_prefix_is_a_summary_of_its_own_and_near_the_best():
    vectors = unit(9, 4)
    candidates = np.concatenate([vectors, module._unit(ward_sums(vectors))])
    whole = summary(vectors, 17)
    for m in (1, 2, 3):
        assert np.array_equal(summary(vectors, m), whole[:m])
        best = max(covered(vectors, candidates[list(c)]) for c in combinations(range(17), m))
        reached = covered(vectors, whole[:m])
        floor = -1  # no vector covers another by less
        assert (reached - floor) >= (1 - 1 / np.e) * (best - floor)
    gains = np.diff([covered(vectors, whole[:m]) for m in range(1, len(whole) + 1)])
    assert (gains > 0).all()
    assert (np.diff(gains) < 1e-6).all()  # the best first
    assert covered(vectors, whole) == pytest.approx(1, abs=1e-5)


def test_copies_and_lengths_change_nothing():
    vectors = unit(6, 8)
    found = summary(np.concatenate([vectors, 3 * vectors, vectors]), 20)
    assert len(found) <= 11  # no copy among them
    assert covered(vectors, found) == pytest.approx(1, abs=1e-5)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_items_of_none_and_of_one_stay():
    rows = unit(5, 3)
    found = summaries(Ragged(rows * 2, [0, 0, 1, 5]), 2)
    assert found.counts.tolist() == [0, 1, 2]
    assert np.allclose(found[1], rows[:1])
    assert len(summaries(Ragged(np.empty((0, 3), np.float32), [0]), 2)) == 0


def test_the_first_of_a_summary_is_the_summary_of_fewer():
    items = Ragged(unit(40, 6), [0, 11, 11, 12, 40])
    most = summaries(items, 8)
    for m in (1, 3, 8, 20):
        assert np.array_equal(first_vectors(most, m).rows, summaries(items, min(m, 8)).rows)


def test_a_text_of_a_hundred_thousand_tokens_takes_little_memory(monkeypatch):
    sizes = []
    plain = module.ward_sums
    monkeypatch.setattr(module, "ward_sums", lambda v: sizes.append(len(v)) or plain(v))
    monkeypatch.setattr(module, "AT_ONCE", 64)
    vectors = np.repeat(unit(10, 4), 100, axis=0)  # of 1,000 here, in groups of 64
    found = summary(vectors, 19)
    assert max(sizes) <= 64
    assert covered(vectors, found) > 0.99


def test_more_vectors_than_are_grouped_at_once_may_be_kept(monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 4)
    vectors = unit(50, 6)
    found = summary(vectors, 30)
    assert len(found) == 30
    assert covered(vectors, found) > 0.9


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="most must be at least 1 vector an item, got 0"):
        summaries(Ragged(unit(2, 2), [0, 2]), 0)
