"""MaxSim of ragged token vectors: its order is the float64 reference's, whatever stands beside."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fusion import Ragged, maxsim_topk
from fusion.topk import lanes, maxsim, tokens
from fusion.topk.bounds import maxsim_bounds
from fusion.topk.engines.screening import int8_is_better
from fusion.topk.nested import corpus_norms
from fusion.topk.reference import reference_maxsim, reference_topk
from fusion.topk.settling.settled import pool

DIMS = [8, 20, 48]


def ragged(counts, d, seed=0, integers=False):
    """Items of so many random tokens."""
    rng = np.random.default_rng(seed)
    shape = int(np.sum(counts)), d
    rows = rng.integers(-3, 4, shape) if integers else rng.standard_normal(shape)
    return Ragged(rows.astype(np.float32), np.cumsum([0, *counts]))


def sizes(n, seed=0, most=30):
    """Numbers of tokens, of which some are 0 and some 1."""
    counts = np.random.default_rng(seed).integers(1, most, n)
    counts[1::7], counts[2::9] = 0, 1
    return counts


def nudged(documents, seed=0):
    """Copies of a few documents, of each of which one number differs by one bit."""
    rng = np.random.default_rng(seed)
    items = [documents[0].copy(), documents[3].copy(), documents[4].copy()]
    found = [items[i].copy() for i in rng.integers(0, 3, 60)]
    for item in found:
        row, column = rng.integers(0, len(item)), rng.integers(0, item.shape[1])
        item[row, column] = np.nextafter(item[row, column], np.float32(rng.choice([-9, 9])))
    return Ragged.of(found)


def permuted(documents, seed=0):
    """Each document several times, its tokens in another order."""
    rng = np.random.default_rng(seed)
    items = [documents[int(i)] for i in rng.integers(0, len(documents), 80)]
    return Ragged.of([rng.permutation(item) for item in items])


def check(queries, documents, dims, k, candidates=None, **options):
    """Search and compare with the reference."""
    scores, indices = maxsim_topk(queries, documents, dims, k, candidates, **options)
    wide = [
        Ragged(torch.as_tensor(side.rows).float().numpy(), side.offsets)
        for side in (queries, documents)
    ]
    expected, order = reference_maxsim(*wide, dims, k, candidates)
    assert scores.dtype == torch.float32
    assert indices.dtype == torch.int64
    np.testing.assert_array_equal(indices.numpy(), order)
    np.testing.assert_allclose(scores.numpy(), expected, atol=3e-6)
    return scores, indices


@pytest.fixture
def hostile(monkeypatch):
    """Products with as much noise as the bound allows, another for every place and every call."""
    rng, plain = np.random.default_rng(0), tokens.prefix_products
    monkeypatch.setattr(tokens, "TILE_COSINES", 1)

    def prefix_products(sides, runs, dims):
        products = plain(sides, runs, dims)
        rows = np.concatenate([np.asarray(run) for run in runs]).astype(float)
        for dim, bound, some in zip(dims, maxsim_bounds(tuple(dims)), products, strict=True):
            sizes = np.linalg.norm(rows[:, :dim], axis=1), np.linalg.norm(sides[:, :dim], axis=1)
            noise = 0.9 * bound * rng.choice([-1, 1], some.shape)
            some += torch.from_numpy(noise * sizes[0][:, None] * sizes[1][:, None])
        return products

    monkeypatch.setattr(tokens, "prefix_products", prefix_products)


@pytest.mark.parametrize("k", [1, 7, 60, 61, 500])
@pytest.mark.parametrize("integers", [False, True])
def test_the_reference_is_matched(k, integers):
    queries = ragged([1, 5, 32, 9], 50, 1, integers)
    documents = ragged(sizes(61), 50, 2, integers)
    assert check(queries, documents, DIMS, k)[0].shape == (3, 4, min(k, 61))


@pytest.mark.parametrize("d", [1, 7, 100, 128, 130, 384])
def test_every_width(d):
    queries, documents = ragged([3, 130, 8], d, 1), ragged(sizes(40), d, 2)
    check(queries, documents, [d], 10)
    check(queries, nudged(documents), sorted({max(1, d // 2), d}), 60)


def test_items_of_one_token_are_an_ordinary_search():
    queries, documents = ragged(np.ones(9, int), 48, 1), ragged(np.ones(200, int), 48, 2)
    scores, indices = maxsim_topk(queries, documents, DIMS, 20)
    expected, order = reference_topk(queries.rows, documents.rows, DIMS, 20)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(scores, expected, atol=2e-6)


def test_the_reference_is_a_double_loop():
    queries, documents = ragged([2, 3], 8, 1), ragged([4, 1, 6], 8, 2)
    scores, indices = reference_maxsim(queries, documents, [5], 3)
    for row in range(2):
        for score, index in zip(scores[0, row], indices[0, row], strict=True):
            unit = [
                [v[:5] / np.linalg.norm(v[:5]) for v in item.astype(float)]
                for item in (queries[row], documents[int(index)])
            ]
            best = [max(float(a @ b) for b in unit[1]) for a in unit[0]]
            assert score == pytest.approx(np.mean(best), abs=1e-12)
        assert (np.diff(scores[0, row]) < 0).all()


@pytest.mark.parametrize("make", [permuted, nudged])
@pytest.mark.parametrize("k", [1, 10, 79, 80])
def test_near_ties_are_settled(make, k):
    check(ragged([7, 1, 30], 48, 1), make(ragged(sizes(20), 48, 2)), DIMS, k)


def test_float32_alone_gets_close_calls_wrong(monkeypatch):  # the disease
    queries, documents = ragged([7, 1, 30], 48, 1), nudged(ragged(sizes(20), 48, 2))
    _, order = reference_maxsim(queries, documents, DIMS, 60)
    monkeypatch.setattr("fusion.topk.settling.means.UPWARDS", 0)
    assert (maxsim_topk(queries, documents, DIMS, 60)[1].numpy() != order).any(axis=2).sum() > 2


def test_copies_come_in_their_order():
    one = ragged([12], 48)
    documents = Ragged.of([one.rows] * 500)
    for k in (1, 30, 500):
        _, indices = maxsim_topk(ragged([5, 6], 48, 3), documents, DIMS, k)
        assert (indices.numpy() == np.arange(k)).all()


def test_noise_up_to_the_bound_moves_nothing(hostile):
    queries, documents = ragged([7, 1, 30], 48, 1), ragged(sizes(150), 48, 2)
    for corpus in (documents, nudged(documents), permuted(documents)):
        for k in (1, 12, 150):
            _, indices = maxsim_topk(queries, corpus, DIMS, k)
            np.testing.assert_array_equal(indices, reference_maxsim(queries, corpus, DIMS, k)[1])


def test_the_bound_holds_and_is_not_idle():
    rng = np.random.default_rng(1)  # all positive: errors add up
    queries, documents = (
        Ragged(rng.random((n * t, 384), np.float32), np.arange(n + 1) * t)
        for n, t in ((3, 20), (100, 30))
    )
    search = tokens.pose(queries, documents, [128, 384], 100, None, None)
    with pool() as run:
        scores = maxsim.mean_maxima(search, search.asked(slice(0, 3)), np.arange(100), run, 1)
    exact, order = reference_maxsim(queries, documents, [128, 384], 100)
    true = np.take_along_axis(exact, np.argsort(order, axis=2), axis=2)
    for bound, error in zip(maxsim_bounds((128, 384)), np.abs(scores - true), strict=True):
        assert bound / 5000 < error.max() <= bound


def test_documents_without_tokens_come_last():
    documents = Ragged(np.ones((2, 4), np.float32), [0, 0, 1, 1, 2, 2])
    scores, indices = check(ragged([3], 4), documents, [2, 4], 5)
    assert indices[0, 0].tolist() == [1, 3, 0, 2, 4]
    assert torch.isinf(scores[0, 0, 2:]).all()
    nothing = Ragged(np.ones((0, 4), np.float32), [0, 0, 0])
    check(ragged([3], 4), nothing, [2, 4], 1)


def test_no_documents_and_no_queries():
    some, none = ragged([3, 2], 4), Ragged(np.ones((0, 4), np.float32), [0])
    assert maxsim_topk(some, none, [4], 3)[1].shape == (1, 2, 0)
    assert maxsim_topk(none, some, [4], 3)[1].shape == (1, 0, 2)


def test_zero_tokens_have_cosine_zero():
    queries, documents = ragged([4, 5], 48, 1), ragged(sizes(50), 48, 2)
    documents.rows[::3], queries.rows[:2] = 0, 0
    documents.rows[1::3, :20] = 0
    queries.rows[3, :8] = 0
    check(queries, documents, DIMS, 30)
    below = Ragged(np.array([[-1, 0], [-1, 0], [0, 0]], np.float32), [0, 1, 3])
    scores, indices = check(Ragged(np.eye(1, 2, dtype=np.float32), [0, 1]), below, [2], 2)
    assert (indices.tolist(), scores.tolist()) == ([[[1, 0]]], [[[0.0, -1.0]]])


def test_candidates():
    queries, documents = ragged([4, 1, 30], 48, 1), ragged(sizes(90), 48, 2)
    rng = np.random.default_rng(0)
    candidates = rng.integers(-1, 90, (3, 25))
    candidates[0, :3] = candidates[0, 3]  # named twice
    candidates[1] = -1
    candidates[2, :2] = [1, 8]  # one of them has no tokens
    for k in (1, 20, 40):
        scores, indices = check(queries, documents, DIMS, k, candidates)
        assert (indices[:, 1] == -1).all()
        assert (scores[:, 1] == -np.inf).all()
    check(queries, permuted(documents), DIMS, 40, candidates % 80)
    found = maxsim_topk(queries, documents, DIMS, 9, torch.from_numpy(candidates))[1]
    assert torch.equal(found, maxsim_topk(queries, documents, DIMS, 9, candidates)[1])
    everyone = np.tile(np.arange(90)[::-1], (3, 1))
    check(queries, documents, DIMS, 30, everyone)


def test_only_candidates_tokens_are_read():
    queries, documents = ragged([4], 48, 1), ragged([5] * 9, 48, 2)
    documents.rows[5:10] = np.nan
    assert maxsim_topk(queries, documents, DIMS, 9, np.array([[0, 2]]))[1][0, 0, :2].min() == 0
    with pytest.raises(ValueError, match="document 1, token 0 holds a value that is not finite"):
        maxsim_topk(queries, documents, DIMS, 9, np.array([[8, 1]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_ranked_as_it_is(dtype):
    documents = permuted(ragged(sizes(30), 48, 2))
    queries = ragged([4, 20], 48, 1)
    documents, queries = (
        Ragged(torch.from_numpy(side.rows).to(dtype), side.offsets) for side in (documents, queries)
    )
    check(queries, documents, DIMS, 40)
    check(queries, documents, DIMS, 40, np.tile(np.arange(0, 80, 3), (2, 1)))


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("dims", [DIMS, [47, 48], [48], [1, 30]])
def test_int8_is_ranked_as_it_is(both, dims):
    rng = np.random.default_rng(0)
    queries, documents = ragged([4, 20, 70], 50, 1), permuted(ragged(sizes(30), 50, 2))
    documents, queries = (
        Ragged(np.clip(40 * side.rows, -128, 127).astype(np.int8), side.offsets)
        for side in (documents, queries)
    )
    documents.rows[rng.random(documents.rows.shape) < 0.1] = -128
    queries.rows[:2], queries.rows[3], documents.rows[3] = -128, 0, 0
    if not both:
        queries = Ragged(queries.rows.astype(np.float32) / 7, queries.offsets)
    check(queries, documents, dims, 40)
    check(queries, documents, dims, 40, np.tile(np.arange(0, 80, 3), (3, 1)))
    check(queries, documents, dims, 40, norms=corpus_norms(documents.rows, dims))


def coded(counts, d, seed):
    """Items of so many tokens in int8, all positive, so that errors would add up."""
    rows = np.random.default_rng(seed).integers(1, 128, (int(np.sum(counts)), d), np.int8)
    return Ragged(rows, np.cumsum([0, *counts]))


@pytest.mark.parametrize("fast", [False, True])
def test_the_bound_of_int8_holds_and_is_not_idle(monkeypatch, fast):
    monkeypatch.setattr(tokens, "int8_is_better", lambda: fast)
    queries, documents, dims = coded([20] * 3, 1024, 1), coded([30] * 100, 1024, 2), [500, 1024]
    search = tokens.pose(queries, documents, dims, 100, None, None)
    scores = maxsim.mean_maxima(search, search.asked(slice(0, 3)), np.arange(100), map, 1)
    exact, order = reference_maxsim(queries, documents, dims, 100)
    true = np.take_along_axis(exact, np.argsort(order, axis=2), axis=2)
    for bound, error in zip(search.bounds, np.abs(scores - true), strict=True):
        assert bound / 50 < error.max() <= bound < 5e-7


def test_noise_up_to_the_bound_of_int8_moves_nothing(monkeypatch):
    queries, some = coded([7, 1, 30], 256, 1), coded(sizes(30), 256, 2)
    documents = Ragged.of([some[i % 30] for i in range(90)])
    for row in range(0, len(documents.rows), 5):  # near copies
        documents.rows[row, row % 256] ^= 1
    rng, plain = np.random.default_rng(0), tokens.Sides._products
    half = 3 * 2.0**-24  # of the bound

    def noisy(sides):
        products = plain(sides)
        norm = np.zeros(products.shape[1] * products.shape[3], np.float32)
        norm[: len(sides.left.rows)] = 1 / sides.left.norms.inverse[-1]
        shape = products.shape[0], products.shape[2], products.shape[1], products.shape[3]
        noise = (half * rng.choice([-1, 1], (*shape[:2], len(norm))) * norm).reshape(shape)
        return products + torch.from_numpy(noise.astype(np.float32)).transpose(1, 2)

    monkeypatch.setattr(tokens.Sides, "_products", noisy)
    for k in (1, 12, 90):
        _, indices = maxsim_topk(queries, documents, [256], k)
        np.testing.assert_array_equal(indices, reference_maxsim(queries, documents, [256], k)[1])


def test_int8_sums_are_exact():
    if not int8_is_better():
        pytest.skip("this processor has no fast products of int8")
    rng = np.random.default_rng(0)
    left, right = (torch.from_numpy(rng.integers(-128, 128, (n, 1024), np.int8)) for n in (32, 70))
    left[:3], right[:5] = -128, -128
    products = lanes.coded_products(left, [right[:20], right[20:]], [500, 1024])
    for dim, found in zip([500, 1024], products, strict=True):
        assert torch.equal(found[0].long(), right[:, :dim].long() @ left[:, :dim].long().T)


@pytest.mark.parametrize("size", [2.0**-90, 2.0**90])
def test_size_does_not_matter(hostile, size):
    queries, documents = ragged([4, 9], 48, 1), nudged(ragged(sizes(30), 48, 2))
    queries.rows[::2] *= np.float32(size)
    documents.rows[::3] *= np.float32(size)
    documents.rows[1::3, :8] *= np.float32(2.0**-60)  # each level needs a scale of its own
    norms = corpus_norms(documents.rows, DIMS)
    for options in ({}, {"norms": norms}):
        _, indices = maxsim_topk(queries, documents, DIMS, 60, **options)
        np.testing.assert_array_equal(indices, reference_maxsim(queries, documents, DIMS, 60)[1])


def test_norms_may_be_kept():
    queries, documents = ragged([4, 9], 48, 1), ragged(sizes(60), 48, 2)
    documents.rows[::5] *= np.float32(2.0**70)
    norms = corpus_norms(documents.rows, DIMS)
    check(queries, documents, DIMS, 30, norms=norms)
    check(queries, documents, DIMS, 30, np.array([[3, 4, 5, 40], [0, 9, -1, 50]]), norms=norms)
    with pytest.raises(ValueError, match=r"measure them again with corpus_norms\(\)"):
        maxsim_topk(queries, documents, DIMS[:2], 3, norms=norms)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("block", [1, 40])
def test_tiles_and_threads_do_not_show(monkeypatch, threads, block):
    monkeypatch.setattr(tokens, "TILE_COSINES", 1)
    monkeypatch.setattr(tokens, "FEWEST", 13)  # so most documents are cut
    monkeypatch.setattr(lanes, "READ", 500)
    monkeypatch.setattr(lanes, "STRIPS", 1)
    monkeypatch.setattr(lanes, "SMALL", 32 * 48 * 9)
    monkeypatch.setattr(maxsim, "BLOCK_TOKENS", block)
    queries = ragged([7, 1, 30, 2, 2, 5, 4], 48, 1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for documents in (ragged(sizes(70), 48, 2), permuted(ragged(sizes(20), 48, 2))):
            check(queries, documents, DIMS, 25)
            check(queries, documents, DIMS, 25, np.tile(np.arange(0, 70, 2), (7, 1)))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_threads_share_the_documents_of_few_queries(monkeypatch):
    used, plain, before = set(), tokens.Sides.largest, torch.get_num_threads()

    def seen(sides, fold):
        used.add(threading.get_ident())
        time.sleep(0.05)  # so that one thread cannot do all of it
        return plain(sides, fold)

    monkeypatch.setattr(tokens.Sides, "largest", seen)
    torch.set_num_threads(3)
    try:
        check(ragged([7], 48, 1), ragged([30] * 70, 48, 2), DIMS, 25)
    finally:
        torch.set_num_threads(before)
    assert len(used) == 3


def test_blocks_of_scores_do_not_show(monkeypatch):
    monkeypatch.setattr(maxsim, "BLOCK_SCORES", 500)
    check(ragged([3] * 9, 48, 1), ragged(sizes(70), 48, 2), DIMS, 25)


@pytest.mark.parametrize("most", [2, 15, 16, 17, 40, 300])
def test_the_largest_of_each_document(most):
    rng = np.random.default_rng(most)
    for n in (1, 2, 50):
        counts = rng.integers(1, most + 1, n)
        counts[rng.random(n) < 0.3] = 16
        starts = counts.cumsum() - counts
        products = rng.standard_normal((2, 3, counts.sum(), 32), np.float32)
        found = lanes.largest(torch.from_numpy(products), lanes.Fold.of(starts, counts))
        np.testing.assert_array_equal(found, np.maximum.reduceat(products, starts, axis=2))


def test_rows_of_any_strides():
    queries, documents = ragged([4, 40], 48, 1), ragged(sizes(60), 48, 2)
    plain = torch.from_numpy(documents.rows)
    wide = torch.cat([torch.full((len(plain), 3), torch.nan), plain], dim=1)
    columns, apart = plain.T.contiguous().T, plain.repeat_interleave(2, dim=0)[::2]
    backwards = documents.rows[::-1].copy()[::-1]
    _, order = check(queries, documents, DIMS, 10)
    for rows in (wide[:, 3:], columns, apart, backwards):
        found = maxsim_topk(queries, Ragged(rows, documents.offsets), DIMS, 10)[1]
        assert torch.equal(found, order)
    one = Ragged(plain[:1].expand(30, -1), np.arange(0, 31, 3))
    assert maxsim_topk(queries, one, DIMS, 10)[1][0, 1].tolist() == list(range(10))


def test_a_very_long_document():
    documents = ragged([20_000, 3, 0, 100], 16, 2)
    check(ragged([5, 3], 16, 1), documents, [8, 16], 4)


def test_mapped_rows_are_read_where_they_lie(tmp_path):
    documents = ragged(sizes(60), 48, 2)
    np.save(tmp_path / "rows.npy", documents.rows)
    mapped = Ragged(np.load(tmp_path / "rows.npy", mmap_mode="r"), documents.offsets)
    assert isinstance(mapped.rows, np.memmap)
    check(ragged([4, 9], 48, 1), mapped, DIMS, 10)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 2, 9], r"offsets end at 9, but there are 6 rows"),
        ([1, 6], r"offsets must begin at 0, got 1"),
        ([0, 4, 2, 6], r"offsets must not fall, but offset 2 is 2 after 4"),
        ([], r"offsets must be n \+ 1 integers"),
        ([0.0, 6.0], r"offsets must be n \+ 1 integers for n items, got float64"),
        ([[0, 6]], r"offsets must be n \+ 1 integers for n items, got int64 of shape \(1, 2\)"),
    ],
)
def test_offsets_that_do_not_fit_are_refused(offsets, message):
    with pytest.raises(ValueError, match=message):
        Ragged(np.ones((6, 4), np.float32), offsets)


def test_a_ragged_array():
    rows = np.arange(12.0).reshape(6, 2)
    items = Ragged(rows, torch.tensor([0, 2, 2, 6]))
    assert (len(items), items.counts.tolist()) == (3, [2, 0, 4])
    assert items.offsets.dtype == np.int64
    assert np.shares_memory(items[2], rows)
    assert [len(item) for item in items] == [2, 0, 4]
    np.testing.assert_array_equal(items[-1], rows[2:])
    again = Ragged.of([items[i] for i in range(3)])
    np.testing.assert_array_equal(again.rows, rows)
    np.testing.assert_array_equal(again.offsets, items.offsets)
    assert Ragged.of([torch.ones(2, 3), torch.ones(0, 3)]).rows.shape == (2, 3)
    with pytest.raises(ValueError, match="there are no items to join"):
        Ragged.of([])
    with pytest.raises(ValueError, match=r"rows must have two dimensions \[t, D\]"):
        Ragged(np.ones(3), [0, 3])


def arguments(**changes):
    return {
        "queries": ragged([2, 3], 8, 1),
        "documents": ragged([4, 0, 6], 8, 2),
        "dims": [4, 8],
        "k": 2,
    } | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": ragged([2, 0, 3], 8)}, "query 1 has no tokens: leave it out"),
        ({"dims": [4, 9]}, "dims end at 9, but the vectors have only 8 components"),
        ({"dims": [8, 4]}, "dims must be ascending distinct widths"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"candidates": np.array([[0, 1], [3, -1]])}, "candidates of query 1 name document 3, "),
        ({"candidates": np.array([[0, -2], [1, -1]])}, "candidates of query 0 name document -2, "),
        ({"candidates": np.array([0, 1])}, r"candidates must be integers \[2, any\]"),
        ({"candidates": np.ones((2, 1))}, r"candidates must be integers .* got float64"),
        (
            {"documents": Ragged(np.ones((3, 8)), [0, 3])},
            "documents must be .*, got torch.float64: convert them first",
        ),
        ({"queries": Ragged(np.ones((3, 8), int), [0, 3])}, "queries must be .*, got torch.int64"),
    ],
)
def test_bad_arguments_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        maxsim_topk(**arguments(**changes))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("side", "name"), [("queries", "query 1"), ("documents", "document 2")])
def test_a_bad_token_is_named(side, name, value):
    changed = arguments()
    changed[side].rows[changed[side].offsets[int(name[-1])] + 1, 5] = value
    with pytest.raises(ValueError, match=f"{name}, token 1 holds a value that is not finite"):
        maxsim_topk(**changed)


def test_memory_is_bounded_by_tiles():
    documents = ragged([200] * 1000, 32, 2)  # 26 MB
    search = tokens.pose(ragged([30], 32), documents, [32], 10, None, None)
    tiles = list(search.tiles(np.arange(1000), 30))
    columns = [piece.counts.sum() for tile in tiles for piece in tile.pieces]
    assert max(columns) <= tokens.MOST
    assert sum(columns) == 200_000
    wide = tokens.pose(ragged([1], 2048), ragged([50] * 200, 2048), [2048], 10, None, None)
    rows = max(sum(p.counts.sum() for p in tile.pieces) for tile in wide.tiles(np.arange(200), 1))
    assert rows * 2048 <= tokens.TILE_NUMBERS
    long = tokens.pose(ragged([30], 32), ragged([100_000], 32), [32], 10, None, None)
    (tile,) = long.tiles(np.arange(1), 30)
    assert max(piece.counts.sum() for piece in tile.pieces) <= tokens.MOST


SEARCHES = """
import hashlib
import numpy as np
from fusion import maxsim_topk
from tests.test_maxsim import nudged, permuted, ragged, sizes

digest = hashlib.sha256()
for d in (100, 384):
    queries, documents = ragged([7, 1, 130], d, 1), ragged(sizes(200), d, 2)
    for corpus in (documents, nudged(documents), permuted(documents)):
        for k in (10, 60):
            digest.update(maxsim_topk(queries, corpus, [d // 2, d], k)[1].numpy().tobytes())
print(digest.hexdigest())
"""
SETTINGS = [
    {},
    {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "OMP_NUM_THREADS": "3",
    },
    {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "2"},
]


def test_no_instruction_set_and_no_thread_moves_a_result():
    root = Path(__file__).parents[1]
    digests = set()
    for variables in SETTINGS:
        environment = os.environ | {"PYTHONPATH": str(root)} | variables
        command = [sys.executable, "-c", SEARCHES]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout.strip())
    assert len(digests) == 1
