"""The sweep against a plain double loop: scores, ranking, pytrec_eval, one row at a time."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
import pytrec_eval

from fusion.measure.comparisons import compare_variants
from fusion.measure.retrieval.sweep import Space, measure
from fusion.measure.rows import (
    MEAN,
    Row,
    Variant,
    averaged_over_seeds,
    mean_rows,
)
from fusion.measure.statistics import bootstrap_means, compare, intervals
from fusion.space.codes import Codebook

DIMS = (2, 5, 8)


@dataclass(frozen=True)
class Task:
    """A retrieval data set of random judgements; some queries are documents themselves."""

    name: str
    seed: int = 0
    split: str = "test"
    query_ids: list[str] = field(init=False)
    doc_ids: list[str] = field(init=False)
    qrels: dict[str, dict[str, int]] = field(init=False)

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        doc_ids = sorted((f"d{i}" for i in range(150)), reverse=True)
        query_ids = [*doc_ids[:10], *(f"q{i}" for i in range(20))]
        qrels = {
            query: {str(d): int(rng.integers(0, 3)) for d in rng.choice(doc_ids, 12)}
            for query in query_ids
        }
        object.__setattr__(self, "query_ids", query_ids)
        object.__setattr__(self, "doc_ids", doc_ids)
        object.__setattr__(self, "qrels", qrels)

    @property
    def exclude(self):
        places = {doc: i for i, doc in enumerate(self.doc_ids)}
        return np.array([places.get(query, -1) for query in self.query_ids])


def vectors(seed: int, rows: int, columns: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def space(method="head", seed=0, columns=8, **more) -> Space:
    queries, documents = vectors(seed + 1, 30, columns), vectors(seed + 2, 150, columns)
    return Space(method, queries, documents, seed=seed, **more)


def cosines(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Float64 cosines, one sum at a time: equal documents score alike whatever the machine."""
    sides = [rows.astype(np.float64) for rows in (queries, documents)]
    unit = [rows / np.sqrt((rows**2).sum(axis=1, keepdims=True)) for rows in sides]
    return np.stack([(unit[1] * query).sum(axis=1) for query in unit[0]])


def per_query(task: Task, queries: np.ndarray, documents: np.ndarray) -> dict[str, np.ndarray]:
    """pytrec_eval's per-query scores of cosines, which it compares in float32."""
    run = {
        query: {
            doc: float(score) for doc, score in zip(task.doc_ids, row, strict=True) if doc != query
        }
        for query, row in zip(task.query_ids, cosines(queries, documents), strict=True)
    }
    found = pytrec_eval.RelevanceEvaluator(task.qrels, {"ndcg_cut.10", "recall.100"}).evaluate(run)
    return {
        m: np.array([found[query][m] for query in task.query_ids])
        for m in ("ndcg_cut_10", "recall_100")
    }


def oracle(task: Task, queries: np.ndarray, documents: np.ndarray) -> dict[str, float]:
    return {m: of_all.mean() for m, of_all in per_query(task, queries, documents).items()}


def test_rows_equal_a_plain_loop_over_widths_and_pytrec_eval():
    task, measured = Task("toy"), space()
    rows = measure(task, [measured], DIMS)
    assert [row.dim for row in rows] == [2, 5, 8]
    for row in rows:
        expected = oracle(task, measured.queries[:, : row.dim], measured.documents[:, : row.dim])
        assert row.ndcg_at_10 == pytest.approx(expected["ndcg_cut_10"], abs=1e-9)
        assert row.recall_at_100 == pytest.approx(expected["recall_100"], abs=1e-9)
        assert row.bytes_per_vector == 4 * row.dim
        assert row.queries == 30


def test_coded_rows_equal_scoring_what_the_codebook_decodes():
    task, measured = Task("toy"), space(seed=3, calibration=vectors(9, 64))
    rows = measure(task, [measured], [5], ["float16", "int8", "binary"])
    for row in rows:
        book = Codebook.fit(measured.calibration, row.precision, 5, seed=3)
        decoded = book.decode(book.encode(measured.documents))
        expected = oracle(task, measured.queries[:, :5], decoded)
        assert row.ndcg_at_10 == pytest.approx(expected["ndcg_cut_10"], abs=1e-9)
    assert [row.bytes_per_vector for row in rows] == [10, 5, 1]


@pytest.mark.parametrize("precision", ["binary", "int2", "int4", "int8"])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_documents_of_one_code_tie_as_in_trec_eval(precision, dim):
    """Of so few bits many documents are equal: their ids decide, and nothing else."""
    task, measured = Task("toy"), space(seed=3, calibration=vectors(9, 64))
    row = measure(task, [measured], [dim], [precision])[0]
    book = Codebook.fit(measured.calibration, precision, dim, seed=3)
    codes = book.encode(measured.documents)
    alike = len(codes) - len(np.unique(codes, axis=0))
    assert alike > 5 or (precision, dim) == ("int8", 3) or (precision, dim) == ("int4", 3)
    expected = per_query(task, measured.queries[:, :dim], book.decode(codes))
    np.testing.assert_allclose(row.per_query, expected["ndcg_cut_10"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("noise", [1e-9, 1e-8, 1e-7])
def test_more_near_copies_than_are_kept_stand_as_in_trec_eval(noise):
    """Most of them float32 cannot tell apart; which ones come first, ids decide."""
    task, documents = Task("toy"), vectors(2, 150) * np.float32(noise)
    documents[:, :5] = vectors(4, 1)[:, :5]
    measured = Space("head", vectors(1, 30), documents)
    for row in measure(task, [measured], [5, 8]):
        expected = per_query(task, measured.queries[:, : row.dim], documents[:, : row.dim])
        np.testing.assert_allclose(row.per_query, expected["ndcg_cut_10"], rtol=0, atol=1e-9)
        assert row.recall_at_100 == pytest.approx(expected["recall_100"].mean(), abs=1e-9)


def test_a_row_is_the_line_of_the_contract_and_can_be_recomputed():
    row = measure(Task("toy"), [space("encoder:minilm")], [8])[0]
    line = json.loads(json.dumps(row.to_dict()))
    assert list(line) == [
        "data", "split", "method", "dim", "precision", "bytes_per_vector", "seed",
        "ndcg_at_10", "ndcg_at_10_ci95", "recall_at_100", "queries",
    ]  # fmt: skip
    assert Row.from_dict(line) == row
    again = measure(Task(line["data"]), [space(line["method"])], [line["dim"]])[0]
    assert again == row
    low, high = line["ndcg_at_10_ci95"]
    assert low < line["ndcg_at_10"] < high
    assert line["ndcg_at_10"] == row.per_query.mean()


def test_a_rows_interval_does_not_depend_on_its_neighbours():
    alone = measure(Task("toy"), [space()], [5])
    among = measure(Task("toy"), [space("pca", seed=8), space()], DIMS)
    assert alone[0].ndcg_at_10_ci95 == pytest.approx(among[4].ndcg_at_10_ci95, abs=1e-12)
    assert alone[0].variant == among[4].variant


def test_a_space_is_measured_at_its_own_widths_or_those_that_fit():
    spaces = [space("narrow", columns=4), space("concat", dims=(8,)), space("none", columns=1)]
    rows = measure(Task("toy"), spaces, DIMS)
    assert [(row.method, row.dim) for row in rows] == [("narrow", 2), ("concat", 8)]


def test_a_query_never_finds_itself():
    """The control: without the exclusion these documents would all come first."""
    task = Task("toy")
    documents = vectors(2, 150)
    queries = vectors(1, 30)
    queries[:10] = documents[:10]
    row = measure(task, [Space("head", queries, documents)], [8])[0]
    expected = oracle(task, queries, documents)["ndcg_cut_10"]
    assert row.ndcg_at_10 == pytest.approx(expected, abs=1e-9)


def test_the_mean_counts_each_data_set_the_same():
    rows = [
        row
        for i, name in enumerate(("one", "two"))
        for row in measure(Task(name, seed=i), [space("head", 0), space("head", 1)], DIMS)
    ]
    only_one = measure(Task("one"), [space("pca")], [8])
    means = mean_rows(rows + only_one)
    assert [(m.data, m.dim, m.seed) for m in means] == [
        (MEAN, dim, seed) for seed in (0, 1) for dim in DIMS
    ], "what was measured on one of the two has no mean"
    parts = [row for row in rows if (row.dim, row.seed) == (5, 1)]
    mean = next(m for m in means if (m.dim, m.seed) == (5, 1))
    assert mean.ndcg_at_10 == np.mean([row.ndcg_at_10 for row in parts])
    assert mean.recall_at_100 == np.mean([row.recall_at_100 for row in parts])
    assert mean.queries == 60
    assert mean.per_query is None
    low, high = mean.ndcg_at_10_ci95
    widths = [np.ptp(row.ndcg_at_10_ci95) for row in parts]
    assert high - low == pytest.approx(np.linalg.norm(widths) / 2, rel=0.1), "independent draws"


def test_one_data_set_has_no_mean():
    assert mean_rows(measure(Task("one"), [space()], DIMS)) == []


def test_seeds_are_averaged_query_by_query():
    rows = measure(Task("one"), [space(seed=0), space(seed=1)], [5])
    averaged = averaged_over_seeds(rows)
    assert len(averaged) == 1
    assert averaged[0].ndcg_at_10 == pytest.approx(np.mean([r.ndcg_at_10 for r in rows]))
    np.testing.assert_allclose(averaged[0].per_query, (rows[0].per_query + rows[1].per_query) / 2)


def test_two_variants_are_compared_over_all_data_sets():
    rows = [
        row
        for i, name in enumerate(("one", "two"))
        for row in measure(Task(name, seed=i), [space("head"), space("pca", 5)], DIMS)
    ]
    ours, theirs = Variant("head", 8, "float32"), Variant("pca", 5, "float32")
    by_key = {(row.data, row.variant): row.per_query for row in rows}
    expected = compare(
        [by_key[name, ours] for name in ("one", "two")],
        [by_key[name, theirs] for name in ("one", "two")],
    )
    assert compare_variants([*rows, *mean_rows(rows)], ours, theirs) == expected
    on_two = compare_variants(rows, ours, theirs, data="two")
    assert on_two == compare([by_key["two", ours]], [by_key["two", theirs]])


def test_a_variant_that_was_not_measured_cannot_be_compared():
    rows = measure(Task("one"), [space("head")], [8])
    measured = Variant("head", 8, "float32")
    with pytest.raises(ValueError, match="no per-query scores of pca/8/float32 on mean"):
        compare_variants(rows, measured, Variant("pca", 8, "float32"))
    rows += measure(Task("two"), [space("pca")], [8])
    with pytest.raises(ValueError, match=r"head was measured on .*one.*, pca on .*two"):
        compare_variants(rows, measured, Variant("pca", 8, "float32"))


def test_intervals_are_the_bootstraps_of_the_per_query_scores():
    row = measure(Task("one"), [space()], [8])[0]
    from zlib import crc32

    expected = intervals(bootstrap_means(row.per_query[:, None], seed=(0, crc32(b"one"))))[0]
    assert row.ndcg_at_10_ci95 == tuple(expected)


def test_codes_that_nothing_was_given_to_fit_on_are_left_out(caplog):
    rows = measure(Task("toy"), [space("pca")], [8], ["float32", "binary", "float16"])
    assert [row.precision for row in rows] == ["float32", "float16"]
    assert "pca: there is nothing to fit binary codes on, they are left out" in caplog.text


def test_vectors_of_another_data_set_are_refused():
    odd = Space("head", vectors(0, 30), vectors(0, 149))
    with pytest.raises(ValueError, match="30 queries and 149 documents; toy has 30 and 150"):
        measure(Task("toy"), [odd], [8])


def test_columns_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"documents of head have shape \(5, 7\)"):
        Space("head", vectors(0, 3), vectors(0, 5, 7))


def test_documents_out_of_order_are_refused():
    task = Task("toy")
    task.doc_ids.reverse()
    with pytest.raises(ValueError, match="descending order of their ids"):
        measure(task, [space()], [8])
