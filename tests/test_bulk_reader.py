import gzip
import json
import os
import re
import uuid
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.errors import FusionError
from fusion.inputs.data.texts import load_texts
from fusion.inputs.reading import lines as lines_module
from fusion.inputs.reading.reader import Reader
from fusion.inputs.reading.rows import Fields, Reject, Row
from fusion.inputs.reading.sources import find_sources

MEGABYTE = 1_000_000


def read(path, fields=None):
    sources = find_sources(str(path), path.parent / "nowhere", lines=True)
    return list(Reader(sources, fields or Fields()))


def written(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def reasons(items):
    return [(item.row, item.reason) for item in items if isinstance(item, Reject)]


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_lines_of_text_are_rows_and_bad_ones_say_why(tmp_path):
    content = b"\xef\xbb\xbffirst\r\n\n  \nna\xc3\xafve\nbad \xff byte\n" + b"x" * 10 * MEGABYTE
    items = read(written(tmp_path, "a.txt", content + b"\nlast"))
    assert [item for item in items if isinstance(item, Row)] == [
        Row("a.txt:1", "first"),
        Row("a.txt:4", "naïve"),
        Row("a.txt:7", "last"),
    ]
    assert reasons(items) == [
        (2, "empty"),
        (3, "empty"),
        (5, "invalid UTF-8 at byte 4"),
        (6, "the line is longer than 8,000,000 bytes"),
    ]
    assert items[4].start == "bad \\xff byte"


def test_json_lines_have_ids_and_reasons(tmp_path):
    content = lines(
        {"_id": "a", "text": "one"},
        {"id": 7, "text": "two"},
        {"text": "three"},
        {"text": 4},
        {"text": None},
        {"title": "five"},
        {"text": ""},
        ["six"],
        {"id": True, "text": "seven"},
        {"text": "y" * (MEGABYTE + 1)},
        {"id": 10**400, "text": "eight"},
        {"id": "\ud800", "text": "nine"},
    )
    content += b'{"text": "\\ud800"}\n{"text": \n{"text": "\xff"}\n' + b"[" * 100_000 + b"\n"
    items = read(written(tmp_path, "a.jsonl", content))
    rows = [item for item in items if isinstance(item, Row)]
    assert rows == [Row("a", "one"), Row("7", "two"), Row("a.jsonl:3", "three")]
    found = dict(reasons(items))
    assert found[4] == "not text but int"
    assert found[5] == found[6] == "has no 'text'"
    assert found[7] == "empty"
    assert found[8] == "not a JSON object"
    assert found[9] == found[12] == "its id is neither text nor a number"
    assert found[10] == "too long: 1,000,001 bytes, at most 1,000,000"
    assert found[11] == "its id is too large a number"
    assert found[13] == "half of a surrogate pair at character 0, which UTF-8 has not"
    assert found[14].startswith("not JSON: ")
    assert found[15] == "invalid UTF-8 at byte 10"
    assert found[16].startswith("not JSON: ")
    assert len(items) == 16


def test_titles_go_before_texts(tmp_path):
    content = lines({"title": "T", "text": "x"}, {"title": "", "text": "y"}, {"text": "z"})
    items = read(written(tmp_path, "a.jsonl", content), Fields(("title", "text")))
    assert [item.text for item in items] == ["T x", "y", "z"]


def test_parquet_rows_have_ids_and_reasons(tmp_path):
    texts = pa.array(["one", None, "", "two", "y" * (MEGABYTE + 1)])
    table = pa.table({"id": pa.array([5, 6, 7, None, 9]), "text": texts, "other": texts})
    pq.write_table(table, tmp_path / "a.parquet")
    items = read(tmp_path / "a.parquet")
    rows = [item for item in items if isinstance(item, Row)]
    assert rows == [Row("5", "one"), Row("a.parquet:4", "two")]
    assert [reason for _, reason in reasons(items)] == [
        "has no 'text'",
        "empty",
        "too long: 1,000,001 bytes, at most 1,000,000",
    ]


def test_parquet_does_not_vouch_for_utf8_or_for_text(tmp_path):
    broken = pa.array([b"good", b"bad \xff"]).view(pa.string())
    pq.write_table(pa.table({"text": broken}), tmp_path / "a.parquet")
    good, bad = read(tmp_path / "a.parquet")
    assert good == Row("a.parquet:1", "good")
    assert bad.reason == "invalid UTF-8 at byte 4"
    pq.write_table(pa.table({"text": pa.array([1.5, 2.5])}), tmp_path / "b.parquet")
    assert reasons(read(tmp_path / "b.parquet")) == [(r, "not text but float") for r in (1, 2)]
    pq.write_table(pa.table({"body": pa.array(["x"])}), tmp_path / "c.parquet")
    [reject] = read(tmp_path / "c.parquet")
    assert "it has no column text, but body" in reject.reason
    dictionary = pa.array(["x", "y", "x"]).dictionary_encode()
    pq.write_table(pa.table({"text": dictionary}), tmp_path / "d.parquet")
    assert [item.text for item in read(tmp_path / "d.parquet")] == ["x", "y", "x"]


@pytest.mark.parametrize("name", ["a.txt.gz", "a.parquet"])
def test_damaged_file_is_a_reject_and_the_next_one_is_read(name, tmp_path):
    if name.endswith(".gz"):
        whole = gzip.compress("\n".join(f"text {n}" for n in range(5000)).encode())
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    else:
        (tmp_path / name).write_bytes(b"PAR1 is all that is right about it")
    written(tmp_path, "b.txt", b"whole\n")
    items = read(tmp_path)
    assert items[-1] == Row("b.txt:1", "whole")
    [(_, reason)] = reasons(items)
    assert reason.startswith("the file cannot be read from here on: ")


def test_folders_and_globs_are_read_in_one_order(tmp_path):
    for name in ("b.txt", "a.jsonl", "sub/c.txt", "sub/notes.pdf"):
        written(tmp_path, name, lines({"text": name}))
    assert [item.id for item in read(tmp_path)] == ["a.jsonl:1", "b.txt:1", "sub/c.txt:1"]
    nowhere = tmp_path / "out"
    found = find_sources(str(tmp_path / "**" / "*.txt"), nowhere)
    assert [source.name for source in found] == ["b.txt", "sub/c.txt"]
    for pattern in ("none", "*.parquet", "a**"):
        with pytest.raises(FusionError, match=r"--input .*: "):
            find_sources(str(tmp_path / pattern), nowhere)
    with pytest.raises(FusionError, match="of no known kind; choose among"):
        find_sources(str(tmp_path / "sub" / "notes.pdf"), nowhere)
    with pytest.raises(FusionError, match="holds an input"):
        find_sources(str(tmp_path / "sub"), tmp_path / "sub")


def test_an_output_below_the_input_is_no_input(tmp_path):
    for name in ("a.txt", "vectors/progress.jsonl", "vectors/00000.parquet"):
        written(tmp_path, name, b"one")
    found = find_sources(str(tmp_path), tmp_path / "vectors")
    assert [source.name for source in found] == ["a.txt"]


def test_links_are_followed_once_and_what_is_hidden_is_left_out(tmp_path):
    for name in ("in/a.txt", "in/.ipynb_checkpoints/a.txt", "in/.b.txt", "far/c.txt"):
        written(tmp_path, name, b"one")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "loop").symlink_to(tmp_path / "in")
    found = find_sources(str(tmp_path / "in"), tmp_path / "out")
    assert [source.name for source in found] == ["a.txt", "link/c.txt"]


def test_kinds_are_told_by_the_end_of_a_name(tmp_path):
    written(tmp_path, "a.JSONL", lines({"text": "one", "id": 7}))
    written(tmp_path, "b.jsonl.txt", b'{"text": "plain"}')
    assert [item.text for item in read(tmp_path)] == ["one", '{"text": "plain"}']


def test_a_name_that_is_no_utf8_is_written_out(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"one")
    assert [item.id for item in read(tmp_path)] == ["caf\\xe9.txt:1"]


def test_columns_of_one_name_end_their_file_only(tmp_path):
    table = pa.table([pa.array(["x"]), pa.array(["y"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    written(tmp_path, "b.txt", b"one")
    reject, row = read(tmp_path)
    assert "it has several columns text" in reject.reason
    assert row.text == "one"


def test_fields_that_no_row_has_are_known(tmp_path):
    written(tmp_path, "a.jsonl", lines({"text": "one", "_id": "x"}, {"text": "two", "url": "y"}))
    fields = Fields(("titel", "text"), "doc")
    list(Reader(find_sources(str(tmp_path), tmp_path / "out"), fields))
    assert fields.missed == ["titel", "doc"]
    fields = Fields(("text",), "url")
    list(Reader(find_sources(str(tmp_path), tmp_path / "out"), fields))
    assert fields.missed == []


def test_position_ends_at_the_size_of_the_input(tmp_path):
    written(tmp_path, "a.txt", b"one\ntwo\n")
    written(tmp_path, "b.txt.gz", gzip.compress(b"three\n" * 1000))
    pq.write_table(pa.table({"text": ["x"] * 600}), tmp_path / "c.parquet")
    reader = Reader(find_sources(str(tmp_path), tmp_path / "out"))
    places = [reader.position for _ in reader]
    assert places == sorted(places)
    assert reader.position == reader.size == sum(p.stat().st_size for p in tmp_path.iterdir())


def test_long_lines_are_never_held_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "LONGEST_LINE", 50)
    path = written(tmp_path, "a.txt", b"x" * 50 + b"\n" + b"y" * 5000 + b"\nz")
    items = read(path)
    assert [type(item) for item in items] == [Row, Reject, Row]
    assert items[2].text == "z"


FILES = st.one_of(
    st.binary(max_size=300),
    st.lists(
        st.dictionaries(
            st.sampled_from(["text", "_id", "id", "x"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                lambda inner: st.lists(inner, max_size=2),
                max_leaves=3,
            ),
        ),
        max_size=6,
    ).map(lambda rows: lines(*rows)),
)


@settings(max_examples=80, deadline=None)
@given(content=FILES, kind=st.sampled_from(["txt", "jsonl", "jsonl.gz", "parquet"]))
def test_any_bytes_are_rows_or_rejects(content, kind, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / f"a.{kind}"
    path.write_bytes(content)
    for item in read(path):
        if isinstance(item, Row):
            assert item.text.strip()
            assert (item.id + item.text).encode("utf-8")
        else:
            assert item.reason
            assert json.dumps(item.start, ensure_ascii=False).encode("utf-8")


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_damage_to_parquet_is_rows_or_rejects(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(20)]}), folder / "a.parquet")
    content = bytearray((folder / "a.parquet").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)))
    (folder / "a.parquet").write_bytes(content[: end if data.draw(st.booleans()) else None])
    assert all(isinstance(item, Row | Reject) for item in read(folder / "a.parquet"))


def test_a_column_whose_name_is_no_utf8_is_no_traceback(tmp_path):
    pq.write_table(pa.table({"text": ["one"], "caf\u00e9": ["x"]}), tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content.replace(b"caf\xc3\xa9", b"caf\xe9 "))
    [reject] = read(tmp_path / "a.parquet")
    assert reject.reason.startswith("the file cannot be read from here on: 'utf-8' codec can't")


TEXTS = {
    "string": pa.array(["one", "two"]),
    "large_string": pa.array(["one", "two"], pa.large_string()),
    "string_view": pa.array(["one", "two"], pa.string_view()),
    "binary": pa.array([b"one", b"two"]),
    "binary_view": pa.array([b"one", b"two"], pa.binary_view()),
    "fixed": pa.array([b"one", b"two"], pa.binary(3)),
    "filled": pa.array([b"one\0\0", b"two\0\0"], pa.binary(5)),
    "dictionary": pa.array(["one", "two"]).dictionary_encode(),
    "large dictionary": pa.array(["one", "two"], pa.large_string()).dictionary_encode(),
    "extension": pa.ExtensionArray.from_storage(pa.json_(), pa.array(["one", "two"])),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_of_any_arrow_type_are_texts(tmp_path, kind):
    title = pa.nulls(2)  # a column without a single value has a type of its own
    table = pa.table({"id": TEXTS[kind], "title": title, "text": TEXTS[kind]})
    pq.write_table(table, tmp_path / "a.parquet")
    items = read(tmp_path / "a.parquet", Fields(("title", "text")))
    assert items == [Row("one", "one"), Row("two", "two")]


IDS = {
    "uuid": (pa.array([b"\0" * 15 + b"\7", b"\xff" * 16], pa.uuid()), str(uuid.UUID(int=7))),
    "hash": (pa.array([b"\0\xff\7" * 2, b"\1" * 6], pa.binary(6)), "00ff0700ff07"),
    "float": (pa.array([3.0, 0.5]), "3"),
    "half": (pa.array(np.array([3.0, 0.5], np.float16)), "3"),
    "decimal": (pa.array([Decimal(3), Decimal(4)]), "3"),
    "int": (pa.array([3, None], pa.uint64()), "3"),
    "null before id": (pa.nulls(2), "own"),
    "some null before id": (pa.array([None, "x"]), "own"),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_of_any_arrow_type_are_ids(tmp_path, kind):
    column, wanted = IDS[kind]
    table = pa.table({"_id": column, "id": ["own", "own"], "text": ["one", "two"]})
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = read(tmp_path / "a.parquet")
    assert (first, second.text) == (Row(wanted, "one"), "two")
    assert second.id == ("own" if kind in ("int", "null before id") else second.id)
    assert "parquet" not in second.id


def test_files_that_give_no_row_are_known_with_the_reason(tmp_path):
    written(tmp_path, "good.txt", b"one\n\n")
    written(tmp_path, "blank.txt", b"\n\n")
    written(tmp_path, "none.txt", b"")
    written(tmp_path, "bad.jsonl", b'{"body": "x"}\n{"body": "y"}\n')
    pq.write_table(pa.table({"text": pa.nulls(3)}), tmp_path / "null.parquet")
    written(tmp_path, "wide.txt", "text\n".encode("utf-16"))
    reader = Reader(find_sources(str(tmp_path), tmp_path / "out"))
    assert [item.text for item in reader if isinstance(item, Row)] == ["one"]
    assert reader.lost == {
        "bad.jsonl": "has no 'text'",
        "null.parquet": "has no 'text'",
        "wide.txt": "the file is UTF-16; convert it: iconv -f UTF-16 -t UTF-8",
    }


def test_what_cannot_be_looked_at_is_not_passed_over(tmp_path, monkeypatch):
    written(tmp_path, "sub/a.txt", b"one")
    (tmp_path / "sub" / "b.txt").symlink_to(tmp_path / "gone.txt")
    for pattern in (tmp_path, tmp_path / "**" / "*.txt"):
        with pytest.raises(FusionError, match=r"b\.txt is a link to nothing: repair or remove it"):
            find_sources(str(pattern), tmp_path / "out")
    (tmp_path / "sub" / "b.txt").unlink()
    (tmp_path / "sub" / "c.pdf").symlink_to(tmp_path / "gone.pdf")  # of no known kind anyway
    written(tmp_path, "closed/d.txt", b"four")
    scan = os.scandir

    def scandir(place):
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    assert len(find_sources(str(tmp_path), tmp_path / "out")) == 2
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(FusionError, match=r"closed cannot be read \(Permission denied\): repair"):
        find_sources(str(tmp_path), tmp_path / "out")


def test_files_that_break_off_are_known_with_the_row(tmp_path):
    whole = gzip.compress("".join(f'{{"text": "row {n}"}}\n' for n in range(9000)).encode())
    written(tmp_path, "cut.jsonl.gz", whole[: len(whole) // 2])
    written(tmp_path, "sum.jsonl.gz", whole[:-8])
    written(tmp_path, "more.jsonl.gz", gzip.compress(b'{"text": "one"}\n') + b"rubbish")
    written(tmp_path, "whole.jsonl.gz", whole)
    pq.write_table(pa.table({"text": [f"{n:09}" * 9 for n in range(4000)]}), tmp_path / "p.parquet")
    damaged = bytearray((tmp_path / "p.parquet").read_bytes())
    damaged[100:300] = bytes(200)
    (tmp_path / "p.parquet").write_bytes(damaged)
    reader = Reader(find_sources(str(tmp_path), tmp_path / "out"))
    rows = sum(isinstance(item, Row) for item in reader)
    assert rows > 19_000
    assert sorted(reader.lost) == ["cut.jsonl.gz", "more.jsonl.gz", "p.parquet", "sum.jsonl.gz"]
    assert all(re.match(r"row [0-9,]+: the file cannot be", why) for why in reader.lost.values())
    assert reader.lost["more.jsonl.gz"].startswith("row 2: ")


def test_files_of_other_kinds_are_told_of(tmp_path, caplog):
    for name in ("a.txt", "b.pdf", "sub/c.PDF", "d.xls", "e.pdf", ".hidden.pdf", "out/f.json", "g"):
        written(tmp_path, name, b"one")
    find_sources(str(tmp_path), tmp_path / "out")
    assert "passed over: 3 .pdf, 1 .xls, 1 g; what is read is .txt" in caplog.text
    caplog.clear()
    find_sources(str(tmp_path / "a.*"), tmp_path / "out")
    assert "passed over" not in caplog.text


WRAPPED = """It was the best of times, it was the worst of times, it was the age of
wisdom, it was the age of foolishness, it was the epoch of belief, it
was the epoch of incredulity, it was the season of Light, it was the
season of Darkness.
"""


@pytest.mark.parametrize(
    ("content", "warned"),
    [
        (WRAPPED * 6, True),
        ("This is a whole sentence on a line of its own.\n" * 30, True),
        ("This is a whole sentence on a line of its own.\n\n" * 30, True),
        (WRAPPED * 2, False),
        ("red running shoes for men\n" * 30, False),
        ("A long paragraph " * 20 + "ends here.\n", False),
        (("A long paragraph " * 20 + "ends here.\n") * 30, False),
    ],
)
def test_lines_of_one_document_are_told_of(tmp_path, caplog, content, warned):
    path = written(tmp_path, "a.txt", content.encode())
    read(path)
    load_texts(str(path))
    words = "each line is a text of its own, and these read like the lines of one document"
    assert caplog.text.count(words) == 2 * warned
