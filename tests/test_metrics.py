"""nDCG and recall against pytrec_eval, which runs trec_eval's own C code, and closed forms."""

from math import log2

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.measure.retrieval.metrics import Judgements, in_trec_order, ndcg_at_k, recall_at_k


def ranked(scores: np.ndarray, k: int) -> np.ndarray:
    """Best first, ties to the lower index: the order that nested_topk promises."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def trec_eval(query_ids, doc_ids, qrels, scores, measures=("ndcg_cut.10", "recall.100")):
    run = {
        query: {doc: float(score) for doc, score in zip(doc_ids, row, strict=True)}
        for query, row in zip(query_ids, scores, strict=True)
    }
    return pytrec_eval.RelevanceEvaluator(qrels, set(measures)).evaluate(run)


def random_task(seed: int, queries: int, documents: int, levels: int, absent: int = 3):
    """Judgements from -1 to 3 for a tenth of the documents and for some that do not exist."""
    rng = np.random.default_rng(seed)
    doc_ids = sorted((f"d{i}" for i in rng.permutation(documents * 3)[:documents]), reverse=True)
    query_ids = [f"q{i}" for i in range(queries)]
    qrels = {}
    for query in query_ids:
        judged = list(rng.choice(doc_ids, size=max(1, documents // 10), replace=False))
        judged += [f"absent{i}" for i in range(rng.integers(0, absent + 1))]
        qrels[query] = {str(doc): int(rng.integers(-1, 4)) for doc in judged}
    scores = rng.integers(0, levels, size=(queries, documents))  # few levels: nearly all tied
    return query_ids, doc_ids, qrels, scores


@pytest.mark.parametrize("levels", [1, 2, 7, 1000])
@pytest.mark.parametrize("documents", [5, 11, 150, 997])
def test_equals_pytrec_eval_with_heavy_ties(documents, levels):
    query_ids, doc_ids, qrels, scores = random_task(documents + levels, 40, documents, levels)
    expected = trec_eval(query_ids, doc_ids, qrels, scores)
    judgements = Judgements.from_qrels(query_ids, doc_ids, qrels)
    indices = ranked(scores, 100)
    ndcg = ndcg_at_k(indices, judgements)
    recall = recall_at_k(indices, judgements)
    assert ndcg.std() > 0, "a fixture in which every query scores alike shows nothing"
    for i, query in enumerate(query_ids):
        assert ndcg[i] == pytest.approx(expected[query]["ndcg_cut_10"], abs=1e-9)
        assert recall[i] == pytest.approx(expected[query]["recall_100"], abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), documents=st.integers(1, 30), levels=st.integers(1, 4))
def test_equals_pytrec_eval_on_anything(seed, documents, levels):
    query_ids, doc_ids, qrels, scores = random_task(seed, 5, documents, levels)
    expected = trec_eval(query_ids, doc_ids, qrels, scores)
    judgements = Judgements.from_qrels(query_ids, doc_ids, qrels)
    ndcg = ndcg_at_k(ranked(scores, 100), judgements)
    np.testing.assert_allclose(
        ndcg, [expected[query]["ndcg_cut_10"] for query in query_ids], rtol=0, atol=1e-9
    )


def test_the_order_of_documents_decides_ties():
    """The control: with ascending ids, ties to the lower index are not trec_eval's."""
    qrels = {"q": {"b": 1}}
    expected = trec_eval(["q"], ["a", "b"], qrels, np.zeros((1, 2)))["q"]["ndcg_cut_10"]
    for doc_ids, right in ((["b", "a"], True), (["a", "b"], False)):
        judgements = Judgements.from_qrels(["q"], doc_ids, qrels)
        got = ndcg_at_k(ranked(np.zeros((1, 2)), 10), judgements)[0]
        assert bool(got == expected) == right


def test_closed_form_of_graded_judgements():
    judgements = Judgements.from_qrels(["q"], ["c", "b", "a"], {"q": {"c": 2, "b": 1}})
    got = ndcg_at_k(np.array([[1, 2, 0]]), judgements)
    expected = (1 / log2(2) + 2 / log2(4)) / (2 / log2(2) + 1 / log2(3))
    assert got[0] == pytest.approx(expected, abs=1e-15)


def test_example_in_the_docstring():
    judgements = Judgements.from_qrels(["q"], ["x", "y"], {"q": {"x": 2, "y": 1}})
    assert ndcg_at_k(np.array([[1, 0]]), judgements)[0] == pytest.approx(0.8597, abs=5e-5)


def test_ideal_counts_documents_that_the_corpus_does_not_hold():
    judgements = Judgements.from_qrels(["q"], ["b", "a"], {"q": {"a": 1, "gone": 1}})
    assert ndcg_at_k(np.array([[1, 0]]), judgements)[0] == pytest.approx(1 / (1 + 1 / log2(3)))
    assert recall_at_k(np.array([[1, 0]]), judgements)[0] == 0.5


def test_ideal_is_cut_at_k():
    doc_ids = [f"{i:02}" for i in range(20, 0, -1)]
    judgements = Judgements.from_qrels(["q"], doc_ids, {"q": dict.fromkeys(doc_ids, 1)})
    indices = np.arange(20)[None]
    assert ndcg_at_k(indices, judgements, k=10)[0] == pytest.approx(1.0, abs=1e-15)
    assert recall_at_k(indices, judgements, k=5)[0] == 0.25


def test_a_query_without_results_or_judgements_is_not_counted():
    judgements = Judgements.from_qrels(["a", "b", "c"], ["x"], {"a": {"x": 1}, "b": {"x": 1}})
    got = ndcg_at_k(np.array([[0], [-1], [0]]), judgements)
    np.testing.assert_array_equal(got, [1.0, np.nan, np.nan])
    assert np.nanmean(got) == 1.0


def test_a_query_with_only_zero_judgements_scores_zero_as_in_trec_eval():
    qrels = {"q": {"x": 0, "y": -1}}
    expected = trec_eval(["q"], ["y", "x"], qrels, np.zeros((1, 2)))["q"]
    judgements = Judgements.from_qrels(["q"], ["y", "x"], qrels)
    indices = np.array([[0, 1]])
    assert ndcg_at_k(indices, judgements)[0] == expected["ndcg_cut_10"] == 0
    assert recall_at_k(indices, judgements)[0] == expected["recall_100"] == 0


def test_an_empty_place_after_the_first_document_gains_nothing():
    """Row 1's -1 must not be read as the last document of row 0."""
    judgements = Judgements.from_qrels(["a", "b"], ["y", "x"], {"a": {"x": 1}, "b": {"y": 1}})
    got = ndcg_at_k(np.array([[0, 1], [1, -1]]), judgements)
    np.testing.assert_allclose(got, [1 / log2(3), 0.0])


@pytest.mark.parametrize(
    ("indices", "k", "message"),
    [
        (np.zeros((2, 3), dtype=np.int64), 10, "one row a query"),
        (np.zeros((1, 1), dtype=np.int64), 10, "hold 1 documents a query; rank 10"),
        (np.full((1, 3), 3), 10, "name document 3 of a corpus of 3"),
        (np.zeros((1, 3), dtype=np.int64), 0, "k is 0"),
    ],
)
def test_bad_rankings_are_refused(indices, k, message):
    judgements = Judgements.from_qrels(["q"], ["c", "b", "a"], {"q": {"a": 1}})
    with pytest.raises(ValueError, match=message):
        ndcg_at_k(indices, judgements, k)


def test_an_id_that_occurs_twice_is_refused():
    with pytest.raises(ValueError, match="doc_ids hold 'x' twice"):
        Judgements.from_qrels(["q"], ["x", "x"], {})


def test_scores_that_float32_does_not_tell_apart_tie_as_in_trec_eval():
    """A search in float64 knows that "a" is nearer; trec_eval does not, and takes "c" first."""
    scores = np.array([[0.5 + 2e-9, 0.5 + 1e-9, 0.5, 0.25, -np.inf]])
    assert (np.diff(scores) < 0).all()
    doc_ids, qrels = ["d", "c", "b", "a"], {"q": {"a": 1, "d": 2}}
    indices = np.array([[3, 1, 2, 0, -1]])
    found = in_trec_order(scores, indices)
    np.testing.assert_array_equal(found, [[1, 2, 3, 0, -1]])
    by_id = np.empty((1, 4))
    by_id[0, indices[0, :4]] = scores[0, :4]
    expected = trec_eval(["q"], doc_ids, qrels, by_id)["q"]["ndcg_cut_10"]
    judgements = Judgements.from_qrels(["q"], doc_ids, qrels)
    assert ndcg_at_k(found, judgements)[0] == pytest.approx(expected, abs=1e-12)
    assert ndcg_at_k(indices, judgements)[0] != pytest.approx(expected, abs=1e-3)


def test_trec_order_leaves_rankings_alone_whose_ties_stand_by_id():
    scores = np.random.default_rng(0).integers(0, 3, (2, 5, 30)).astype(np.float32)
    indices = np.argsort(-scores, axis=-1, kind="stable")
    ranked_scores = np.take_along_axis(scores, indices, axis=-1)
    np.testing.assert_array_equal(in_trec_order(ranked_scores, indices), indices)
