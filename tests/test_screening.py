"""Codes may rule documents out, but never one that belongs to the results."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fusion.topk.coded import nested_topk_codes
from fusion.topk.engines import cpu, screening
from fusion.topk.engines.cpu import Tiling, default_tiling, search
from fusion.topk.engines.passing import FILLED, Tile, compare
from fusion.topk.engines.screening import (
    TOP,
    Screen,
    code,
    coded_products,
    int8_is_better,
)
from fusion.topk.engines.survivors import Survivors
from fusion.topk.norms import prefix_norms
from fusion.topk.problem import pose
from fusion.topk.products import sampled_products, segments
from fusion.topk.reference import reference_topk
from fusion.topk.settling.settled import settled
from fusion.topk.streaming import search_chunks
from tests.test_cpu import DIMS, assert_exact, signs

TILING = Tiling(64, 600, 150, 1, screened=True)
NEVER, ALWAYS = 0.0, 1e9


@pytest.fixture(autouse=True)
def screened(monkeypatch):
    """A screen for any number of queries, on any processor, and for all tiles but the first."""
    int8_is_better()  # which keeps torch's one remark about sparse rows to itself
    monkeypatch.setattr(cpu, "screens", lambda *_: True)
    monkeypatch.setattr(screening, "PAYS", ALWAYS)


@pytest.fixture
def seen(monkeypatch):
    """What happened: the methods that took tiles, and the scores that each handed on."""
    seen = SimpleNamespace(methods=[], handed=[])

    def watch(name, note):
        method = getattr(Screen, name)

        def watched(self, *args):
            result = method(self, *args)
            note(name, result)
            return result

        monkeypatch.setattr(Screen, name, watched)

    for name in ("_add_plain", "_add_coded"):
        watch(name, lambda name, _: seen.methods.append(name))
    watch("_take", lambda _, result: seen.handed.append(result))
    return seen


def rows(n, d=64, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


@pytest.mark.parametrize("pays", [NEVER, ALWAYS], ids=["plain", "coded"])
@pytest.mark.parametrize("k", [1, 10, 100, 300, 1301])
@pytest.mark.parametrize(
    "tiling",
    [
        TILING,
        Tiling(37, 640, 48, 1, screened=True),
        Tiling(5, 97, 300, 2, screened=True),
        Tiling(37, 1, 1, 2, screened=True),
        Tiling(37, 1301, 1301, 1, screened=True),
    ],
    ids=str,
)
def test_cuts_do_not_show(monkeypatch, k, tiling, pays, seen):
    if tiling.strip == 1 and k > 10:
        pytest.skip("a tile of one document is slow, and its point is made at small k")
    monkeypatch.setattr(screening, "PAYS", pays)
    queries, corpus = signs(37, 1301)
    exclude = np.maximum(-1, np.arange(-1, 36) * 7)
    problem = pose(queries, corpus, DIMS, k, exclude, None)
    assert_exact(search(problem, tiling), queries, corpus, k, exclude)
    later = {"_add_coded" if pays else "_add_plain"} if tiling.documents < 1301 else set()
    assert set(seen.methods) == {"_add_plain"} | later


def test_few_scores_are_handed_on(seen):
    queries, corpus = rows(40), rows(6000, seed=1)
    _, indices = search(
        pose(queries, corpus, DIMS, 5, None, None), Tiling(40, 2000, 500, 1, screened=True)
    )
    np.testing.assert_array_equal(indices, reference_topk(queries, corpus, DIMS, 5)[1])
    assert len(seen.handed) == 8
    assert 0 < sum(seen.handed) < 0.03 * 40 * 4000


def test_products_of_codes_are_used_once_few_scores_pass(monkeypatch, seen):
    monkeypatch.setattr(screening, "PAYS", 1 / 12)
    queries, corpus = rows(40), rows(4000, seed=1)
    search(pose(queries, corpus, DIMS, 20, None, None), Tiling(40, 500, 500, 1, screened=True))
    coded = seen.methods.index("_add_coded")
    assert coded > 1
    assert set(seen.methods[coded:]) == {"_add_coded"}


def test_documents_that_all_pass_are_left_to_plain_products(monkeypatch, seen):
    monkeypatch.setattr(screening, "PAYS", 1 / 12)
    monkeypatch.setattr(screening, "CROWDED", 1000)  # what is handed on is cut too
    queries, corpus = rows(30), np.tile(rows(1, seed=1), (9000, 1))
    tiling = Tiling(30, 200, 300, 1, screened=True)
    search(pose(queries, corpus, DIMS, 3, None, None), tiling)
    assert seen.methods.count("_add_coded") < 3
    assert seen.methods.count("_add_plain") > 20


def conspiring(errors, seed):
    """Rows whose rounding takes something along the direction that all of them share."""
    rng = np.random.default_rng(seed)
    direction = np.random.default_rng(9).choice([-1.0, 1.0], 64)
    codes = 100.0 + rng.integers(-3, 4, (len(errors), 64))
    codes[:, 0] = TOP  # every step is 1
    taken = np.tile(np.asarray(errors)[:, None], 64)
    taken[:, 0] = 0
    return ((codes + taken) * direction).astype(np.float32)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("queries", [[0.49] * 20, [0.0] * 20, np.linspace(0, 0.49, 20)], ids=str)
@pytest.mark.parametrize(
    "documents", [[0.49] * 30, [0.0] * 30, [0.0] * 29 + [0.49], np.linspace(0, 0.49, 30)], ids=str
)
def test_no_rounding_hides_a_score(queries, documents, sign):
    """What is compared exceeds its bound for a score that only just exceeds the threshold."""
    left, right = conspiring(queries, 1), sign * conspiring(documents, 2)
    left[::3] *= sign  # so that some cosines are near 1 and some near -1
    check_every_score(left, right)


@pytest.mark.parametrize("seed", range(3))
def test_no_outlier_hides_a_score(seed):
    rng = np.random.default_rng(seed)
    left, right = rows(20, seed=seed), rows(30, seed=seed + 9)
    right[::7, rng.integers(0, 64, 5)] *= 50  # long steps: most of the row is rounded away
    left[::5, 3] *= 50
    left[7] = right[11] = 0
    check_every_score(left, right)


def check_every_score(left, right):
    norms = prefix_norms(torch.from_numpy(right), DIMS).inverse.numpy()
    survivors = [Survivors(len(left), 1) for _ in DIMS]
    problem = pose(left, right, DIMS, 1, None, None)
    screen = Screen(problem.queries, DIMS, survivors)
    coded = code(torch.from_numpy(right), DIMS)
    exact = [problem.queries.double().numpy()[:, :d] @ right[:, :d].T.astype(float) for d in DIMS]
    tile = SimpleNamespace(dots=np.empty((20, 30), np.float32), scratch=np.empty(600, np.float32))
    for document in range(len(right)):
        for level, survivor in enumerate(survivors):
            scores = exact[level][:, document] * norms[level, document]
            survivor.threshold[:, 0] = np.nextafter(scores.astype(np.float32), np.float32(-9))
        bounds, factors = screen._bounds(coded.error * norms)
        bounds /= screen.coded.step[:, None]
        factors *= coded.step * norms
        for level, dots in coded_products(tile, screen.coded.codes, coded.codes, DIMS):
            mask = np.empty(dots.shape, bool)
            compare(dots, bounds[level], factors[level], np.empty(600, np.float32), mask)
            assert mask[:, document].all(), (level, document)


def test_typical_documents_do_not_pay_for_an_outlier(seen):
    queries, corpus = rows(40), rows(4000, seed=1)
    tiling = Tiling(40, 2000, 500, 1, screened=True)
    search(pose(queries, corpus, DIMS, 5, None, None), tiling)
    without, seen.handed[:] = sum(seen.handed), []
    corpus[2100::500, 5] *= 30
    search(pose(queries, corpus, DIMS, 5, None, None), tiling)
    assert sum(seen.handed) < 1.5 * without + 4 * 40


@pytest.mark.parametrize("pays", [NEVER, 1 / 12, ALWAYS])
def test_equal_documents_tie_whatever_product_let_them_pass(monkeypatch, pays):
    monkeypatch.setattr(screening, "PAYS", pays)
    monkeypatch.setattr(cpu, "TILE_DOCUMENTS", 500)  # some chunks fit into one tile
    queries, base = rows(50, 640), rows(300, 640, seed=1)
    copies = np.random.default_rng(2).integers(0, 300, 3000)
    dims = [32, 320, 640]
    tiling = Tiling(50, 500, 160, 1, screened=True)
    problem = pose(queries, base[copies], dims, 60, None, None)
    for found in (
        settled(problem, lambda asked: search(asked, tiling)),
        search_chunks(queries, np.split(base[copies], [1700, 1800, 1801, 1803]), dims, 60),
    ):
        scores, indices = (part.numpy() for part in found)
        equal = copies[indices][..., 1:] == copies[indices][..., :-1]
        assert equal.sum() > 5000
        assert (np.diff(indices)[equal] > 0).all()
        assert (np.diff(scores)[equal] == 0).all()


def test_a_first_threshold_lies_below_the_scores_that_set_it():
    queries, corpus = rows(50, 640), rows(60, 640, seed=1)
    norms = prefix_norms(torch.from_numpy(corpus), [640]).inverse.numpy()
    survivors = [Survivors(50, 60)]
    screen = Screen(pose(queries, corpus, [640], 60, None, None).queries, [640], survivors)
    room = np.empty((50, 60), np.float32), np.empty((50, 60), bool), np.empty(FILLED, np.float32)
    nothing = np.empty(0, np.int64)
    screen.add(Tile(*room, 60, 0, (nothing, nothing)), torch.from_numpy(corpus), norms)
    assert (survivors[0].threshold[:, 0] < survivors[0].scores[:, :60].min(axis=1)).all()


def test_empty_rows_and_empty_prefixes_score_zero():
    queries, corpus = signs(20, 1000)
    queries[3] = corpus[::2] = 0
    queries[4, :32] = corpus[1::4, :32] = 0
    found = search(pose(queries, corpus, DIMS, 20, None, None), TILING)
    assert_exact(found, queries, corpus, 20)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [1, 2.0**-100, 2.0**100])
def test_dtypes_and_magnitudes(dtype, size):
    if size != 1 and dtype == torch.float16:
        pytest.skip("float16 has no such numbers")
    queries, corpus = (torch.from_numpy(part).to(dtype) * size for part in signs(20, 1000))
    found = search(pose(queries, corpus, DIMS, 20, None, None), TILING)
    assert_exact(found, queries.double().numpy(), corpus.double().numpy(), 20)


def test_torchs_defaults_change_nothing():
    queries, corpus = signs(20, 1000)
    torch.set_default_dtype(torch.float16)
    torch.set_default_device("meta")
    try:
        assert int8_is_better.__wrapped__() in (False, True)
        found = search(pose(queries, corpus, DIMS, 20, None, None), TILING)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert_exact(found, queries, corpus, 20)


@pytest.mark.parametrize("bits", [False, True])
def test_coded_documents_are_screened_too(monkeypatch, seen, bits):
    monkeypatch.setattr(cpu, "TILE_DOCUMENTS", 200)
    rng = np.random.default_rng(0)
    queries, corpus = rng.integers(-9, 10, (2, 900, 64)).astype(np.int8)
    if bits:
        queries, corpus = np.where(queries < 0, -1, 1), np.where(corpus < 0, -1, 1)
    given = (np.packbits(part > 0, axis=1) if bits else part for part in (queries, corpus))
    scores, indices = nested_topk_codes(*given, DIMS, 20)
    assert_exact((scores, indices), queries.astype(float), corpus.astype(float), 20)
    assert "_add_coded" in seen.methods


@pytest.mark.parametrize("coded", [1, 64 * 7, 2**19])
def test_codes_are_the_nearest_multiples_of_the_step(monkeypatch, coded):
    monkeypatch.setattr(screening, "CODED", coded)
    left = rows(30)
    left[4] = 0
    found = code(torch.from_numpy(left), DIMS)
    step = np.abs(left).max(axis=1) / TOP
    np.testing.assert_allclose(found.step[step > 0], step[step > 0], rtol=1e-6)
    taken = left - found.codes.numpy() * found.step[:, None]
    assert (np.abs(taken) <= 0.5001 * found.step[:, None]).all()
    for level, dim in enumerate(DIMS):
        norm = np.linalg.norm(taken[:, :dim].astype(float), axis=1)
        assert (found.error[level] >= norm).all()
        assert (found.error[level] <= 1.01 * norm).all()


@pytest.mark.parametrize("width", [None, 5])
def test_products_of_pairs_are_those_of_the_whole_matrix(width):
    left, right = signs(20, 90)
    chosen = np.sort(np.random.default_rng(0).choice(20 * 90, 200, replace=False))
    at = np.divmod(chosen, 90)
    sides = [segments(torch.from_numpy(side), DIMS, width) for side in (left, right)]
    last = np.random.default_rng(1).integers(0, len(DIMS), 200)
    for needed in (None, last, np.minimum(last, 1)):
        parts = sampled_products(*sides, *at, needed)
        for level, (dim, part) in enumerate(zip(DIMS, parts, strict=True)):
            there = slice(None) if needed is None else needed >= level
            expected = (left[:, :dim] @ right[:, :dim].T)[at]
            np.testing.assert_array_equal(part[there], expected[there])


def test_int8_is_refused_where_it_is_slow_or_wrong(monkeypatch):
    product, seconds = torch._int_mm, {torch.int32: 1.0, torch.float32: 2.1}
    monkeypatch.setattr(screening, "_seconds", lambda call: seconds[call().dtype])
    assert int8_is_better.__wrapped__()
    seconds[torch.float32] = 1.9
    assert not int8_is_better.__wrapped__()
    seconds[torch.float32] = 9
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: product(a, b).clamp(max=2**15))
    assert not int8_is_better.__wrapped__()
    monkeypatch.delattr(torch, "_int_mm")
    assert not int8_is_better.__wrapped__()


@pytest.mark.parametrize(
    ("queries", "documents", "dims", "keep", "expected"),
    [
        (300, 200_000, DIMS, 100, True),
        (199, 10**7, DIMS, 1, False),
        (200, 30_000, DIMS, 100, False),
        (1000, 60_000, DIMS, 1000, False),
        (1000, 200_000, DIMS, 1000, True),
        (300, 200_000, [1], 100, False),
        (300, 200_000, [8, 9], 100, False),
    ],
)
def test_a_screen_is_used_where_it_pays(monkeypatch, queries, documents, dims, keep, expected):
    monkeypatch.setattr(screening, "int8_is_better", lambda: True)
    assert screening.screens(queries, documents, dims, keep) is expected


def test_screened_tiles_are_wider(monkeypatch):
    problem = pose(rows(300), rows(20_000, seed=1), DIMS, 5, None, None)
    wide = default_tiling(problem).strip
    monkeypatch.setattr(cpu, "screens", lambda *_: False)
    assert wide > 1.9 * default_tiling(problem).strip
