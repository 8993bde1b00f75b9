import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_runs import DIMS, many

from fusion import encode
from fusion.bulk.encoder import EncodeConfig, ModelEncoder
from fusion.bulk.engine import ManyDevices, OneDevice
from fusion.bulk.writing.manifest import Manifest
from fusion.bulk.writing.shards import Chunk, Row
from fusion.errors import FusionError
from fusion.model.folder import load, load_codebook

TYPES = {"float32": "float", "int8": "int8", "int4": "uint8", "ubinary": "uint8"}


@pytest.fixture(scope="module")
def texts():
    return many(50)


@pytest.fixture(scope="module")
def source(texts, tmp_path_factory):
    path = tmp_path_factory.mktemp("in") / "docs.jsonl"
    rows = [{"_id": f"d{row}", "text": text} for row, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def flags(model, source, out, *more):
    arguments = [str(model), "--input", str(source), "--output", str(out), "--devices", "cpu"]
    return [*arguments, "--shard-rows", "20", *more]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "more", [["--precision", "int2"], ["--precision", "binary", "--codes", "fitted"]]
)
def test_shards_hold_the_codes_that_evaluate_measures(model, source, texts, tmp_path, more):
    out, dim = tmp_path / "out", DIMS[-1]
    assert encode.main(flags(model, source, out, *more)) == 0
    stored = pq.read_table(sorted(out.glob("*.parquet")))["embedding"].to_pylist()
    book = load_codebook(model, more[1], dim)
    found = book.decode(np.array(stored, np.uint8))  # (n, d)
    cosines = np.sum(found * load(model, device="cpu").encode(texts), axis=1)
    assert cosines.min() > {"int2": 0.8, "binary": 0.5}[more[1]]
    manifest = json.loads((out / "_manifest.json").read_text())
    assert manifest["settings"]["codes"] == "fitted"
    assert manifest["bytes_per_vector"] == book.bytes_per_vector


@pytest.mark.parametrize(
    "more",
    [["--precision", "int2", "--codes", "plain"], ["--precision", "float32", "--codes", "fitted"]],
)
def test_codes_that_do_not_exist_are_refused(model, source, tmp_path, capsys, more):
    assert encode.main(flags(model, source, tmp_path / "out", *more)) == 2
    assert f"no {more[3]} codes of precision '{more[1]}'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize("role", ["document", "query"])
def test_shards_hold_the_codes_of_the_model(model, source, texts, tmp_path, precision, role):
    out, dim = tmp_path / "out", DIMS[1]
    more = ["--truncate-dim", str(dim), "--precision", precision, "--role", role]
    assert encode.main(flags(model, source, out, *more)) == 0
    table = pq.read_table(sorted(out.glob("*.parquet")))
    kind = table.schema.field("embedding").type
    loaded = load(model, truncate_dim=dim, device="cpu")
    blocks = [texts[start : start + 20] for start in range(0, 50, 20)]
    wanted = [loaded.encode(b, prompt_name=role, precision=precision) for b in blocks]
    assert str(kind.value_type) == TYPES[precision]
    assert kind.list_size == wanted[0].shape[1]
    found = np.array(table["embedding"].to_pylist()).astype(wanted[0].dtype)
    assert np.array_equal(found, np.concatenate(wanted))
    assert table["id"].to_pylist() == [f"d{row}" for row in range(50)]
    manifest = json.loads((out / "_manifest.json").read_text(encoding="utf-8"))
    assert manifest["bytes_per_vector"] == wanted[0][0].nbytes
    if precision in ("int8", "int4"):  # the manifest alone is enough to decode
        assert np.shape(manifest["ranges"]) == (2, dim)
    else:
        assert manifest["ranges"] is None


@pytest.mark.slow
def test_several_processes_give_the_same_codes(model, texts):
    config = EncodeConfig(str(model), precision="int8")
    first = ModelEncoder(config, "cpu")
    chunks = [Chunk(n, tuple(Row(t, t) for t in texts[n * 10 : n * 10 + 10])) for n in range(5)]
    many_devices = ManyDevices(first, config, ("cpu", "cpu"))
    for one, other in zip(OneDevice(first).run(chunks), many_devices.run(chunks), strict=True):
        assert one[0] == other[0]
        assert np.array_equal(one[1], other[1])


SIGNALS = [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]


@pytest.mark.parametrize("sign", SIGNALS)
def test_real_process_that_is_ended_goes_on(model, source, tmp_path, sign):
    out, journal = tmp_path / "out", tmp_path / "out" / "_progress.jsonl"
    more = ["--shard-rows", "2"]
    command = [sys.executable, "-m", "fusion.encode", *flags(model, source, out, *more)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 1000):
        time.sleep(0.005)
    process.send_signal(sign)
    _, words = process.communicate()
    assert process.returncode == (130 if sign == signal.SIGINT else -sign)
    assert len(words.splitlines()) == (sign == signal.SIGINT), words  # no traceback, no bars
    assert 0 < len(list(out.glob("part-*.parquet"))) < 25
    assert not (out / "_manifest.json").exists()
    assert encode.main(flags(model, source, out, *more, "--resume")) == 0
    assert encode.main(flags(model, source, tmp_path / "calm", *more)) == 0
    assert content(out) == content(tmp_path / "calm")


def test_rejects_are_counted_and_strict_stops(model, tmp_path, capsys):
    path = tmp_path / "a.txt"
    path.write_bytes(b"the cat\n\n\xff\nthe dog\n")
    assert encode.main(flags(model, path, tmp_path / "out")) == 0
    assert "rejected: 2 (" in capsys.readouterr().out
    assert encode.main(flags(model, path, tmp_path / "strict", "--strict")) == 1
    assert "error: a.txt:2: empty; repair the row" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--truncate-dim", "0"], 2, "truncate-dim must be at least 1, got 0"),
        (["--truncate-dim", "999"], 2, "truncate-dim must be from 1 to 24, its width, got 999"),
        (["--batch-size", "0"], 2, "batch-size must be at least 1, got 0"),
        (["--shard-rows", "0"], 2, "shard-rows must be at least 1, got 0"),
        (["--text-fields", ","], 2, "text-fields is empty"),
        (["--input", "nothing.txt"], 1, "--input nothing.txt: no such file"),
        (["--resume", "--overwrite"], 2, "use one of them"),
        (["--devices", "cuda:99"], 1, "device cuda:99 cannot be used"),
        (["--threads", "0"], 2, "threads must be at least 1, got 0"),
        (["--workers", "2"], 2, "--workers is of --engine ray"),
        (["--engine", "ray"], 2, "--devices is of --engine local"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    model, source, tmp_path, capsys, more, code, words
):
    assert encode.main(flags(model, source, tmp_path / "out", *more)) == code
    [line] = capsys.readouterr().err.splitlines()
    assert words in line
    assert not (tmp_path / "out").exists()


def test_a_field_that_no_row_has_is_refused(model, source, tmp_path, capsys):
    more = ["--text-fields", "titel,text", "--id-field", "_id"]
    assert encode.main(flags(model, source, tmp_path / "out", *more)) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "no row has the field 'titel'; fields that there are: _id, text" in line
    assert not (tmp_path / "out").exists()


def test_a_field_that_no_row_of_a_large_input_has_is_told(
    model, source, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("fusion.inputs.reading.survey.WHOLE", 10)
    more = ["--text-fields", "titel,text", "--id-field", "_id"]
    assert encode.main(flags(model, source, tmp_path / "out", *more)) == 0
    assert "no row has the field 'titel'" in caplog.text
    assert "'text'" not in caplog.text


def test_titles_that_are_left_out_are_told(model, tmp_path, caplog):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"title": "One", "text": "two"}\n', encoding="utf-8")
    assert encode.main(flags(model, source, tmp_path / "a")) == 0
    assert "titles are left out; --text-fields title,text takes them in" in caplog.text
    caplog.clear()
    assert encode.main(flags(model, source, tmp_path / "b", "--text-fields", "title,text")) == 0
    assert encode.main(flags(model, source, tmp_path / "c", "--text-fields", "title")) == 0
    assert "titles" not in caplog.text


def test_titles_are_told_of_before_anything_is_encoded(model, tmp_path, caplog, monkeypatch):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"title": "One", "text": "two"}\n', encoding="utf-8")
    said = []

    def encode_nothing(self, texts):
        said.append(caplog.text)
        raise FusionError("stop")

    monkeypatch.setattr(ModelEncoder, "encode", encode_nothing)
    assert encode.main(flags(model, source, tmp_path / "a")) == 1
    assert "titles are left out; --text-fields title,text takes them in" in said[0]


def test_a_file_that_gives_no_row_is_no_success(model, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    pq.write_table(pa.table({"text": pa.nulls(3)}), folder / "b.parquet")
    for more in (["--lines"], ["--lines", "--resume"]):
        assert encode.main(flags(model, folder, tmp_path / "out", *more)) == 1
        said = capsys.readouterr()
        assert "rows:     2" in said.out
        words = "1 of 2 files gave no row or broke off, all else is encoded "
        words += "(b.parquet: has no 'text')"
        assert said.err.splitlines()[-1] == f"error: {words}"
    assert (tmp_path / "out" / "_manifest.json").is_file()


def test_a_file_that_breaks_off_is_no_success(model, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    lines = "".join(f"text {n} {n * n}\n" for n in range(2000)).encode()
    (folder / "a.txt.gz").write_bytes(gzip.compress(lines)[:-4000])
    (folder / "b.txt").write_text("one\ntwo\n", encoding="utf-8")
    assert encode.main(flags(model, folder, tmp_path / "out", "--lines")) == 1
    words = r"error: 1 of 2 files gave no row or broke off, all else is encoded \(a.txt.gz: row "
    assert re.match(
        words + r"[0-9,]+: .* Compressed file ended", capsys.readouterr().err.splitlines()[-1]
    )
    assert Manifest.read(tmp_path / "out").rows > 500


def test_long_documents_become_chunks_and_what_fits_keeps_its_bytes(model, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    page = "# Cats\n" + "The cat sat on the mat. " * 20
    (folder / "a.md").write_text(page, encoding="utf-8")
    (folder / "b.md").write_text("the dog", encoding="utf-8")
    found = {}
    for name, more in {"auto": [], "16": ["--chunk", "16"], "none": ["--chunk", "none"]}.items():
        out = tmp_path / name
        assert encode.main(flags(model, folder, out, *more)) == 0
        said = capsys.readouterr().out
        table = pq.read_table(out)
        found[name] = dict(
            zip(table["id"].to_pylist(), table["embedding"].to_pylist(), strict=True)
        )
        assert ("chunks:" in said) == (name != "none")
        settings = Manifest.read(out).settings
        assert settings.get("chunking", {}).get("size", "auto") == (
            int(name) if name == "16" else name
        )
    assert list(found["none"]) == ["a.md", "b.md"]
    assert list(found["auto"])[:2] == ["a.md#1", "a.md#2"]
    assert len(found["16"]) >= len(found["auto"]) > 4
    for name in ("auto", "16"):  # in other company, which changes last bits
        assert np.allclose(found[name]["b.md"], found["none"]["b.md"], atol=1e-5)
    again = flags(model, folder, tmp_path / "auto", "--resume", "--chunk", "none")
    assert encode.main(again) == 1
    assert "resume with the same settings" in capsys.readouterr().err
    assert encode.main(flags(model, folder, tmp_path / "auto", "--resume")) == 0
    (folder / "a.md").write_text("# Cats\nThe cat sat.", encoding="utf-8")
    for name, more in {"one": [], "two": ["--chunk", "none"]}.items():
        assert encode.main(flags(model, folder, tmp_path / name, *more)) == 0
    assert pq.read_table(tmp_path / "one").equals(pq.read_table(tmp_path / "two"))


@pytest.mark.parametrize("devices", ["cpu", pytest.param("cpu,cpu", marks=pytest.mark.slow)])
def test_texts_that_are_cut_are_counted_once_for_each_encoder(model, tmp_path, caplog, devices):
    """Four encoders read 24 tokens, with and without prompts; one of another vocabulary 32."""
    lengths = [3, 18, 19, 20, 21, 22, 23, 29, 30, 31, 50, 60, 70]  # each word is a token
    source = tmp_path / "a.txt"
    source.write_text("\n".join("cat " * n for n in lengths), encoding="utf-8")
    out = tmp_path / "out"
    more = ["--devices", devices, "--shard-rows", "5", "--chunk", "none"]
    assert encode.main(flags(model, source, out, *more)) == 0
    found = [record.message for record in caplog.records if " were cut " in record.message]
    total = [n + 2 for n in lengths]  # and two that begin and end every text
    wanted = []
    for name, limit, prompt in (
        ("bge", 24, 0), ("e5", 24, 2), ("gist", 24, 0), ("arctic", 24, 0), ("other", 32, 0)
    ):  # fmt: skip
        cut = [n + prompt for n in total if n + prompt > limit]
        middle = sorted(cut)[(len(cut) - 1) // 2]
        words = f"{len(cut)} of 13 texts were cut at {limit} tokens by tiny-{name}; median {middle}"
        wanted.append(words)
    assert found == wanted


def test_a_job_that_encodes_nothing_leaves_nothing(model, tmp_path, capsys):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"text": "two"}\n', encoding="utf-8")
    out = tmp_path / "out"
    assert encode.main(flags(model, source, out, "--text-fields", "body")) == 1
    assert "no row of the input can be encoded" in capsys.readouterr().err
    assert not out.exists()
    out.mkdir()
    source.write_text('{"text": "two"}\n{}\n', encoding="utf-8")
    assert encode.main(flags(model, source, out, "--strict", "--shard-rows", "1")) == 1
    assert {path.name for path in out.iterdir()} >= {"_progress.jsonl"}  # a shard to go on with


def test_a_job_below_its_input_is_gone_on_with(model, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    out = tmp_path / "in" / "out"
    assert encode.main(flags(model, tmp_path / "in", out)) == 0
    before = (out / "_manifest.json").read_bytes()
    for flag in ("--resume", "--overwrite"):
        assert encode.main(flags(model, tmp_path / "in", out, flag)) == 0
        assert (out / "_manifest.json").read_bytes() == before


def test_missing_pyarrow_names_the_extra():
    code = "import sys; sys.modules['pyarrow'] = None; import fusion.inputs.reading.arrow"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError: " in done.stderr
    assert "pip install -e '.[bulk]'" in done.stderr


def test_missing_ray_names_the_extra(model, source, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "fusion.bulk.ray_engine", raising=False)
    options = ["--input", str(source), "--output", str(tmp_path / "out"), "--engine", "ray"]
    assert encode.main([str(model), *options]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line == "error: --engine ray is Ray Data: pip install -e '.[ray]'"
    assert not (tmp_path / "out").exists()
