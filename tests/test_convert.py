"""Shards of another width and precision, to the byte those that encoding writes."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_runs import DIMS, many

from fusion import encode
from fusion.bulk.writing import shards as shards_module

WAYS = [
    ["--precision", "int2", "--truncate-dim", str(DIMS[2])],
    ["--precision", "int4", "--truncate-dim", str(DIMS[0])],
    ["--precision", "ubinary", "--truncate-dim", str(DIMS[1])],
    ["--precision", "int8"],
    ["--precision", "binary", "--codes", "fitted"],
    ["--precision", "float16", "--truncate-dim", "11"],
    ["--truncate-dim", str(DIMS[1])],
]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("in") / "docs.jsonl"
    rows = [{"_id": f"d{r}", "text": t, "title": f"T {r}"} for r, t in enumerate(many(70))]
    rows.insert(5, {"_id": "bad", "text": ""})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def embedded(model, source, folder, *more):
    flags = [str(model), "--input", str(source), "--output", str(folder), "--devices", "cpu"]
    assert encode.main([*flags, "--shard-rows", "30", "--keep", "title,text", *more]) == 0
    return folder


@pytest.fixture(scope="module")
def floats(model, source, tmp_path_factory):
    return embedded(model, source, tmp_path_factory.mktemp("floats") / "vectors")


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("more", WAYS)
def test_converted_shards_are_those_that_encoding_writes(model, source, floats, tmp_path, more):
    before = content(floats)
    wanted = embedded(model, source, tmp_path / "direct", *more)
    flags = ["--from", str(floats), "--output", str(tmp_path / "converted")]
    assert encode.main([*flags, *more]) == 0
    assert content(tmp_path / "converted") == content(wanted)
    assert content(floats) == before


def test_a_conversion_that_was_killed_goes_on(floats, tmp_path, monkeypatch, capsys):
    calm, out = tmp_path / "calm", tmp_path / "out"
    more = ["--precision", "int2", "--truncate-dim", str(DIMS[2])]
    assert encode.main(["--from", str(floats), "--output", str(calm), *more]) == 0
    written = []

    def replace(path, target, plain=shards_module.Path.replace):
        if target.name == "part-000001.parquet" and not written:
            written.append(target)
            raise KeyboardInterrupt
        return plain(path, target)

    monkeypatch.setattr(shards_module.Path, "replace", replace)
    assert encode.main(["--from", str(floats), "--output", str(out), *more]) == 130
    assert not (out / "_manifest.json").exists()
    assert encode.main(["--from", str(floats), "--output", str(out), *more]) == 1
    assert "use --overwrite or --resume" in capsys.readouterr().err
    assert encode.main(["--from", str(floats), "--output", str(out), "--resume"]) == 1
    assert "was encoded with" in capsys.readouterr().err
    assert encode.main(["--from", str(floats), "--output", str(out), *more, "--resume"]) == 0
    assert content(out) == content(calm)


def test_narrower_shards_give_what_they_can(model, source, floats, tmp_path, caplog):
    narrow = embedded(model, source, tmp_path / "narrow", "--truncate-dim", str(DIMS[2]))
    flags = ["--from", str(narrow), "--output", str(tmp_path / "out"), "--truncate-dim"]
    assert encode.main([*flags, str(DIMS[1])]) == 0
    assert [r.message for r in caplog.records if "differ in their last bits" in r.message]
    rows = np.array(pq.read_table(tmp_path / "out")["embedding"].to_pylist())
    wide = np.array(pq.read_table(floats)["embedding"].to_pylist())[:, : DIMS[1]]
    np.testing.assert_allclose(rows, wide / np.linalg.norm(wide, axis=1)[:, None], atol=1e-6)


@pytest.mark.parametrize(
    ("source_flags", "more", "code", "words"),
    [
        (["--precision", "int8"], ["--precision", "float32"], 1, "holds int8 codes, from which no"),
        (["--precision", "int8"], ["--precision", "binary"], 1, "holds int8 codes, from which no"),
        (["--precision", "float16"], [], 2, "holds float16, which float32 cannot be made from"),
        (["--truncate-dim", "8"], ["--truncate-dim", "9"], 2, "truncate-dim is 9, but"),
        (
            [],
            ["--precision", "int2", "--truncate-dim", "9"],
            1,
            "no codes of width 9; choose among",
        ),
        ([], ["--precision", "int2", "--codes", "plain"], 2, "there are no plain codes"),
        ([], ["--input", "x.txt"], 2, "--input is for texts that are embedded"),
        ([], ["--batch-size", "4"], 2, "--batch-size is for texts that are embedded"),
    ],
)
def test_what_shards_cannot_give_is_refused(
    model, source, tmp_path, capsys, source_flags, more, code, words
):
    vectors = embedded(model, source, tmp_path / "vectors", *source_flags)
    capsys.readouterr()
    out = tmp_path / "out"
    assert encode.main(["--from", str(vectors), "--output", str(out), *more]) == code
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_a_damaged_source_or_its_own_folder_loses_nothing(floats, tmp_path, capsys):
    copy, out = tmp_path / "copy", tmp_path / "out"
    shutil.copytree(floats, copy)
    before = content(copy)
    flags = ["--from", str(copy), "--precision", "int8"]
    for taken in (copy, copy / "below"):
        assert encode.main([*flags, "--output", str(taken), "--overwrite"]) == 1
        assert "is where --from reads" in capsys.readouterr().err
    assert content(copy) == before
    last = copy / "part-000002.parquet"
    last.write_bytes(last.read_bytes().replace(b"T 69", b"T 70"))
    assert encode.main([*flags, "--output", str(out)]) == 1
    assert "part-000002.parquet is missing or damaged" in capsys.readouterr().err
    assert not (out / "_manifest.json").exists()


@pytest.mark.parametrize(
    ("change", "keep", "words"),
    [
        (("T 3", "U 3"), "title,text", "was encoded from another input"),
        (("", ""), "text", "was encoded with keep="),
        (("", ""), None, "was encoded with keep="),
    ],
)
def test_what_is_kept_is_part_of_what_a_job_goes_on_with(
    model, source, tmp_path, capsys, change, keep, words
):
    copy = tmp_path / "docs.jsonl"
    shutil.copy(source, copy)
    vectors = embedded(model, copy, tmp_path / "vectors")
    before = content(vectors)
    copy.write_text(copy.read_text(encoding="utf-8").replace(*change, 1), encoding="utf-8")
    flags = [str(model), "--input", str(copy), "--output", str(vectors), "--devices", "cpu"]
    flags += ["--shard-rows", "30", "--resume", *(["--keep", keep] if keep else [])]
    assert encode.main(flags) == 1
    assert words in capsys.readouterr().err
    assert content(vectors) == before
