"""Files of judgements: every heading that names its columns, none at all, and what contradicts."""

import gzip
import json

import numpy as np
import pytest

from fusion.errors import FusionError
from fusion.inputs.data.judgements import read_judgements, relevance_of
from fusion.inputs.data.repeats import each_once
from fusion.inputs.data.retrieval import load_data

BOTH = {"q1": {"d1": 1}, "q2": {"d2": 2}}


def read(tmp_path, text):
    path = tmp_path / "test.tsv"
    path.write_text(text, encoding="utf-8")
    return read_judgements(path)


@pytest.mark.parametrize(
    "heading",
    [
        "query-id\tcorpus-id\tscore",
        "query_id\tdoc_id\trelevance",
        "qid\tpid\trel",
        "Query-ID\tCorpus-ID\tGrade",
        "qid pid relevance",
        "query corpus-id score ",
        "id1\tid2\tscore",
        "query-id\tcorpus-id\thow-much",
    ],
)
def test_a_heading_is_no_judgement(tmp_path, heading):
    for blank in ("", "\n", "\r\n \n"):
        assert read(tmp_path, f"{blank}{heading}\nq1\td1\t1\nq2\td2\t2\n") == BOTH


@pytest.mark.parametrize(
    "text",
    [
        "q1\td1\t1\nq2\td2\t2\n",
        "q1 d1 1\r\nq2   d2\t2\n".replace("\t", " "),
        "q1 0 d1 1\nq2 0 d2 2",
        "q1\t0\td1\t1\nq2\tQ0\td2\t2\n",
        "q1 4.5 d1 1\nq2 1 d2 2\n",
        "topic iteration docno relevancy\nq1 0 d1 1\nq2 0 d2 2\n",
        "q1\td1\t1.0\nq2\td2\t+2\n",
        "q1\td1\t1\t\nq2\td2\t2  \n",
    ],
)
def test_without_a_heading_the_first_judgement_counts(tmp_path, text):
    assert read(tmp_path, text) == BOTH


def test_ids_may_hold_spaces_between_tabs(tmp_path):
    assert read(tmp_path, "query 1\tdoc  1\t1\n") == {"query 1": {"doc  1": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1\td1\thigh\nq2\td2\t2\n", r"test\.tsv:1 is neither a heading nor 'query-id<tab>"),
        ("qid5\tdoc12\thigh\nq2\td2\t2\n", r"test\.tsv:1 is neither a heading nor"),
        ("q1\td1\trelevant\nq2\td2\t2\n", r"test\.tsv:1 is neither a heading nor"),
        ("corpus-id\tquery-id\tscore\nd1\tq1\t1\n", r"test\.tsv:1 heads other columns"),
        ("docid qid rel\nd1 q1 1\n", r"test\.tsv:1 heads other columns"),
        ("query-id,corpus-id,score\nq1,d1,1\n", r"test\.tsv:1 is not 'query-id<tab>"),
        ("q1 Q0 d1 1 0.5 run\n", r"test\.tsv:1 is not 'query-id<tab>"),
        ("q1\td1\t1\nq2\t0\td2\t2\n", r"test\.tsv:2 has 4 columns, the lines before it 3"),
        ("q1 first d1 1\nq2 first d2 2\n", r"test\.tsv:1 is not .* TREC's"),
        ("q1\td1\t1\nq2\td2\t0.5\n", r"test\.tsv:2 is not .*: its score is '0\.5'"),
        ("q1\td1\t1\nq2\td2\tnan\n", r"test\.tsv:2 is not .*: its score is 'nan'"),
        ("q1\td1\t1\nq2\td2\t1_0\n", r"test\.tsv:2 is not .*: its score is '1_0'"),
        ("q1\td1\t1\nq2\td2\t\n", r"test\.tsv:2 is not"),
        ("q1\td1\t1\nq2\td2\t99999999999\n", r"test\.tsv:2 has a score beyond 2147483648"),
        ("query-id\tcorpus-id\tscore\n", r"test\.tsv holds no judgement"),
        ("\n", r"test\.tsv holds no judgement"),
        ("q1\td1\t1\nq1\td1\t2\n", r"test\.tsv holds 'q1 d1' twice, as 1 and as 2"),
    ],
)
def test_what_is_no_judgement_is_named(tmp_path, text, message):
    with pytest.raises(FusionError, match=message):
        read(tmp_path, text)


def test_judgements_may_be_gzipped(tmp_path):
    path = tmp_path / "test.tsv.gz"
    path.write_bytes(gzip.compress(b"q1\td1\t1\nq2\td2\t2\n"))
    assert read_judgements(path) == BOTH


def test_equal_judgements_are_counted_and_count_once(tmp_path, caplog):
    assert read(tmp_path, "q1\td1\t1\nq2\td2\t2\nq1\td1\t1\nq1\td1\t1.0\n")["q1"] == {"d1": 1}
    assert (
        "test.tsv: 2 rows repeat an earlier one word for word (the first is 'q1 d1')" in caplog.text
    )


def test_scores_of_other_types_are_integers_or_refused():
    assert [relevance_of(score, "x") for score in (1, 2.0, np.int64(3), "-1")] == [1, 2, 3, -1]
    for score in (0.5, None, True, float("inf")):
        with pytest.raises(FusionError, match=f"x is not .*: its score is '{score}'"):
            relevance_of(score, "x")


def test_what_stands_twice_is_said_or_refused(caplog):
    rows = [("a", "one"), ("b", "two"), ("a", "one"), ("b", "two")]
    assert each_once("some.jsonl", rows) == {"a": "one", "b": "two"}
    assert (
        "some.jsonl: 2 rows repeat an earlier one word for word (the first is 'a')" in caplog.text
    )
    with pytest.raises(FusionError, match=r"some\.jsonl holds 'a' twice, as 'one' and as 'y+…'"):
        each_once("some.jsonl", [*rows, ("a", "y" * 90)])


def folder(root, corpus, queries, qrels):
    """A BEIR folder of ``id: text`` and lines of judgements."""
    (root / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", corpus), ("queries", queries)):
        rows = (
            texts if isinstance(texts, list) else [{"_id": i, "text": t} for i, t in texts.items()]
        )
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (root / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (root / "qrels" / "test.tsv").write_text(qrels, encoding="utf-8")
    return root


CORPUS = {"0": "Open the account page and choose to set a new password.", "1": "We open at nine."}
QUERIES = {"0": "How do I reset my password?", "1": "When does the shop open?"}


@pytest.mark.parametrize("qrels", ["0\t0\t1\n1\t1\t1\n", "0\t1\t1\n1\t0\t1\n"])
def test_a_shared_id_alone_leaves_nothing_out(tmp_path, qrels):
    data = load_data(str(folder(tmp_path / "x", CORPUS, QUERIES, qrels)))
    assert data.exclude.tolist() == [-1, -1]
    assert data.summary()["self_matches_left_out"] == 0


@pytest.mark.parametrize(
    ("document", "itself"),
    [
        ({"text": "cats  sleep"}, True),
        ({"title": "Of cats", "text": "cats sleep\n"}, True),
        ({"title": "cats", "text": "sleep"}, True),
        ({"title": "cats sleep", "text": "They do so all day."}, True),
        ({"text": "bobcats sleep"}, False),
        ({"text": "cats sleepily yawn"}, False),
        ({"text": "Whenever cats sleep, mice dance."}, False),
        ({"text": "sleep"}, False),
    ],
)
def test_only_the_query_itself_is_left_out_and_never_what_is_judged(tmp_path, document, itself):
    corpus = [{"_id": "a"} | document, {"_id": "b", "text": "mice dance"}]
    for place, qrels in enumerate(["a\tb\t1\n", "a\tb\t1\na\ta\t0\n", "a\ta\t1\n"]):
        root = folder(tmp_path / str(place), corpus, {"a": "cats sleep"}, qrels)
        data = load_data(str(root))
        left_out = 1 if itself and place == 0 else 0
        assert data.exclude.tolist() == [data.doc_ids.index("a") if left_out else -1]
        assert data.summary() == {
            "name": str(place), "split": "test", "queries": 1, "documents": 2,
            "judgements": qrels.count("\n"), "judgements_of_unknown_documents": 0,
            "self_matches_left_out": left_out,
        }  # fmt: skip


def test_a_query_without_words_is_no_document(tmp_path, caplog):
    root = folder(tmp_path / "x", CORPUS, {"0": " ", "1": "open"}, "0\t1\t1\n1\t0\t1\n")
    assert load_data(str(root)).exclude.tolist() == [-1, -1]
    assert "1 queries are without a word (the first is '0')" in caplog.text


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ("0\t0\t0\n1\t1\t0\n", "x: no judgement is above 0"),
        ("0\t0\t-1\n1\t1\t0\n", "x: no judgement is above 0"),
        ("0\t0\t0\nnobody\t1\t1\n", "x: no judgement is above 0"),
        ("0\tdoc0\t1\n1\tdoc1\t1\n", "none of the 2 relevant documents is in the corpus.*'doc0'"),
    ],
)
def test_judgements_that_give_every_method_zero_are_refused(tmp_path, qrels, message):
    root = folder(tmp_path / "x", CORPUS, QUERIES, qrels)
    with pytest.raises(FusionError, match=message):
        load_data(str(root))


def test_what_cannot_count_is_counted_and_said_once(tmp_path, caplog):
    qrels = "0\t0\t1\n0\tghost\t1\n1\t1\t-1\n1\t0\t0\nnobody\t1\t1\n"
    data = load_data(str(folder(tmp_path / "x", CORPUS, QUERIES, qrels)))
    assert data.qrels == {"0": {"0": 1, "ghost": 1}, "1": {"1": -1, "0": 0}}
    assert data.summary()["judgements_of_unknown_documents"] == 1
    assert [record.getMessage() for record in caplog.records] == [
        "x: 1 judgements name unknown documents and count as not found (the first is 'ghost')",
        "x: 1 judged queries have no text and are not counted (the first is 'nobody')",
        "x: 1 judgements are negative and count as 0 (the first is '1 1')",
        "x: 1 queries have no judgement above 0 and score 0 (the first is '1')",
    ]


@pytest.mark.parametrize("name", ["corpus", "queries"])
def test_an_id_that_stands_twice_is_said_or_refused(tmp_path, caplog, name):
    root = folder(tmp_path / "x", CORPUS, QUERIES, "0\t0\t1\n1\t1\t1\n")
    path = root / f"{name}.jsonl"
    lines = path.read_text(encoding="utf-8")
    path.write_text(lines + lines.splitlines()[0] + "\n", encoding="utf-8")
    assert len(load_data(str(root)).query_ids) == 2
    assert f"{name}.jsonl: 1 rows repeat an earlier one word for word" in caplog.text
    path.write_text(lines + '{"_id": "0", "text": "Another one."}\n', encoding="utf-8")
    with pytest.raises(FusionError, match=rf"{name}\.jsonl holds '0' twice, as .*Another one"):
        load_data(str(root))
