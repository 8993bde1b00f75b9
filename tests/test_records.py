"""One rule for texts and ids, whatever reads them."""

import gzip
import json
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fusion.errors import FusionError
from fusion.inputs.data.records import Unfit, id_of, repeated, text_of
from fusion.inputs.data.retrieval import load_data, load_documents
from fusion.inputs.data.texts import load_texts
from fusion.inputs.encoders.precomputed import PrecomputedEncoder
from fusion.inputs.reading.reader import Reader
from fusion.inputs.reading.rows import Fields, Reject
from fusion.inputs.reading.sources import find_sources

CORPUS = [
    {"_id": "a", "title": "Plain", "text": "text"},
    {"_id": "b", "title": " spaced ", "text": "\u00a0 around \n"},
    {"_id": "c", "title": 1984, "text": "It was a bright cold day."},
    {"_id": "d", "title": None, "text": "\ttabs\t"},
    {"_id": "e", "title": "  ", "text": " blank title"},
    {"_id": "f", "title": "only a title ", "text": ""},
    {"_id": "g", "title": 2.0, "text": "two\r\nlines"},
    {"_id": "h", "text": "none"},
]
WHOLE = [
    "Plain text",
    "spaced  \u00a0 around",
    "1984 It was a bright cold day.",
    "tabs",
    "blank title",
    "only a title",
    "2 two\r\nlines",
    "none",
]


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path):
    """Retrieval data whose queries are the corpus' texts too."""
    root = tmp_path / "data"
    (root / "qrels").mkdir(parents=True)
    (root / "corpus.jsonl").write_text(jsonl(CORPUS), encoding="utf-8")
    queries = [{"_id": f"q{n}", "text": row["text"]} for n, row in enumerate(CORPUS)]
    (root / "queries.jsonl").write_text(jsonl(queries), encoding="utf-8")
    judged = "".join(f"q{n}\ta\t1\n" for n in range(len(CORPUS)))
    (root / "qrels" / "test.tsv").write_text(judged, encoding="utf-8")
    return root


def encoded(path, *fields):
    reader = Reader(find_sources(str(path), path.parent / "nowhere"), Fields(fields))
    return [item for item in reader if not isinstance(item, Reject)]


def test_all_paths_make_the_same_texts_of_a_corpus(folder):
    corpus = folder / "corpus.jsonl"
    data = load_data(str(folder))
    assert dict(zip(data.doc_ids, data.documents, strict=True)) == dict(
        zip("abcdefgh", WHOLE, strict=True)
    )
    assert [document.whole for document in load_documents(str(folder)).values()] == WHOLE
    assert load_texts(f"data:{folder}").texts == WHOLE
    rows = encoded(corpus, "title", "text")
    assert ([row.id for row in rows], [row.text for row in rows]) == (list("abcdefgh"), WHOLE)
    bare = [row["text"].strip() for row in CORPUS]
    assert data.queries == bare
    trained = load_texts(str(corpus))
    filled = [text for text in bare if text]
    assert trained.texts == [row.text for row in encoded(corpus, "text")] == filled
    assert trained.ids == list("abcdegh")


def test_parquet_and_json_lines_make_the_same_rows(folder, tmp_path):
    columns = {name: [row.get(name) for row in CORPUS] for name in ("_id", "text")}
    titles = [row.get("title") for row in CORPUS]
    columns["title"] = [t if t is None else str(t).removesuffix(".0") for t in titles]
    pq.write_table(pa.table(columns), tmp_path / "corpus.parquet")
    ours = encoded(tmp_path / "corpus.parquet", "title", "text")
    assert ours == encoded(folder / "corpus.jsonl", "title", "text")


def test_what_is_no_text_says_why():
    for fields, words in (
        ([7], "not text but int"),
        ([2.5, 3], "not text but float"),
        ([True, "x"], "not text but bool"),
        ([["x"]], "not text but list"),
        ([float("inf"), "x"], "not text but inf"),
        (["a\0b"], "holds the character NUL"),
        ([b"a\xff"], "invalid UTF-8 at byte 1"),
        (["a\ud800"], "half of a surrogate pair at character 1"),
    ):
        with pytest.raises(Unfit, match=words):
            text_of(fields)


def test_ids_are_texts_and_numbers_and_the_first_that_is_there():
    uuid = UUID(int=7)
    for values, wanted in (
        ([None, "x"], "x"),
        (["", 5], "5"),
        ([float("nan"), 5.0], "5"),
        ([0.5], "0.5"),
        ([Decimal("12")], "12"),
        ([uuid], str(uuid)),
        ([b"x"], "x"),
        ([None], ""),
    ):
        assert id_of(values) == wanted
    with pytest.raises(Unfit, match="neither text nor a number"):
        id_of([True])


def test_repeated_ids_are_counted_and_named(folder, tmp_path, caplog):
    assert repeated("abc") == ""
    assert repeated("abcbcb") == "2 ids occur more than once, the first is 'b'"
    twice = jsonl([*CORPUS, {"_id": "a", "text": "another"}])
    (folder / "corpus.jsonl").write_text(twice, encoding="utf-8")
    differs = r"corpus\.jsonl holds 'a' twice, as '.*' and as 'another'"
    with pytest.raises(FusionError, match=differs):
        load_data(str(folder))
    with pytest.raises(FusionError, match=differs):
        load_texts(f"data:{folder}")
    assert load_texts(str(folder / "corpus.jsonl")).ids.count("a") == 2
    assert "1 id occurs more than once, the first is 'a'" in caplog.text
    queries = folder / "queries.jsonl"
    (folder / "corpus.jsonl").write_text(jsonl(CORPUS), encoding="utf-8")
    queries.write_text(queries.read_text() + '{"_id": "q0", "text": "other"}\n', encoding="utf-8")
    with pytest.raises(FusionError, match=r"queries\.jsonl holds 'q0' twice"):
        load_data(str(folder))


ENGLISH = "the first line of it\nthe second line\n"
RUSSIAN = "первая строка текста\nвторая строка\n"
CODECS = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


def refused(load, *arguments):
    with pytest.raises(FusionError, match=r"UTF-(16|32)") as caught:
        load(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("text", [ENGLISH, RUSSIAN], ids=["english", "russian"])
def test_texts_that_are_no_utf8_are_refused_by_every_reader(folder, tmp_path, codec, text):
    rows = jsonl([{"_id": "x", "text": line} for line in text.splitlines()])
    (tmp_path / "in").mkdir()
    for name, content in (("a.txt", text), ("a.jsonl", rows)):
        coded = content.encode(codec)
        for path, made in ((name, coded), (f"{name}.gz", gzip.compress(coded))):
            (tmp_path / "in" / path).write_bytes(made)
            refused(load_texts, str(tmp_path / "in" / path))
    sources = find_sources(str(tmp_path / "in"), tmp_path / "out")
    reader = Reader(sources)
    items = list(reader)
    assert len(items) == 4
    assert all(isinstance(item, Reject) and "UTF-" in item.reason for item in items)
    assert len(reader.lost) == 4
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        whole = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_bytes(whole.encode("utf-8-sig"))
        load_data(str(folder))
        (folder / name).write_bytes(whole.encode(codec))
        refused(load_data, str(folder))
        (folder / name).write_text(whole, encoding="utf-8")


def test_binary_with_nuls_is_no_text(tmp_path):
    lines = b"fine\n" * 300 + b"caf\xc3\xa9 \0 \x01\x02\nfine\n"
    (tmp_path / "a.txt").write_bytes(lines)
    refused(load_texts, str(tmp_path / "a.txt"))
    reader = Reader(find_sources(str(tmp_path / "a.txt"), tmp_path / "out"))
    [reject] = [item for item in reader if isinstance(item, Reject)]
    assert (reject.row, reject.reason[:23]) == (301, "holds the character NUL")
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "t\\u0000e\\u0000"}\n{"text": "good"}\n')
    assert [row.text for row in encoded(tmp_path / "b.jsonl", "text")] == ["good"]
    refused(load_texts, str(tmp_path / "b.jsonl"))
    pq.write_table(pa.table({"text": ["good", "t\0e\0"]}), tmp_path / "c.parquet")
    assert [row.text for row in encoded(tmp_path / "c.parquet", "text")] == ["good"]


def test_ids_of_embeddings_are_utf8(tmp_path):
    import numpy as np

    np.save(tmp_path / "api.npy", np.ones((2, 3), np.float32))
    (tmp_path / "api.ids.txt").write_bytes("a\nb\n".encode("utf-16"))
    refused(PrecomputedEncoder.open, f"file:{tmp_path}/api.npy")
