"""The order of results is float64's, whatever the products of an engine round."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from fusion.topk.bounds import PIECE, UNIT, error_bound, error_bounds, piece_bounds
from fusion.topk.coded import nested_topk_codes
from fusion.topk.engines import cpu, screening
from fusion.topk.engines.cpu import Tiling
from fusion.topk.nested import nested_topk
from fusion.topk.problem import pose
from fusion.topk.reference import rank_documents, reference_topk
from fusion.topk.settling import exhaustive
from fusion.topk.settling import settled as settling
from fusion.topk.settling.exact import canonical_cosines, canonical_norms, piece_cosines
from fusion.topk.settling.exhaustive import best_exactly
from fusion.topk.settling.settled import settled
from fusion.topk.streaming import search_chunks
from tests.near_ties import copies, one_ulp_apart, out_of_order
from tests.noise import Noise

WIDTHS = [100, 128, 384, 640]


def chunked(queries, corpus, dims, k, **kwargs):
    cuts = np.split(corpus, [1, len(corpus) // 3, len(corpus) // 2])
    return search_chunks(queries, cuts, dims, k, **kwargs)


@pytest.fixture
def hostile(monkeypatch):
    """Products with as much noise as the bound allows, another for every place and every call."""
    noise = Noise()
    noise.install(monkeypatch)
    monkeypatch.setattr(screening, "MANY", 10)
    monkeypatch.setattr(screening, "WORTH", 0)
    monkeypatch.setattr(screening, "int8_is_better", lambda: True)
    return noise


@pytest.mark.parametrize("search", [nested_topk, chunked])
def test_small_whole_numbers_tie_as_in_the_reference(search):
    # Cosines such as 1 / sqrt(2) and 3 / sqrt(18) are equal and round apart, or do not.
    rng = np.random.default_rng(3)
    queries, corpus = (np.round(rng.standard_normal((n, 40))).astype(np.float32) for n in (31, 900))
    assert out_of_order(search, queries, corpus, [2, 7, 13, 40], 900) == 0
    scores, indices = reference_topk(queries, corpus, [2, 7, 13, 40], 900)
    assert (np.diff(indices)[np.diff(scores) == 0] > 0).all()  # ties go to the lower index


@pytest.mark.parametrize("d", WIDTHS)
@pytest.mark.parametrize("count", [15, 97, 500, 1003])
@pytest.mark.parametrize("queries", [8, 33, 100])
def test_copies_come_in_their_order(queries, count, d):
    asked, corpus = copies(queries, count, d)
    for k in (10, count):
        for backend in ("cpu", "per-level"):
            _, indices = nested_topk(asked, corpus, [d // 2, d], k, backend=backend)
            assert (indices.numpy() == np.arange(min(k, count))).all(), (k, backend)


@pytest.mark.parametrize("d", WIDTHS)
@pytest.mark.parametrize(("q", "c", "k"), [(8, 97, 10), (64, 500, 100), (40, 3000, 50)])
def test_a_bit_is_enough_to_come_first(q, c, k, d):
    data = one_ulp_apart(q, c, d, seed=q + d)
    for search in (nested_topk, chunked):
        assert out_of_order(search, *data, [d // 2, d], k) == 0
    exclude = np.random.default_rng(d).integers(-1, c, q)
    assert out_of_order(nested_topk, *data, [d // 2, d], k, exclude=exclude) == 0


def test_float32_alone_gets_close_calls_wrong():  # the disease
    queries, corpus = one_ulp_apart(64, 3000, 128)
    problem = pose(queries, corpus, [64, 128], 50, None, None)
    _, expected = reference_topk(queries, corpus, [64, 128], 50)
    assert (cpu.search(problem)[1].numpy() != expected).any(axis=2).all()


@pytest.mark.parametrize("c", [700, 9000])
@pytest.mark.parametrize("make", [copies, one_ulp_apart])
def test_noise_up_to_the_bound_moves_nothing(hostile, make, c):
    queries, corpus = make(24, c, 128)
    for k in (1, 20):
        for backend in ("cpu", "per-level"):
            search = partial(nested_topk, backend=backend)
            assert out_of_order(search, queries, corpus, [64, 128], k) == 0


@pytest.mark.parametrize("screened", [False, True])
def test_noise_moves_nothing_in_a_corpus_of_many_tiles(hostile, screened):
    queries, corpus = one_ulp_apart(24, 3000, 128)
    search = partial(cpu.search, tiling=Tiling(8, 700, 256, 1, screened))
    _, indices = settled(pose(queries, corpus, [64, 128], 20, None, None), search)
    np.testing.assert_array_equal(indices, reference_topk(queries, corpus, [64, 128], 20)[1])
    assert hostile.reached == {"pieces", "pairs"} | (set() if screened else {"accumulated"})


def test_noise_moves_random_data_but_not_their_results(hostile):
    queries, corpus = hostile.rng.standard_normal((2, 3000, 64)).astype(np.float32)
    queries = queries[:40]
    assert out_of_order(nested_topk, queries, corpus, [16, 64], 90) == 0
    assert hostile.reached == {"pieces", "pairs", "accumulated_upwards"}
    assert out_of_order(nested_topk, queries, corpus, [16, 64], 100) == 0  # by float64 products
    assert out_of_order(chunked, queries, corpus, [16, 64], 30) == 0
    problem = pose(queries, corpus, [16, 64], 100, None, None)
    _, expected = reference_topk(queries, corpus, [16, 64], 100)
    assert (cpu.search(problem)[1].numpy() != expected).any(axis=2).mean() > 0.02


def test_noise_does_not_move_codes(hostile):
    rng = np.random.default_rng(3)
    corpus = rng.integers(-9, 10, (2500, 64)).astype(np.int8)
    queries = rng.standard_normal((30, 64)).astype(np.float32)
    assert out_of_order(nested_topk_codes, queries, corpus, [24, 64], 20) == 0
    signs = np.where(corpus > 0, 1.0, -1.0)
    _, indices = nested_topk_codes(queries, np.packbits(corpus > 0, axis=1), [24, 64], 20)
    np.testing.assert_array_equal(indices, reference_topk(queries, signs, [24, 64], 20)[1])


@pytest.mark.parametrize("size", [2.0**-99, 2.0**99])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_size_does_not_matter(hostile, size, dtype):
    queries, corpus = (part.astype(dtype) for part in one_ulp_apart(20, 600, 128))
    corpus[::3] *= dtype(size)
    assert out_of_order(nested_topk, queries * dtype(size), corpus, [64, 128], 30) == 0


def test_float64_rows_are_ranked_as_they_are():
    rng = np.random.default_rng(0)
    base = rng.standard_normal((100, 128))
    corpus = np.repeat(base, 6, axis=0) + 1e-9 * rng.standard_normal((600, 128))
    queries = rng.standard_normal((8, 128))
    for search in (nested_topk, chunked):
        for k in (1, 20, 600, 700):
            assert out_of_order(search, queries, corpus, [32, 96, 128], k) == 0


@pytest.mark.parametrize("threads", [1, 3])
def test_parts_do_not_show(monkeypatch, threads):
    queries, corpus = one_ulp_apart(50, 4000, 128)
    monkeypatch.setattr(settling, "SETTLED", 500)
    monkeypatch.setattr("fusion.topk.settling.exact.DOCUMENTS", 64)
    monkeypatch.setattr(exhaustive, "DOCUMENTS", 64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert out_of_order(nested_topk, queries, corpus, [64, 128], 40) == 0
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dense", [0.0, 2.0])
def test_all_of_a_product_or_some_of_its_entries(monkeypatch, dense):
    monkeypatch.setattr("fusion.topk.settling.exact.DENSE", dense)
    assert out_of_order(nested_topk, *one_ulp_apart(50, 4000, 128), [64, 128], 40) == 0


def test_nothing_but_zeros():
    queries, corpus = np.ones((5, 16), np.float32), np.zeros((5000, 16), np.float32)
    corpus[2500, 9] = 1
    queries[3] = 0
    assert out_of_order(nested_topk, queries, corpus, [8, 16], 30) == 0


def test_exhaustion_alone_is_right(monkeypatch):
    monkeypatch.setattr(exhaustive, "DOCUMENTS", 100)
    queries, corpus = one_ulp_apart(9, 777, 64)
    corpus[::5] = corpus[3]
    corpus[1::50] = 0
    exclude = np.array([-1, 0, 3, 5, 776, 100, 99, -1, 10])
    for k in (1, 40, 777):
        problem = pose(queries, corpus, [32, 64], k, exclude, None)
        scores, expected = reference_topk(queries, corpus, [32, 64], k, exclude=exclude)
        for level in range(2):
            found, indices = best_exactly(problem, level)
            np.testing.assert_array_equal(indices, expected[level])
            np.testing.assert_allclose(found, scores[level], rtol=1e-6, atol=1e-7)


def test_only_open_ends_are_looked_for_again():
    rng = np.random.default_rng(0)
    queries, corpus = rng.standard_normal((2, 4000, 64)).astype(np.float32)
    queries, asked = queries[:40], []
    corpus[:50] = queries[9]

    def engine(problem):
        asked.append(len(problem.queries))
        return cpu.search(problem)

    _, indices = settled(pose(queries, corpus, [64], 10, None, None), engine)
    np.testing.assert_array_equal(indices, reference_topk(queries, corpus, [64], 10)[1])
    assert asked[0] == 40
    assert 1 <= asked[1] < 8


@pytest.mark.parametrize("k", [25, 60])  # by float32 products and by float64 ones
def test_scores_of_ties_are_equal_and_descend(k):
    queries, corpus = one_ulp_apart(60, 900, 128)
    corpus[1::7] = corpus[::7][: len(corpus[1::7])]
    for search in (nested_topk, chunked):
        scores, indices = (part.numpy() for part in search(queries, corpus, [64, 128], k))
        assert (np.diff(scores) <= 0).all()
        same = (corpus[indices[..., 1:]] == corpus[indices[..., :-1]]).all(axis=-1)
        assert same.sum() > 400
        assert (np.diff(scores)[same] == 0).all()


@pytest.mark.parametrize("double", [False, True])
def test_the_bound_holds_and_is_not_idle(double):
    rng = np.random.default_rng(1)
    queries, corpus = rng.random((5, 128)), rng.random((400, 128))  # all positive: errors add up
    problem = pose(queries, corpus, [32, 96, 128], 400, None, None)
    problem = problem.doubled() if double else problem
    scores, indices = cpu.search(problem, Tiling(5, 400, 400, 1))
    exact, order = reference_topk(queries, corpus, [32, 96, 128], 400)
    constant, slope = error_bounds((32, 96, 128), double)
    for level in range(3):
        true = np.take_along_axis(exact[level], np.argsort(order[level]), axis=1)
        ours = np.take_along_axis(scores[level].numpy(), np.argsort(indices[level].numpy()), axis=1)
        share = np.abs(ours - true) / (constant[level] + slope[level] * np.abs(true))
        # The query's norm is common to a row; it adds a few units here.
        assert 1 / 500 < share.max() < (1 if double else 1.1)
    assert (
        error_bound(96, (32, 96, 128))
        == error_bounds((32, 96, 128))[0][1] + (error_bounds((32, 96, 128))[1][1])
    )


def test_sums_of_some_documents_are_none_of_the_corpus():
    queries, corpus = np.eye(16, dtype=np.float32)[:2], np.eye(16, dtype=np.float32).repeat(50, 0)
    problem = pose(queries, corpus, [8, 16], 5, None, None)
    for tiling in (Tiling(2, 800, 800, 3), Tiling(2, 300, 256, 1), Tiling(2, 800, 800, 1)):
        sizes = np.full((2, 2), np.inf, np.float32)
        cpu.search(replace(problem, sizes=sizes), tiling)
        cosines = sizes * problem.query_norms.inverse.numpy()
        assert (np.isinf(cosines) | (np.abs(cosines - 1) < 1e-6)).all(), tiling
    assert np.isfinite(sizes).all()


@pytest.mark.parametrize("mixed", [False, True])
def test_known_sums_of_narrower_levels_bound_those_of_wider_ones(hostile, mixed):
    dims, (queries, corpus) = (32, 64, 96, 128), hostile.rng.standard_normal((2, 400, 128))
    if mixed:  # all of one row's norm is in its first columns, all of another's in its last ones
        queries[:40, 32:] /= 64
        corpus[:40] = 3 * queries[:40]
        corpus[40:200, :96] /= 64
    problem = pose(
        queries[:40].astype(np.float32), corpus.astype(np.float32), dims, 400, None, None
    )
    sizes = np.full((4, 40), np.inf, np.float32)
    found = cpu.search(replace(problem, sizes=sizes), Tiling(40, 400, 400, 1))
    exact, order = reference_topk(problem.asked, problem.corpus, dims, 400)
    cosines = sizes * problem.query_norms.inverse.numpy()
    np.testing.assert_allclose(cosines, np.abs(exact).max(axis=2), atol=1e-5)
    true, ours = np.zeros((2, 4, 40, 400))
    np.put_along_axis(true, order, exact, axis=2)
    np.put_along_axis(ours, found[1].numpy(), found[0].double().numpy(), axis=2)
    reach = settling._reach(problem, exact, sizes)
    share = np.abs(ours - true) / (reach / 2)
    assert 0.5 < share.max() < 1
    plain = settling._reach(problem, exact, np.full_like(sizes, np.inf))
    assert mixed or (reach[-1] < 0.8 * plain[-1]).all()


@pytest.mark.parametrize("dims", [(7,), (31, 33), (64, 128, 200)])
def test_noisy_pieces_keep_their_bound_and_use_it(hostile, dims):
    queries, corpus = hostile.rng.standard_normal((2, 300, dims[-1])).astype(np.float32)
    problem = pose(queries[:5], corpus, dims, 30, None, None)
    level, row, document = (part.ravel() for part in np.indices((len(dims), 5, 300)))
    found = piece_cosines(problem, level, row, document, map)
    exact, order = reference_topk(queries[:5], corpus, dims, 300)
    true = np.take_along_axis(exact, np.argsort(order), axis=2).ravel()
    constant, slope = (np.array(part)[level] for part in piece_bounds(dims, rounded=False))
    share = np.abs(found - true) / (constant + slope * np.abs(true))
    assert 0.5 < share.max() <= 1
    assert constant.max() < (PIECE + 1) * UNIT  # however many columns there are


@pytest.mark.parametrize("d", [1, 7, 8, 9, 127, 128, 129, 136, 255, 1000, 1920])
def test_the_canonical_order_of_sums_is_that_of_the_reference(d):
    rng = np.random.default_rng(d)
    queries, documents = rng.standard_normal((3, d)), rng.standard_normal((50, d))
    documents[7] = 0
    rows, columns = np.repeat(np.arange(3), 50), np.tile(np.arange(50), 3)
    found = canonical_cosines(queries, documents, rows, columns).reshape(3, 50)
    for query, cosines in zip(queries, found, strict=True):
        np.testing.assert_array_equal(cosines, rank_documents(query, documents))
    np.testing.assert_array_equal(canonical_norms(documents)[7], 0.0)
    apart = canonical_cosines(queries, documents, rows[60:61], columns[60:61])
    assert apart[0] == found.reshape(-1)[60]  # whatever stands beside it


SETTINGS = {
    "plain": {},
    "no vectors": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "OPENBLAS_CORETYPE": "Nehalem",
        "OMP_NUM_THREADS": "1",
    },
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_CBWR": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "OMP_NUM_THREADS": "2",
    },
    "threads": {"OMP_NUM_THREADS": "3", "MKL_CBWR": "COMPATIBLE", "OPENBLAS_NUM_THREADS": "3"},
}
SEARCHES = """
import hashlib
import numpy as np
from fusion.topk.streaming import search_chunks
from fusion.topk.nested import nested_topk
from tests.near_ties import copies, one_ulp_apart

digest = hashlib.sha256()
for make in (copies, one_ulp_apart):
    for d in (100, 384, 640):
        for q, c, k in ((8, 97, 10), (33, 1003, 100), (100, 500, 500)):
            queries, corpus = make(q, c, d)
            for backend in ("cpu", "per-level"):
                found = nested_topk(queries, corpus, [d // 2, d], k, backend=backend)
                digest.update(found[1].numpy().tobytes())
            found = search_chunks(queries, np.split(corpus, [1, 50]), [d // 2, d], k)
            for part in found:
                digest.update(part.numpy().tobytes())
rng = np.random.default_rng(0)
queries, corpus = rng.standard_normal((2, 9000, 256)).astype(np.float32)
found = nested_topk(queries[:250], corpus, [32, 64, 128, 256], 100)
digest.update(found[1].numpy().tobytes())
print(digest.hexdigest())
"""


def test_no_instruction_set_and_no_thread_moves_a_result():
    root = Path(__file__).parents[1]
    digests = {}
    for name, variables in SETTINGS.items():
        environment = os.environ | {"PYTHONPATH": str(root)} | variables
        command = [sys.executable, "-c", SEARCHES]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        digests[name] = done.stdout.strip()
    assert len(set(digests.values())) == 1, digests
