"""The CPU engine: results must not depend on how the work is cut, nor anything be lost."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch

from fusion.topk import keys, products
from fusion.topk.engines.cpu import Tiling, default_tiling, search
from fusion.topk.engines.passing import FILLED, Tile, slots
from fusion.topk.engines.survivors import Survivors
from fusion.topk.nested import nested_topk
from fusion.topk.problem import pose
from fusion.topk.products import onednn_is_better, tuned_products
from fusion.topk.reference import reference_topk
from fusion.topk.streaming import search_chunks

DIMS = [32, 48, 64]


def signs(q, c, d=64, seed=0):
    """Signs times powers of two: full of ties, and exact in float32, so indices must be equal."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(np.array([-1, 1], np.float32), (q + c, d))
    rows *= rng.choice(np.array([0.5, 1, 2], np.float32), (q + c, 1))
    return rows[:q], rows[q:]


def tile_of(scores, start):
    nothing = np.empty(0, np.int64)
    dots = np.pad(scores, [(0, 0), (0, 5)], constant_values=99)
    scratch = np.empty(max(FILLED, dots.shape[1]), np.float32)
    tile = Tile(dots, np.ones(dots.shape, bool), scratch, scores.shape[1], start, (nothing,) * 2)
    return tile, np.ones(scores.shape[1], np.float32)


def best_of(survivors):
    shape = len(survivors.count), survivors.keep
    found, indices = np.empty(shape, np.float32), np.empty(shape, np.int64)
    survivors.best(found, indices)
    return found, indices


def assert_exact(found, queries, corpus, k, exclude=None):
    scores, indices = reference_topk(queries, corpus, DIMS, k, exclude=exclude)
    np.testing.assert_array_equal(found[1], indices)
    np.testing.assert_allclose(found[0], scores, rtol=3e-7)


@pytest.mark.parametrize("k", [1, 10, 100, 300, 1301])
@pytest.mark.parametrize(
    "tiling",
    [
        Tiling(5, 1301, 1301, 1),
        Tiling(37, 640, 640, 1),
        Tiling(37, 640, 48, 1),
        Tiling(64, 97, 300, 2),
        Tiling(64, 600, 31, 3),
        Tiling(37, 1, 1, 2),
    ],
    ids=str,
)
def test_cuts_do_not_show(k, tiling):
    if tiling.strip == 1 and k > 10:
        pytest.skip("a tile of one document is slow, and its point is made at small k")
    queries, corpus = signs(37, 1301)
    exclude = np.maximum(-1, np.arange(-1, 36) * 7)
    problem = pose(queries, corpus, DIMS, k, exclude, None)
    assert_exact(search(problem, tiling), queries, corpus, k, exclude)


@pytest.mark.parametrize("k", [10, 200])
@pytest.mark.parametrize("order", ["ascending", "descending", "constant", "two values"])
def test_orders_that_overflow_every_buffer(k, order):
    n = 5000
    angle = {
        "ascending": np.linspace(1.5, 0.01, n),
        "descending": np.linspace(0.01, 1.5, n),
        "constant": np.full(n, 0.5),
        "two values": np.where(np.arange(n) % 10 == 0, 0.5, 1.0),
    }[order]
    corpus = np.zeros((n, 64), np.float32)
    corpus[:, 0], corpus[:, 31] = np.cos(angle), np.sin(angle)
    queries = np.eye(33, 64, dtype=np.float32)
    problem = pose(queries, corpus, DIMS, k, None, None)
    _, expected = reference_topk(queries[:1], corpus, DIMS, k)
    for tiling in (Tiling(33, 700, 700, 1), Tiling(33, 700, 90, 1), Tiling(33, 5000, 1, 1)):
        _, indices = search(problem, tiling)
        np.testing.assert_array_equal(indices[:, 0], expected[:, 0])


def test_a_buffer_keeps_the_best_whatever_comes(monkeypatch):
    rng = np.random.default_rng(0)
    scores = rng.integers(-9, 10, (6, 4000)).astype(np.float32)
    scores[:, 3000:] += 5  # the end floods thresholds learnt at the beginning
    for width in (50, 333, 4000):
        survivors = Survivors(6, 120)
        for start in range(0, 4000, width):
            survivors.add(*tile_of(scores[:, start : start + width], start))
        found, indices = best_of(survivors)
        expected = np.argsort(-scores, axis=1, kind="stable")[:, :120]
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_array_equal(found, np.take_along_axis(scores, expected, axis=1))


@pytest.mark.parametrize("guess", [2, -9], ids=["too few pass", "too many pass"])
def test_a_bad_guess_is_replaced_by_the_exact_threshold(monkeypatch, guess):
    monkeypatch.setattr(
        "fusion.topk.engines.passing.guess_threshold",
        lambda scores, keep: np.full((len(scores), 1), guess, np.float32),
    )
    scores = np.random.default_rng(0).standard_normal((4, 999)).astype(np.float32)
    passing = (scores > guess).sum(axis=1)
    assert ((passing < 200) | (passing > slots(200))).all()
    survivors = Survivors(4, 200)
    survivors.add(*tile_of(scores, 0))
    assert (survivors.count == 200).all()
    _, indices = best_of(survivors)
    np.testing.assert_array_equal(indices, np.argsort(-scores, axis=1)[:, :200])


def test_a_hidden_document_costs_no_other_its_place():
    scores = np.random.default_rng(0).integers(-9, 10, (5, 700)).astype(np.float32)
    tile, inverse = tile_of(scores, 1000)
    hidden = np.array([0, 2, 4]), np.argmax(scores, axis=1)[[0, 2, 4]]
    survivors = Survivors(5, 600)
    survivors.add(replace(tile, hidden=hidden), inverse)
    left = scores.copy()
    left[hidden] = -np.inf
    expected = np.argsort(-left, axis=1, kind="stable")[:, :600] + 1000
    np.testing.assert_array_equal(best_of(survivors)[1], expected)


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_buffer_that_is_not_full_says_so(pieces):
    scores = np.random.default_rng(0).standard_normal((3, 30)).astype(np.float32)
    survivors = Survivors(3, 40)
    for part in np.split(np.arange(30), pieces):
        survivors.add(*tile_of(scores[:, part], 7 + part[0]))
    found, indices = best_of(survivors)
    np.testing.assert_array_equal(indices[:, :30], np.argsort(-scores, axis=1) + 7)
    assert (indices[:, 30:] == -1).all()
    assert (found[:, 30:] == -np.inf).all()


@pytest.mark.parametrize(("settled", "crowded"), [(1, 2**18), (10**6, 2**18), (10**6, 500)])
def test_waiting_scores_are_not_forgotten(monkeypatch, settled, crowded):
    monkeypatch.setattr("fusion.topk.engines.survivors.SETTLED", settled)
    monkeypatch.setattr("fusion.topk.engines.survivors.CROWDED", crowded)
    scores = np.random.default_rng(0).integers(-9, 10, (70, 3000)).astype(np.float32)
    scores += np.arange(3000) // 500  # the last tiles flood every buffer
    survivors = Survivors(70, 100)
    for start in range(0, 3000, 100):
        survivors.add(*tile_of(scores[:, start : start + 100], start))
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :100]
    np.testing.assert_array_equal(best_of(survivors)[1], expected)


def test_what_only_equals_the_threshold_after_rounding_does_not_pass():
    rng = np.random.default_rng(0)
    dots = rng.standard_normal((40, 300)).astype(np.float32)
    inverse = rng.uniform(0.5, 2, 300).astype(np.float32)
    survivors = Survivors(40, 2)
    tile, _ = tile_of(dots, 0)
    survivors.add(tile, inverse)
    survivors.threshold[:] = (dots * inverse)[:, :1]
    before = survivors.count.sum()
    repeated, _ = tile_of(dots[:, :1].copy(), 300)
    survivors.add(repeated, inverse[:1])
    survivors._settle()
    assert survivors.count.sum() == before


def test_documents_are_numbered_beyond_31_bits():
    scores = np.arange(900, dtype=np.float32).reshape(3, 300)
    survivors = Survivors(3, 2)
    start = 2**32 - 301
    survivors.add(*tile_of(scores, start))
    np.testing.assert_array_equal(best_of(survivors)[1], [[start + 299, start + 298]] * 3)


def test_keys_order_scores_then_indices():
    scores = torch.tensor([-torch.inf, -2.0, -0.0, 0.0, 1e-45, 3.0])
    packed = keys.pack(scores, torch.zeros(6, dtype=torch.long))
    assert (packed.diff() >= 0).all()
    assert packed[2] == packed[3]
    assert keys.pack(scores[5:], torch.tensor([1])) < packed[5]
    assert packed[0] > keys.EMPTY
    back, indices = keys.unpack(keys.pack(scores, torch.tensor([keys.LAST, 0, 1, 2, 3, 4])))
    assert back.tolist() == scores.tolist()
    assert indices.tolist() == [keys.LAST, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("count", [1, 2, 3, 17, 97, 1003])
@pytest.mark.parametrize("queries", [1, 2, 3, 32, 33])
def test_copies_tie_wherever_they_stand(queries, count):
    rng = np.random.default_rng(count)
    asked = rng.standard_normal((queries, 384)).astype(np.float32)
    corpus = np.tile(rng.standard_normal(384).astype(np.float32), (count, 1))
    expected = np.arange(min(10, count))
    for backend in ("cpu", "per-level"):
        _, indices = nested_topk(asked, corpus, [100, 384], 10, backend=backend)
        assert (indices.numpy() == expected).all(), backend
    cuts = np.split(corpus, [1, 3, 20])
    assert (search_chunks(asked, cuts, [100, 384], 10)[1].numpy() == expected).all()


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_nothing_is_left_where_all_is_excluded(threads):
    queries, corpus = signs(1, 2)
    for left, tiling in ((1, Tiling(1, 1, 1, threads)), (2, Tiling(1, 1, 1, threads))):
        problem = pose(queries, corpus[:left], DIMS, 3, np.array([0]), None)
        assert_exact(search(problem, tiling), queries, corpus[:left], 3, np.array([0]))


def test_a_thread_that_leaves_last_keeps_its_own_settings():
    threads = torch.get_num_threads()
    entered, left = Event(), Event()

    def outlast():
        with tuned_products():
            entered.set()
            left.wait(30)
            inside = torch.get_num_threads()
        return inside, torch.get_num_threads()

    torch.set_num_threads(3)
    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
            with tuned_products():
                other = pool.submit(outlast)
                assert entered.wait(30)
            assert torch.get_num_threads() == 3
            left.set()
            assert other.result() == (1, 3)
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_settings_come_back_even_from_concurrent_use():
    threads = torch.get_num_threads()
    precision = torch.backends.mkldnn.matmul.fp32_precision

    def use(_):
        with tuned_products():
            return torch.get_num_threads()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(use, range(50))) == {1}
    assert torch.get_num_threads() == threads
    assert torch.backends.mkldnn.matmul.fp32_precision == precision


def test_a_backend_that_multiplies_in_bf16_is_refused(monkeypatch):
    state = {"precision": "none"}
    monkeypatch.setattr(products, "_precision", lambda: state["precision"])
    monkeypatch.setattr(products, "_set_precision", lambda value: state.update(precision=value))
    exact = torch.Tensor.__matmul__

    def lossy(a, b):
        if state["precision"] == "bf16" and a.dtype == torch.float32:
            a, b = a.bfloat16().float(), b.bfloat16().float()
        return exact(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", lossy)
    monkeypatch.setattr(
        products.timeit, "repeat", lambda *_, **__: [float(state["precision"] == "none")]
    )
    assert not onednn_is_better.__wrapped__()
    monkeypatch.setattr(torch.Tensor, "__matmul__", exact)
    assert onednn_is_better.__wrapped__()
    assert state["precision"] == "none"


def test_tiles_follow_the_problem():
    queries, corpus = signs(3, 9)
    assert default_tiling(pose(queries, corpus, DIMS, 5, None, None)).documents == 9
    with pytest.raises(ValueError, match="documents must be at least 1, got 0"):
        Tiling(1, 0, 1, 1)
