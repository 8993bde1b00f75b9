import gzip
import json
from dataclasses import replace

import pytest

from fusion.errors import FusionError
from fusion.inputs.data.retrieval import load_data, load_documents
from fusion.inputs.data.texts import Texts, load_texts, pseudo_queries, query_like


@pytest.fixture
def folder(tmp_path):
    """A BEIR folder in which the query d1 is also a document."""
    root = tmp_path / "mini"
    (root / "qrels").mkdir(parents=True)
    documents = [
        {"_id": "d1", "title": "", "text": "one"},
        {"_id": "d10", "title": "Title", "text": "ten"},
        {"_id": "d2", "text": "two"},
    ]
    queries = [
        {"_id": "d1", "text": "one"},
        {"_id": "q", "text": "ask"},
        {"_id": "x", "text": "no"},
    ]
    for name, rows in (("corpus", documents), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (root / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (root / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nd1\td2\t2\nq\td10\t1\nq\tghost\t1\n", encoding="utf-8"
    )
    return root


def test_documents_stand_in_descending_order_of_their_ids(folder, caplog):
    data = load_data(str(folder))
    assert data.doc_ids == ["d2", "d10", "d1"]  # as bytes, like trec_eval, not as numbers
    assert data.documents == ["two", "Title ten", "one"]
    assert data.query_ids == ["d1", "q"]  # x is not judged
    assert data.qrels == {"d1": {"d2": 2}, "q": {"d10": 1, "ghost": 1}}
    assert data.exclude.tolist() == [2, -1]
    assert "1 judgements name unknown documents" in caplog.text


def test_data_is_found_by_name_in_fusion_data(folder, monkeypatch, tmp_path):
    (tmp_path / "beir").mkdir()
    folder.rename(tmp_path / "beir" / "mini")
    with pytest.raises(FusionError, match=r"tried mini \(\$FUSION_DATA is not set\), then the hub"):
        load_data("mini")
    monkeypatch.setenv("FUSION_DATA", str(tmp_path))
    assert load_data("mini").doc_ids == ["d2", "d10", "d1"]
    documents = load_documents("mini")
    assert documents == {"d1": ("", "one"), "d10": ("Title", "ten"), "d2": ("", "two")}
    assert documents["d10"].whole == "Title ten"
    assert documents["d2"].whole == "two"


@pytest.mark.parametrize("missing", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_missing_file_is_named(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(FusionError, match=rf"{missing} is missing"):
        load_data(str(folder))


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("corpus.jsonl", "{broken", r"corpus\.jsonl:4 is not JSON"),
        ("corpus.jsonl", '["d3"]', r"corpus\.jsonl:4 is not a JSON object"),
        (
            "corpus.jsonl",
            '{"_id": "d3", "text": 3}',
            r"jsonl:4 needs an '_id' and the string 'text",
        ),
        ("queries.jsonl", '{"_id": "", "text": "x"}', r"queries\.jsonl:4 needs an '_id' and the"),
        ("corpus.jsonl", '{"_id": true, "text": "x"}', "jsonl:4: its id is neither text nor a num"),
        ("corpus.jsonl", '{"_id": "d3", "text": " "}', "1 documents without any text"),
        ("qrels/test.tsv", "q\td1", r"test\.tsv:5 is not 'query-id<tab>corpus-id"),
        ("qrels/test.tsv", "q\td1\thigh", r"test\.tsv:5 is not 'query-id<tab>corpus-id"),
    ],
)
def test_malformed_line_is_named(folder, file, line, message):
    with (folder / file).open("a", encoding="utf-8") as out:
        out.write(line + "\n")
    with pytest.raises(FusionError, match=message):
        load_data(str(folder))


def test_split_without_a_judged_query_is_refused(folder):
    (folder / "qrels" / "dev.tsv").write_text('"q"\td1\t1\n', encoding="utf-8")
    words = """in the split 'dev': the queries' ids look like 'd1', those of the .* like '"q"'"""
    with pytest.raises(FusionError, match=f"no query is judged {words}"):
        load_data(str(folder), "dev")
    (folder / "queries.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(FusionError, match=r"queries\.jsonl is empty"):
        load_data(str(folder))


def test_ids_may_be_numbers_as_where_texts_are_encoded(folder):
    for name in ("corpus.jsonl", "queries.jsonl"):
        rows = [{"_id": 7, "text": "seven"}, {"id": 8, "text": "eight"}, {"_id": 9.0, "text": "9"}]
        (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    (folder / "qrels" / "test.tsv").write_text("7\t8\t1\n8\t9\t1\n", encoding="utf-8")
    data = load_data(str(folder))
    assert (data.query_ids, data.doc_ids) == (["7", "8"], ["9", "8", "7"])
    assert data.exclude.tolist() == [2, 1]


def test_a_byte_order_mark_is_no_text(tmp_path):
    row = json.dumps({"_id": "a", "text": "hello"})
    for name, content in (("x.txt", "hello"), ("x.jsonl", row)):
        (tmp_path / name).write_text(content, encoding="utf-8-sig")
        assert load_texts(str(tmp_path / name)).texts == ["hello"]


@pytest.mark.parametrize("name", ["x.json", "x.pdf", "x", "x.jsonl.zip"])
def test_files_of_other_kinds_are_refused(tmp_path, name):
    (tmp_path / name).write_text("[1]", encoding="utf-8")
    with pytest.raises(FusionError, match=r"of no known kind; choose among \.txt, \.md"):
        load_texts(str(tmp_path / name))


def test_a_digest_tells_texts_apart():
    texts = Texts("t", ["0", "1"], ["one", "two"], ["", ""])
    assert texts.digest == Texts("u", ["5", "6"], ["one", "two"], ["", ""]).digest
    for other in (["onet", "wo"], ["two", "one"]):
        assert texts.digest != replace(texts, texts=other).digest
    assert texts.digest != replace(texts, titles=["a", ""]).digest


def test_texts_come_from_lines_json_and_data(folder, tmp_path):
    plain = tmp_path / "plain.txt"
    plain.write_text("first\n\n  second  \n", encoding="utf-8")
    assert load_texts(str(plain)).texts == ["first", "second"]
    packed = tmp_path / "rows.jsonl.gz"
    with gzip.open(packed, "wt", encoding="utf-8") as file:
        file.write(
            '{"_id": "a", "text": "eins", "title": " Zahl"}\n{"id": 7, "text": "", "title": "T"}\n'
            '{"id": 8, "text": "drei", "title": 3}\n'
        )
    rows = load_texts(str(packed))
    assert (rows.ids, rows.texts) == (["a", "8"], ["eins", "drei"])  # the empty one is left out
    assert rows.titles == ["Zahl", "3"]
    data = load_texts(f"data:{folder}")
    assert (data.texts, data.titles) == (["one", "Title ten", "two"], ["", "Title", ""])
    several = load_texts(f"{plain},{packed}", max_texts=3)
    assert several.texts == ["first", "second", "eins"]
    assert several.titles == ["", "", "Zahl"]
    assert len(set(several.ids)) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "holds no text"), (b"\n \n", "holds no text"), (b"\xff\xfe", "cannot be read")],
)
def test_useless_text_file_is_refused(tmp_path, content, message):
    path = tmp_path / "texts.txt"
    path.write_bytes(content)
    with pytest.raises(FusionError, match=message):
        load_texts(str(path))


def test_texts_that_are_nowhere_say_where_was_looked():
    with pytest.raises(FusionError, match=r"texts 'wikipedia' not found: tried no file .*pydocs"):
        load_texts("wikipedia")


def test_pseudo_queries_are_first_sentences_of_texts_that_have_a_rest():
    rest = "It then goes on for many more words so that there is something left to find here."
    texts = [f"This is the opening sentence number {row}. {rest}" for row in range(6)]
    queries, rests = pseudo_queries(["Too short. Really.", *texts], 3)
    assert queries == [f"This is the opening sentence number {row}." for row in (0, 2, 5)]
    assert rests == [rest] * 3


def test_pseudo_queries_are_titles_where_there_are_some_each_once():
    rest = "It goes on for many more words, so that there is something left to find in here."
    sentence = "This is the opening sentence of it."
    texts = [f"Cats {rest}", f"{sentence} {rest}", f"Of cats. {rest}", rest, "Dogs are short."]
    texts.append(f"Foxes {rest}")
    queries, rests = pseudo_queries(texts, 9, ["Cats", "", "Cats", "Birds", "Dogs", "Fox"])
    assert queries == ["Cats", sentence, "Birds", "Fox"]
    assert rests == [rest, rest, rest, texts[-1]]


def test_pseudo_queries_that_cost_nothing_come_in_greater_number():
    words = "says more than fifteen words, so that there is enough of it left to be found by it"
    titles = [f"Title {row}" for row in range(12)]
    bare = [f"Text {row} {words}" for row in range(12)]
    queries, rests = pseudo_queries(bare, 2, titles)
    assert queries == [titles[row] for row in (0, 2, 4, 7, 9, 11)]
    assert rests == [bare[row] for row in (0, 2, 4, 7, 9, 11)]
    headed = [f"{title} {text}" for title, text in zip(titles, bare, strict=True)]
    queries, rests = pseudo_queries([*headed, words], 2, [*titles, "One that is whole"])
    assert (queries, rests) == ([titles[0], "One that is whole"], [bare[0], words])


def test_query_like_sentences_are_spread_over_a_text_and_name_it():
    five = [f"Sentence number {word} has five words." for word in ("one", "two", "three", "four")]
    texts = ["Only one sentence of enough words.", " ".join(five), "Too short. Still.", five[0]]
    assert query_like(texts, 0) == ([], [])
    assert query_like(texts, 1) == ([five[0]], [1])
    assert query_like(texts, 2) == ([five[0], five[3]], [1, 1])
    assert query_like([" ".join(five), *texts], 9) == (five + five, [0] * 4 + [2] * 4)


def test_query_like_takes_the_title_where_there_is_one():
    text = "Cats sleep most of the day. Dogs sleep at night and bark."
    sentences = ["Cats sleep most of the day.", "Dogs sleep at night and bark."]
    parts, owners = query_like([text, text, "short"], 3, ["", "Sleep", " Short one "])
    assert parts == [*sentences, "Sleep", "Short one"]
    assert owners == [0, 0, 1, 2]
    assert query_like([text], 0, ["Sleep"]) == ([], [])
