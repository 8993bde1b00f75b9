"""Searching codes: against the float64 reference on the decoded codes."""

import numpy as np
import pytest
import torch

from fusion.topk.coded import EXACT_INT8, nested_topk_codes, unpack_bits
from fusion.topk.reference import rank_documents, reference_topk

DIMS = [8, 24, 64]


def codes(q=9, c=500, d=64, seed=0, high=3):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-high, high + 1, (q + c, d)).astype(np.int8)
    return rows[:q], rows[q:]


def packed(rows):
    return np.packbits(rows > 0, axis=1), np.where(rows > 0, 1.0, -1.0)


def test_bits_against_bits_are_exact_ties_and_all():
    queries, corpus = codes()
    (q, q_signs), (c, c_signs) = packed(queries), packed(corpus)
    exclude = np.arange(-1, 8)
    scores, indices = nested_topk_codes(q, c, DIMS, 50, exclude=exclude)
    expected, order = reference_topk(q_signs, c_signs, DIMS, 50, exclude=exclude)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(scores, expected, rtol=3e-7, atol=1e-7)


@pytest.mark.parametrize("bits", [True, False])
def test_a_float_query_against_codes(bits):
    queries = np.random.default_rng(1).standard_normal((9, 64)).astype(np.float32)
    rows, decoded = packed(codes()[1]) if bits else (codes(high=127)[1],) * 2
    scores, indices = nested_topk_codes(queries, torch.from_numpy(rows), DIMS, 30)
    expected, order = reference_topk(queries, decoded, DIMS, 30)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    np.testing.assert_array_equal(indices, order)


def test_int8_dot_products_are_exact_at_the_widest():
    rng = np.random.default_rng(0)
    d = EXACT_INT8
    corpus = np.full((40, d), 127, np.int8)
    corpus[np.arange(40), rng.integers(0, d, 40)] -= 1  # norms all equal, dots of 16 million apart
    corpus[20:, 5] = -127
    queries = np.full((2, d), 127, np.int8)
    queries[1, :9] = -128
    _, indices = nested_topk_codes(queries, corpus, [d // 2, d], 40)
    dots = queries.astype(np.int64) @ corpus.astype(np.int64).T
    assert abs(dots).max() < 2**24
    np.testing.assert_array_equal(indices, reference_topk(queries, corpus, [d // 2, d], 40)[1])


def test_bits_unpack_as_numpy_packs_them():
    rows = codes(d=21)[1]
    bits, signs = packed(rows)
    np.testing.assert_array_equal(unpack_bits(torch.from_numpy(bits), 21), signs)


@pytest.mark.parametrize(
    ("queries", "corpus", "dims", "message"),
    [
        (np.ones((2, 8), np.float32), np.ones((3, 8), np.int32), [8], "int8 codes or uint8 bits"),
        (np.ones((2, 1), np.uint8), np.ones((3, 8), np.int8), [8], "the corpus is int8"),
        (np.ones((2, 2048), np.int8), np.ones((3, 2048), np.int8), [2048], "could exceed 2"),
        (np.ones((2, 8), np.float32), np.ones((3, 1), np.uint8), [9], "have only 8 components"),
        (np.ones(8, np.float32), np.ones((3, 1), np.uint8), [8], "queries must have two dim"),
        (np.ones((2, 1), np.uint8), np.ones((3, 2), np.uint8), [16], "have only 8 components"),
    ],
)
def test_arguments_that_do_not_fit(queries, corpus, dims, message):
    with pytest.raises(ValueError, match=message):
        nested_topk_codes(queries, corpus, dims, 1)


@pytest.mark.parametrize("bits", [True, False])
@pytest.mark.parametrize("size", [1e-250, 1e60])
def test_queries_of_any_magnitude(bits, size):
    queries, corpus = codes()
    asked = queries.astype(np.float64)
    given = packed(corpus)[0] if bits else corpus
    meant = np.where(corpus > 0, 1.0, -1.0) if bits else corpus.astype(np.float64)
    asked[::2, :8] *= 2.0**-150  # prefixes so much smaller need a search of their own
    found = nested_topk_codes(asked * size, given, [8, 64], 20)
    scores, _ = reference_topk(asked, meant, [8, 64], 20)
    np.testing.assert_allclose(found[0], scores, rtol=1e-6)


def test_scores_are_cosines_of_the_decoded():
    queries, corpus = codes(q=1, c=5, d=8)
    scores, indices = nested_topk_codes(queries, corpus, [8], 5)
    expected = rank_documents(queries[0].astype(float), corpus.astype(float))
    np.testing.assert_allclose(scores[0, 0], expected[indices[0, 0]], rtol=1e-6)
