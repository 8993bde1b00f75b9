"""Whatever a person has as rows of texts."""

import gzip
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.errors import FusionError
from fusion.inputs.data.texts import Reading, load_texts
from fusion.inputs.reading.kinds import KINDS, Kind, kind_of
from fusion.inputs.reading.reader import Reader
from fusion.inputs.reading.rows import Fields, Reject, Row
from fusion.inputs.reading.sources import find_sources
from fusion.inputs.reading.survey import look_over

MARKDOWN = """---
title: All of it
tags: [a]
---
# First *thing*

Some `code`, [a link](https://x.y/z) and ![a picture](p.png),
wrapped.

* one
* two **bold**

| a | b |
|---|---|
| 1 | 2 |

## Second

```python
x = 1
    y = 2
```
<div>html <b>in</b> it</div>
"""
HTML = """<!doctype html><title>Page - Site</title><style>p {}</style>
<nav><p>menu</nav><main><h1>Page<a class="headerlink" href="#p">\u00b6</a></h1>
<p>One<p>two <em>x</em>
y<table><tr><th>a<th>b<tr><td>1<td>2</table><pre>k
  l</pre><ul><li>i<li>j</ul><h2>Sub</h2><script>no()</script>text<br>line</main>
<footer>of the site</footer>"""
RST = """.. _label:

:mod:`foo` --- Foo things
=========================

.. module:: foo
   :synopsis: bar

-----

Use :func:`~a.open` and ``x`` and `a link <https://x.y>`_ or **bold**.

.. function:: open(file)

   Opens it.

Sub
---

.. note::

   Note well.
"""
WANTED = {
    "a.md": (
        "First thing\n\nSome code, a link and a picture,\nwrapped.\none\ntwo bold\na | b\n1 | 2"
        "\n\nSecond\n\nx = 1\n    y = 2\n\nhtml in it",
        "All of it",
        ["First thing", "Second"],
    ),
    "a.html": (
        "Page\n\nOne\n\ntwo x y\na | b\n1 | 2\n\nk\n  l\ni\nj\n\nSub\n\ntext\nline",
        "Page",
        ["Page", "Sub"],
    ),
    "a.rst": (
        "foo --- Foo things\n\nUse a.open and x and a link or bold.\n\nopen(file)\n\n   Opens it."
        "\n\nSub\n\n   Note well.",
        "foo --- Foo things",
        ["foo --- Foo things", "Sub"],
    ),
    "a.txt": ("two lines\nof one document", "", []),
}
PAGES = {"a.md": MARKDOWN, "a.html": HTML, "a.rst": RST, "a.txt": "two lines\nof one document\n"}


def written(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(pattern, fields=None, lines=False):
    return list(Reader(find_sources(str(pattern), lines=lines), fields or Fields()))


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_page_in_a_folder_is_a_document_with_title_and_headings(tmp_path, name, packed):
    content = PAGES[name].encode()
    name = f"{name}.gz" if packed else name
    written(tmp_path, f"sub/{name}", gzip.compress(content) if packed else content)
    [row] = read(tmp_path)
    text, title, headings = WANTED[name.removesuffix(".gz")]
    assert (row.id, row.text) == (f"sub/{name}", text)
    assert row.metadata == ({"title": title} if title else {})
    assert [text[h.start : h.end] for h in row.headings] == headings
    assert [h.level for h in row.headings] == list(range(1, len(headings) + 1))


def test_a_text_file_has_lines_where_it_is_named_or_asked_for(tmp_path):
    path = written(tmp_path, "in/a.txt", "one\ntwo\n")
    whole = [Row("a.txt", "one\ntwo")]
    apart = [Row("a.txt:1", "one"), Row("a.txt:2", "two")]
    assert read(path) == apart
    assert read(path.parent) == read(path.parent / "*.txt") == whole
    assert read(path.parent, lines=True) == read(path.parent / "*.txt", lines=True) == apart
    assert load_texts(str(path)).texts == ["one", "two"]
    assert load_texts(str(path)).ids == ["1", "2"]
    assert load_texts(str(path.parent)).texts == ["one\ntwo"]
    lines = load_texts(str(path.parent), reading=Reading(lines=True))
    assert (lines.ids, lines.texts) == (["a.txt:1", "a.txt:2"], ["one", "two"])


ROWS = [
    {"number": "7", "title": "T", "body": 'one; "q"\nnext', "url": "u", "size": "3"},
    {"number": "8", "title": "", "body": "two", "url": "", "size": "4"},
]


def tables(folder):
    """The same rows as files of every kind that has fields."""
    for name, gap in (("a.csv", ","), ("b.csv", ";"), ("c.tsv", "\t")):
        cells = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
        quoted = [gap.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in cells]
        written(folder, name, "\ufeff" + "\r\n".join(quoted))
    written(folder, "d.jsonl", "\n".join(map(json.dumps, ROWS)))
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    pq.write_table(pa.table(columns), folder / "e.parquet")
    for path in list(folder.iterdir()):
        written(folder, f"{path.name}.gz", gzip.compress(path.read_bytes()))
    return sorted(folder.iterdir())


def test_tables_of_every_kind_have_the_same_rows(tmp_path):
    fields = Fields(("title", "body"), "number", ("url",))
    found = {path.name: read(path, fields) for path in tables(tmp_path)}
    assert len(found) == 10
    for name, rows in found.items():
        assert [(row.id, row.text) for row in rows] == [("7", 'T one; "q"\nnext'), ("8", "two")]
        assert rows[0].metadata == {"title": "T", "url": "u"}, name
        assert not rows[1].metadata.get("url")


@pytest.mark.filterwarnings("error")
def test_a_reading_that_ends_early_leaves_nothing_behind(tmp_path):
    for path in tables(tmp_path):
        rows = iter(Reader(find_sources(str(path)), Fields(("body",))))
        assert next(rows).text == ROWS[0]["body"]
        rows.close()


def test_metadata_are_texts_and_numbers(tmp_path):
    row = {"text": "x", "a": 1, "b": 2.5, "c": True, "d": ["e"], "f": None, "g": 10**30}
    path = written(tmp_path, "a.jsonl", json.dumps(row | {"h": "\ud800\0"}))
    [found] = read(path, Fields(metadata=tuple("abcdfgh")))
    assert found.metadata == {"a": 1, "b": 2.5, "c": "true", "d": '["e"]', "h": "\\ud800"}
    times = pa.array([1], pa.timestamp("s"))
    pq.write_table(pa.table({"text": ["x"], "when": times, "n": [3]}), tmp_path / "b.parquet")
    [found] = read(tmp_path / "b.parquet", Fields(metadata=("when", "n")))
    assert found.metadata == {"when": "1970-01-01 00:00:01", "n": 3}


BAD = {
    "ragged.csv": ("id,text\n1,a,b\n2\n3,good\n", "has 3 columns, its heading has 2"),
    "open.csv": ('id,text\n3,good\n1,"never closed\n2,b\n', "a quote is never closed"),
    "column.csv": ("id,body\n1,a\n", "it has no column text, but id, body"),
    "twice.csv": ("text,text\n1,a\n", "it has several columns text"),
    "bare.csv": ("\n1,a\n", "it has no heading"),
    "wide.csv": ("text\ngood\n".encode("utf-16"), "is UTF-16"),
    "latin.csv": (b"text,n\ncaf\xe9,1\ngood,2\n", "invalid UTF-8 at byte 3"),
    "wide.md": ("# text\n".encode("utf-16"), "is UTF-16"),
    "latin.md": (b"caf\xe9", "invalid UTF-8 at byte 3"),
    "latin.html": (b"<meta charset=utf-8>caf\xe9", "invalid UTF-8 at byte 23"),
    "named.html": (b"<meta charset=cp1252>caf\x81", "it says that it is cp1252, but is not"),
    "nul.rst": (b"text \0\n" * 200, "holds the character NUL"),
    "book.txt": (b"PK\x03\x04rest of an archive", "is a zip archive"),
    "page.txt": (b"%PDF-1.7\n...", "is a PDF"),
    "locked.csv": (b"\xd0\xcf\x11\xe0\xa1\xb1", "perhaps with a password"),
    "packed.txt": (gzip.compress(b"text"), "so its name should end in .gz"),
    "cut.md.gz": (gzip.compress(b"text" * 999)[:-9], "cannot be read from here on"),
    "blank.md": (" \n\n", "empty"),
    "hidden.html": ("<script>x</script>", "empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_says_why_in_a_line(tmp_path, name, caplog):
    content, words = BAD[name]
    path = written(tmp_path, f"in/{name}", content)
    rejects = [item for item in read(path.parent) if isinstance(item, Reject)]
    assert words in rejects[0].reason
    assert all(item.text == "good" for item in read(path.parent) if isinstance(item, Row))
    with pytest.raises(FusionError) as caught:  # named itself, it has to be right
        load_texts(str(path))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    written(tmp_path, "in/good.md", "# Good")
    assert {text.lower() for text in load_texts(str(path.parent)).texts} == {"good"}
    assert "skipped" in caplog.text
    assert words in caplog.text


def test_a_page_says_how_its_characters_are_coded(tmp_path):
    path = written(tmp_path, "a.html", b'<meta charset="iso-8859-1"><p>caf\xe9')
    [row] = read(path)
    assert row.text == "caf\u00e9"
    written(tmp_path, "a.html", "<meta charset=nonsense><p>caf\u00e9")
    assert read(path)[0].text == "caf\u00e9"


def test_a_page_that_is_too_long_is_refused_and_a_long_line_of_a_table_too(tmp_path, monkeypatch):
    monkeypatch.setattr("fusion.inputs.reading.pages.documents.LONGEST_DOCUMENT", 50)
    written(tmp_path, "a.md", "x" * 51)
    written(tmp_path, "b.csv", "text\n" + "x" * 1_000_001 + "\n")
    assert [item.reason for item in read(tmp_path)] == [
        "too long: 51 bytes, at most 50",
        "too long: 1,000,001 bytes, at most 1,000,000",
    ]


def test_what_is_around_a_page_is_left_out(tmp_path):
    around = '<nav>a</nav><div role="navigation">b</div><p hidden>c</p><aside>d</aside>'
    around += "<footer>e</footer><form>f</form><script>g</script><style>h</style>"
    written(tmp_path, "a.html", f"<body>{around}<p>text</p>{around}")
    assert [item.text for item in read(tmp_path)] == ["text"]


def test_a_deep_page_is_no_traceback(tmp_path):
    written(tmp_path, "a.html", "<div>" * 20_000 + "deep")
    written(tmp_path, "b.md", "> " * 30 + "deep\n\n" + "> " * 5_000 + "deeper")
    assert [item.text for item in read(tmp_path)] == ["deep", "deep"]


def test_titles_go_before_pages_that_do_not_begin_with_them(tmp_path):
    written(tmp_path, "a.md", "---\ntitle: Named\n---\nbody\n\n# H\nmore")
    written(tmp_path, "b.md", "# H\nbody")
    first, second = read(tmp_path, Fields(("title", "text")))
    assert first.text == "Named\n\nbody\n\nH\n\nmore"
    assert [first.text[h.start : h.end] for h in first.headings] == ["H"]
    assert second.text == "H\n\nbody"


def overlooked(folder, fields=None):
    look_over(Reader(find_sources(str(folder)), fields or Fields()))


def test_what_is_skipped_is_told_before_the_work(tmp_path, caplog):
    rows = [{"text": "good"}, {"text": ""}, {"text": ""}, {"text": 7}, {"x": 1}]
    written(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    written(tmp_path, "b.md", "caf\u00e9".encode("latin-1"))
    overlooked(tmp_path)
    assert "skipped 5 (2 × a.jsonl:2: empty; 1 × a.jsonl:4: not text but int; " in caplog.text
    assert "1 × b.md:1: invalid UTF-8 at byte 3" in caplog.text


def test_two_files_with_one_id_are_refused_and_one_file_is_not(tmp_path):
    written(tmp_path, "a.jsonl", '{"id": 1, "text": "x"}\n{"id": 1, "text": "y"}\n{"text": "z"}')
    overlooked(tmp_path)
    written(tmp_path, "sub/b.csv", "id,text\n1,w\n")
    with pytest.raises(
        FusionError, match=r"sub/b\.csv and a\.jsonl both have a row with the id '1'"
    ):
        overlooked(tmp_path)
    shutil.rmtree(tmp_path / "sub")
    written(tmp_path, "c.md", "page")
    overlooked(tmp_path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_field_that_does_not_exist_is_refused_with_those_that_do(tmp_path, name):
    content = {"a.jsonl": '{"id": 1, "text": "x", "url": "u"}', "a.csv": "id,text,url\n1,x,u\n"}
    path = written(tmp_path, name, content[name])
    for fields, missed in (
        (Fields(("titel", "text")), "titel"),
        (Fields(id="key"), "key"),
        (Fields(metadata=("date",)), "date"),
    ):
        with pytest.raises(
            FusionError, match=f"field '{missed}'; fields that there are: id, text, url"
        ):
            overlooked(path, fields)
    for reading in (Reading(("titel", "text")), Reading(id_field="titel")):
        with pytest.raises(
            FusionError, match="field 'titel'; fields that there are: id, text, url"
        ):
            load_texts(str(path), reading=reading)
    for work in (
        lambda: overlooked(path, Fields(("body",))),
        lambda: load_texts(str(path), reading=Reading(("body",))),
    ):
        with pytest.raises(FusionError, match=r"no (column )?'?body'?.*id, text, url"):
            work()


def test_documents_lack_no_field(tmp_path):
    written(tmp_path, "a.md", "# page")
    fields = Fields(("subject", "text"), "number")
    overlooked(tmp_path, fields)
    assert fields.missed == []


def test_an_input_of_nothing_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FusionError, match="empty: the folder is empty"):
        find_sources(str(tmp_path / "empty"))
    written(tmp_path, "other/a.pdf", b"x")
    with pytest.raises(FusionError, match=r"no file of a known kind .*what it holds: 1 \.pdf"):
        find_sources(str(tmp_path / "other"))
    written(tmp_path, "blank/a.md", b" ")
    with pytest.raises(FusionError, match="no row of the input can be encoded: skipped 1"):
        overlooked(tmp_path / "blank")


def test_folders_of_retrieval_data_are_named_as_such(tmp_path):
    for name in ("corpus.jsonl", "queries.jsonl"):
        written(tmp_path, name, '{"_id": "a", "text": "x"}')
    with pytest.raises(FusionError, match=f"is retrieval data: write data:{tmp_path}"):
        load_texts(str(tmp_path))


def test_every_kind_is_told_by_the_end_of_a_name():
    assert [kind_of(f"a{end}.GZ") for end in KINDS] == list(KINDS.values())
    assert kind_of("a.TXT", lines=True) is Kind.LINES
    assert kind_of("a.gz") is kind_of("txt") is kind_of("a.txt.zip") is None


@settings(max_examples=150, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.text("<>/ab c#=-*`|\n\"',;&é\0", max_size=200).map(str.encode),
        st.sampled_from([MARKDOWN, HTML, RST]).flatmap(
            lambda page: st.integers(0, len(page)).map(lambda end: page[:end].encode())
        ),
    ),
    end=st.sampled_from(list(KINDS)),
)
def test_any_bytes_are_rows_or_rejects_and_headings_stand_in_their_text(
    content, end, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("fuzz")
    written(folder, f"a{end}", content)
    for item in read(folder):
        if isinstance(item, Reject):
            assert item.reason
            continue
        assert item.text.strip()
        item.text.encode()
        for heading in item.headings:
            words = item.text[heading.start : heading.end]
            assert words == words.strip() != ""
