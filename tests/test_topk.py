"""The contract of nested_topk, for every engine, against the float64 reference."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from fusion.topk import nested as topk
from fusion.topk.coded import nested_topk_codes
from fusion.topk.engines import per_level
from fusion.topk.nested import corpus_norms, nested_topk
from fusion.topk.problem import pose
from fusion.topk.reference import reference_topk
from fusion.topk.streaming import search_chunks

DIMS = [4, 7, 16]


@pytest.fixture(params=["auto", "cpu", "per-level"])
def backend(request):
    return request.param


def integers(q=7, c=61, d=16, seed=0):
    """Signs times powers of two: full of ties, and exact in float32, so indices must be equal."""
    rng = np.random.default_rng(seed)
    signs = rng.choice(np.array([-1, 1], np.float32), (q + c, d))
    rows = signs * rng.choice(np.array([0.5, 1, 2], np.float32), (q + c, 1))
    return rows[:q], rows[q:]


def assert_exact(found, queries, corpus, dims, k, exclude=None):
    scores, indices = reference_topk(queries, corpus, dims, k, exclude=exclude)
    assert found[0].dtype == torch.float32
    assert found[1].dtype == torch.int64
    np.testing.assert_array_equal(found[1], indices)
    np.testing.assert_allclose(found[0], scores, rtol=3e-7)


@pytest.mark.parametrize("k", [1, 10, 60, 61, 66])
def test_every_k_and_every_tie(backend, k):
    queries, corpus = integers()
    found = nested_topk(queries, corpus, DIMS, k, backend=backend)
    assert_exact(found, queries, corpus, DIMS, k)


@pytest.mark.parametrize("value", ["ascending", "descending", "constant"])
def test_ordered_scores(backend, value):
    angle = np.linspace(0.1, 1.4, 97)
    angle = {"ascending": angle[::-1], "descending": angle, "constant": np.full(97, 0.5)}[value]
    corpus = np.tile(np.stack([np.cos(angle), np.sin(angle)], axis=1), 2).astype(np.float32)
    queries = np.array([[1, 0, 1, 0]], np.float32)
    assert_exact(
        nested_topk(queries, corpus, [2, 4], 5, backend=backend), queries, corpus, [2, 4], 5
    )


def test_permuted_documents_give_the_permuted_answer(backend):
    rng = np.random.default_rng(1)
    queries = rng.standard_normal((9, 16)).astype(np.float32)
    corpus = rng.standard_normal((203, 16)).astype(np.float32)
    order = rng.permutation(203)
    _, plain = nested_topk(queries, corpus, DIMS, 10, backend=backend)
    _, permuted = nested_topk(queries, corpus[order], DIMS, 10, backend=backend)
    np.testing.assert_array_equal(order[permuted.numpy()], plain)


def test_exclude_drops_one_document_a_query(backend):
    queries, corpus = integers()
    exclude = np.array([-1, 0, 60, 5, 5, -1, 33])
    found = nested_topk(queries, corpus, DIMS, 61, exclude=exclude, backend=backend)
    assert_exact(found, queries, corpus, DIMS, 61, exclude)
    assert (found[1][:, exclude >= 0, -1] == -1).all()


def test_zero_vectors_and_zero_prefixes_score_zero(backend):
    queries, corpus = integers()
    queries[0], corpus[3], corpus[8, :4], queries[2, :7] = 0, 0, 0, 0
    found = nested_topk(queries, corpus, DIMS, 61, backend=backend)
    assert_exact(found, queries, corpus, DIMS, 61)
    assert (found[0][:, 0] == 0).all()


def test_all_first_columns_zero(backend):
    queries, corpus = integers()
    queries[:, :4], corpus[:, :4] = 0, 0
    assert_exact(nested_topk(queries, corpus, DIMS, 9, backend=backend), queries, corpus, DIMS, 9)


@pytest.mark.parametrize("power", [-99, 99])
def test_magnitudes_that_overflow_float32_products(backend, power):
    queries, corpus = integers()
    big = np.float32(2.0**power)  # about 1e-30 and 1e30
    corpus[::3] *= big
    found = nested_topk(queries * big, corpus, DIMS, 61, backend=backend)
    assert_exact(found, queries, corpus, DIMS, 61)


@pytest.mark.parametrize("power", [-318, -310, -160, 160, 300])
def test_magnitudes_that_overflow_float64_products(backend, power):
    queries, corpus = (part.astype(np.float64) for part in integers())
    big = 2.0 ** round(power / np.log10(2))
    found = nested_topk(queries * big, corpus * big, DIMS, 61, backend=backend)
    assert_exact(found, queries, corpus, DIMS, 61)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_torchs_defaults_change_nothing(monkeypatch, backend, dtype):
    queries, corpus = integers(q=40, c=700)
    codes = (16 * corpus).astype(np.int8)
    corpus[::3] *= np.float32(2.0**99)
    bits = np.packbits(corpus > 0, axis=1)
    torch.set_default_dtype(dtype)
    torch.set_default_device("meta")
    try:
        for few in (3, 40):
            found = nested_topk(queries[:few], corpus, DIMS, 61, backend=backend)
            assert_exact(found, queries[:few], corpus, DIMS, 61)
        assert_exact(search_chunks(queries, [corpus], DIMS, 61), queries, corpus, DIMS, 61)
        found = nested_topk_codes(queries, codes, DIMS, 61)
        assert_exact(found, queries, codes.astype(np.float32), DIMS, 61)
        found = nested_topk_codes(queries, bits, DIMS, 61)
        assert_exact(found, queries, np.where(corpus > 0, 1.0, -1.0), DIMS, 61)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


def test_prefixes_far_smaller_than_their_rows(backend):
    queries, corpus = integers()
    queries[:, :7] *= np.float32(2.0**-90)
    corpus[::2, :4] *= np.float32(2.0**-120)
    found = nested_topk(queries, corpus, iter(DIMS), 61, backend=backend)
    assert_exact(found, queries, corpus, DIMS, 61)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types(backend, dtype):
    queries, corpus = map(torch.from_numpy, integers())
    found = nested_topk(queries.to(dtype), corpus.to(dtype), DIMS, 10, backend=backend)
    assert_exact(found, queries.numpy(), corpus.numpy(), DIMS, 10)


def test_memory_map_and_strides(backend, tmp_path):
    queries, corpus = integers(d=32)
    np.save(tmp_path / "corpus.npy", corpus)
    mapped = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    found = nested_topk(queries, mapped, DIMS, 10, backend=backend)
    assert_exact(found, queries, corpus, DIMS, 10)
    strided = nested_topk(queries[:, ::2], corpus[::-1, ::2], DIMS, 10, backend=backend)
    assert_exact(strided, queries[:, ::2], corpus[::-1, ::2], DIMS, 10)
    last = nested_topk(queries, corpus[::-1][:1], DIMS, 10, backend=backend)
    assert_exact(last, queries, corpus[-1:], DIMS, 10)
    swapped = nested_topk(queries.astype(">f4"), corpus.astype(">f8"), DIMS, 10, backend=backend)
    assert_exact(swapped, queries, corpus, DIMS, 10)
    packed = np.zeros(61, np.dtype([("id", "i1"), ("row", "f4", 32)]))
    packed["row"] = corpus
    assert_exact(
        nested_topk(queries, packed["row"], DIMS, 10, backend=backend), queries, corpus, DIMS, 10
    )
    turned = torch.from_numpy(np.ascontiguousarray(corpus.T)).T
    assert_exact(nested_topk(queries, turned, DIMS, 10, backend=backend), queries, corpus, DIMS, 10)


def test_empty_input_gives_empty_output(backend):
    queries, corpus = integers()
    for q, c in [(0, 61), (7, 0), (0, 0)]:
        scores, indices = nested_topk(queries[:q], corpus[:c], DIMS, 5, backend=backend)
        assert scores.shape == indices.shape == (3, q, min(5, c))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_their_row(backend, value):
    queries, corpus = integers(c=1300)
    corpus[1207, 9] = value
    with pytest.raises(ValueError, match="corpus row 1207 holds a value that is not finite"):
        nested_topk(queries, corpus, DIMS, 5, backend=backend)
    with pytest.raises(ValueError, match="queries row 7"):
        nested_topk(corpus[1200:1210], queries, DIMS, 5, backend=backend)


def test_kept_norms_change_nothing(backend):
    queries, corpus = integers()
    norms = corpus_norms(corpus, DIMS)
    found = nested_topk(queries, corpus, DIMS, 9, backend=backend, norms=norms)
    assert_exact(found, queries, corpus, DIMS, 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dims": [7, 4]}, "dims must be ascending"),
        ({"dims": []}, "dims must be ascending"),
        ({"dims": [4, 17]}, "dims end at 17, but the vectors have only 16"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"backend": "faiss"}, "backend must be one of auto, cpu"),
        ({"corpus": np.zeros(3, np.float32)}, r"corpus must have two dimensions .* got \(3,\)"),
        ({"corpus": np.zeros((3, 16), np.int32)}, "corpus must be floating point, got torch.int32"),
        ({"exclude": np.zeros(3, np.int64)}, "exclude must be 7 integers"),
        ({"exclude": np.full(7, 61)}, "exclude must lie between -1 and 60"),
        ({"norms": corpus_norms(np.ones((3, 16), np.float32), DIMS)}, "norms belong to 3 rows"),
    ],
)
def test_arguments_that_do_not_fit(change, message):
    queries, corpus = integers()
    arguments = {"queries": queries, "corpus": corpus, "dims": DIMS, "k": 3} | change
    with pytest.raises(ValueError, match=message):
        nested_topk(**arguments)


def test_anything_but_arrays_is_a_type_error():
    with pytest.raises(TypeError, match="queries must be a numpy array or a torch tensor"):
        nested_topk([[1.0]], np.ones((1, 1), np.float32), [1], 1)


def test_importing_the_search_needs_torch_and_numpy_only():
    heavy = ["transformers", "sentence_transformers", "lightning", "sklearn", "triton", "scipy"]
    code = "from fusion import nested_topk; import sys; "
    code += f"print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_triton_says_why_it_cannot(caplog, monkeypatch):
    queries, corpus = integers()
    with pytest.raises(ValueError, match=r"backend triton cannot take this search: .*(CUDA|tri)"):
        nested_topk(queries, corpus, DIMS, 3, backend="triton")
    problem = pose(queries, corpus, DIMS, 3, None, None)
    monkeypatch.setattr(topk, "_fused", lambda _: (None, "the card is too old"))
    object.__setattr__(problem, "corpus", problem.corpus.to("meta"))  # anything but the CPU
    for _ in range(2):
        assert topk._engine(problem, "auto") is per_level.search
    assert caplog.text.count("the card is too old") == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_corpus_on_a_gpu(dtype):
    queries, corpus = integers(q=130, c=40_000)
    left, right = (torch.from_numpy(rows).to("cuda", dtype) for rows in (queries, corpus))
    found = nested_topk(left, right, DIMS, 50)
    assert found[0].is_cuda
    assert_exact([part.cpu() for part in found], queries, corpus, DIMS, 50)


def test_queries_are_scaled_alike_in_every_dtype():
    rows = torch.randn(9, 8, generator=torch.Generator().manual_seed(0)) * 300
    rows[1], rows[2] = 0, rows[2] * 1e-9
    rows[:, 3] *= 1e-38  # becomes so small that even a power of two rounds it
    single, double = (pose(q, rows, [4, 8], 1, None, None).queries for q in (rows, rows.double()))
    assert torch.equal(single, double)
    assert torch.equal(single[:, :3].frexp().mantissa, rows[:, :3].frexp().mantissa)
    assert (single[:, 3].abs() < 1e-38).sum() > 3
    norms = single.norm(dim=1)
    assert ((norms >= 0.5) & (norms < 1) | (norms == 0)).all()
