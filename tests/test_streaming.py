"""A corpus in chunks gives what one search over all of it gives."""

import numpy as np
import pytest
import torch

from fusion.topk import keys, streaming
from fusion.topk.nested import nested_topk
from fusion.topk.reference import reference_topk
from fusion.topk.streaming import NestedSearcher, search_chunks

DIMS = [8, 24, 32]


def signs(q, c, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.choice(np.array([-1, 1], np.float32), (q + c, 32))
    rows *= rng.choice(np.array([0.5, 1, 2], np.float32), (q + c, 1))
    return rows[:q], rows[q:]


def assert_exact(found, queries, corpus, k, exclude=None):
    scores, indices = reference_topk(queries, corpus, DIMS, k, exclude=exclude)
    np.testing.assert_array_equal(found[1], indices)
    np.testing.assert_allclose(found[0], scores, rtol=3e-7)


@pytest.mark.parametrize("borders", [[], [1], [100, 101, 350], list(range(40, 700, 40))])
@pytest.mark.parametrize("k", [1, 30, 705])
def test_borders_of_chunks_do_not_show(monkeypatch, borders, k):
    monkeypatch.setattr(streaming, "PIECE", 64)
    queries, corpus = signs(11, 700)
    exclude = np.array([-1, 0, 1, 63, 64, 99, 100, 101, 350, 698, 699])
    chunks = (chunk for chunk in np.split(corpus, borders))
    found = search_chunks(queries, chunks, DIMS, k, exclude=exclude)
    assert_exact(found, queries, corpus, k, exclude)


def test_scores_are_those_of_one_search_to_the_bit():
    rng = np.random.default_rng(3)
    queries, corpus = rng.standard_normal((9, 32)), rng.standard_normal((500, 32))
    whole = nested_topk(queries, corpus, DIMS, 500, backend="cpu")
    merged = search_chunks(queries, np.split(corpus, 5), DIMS, 500)
    # Products of other shapes may sum in another order, so compare where the order is the same.
    same = whole[1] == merged[1]
    assert same.double().mean() > 0.99
    torch.testing.assert_close(merged[0][same], whole[0][same], rtol=0, atol=1e-6)


def test_chunks_of_very_different_magnitude_merge():
    queries, corpus = signs(6, 300)
    corpus[:100] *= np.float32(2.0**-99)
    corpus[100:200] *= np.float32(2.0**99)
    corpus[200:, :8] *= np.float32(2.0**-110)  # these rows need a scale for each level
    queries[:2] *= np.float32(2.0**70)
    found = search_chunks(queries, np.split(corpus, 6), DIMS, 300)
    assert_exact(found, queries, corpus, 300)


def test_prefixes_far_smaller_than_their_queries():
    queries, corpus = signs(6, 300)
    queries[:, :24] *= np.float32(2.0**-140)  # which float32 still holds, but not its inverse
    scores, _ = search_chunks(queries, np.split(corpus, 6), DIMS, 300)
    expected, _ = reference_topk(queries, corpus, DIMS, 300)
    np.testing.assert_allclose(scores, expected, rtol=3e-7, atol=1e-12)


@pytest.mark.parametrize(
    ("exclude", "message"), [([0.7, 1, -1], "must be 3 integers"), ([0, 1, -5], "between -1 and")]
)
def test_excluded_documents_that_do_not_fit(exclude, message):
    with pytest.raises(ValueError, match=message):
        NestedSearcher(signs(3, 1)[0], DIMS, 5, exclude=np.array(exclude))


def test_a_chunk_of_one_document_and_many_queries():
    queries, corpus = signs(64, 90)
    found = search_chunks(queries, np.split(corpus, [1, 2, 4, 45]), DIMS, 9)
    assert_exact(found, queries, corpus, 9)


def test_a_memory_map_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "PIECE", 50)
    queries, corpus = signs(3, 333)
    np.save(tmp_path / "corpus.npy", corpus.astype(np.float16))
    searcher = NestedSearcher(queries, DIMS, 7)
    searcher.add(np.load(tmp_path / "corpus.npy", mmap_mode="r"))
    assert searcher.seen == 333
    assert_exact(searcher.result(), queries, corpus, 7)


def test_no_chunks_give_an_empty_result():
    scores, indices = search_chunks(signs(3, 1)[0], [], DIMS, 7)
    assert scores.shape == indices.shape == (3, 3, 0)


def test_a_bad_row_is_counted_over_all_chunks_and_its_piece_left_out():
    queries, corpus = signs(3, 100)
    bad = corpus.copy()
    bad[7, 3] = np.nan
    searcher = NestedSearcher(queries, DIMS, 5)
    searcher.add(corpus)
    with pytest.raises(ValueError, match="corpus row 107 holds a value that is not finite"):
        searcher.add(bad)
    assert_exact(searcher.result(), queries, corpus, 5)


def test_more_documents_than_a_key_can_number(monkeypatch):
    monkeypatch.setattr(keys, "LAST", 99)
    with pytest.raises(ValueError, match="at most 99 documents"):
        NestedSearcher(signs(3, 1)[0], DIMS, 5).add(signs(3, 100)[1])


def test_state_does_not_grow_with_the_corpus():
    queries, corpus = signs(5, 400)
    searcher = NestedSearcher(queries, DIMS, 6)
    for _ in range(4):
        searcher.add(corpus)
        assert searcher._scores.shape == (3, 5, 6)
