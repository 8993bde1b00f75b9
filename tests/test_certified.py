"""Certified results have the order of the float64 reference, and pay little for it."""

import numpy as np
import pytest
import torch

from fusion.search.certified import certified_topk, error_bound
from fusion.search.reference import reference_topk
from fusion.search.topk import nested_topk

DIMS = [32, 96, 128]


def close_calls(seed=0, q=8, c=600):
    """Documents that differ from one another by less than float32 can tell."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((c // 6, 128))
    corpus = np.repeat(base, 6, axis=0) + 1e-9 * rng.standard_normal((c // 6 * 6, 128))
    return rng.standard_normal((q, 128)), corpus[rng.permutation(len(corpus))]


def test_float32_alone_gets_close_calls_wrong():  # the disease
    queries, corpus = close_calls()
    _, plain = nested_topk(queries, corpus, DIMS, 20)
    assert (plain.numpy() != reference_topk(queries, corpus, DIMS, 20)[1]).any()


@pytest.mark.parametrize("k", [1, 20, 600, 700])
def test_order_is_float64s(k):
    queries, corpus = close_calls()
    exclude = np.array([-1, 5, 599, -1, 0, 1, 2, 3])
    found = certified_topk(queries, corpus, DIMS, k, exclude=exclude)
    scores, indices = reference_topk(queries, corpus, DIMS, k, exclude=exclude)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_array_equal(found.scores, scores)


def test_ties_by_the_hundred_need_more_candidates_and_stay_exact():
    queries = np.random.default_rng(0).standard_normal((3, 128)).astype(np.float32)
    corpus = np.repeat(queries[:1], 500, axis=0)
    found = certified_topk(queries, corpus, DIMS, 10)
    assert (found.indices == np.arange(10)).all()
    assert found.candidates == 50


def test_queries_that_tie_do_not_make_the_others_dear(monkeypatch):
    asked = []

    def watched(queries, *args, **kwargs):
        asked.append(queries.numpy())
        return nested_topk(queries, *args, **kwargs)

    monkeypatch.setattr("fusion.search.certified.nested_topk", watched)
    rng = np.random.default_rng(0)
    queries, corpus = rng.standard_normal((40, 128)), rng.standard_normal((500, 128))
    queries[7] = queries[8, :32] = 0
    corpus[:300] = queries[9]
    exclude = np.arange(40) - 1
    found = certified_topk(queries, corpus, DIMS, 10, exclude=exclude)
    scores, indices = reference_topk(queries, corpus, DIMS, 10, exclude=exclude)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_array_equal(found.scores, scores)
    assert len(asked[0]) == 40
    assert 1 <= len(asked[1]) < 8  # those whose best are among the 300 copies
    assert asked[1][:, :32].any(axis=1).all()


@pytest.mark.parametrize("k", [0, -1])
def test_no_results_are_refused(k):
    with pytest.raises(ValueError, match=f"k must be at least 1, got {k}"):
        certified_topk(np.ones((2, 4)), np.ones((3, 4)), [2], k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_candidates_stay_few_on_ordinary_data(dtype):
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(20, 128, generator=generator).to(dtype)
    corpus = torch.randn(3000, 128, generator=generator).to(dtype)
    found = certified_topk(queries, corpus, DIMS, 50)
    _, indices = reference_topk(queries.double().numpy(), corpus.double().numpy(), DIMS, 50)
    np.testing.assert_array_equal(found.indices, indices)
    assert 1 <= found.candidates < 1.05


def test_the_bound_holds_and_is_not_idle():
    rng = np.random.default_rng(1)
    queries, corpus = rng.random((5, 128)), rng.random((400, 128))  # all positive: errors add up
    scores, indices = nested_topk(queries, corpus, DIMS, 400)
    exact, order = reference_topk(queries, corpus, DIMS, 400)
    for level, dim in enumerate(DIMS):
        true = np.take_along_axis(exact[level], np.argsort(order[level]), axis=1)
        ours = np.take_along_axis(scores[level].numpy(), np.argsort(indices[level].numpy()), axis=1)
        error = np.abs(ours - true).max()
        assert error <= error_bound(dim, 3)
        assert error > error_bound(dim, 3) / 5000


def test_no_queries_and_no_documents():
    assert certified_topk(np.ones((0, 4)), np.ones((3, 4)), [2], 5).indices.shape == (1, 0, 3)
    assert certified_topk(np.ones((2, 4)), np.ones((0, 4)), [2], 5).indices.shape == (1, 2, 0)
