import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion import locks
from fusion.bulk import job as job_module
from fusion.bulk.engine import OneDevice
from fusion.bulk.job import JobConfig, encode_rows
from fusion.bulk.writing import repeats
from fusion.bulk.writing.journal import JOURNAL, parse_journal
from fusion.bulk.writing.manifest import MANIFEST, REJECTS, Manifest
from fusion.bulk.writing.replacing import BESIDE
from fusion.bulk.writing.shards import sha256
from fusion.errors import FusionError
from fusion.inputs.reading.reader import Reader
from fusion.inputs.reading.rows import Fields
from fusion.inputs.reading.sources import find_sources

WIDTH = 3


class Counter:
    """An encoder that remembers what it was asked for; codes are made from the text."""

    def __init__(self, seconds=0.0, model="counter"):
        self.settings = {"model": model, "width": WIDTH, "precision": "float32"}
        self.about = {"list_of": "float32", "list_size": WIDTH, "bytes_per_vector": 12}
        self.cuts = {}
        self.seconds = seconds
        self.asked = []

    def encode(self, texts):
        time.sleep(self.seconds)
        self.asked += texts
        codes = np.array([[len(t), sum(t.encode()) % 97, 1] for t in texts], dtype=np.float32)
        return codes, np.array(["nowhere" not in text for text in texts])


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    text = "".join(f"text number {row}\n" for row in range(40))
    (folder / "a.txt").write_text(text + "\nnowhere\n", encoding="utf-8")
    (folder / "b.txt").write_bytes(b"more\n\xff\nand more\n")
    return folder


def run(source, out, seconds=0.0, encoder=None, shard_rows=4, **options):
    encoder = encoder or Counter(seconds)
    reader = Reader(find_sources(str(source), out, lines=True), options.pop("fields", Fields()))
    config = JobConfig(shard_rows=shard_rows, **options)
    return encode_rows(reader, out, OneDevice(encoder), config), encoder


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def rows(folder):
    tables = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    return [row for table in tables for row in table.to_pylist()]


def test_shards_hold_every_row_and_the_manifest_describes_them(source, tmp_path):
    manifest, encoder = run(source, tmp_path / "out")
    assert (manifest.rows, manifest.rejected, len(manifest.shards)) == (42, 3, 11)
    wanted, _ = Counter().encode([text for text in encoder.asked if text != "nowhere"])
    found = rows(tmp_path / "out")
    assert np.array_equal([row["embedding"] for row in found], wanted)
    assert [row["id"] for row in found][-3:] == ["a.txt:40", "b.txt:1", "b.txt:3"]
    plain = json.loads((tmp_path / "out" / MANIFEST).read_text(encoding="utf-8"))
    assert plain["settings"]["model"] == "counter"
    for shard in plain["shards"]:
        path = tmp_path / "out" / shard["file"]
        assert shard["sha256"] == sha256(path)
        assert shard["rows"] == pq.read_metadata(path).num_rows
        assert shard["bytes"] == path.stat().st_size
    assert plain["rows"] == len(found)
    rejects = (tmp_path / "out" / REJECTS).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["reason"] for line in rejects] == [
        "empty",
        "invalid UTF-8 at byte 0",
        "its embedding is zero or not finite",
    ]
    assert Manifest.read(tmp_path / "out") == manifest
    assert sorted(content(tmp_path / "out")) == sorted(
        [MANIFEST, REJECTS, *(shard.file for shard in manifest.shards)]
    )


def test_long_rows_make_short_shards(source, tmp_path, monkeypatch):
    monkeypatch.setattr(job_module, "SHARD_BYTES", 30)
    manifest, _ = run(source, tmp_path / "out", shard_rows=1000)
    assert {shard.rows for shard in manifest.shards} <= {1, 2, 3}


def elsewhere(code, *arguments, before=()):
    """Run code in a fresh process; one that has used pyarrow's threads cannot be forked safely."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{code}"
    command = [*before, sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def calm(source, tmp_path):
    """An undisturbed run."""
    run(source, tmp_path / "calm")
    return content(tmp_path / "calm")


KILLS = """
import multiprocessing, os, random, signal, sys, time
from pathlib import Path
from test_bulk_job import run
source, out, chance = Path(sys.argv[1]), Path(sys.argv[2]), random.Random(0)
kill = killed = 0
while killed < 20 and kill < 60:  # a child may be done before it is killed
    kill += 1
    child = multiprocessing.get_context("fork").Process(
        target=run, args=(source, out, 0.005), kwargs={"resume": True, "shard_rows": 1}
    )
    child.start()
    # Mostly once it has added a shard or two (on a machine of any speed), sometimes at the start.
    wanted = len(list(out.glob("part-*.parquet"))) + kill % 3
    while child.is_alive() and len(list(out.glob("part-*.parquet"))) < wanted:
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.02))
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    killed += child.exitcode == -signal.SIGKILL
    print(child.exitcode, len(list(out.glob("part-*.parquet"))))
"""


def test_twenty_kills_change_no_byte(source, tmp_path):
    text = "".join(f"text number {row}\n" for row in range(400))
    (source / "a.txt").write_text(text + "\nnowhere\n", encoding="utf-8")
    out = tmp_path / "out"
    killed = elsewhere(KILLS, source, out)
    assert killed.returncode == 0, killed.stderr
    lines = [tuple(map(int, line.split())) for line in killed.stdout.splitlines()]
    codes, shards = zip(*lines, strict=True)
    assert codes.count(-signal.SIGKILL) == 20
    assert list(shards) == sorted(shards)
    assert len(set(shards)) > 5
    out.mkdir(exist_ok=True)
    run(source, out, resume=True, shard_rows=1)
    run(source, tmp_path / "calm", shard_rows=1)
    assert content(out) == content(tmp_path / "calm")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
@pytest.mark.parametrize("finished", [True, False])
def test_damaged_shard_is_named_and_encoded_again(source, tmp_path, calm, damage, finished, caplog):
    out = tmp_path / "out"
    encoder = Counter()
    run(source, out)
    if not finished:
        unfinish(out)
    path = out / "part-000003.parquet"
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(bytes(whole) if damage == "flipped" else bytes(whole[:-5]))
    if damage == "gone":
        path.unlink()
    run(source, out, encoder=encoder, resume=True)
    assert "the shard part-000003.parquet is damaged" in caplog.text
    assert encoder.asked == [f"text number {row}" for row in range(12, 16)]
    assert content(out) == calm


def change(source, how):
    """Make another input of it."""
    text = (source / "a.txt").read_text(encoding="utf-8")
    first, *others = text.splitlines(keepends=True)
    if how == "a row":
        text = text.replace("number 5\n", "number V\n")
    elif how == "the order":
        text = "".join([*others, first])
    elif how == "fewer rows":
        text = "".join(others)
    elif how == "more rows":
        text += "one more\n"
    (source / "a.txt").write_text(text, encoding="utf-8")
    if how == "a file less":
        (source / "b.txt").unlink()
    elif how == "a file more":
        (source / "c.txt").write_text("more\n", encoding="utf-8")
    elif how == "a name":
        (source / "b.txt").rename(source / "c.txt")


CHANGES = ["a row", "the order", "fewer rows", "more rows", "a file less", "a file more", "a name"]


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("state", ["finished", "begun", "of an earlier version"])
def test_resume_refuses_another_input_and_deletes_nothing(source, tmp_path, how, state):
    out = tmp_path / "out"
    run(source, out)
    if state == "begun":
        unfinish(out)
    elif state == "of an earlier version":
        make_old(out)
    before = content(out)
    change(source, how)
    with pytest.raises(FusionError, match=r"from another input: that .*--overwrite, or choose"):
        run(source, out, resume=True)
    assert content(out) == before
    run(source, out, overwrite=True)
    run(source, tmp_path / "anew")
    assert content(out) == content(tmp_path / "anew")


def unfinish(out, keep=99):
    """As if killed after some shards, before the manifest."""
    manifest = Manifest.read(out)
    head = {"settings": manifest.settings, "input": manifest.input}
    lines = [head, *(shard.to_dict() for shard in manifest.shards[:keep])]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (out / JOURNAL).write_text(text + '{"file": "part-0', encoding="utf-8")
    (out / MANIFEST).unlink()
    (out / REJECTS).unlink()


def make_old(out):
    """As earlier versions wrote it: other names, and no word of the input."""
    for name in (MANIFEST, REJECTS, JOURNAL):
        if (out / name).is_file():
            text = (out / name).read_text(encoding="utf-8")
            text = re.sub(r'(, )?"input": \{.*?\}(,\n)?', "", text)
            (out / name).unlink()
            (out / name.removeprefix("_")).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("finished", [True, False])
def test_folders_of_earlier_versions_are_gone_on_with(source, tmp_path, calm, finished):
    out, encoder = tmp_path / "out", Counter()
    run(source, out)
    if not finished:
        unfinish(out, keep=3)
    make_old(out)
    assert "manifest.json" in content(out) or "progress.jsonl" in content(out)
    assert not {MANIFEST, JOURNAL} & content(out).keys()
    (out / "part-000001.parquet").write_bytes(b"damaged")
    run(source, out, encoder=encoder, resume=True)
    assert encoder.asked[:4] == [f"text number {row}" for row in range(4, 8)]
    assert ("text number 1" in encoder.asked, len(encoder.asked) == 4) == (False, finished)
    assert content(out) == calm


def test_what_is_overwritten_stays_until_there_is_something_new(source, tmp_path):
    out = tmp_path / "out"
    run(source, out)
    before = content(out)

    class Broken(Counter):
        def encode(self, texts):
            raise FusionError("out of order")

    (tmp_path / "blank.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(FusionError, match="out of order"):
        run(source, out, encoder=Broken(), overwrite=True)
    assert content(out) == before
    with pytest.raises(FusionError, match="no row of the input"):
        run(tmp_path / "blank.txt", out, overwrite=True)
    assert content(out) == before
    unfinish(out, keep=5)
    before = content(out)
    with pytest.raises(FusionError, match="out of order"):
        run(source, out, encoder=Broken(), overwrite=True)
    assert content(out) == before
    with pytest.raises(FusionError, match="shard_rows=4, now it is 5"):
        run(source, out, resume=True, shard_rows=5)
    assert content(out) == before


class Tired(Counter):
    """It says no after some texts."""

    def encode(self, texts):
        if len(self.asked) > 20:
            raise FusionError("out of order")
        return super().encode(texts)


@pytest.mark.parametrize("state", ["finished", "begun", "of an earlier version"])
def test_what_fails_late_loses_nothing_of_what_it_was_to_replace(source, tmp_path, state):
    out = tmp_path / "out"
    run(source, out, shard_rows=7)
    if state == "begun":
        unfinish(out, keep=3)
    elif state == "of an earlier version":
        make_old(out)
    before = content(out)
    for _ in range(2):
        with pytest.raises(FusionError, match="out of order"):
            run(source, out, encoder=Tired(), overwrite=True)
        assert content(out) == before
        assert len(list((out / BESIDE).glob("_part-*"))) >= 5
    with pytest.raises(FusionError, match=f"{BESIDE} was encoded with shard_rows=4, now it is 7"):
        run(source, out, shard_rows=7, resume=True)
    _, encoder = run(source, out, resume=True)
    assert "text number 1" not in encoder.asked
    run(source, tmp_path / "anew")
    assert content(out) == content(tmp_path / "anew")
    assert not (out / BESIDE).exists()


def test_strict_loses_nothing_of_what_it_was_to_replace(source, tmp_path):
    out = tmp_path / "out"
    run(source, out)
    before = content(out)
    with pytest.raises(FusionError, match="empty; repair the row, or leave --strict out"):
        run(source, out, shard_rows=2, overwrite=True, strict=True)
    assert len(list((out / BESIDE).glob("_part-*"))) == 20
    assert content(out) == before


def test_replacing_may_be_cut_short_anywhere(source, tmp_path, monkeypatch):
    out, rename, left = tmp_path / "out", Path.replace, iter(())

    def cut(self, target):
        if Path(target).parent == out and next(left, None) is None:
            raise KeyboardInterrupt
        return rename(self, target)

    run(source, tmp_path / "anew", shard_rows=10)
    names = len(content(tmp_path / "anew"))
    for count in range(names):
        run(source, out, shard_rows=4)
        left = iter(range(count))
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", cut)
            with pytest.raises(KeyboardInterrupt):
                run(source, out, shard_rows=10, overwrite=True)
        _, encoder = run(source, out, shard_rows=10, resume=True)
        assert not encoder.asked
        assert content(out) == content(tmp_path / "anew")
        shutil.rmtree(out)


def test_a_kill_before_the_first_new_shard_leaves_the_old_one_to_go_on_with(source, tmp_path, calm):
    out = tmp_path / "out"
    run(source, out)
    unfinish(out, keep=3)
    (out / BESIDE).mkdir()
    (out / BESIDE / JOURNAL).touch()
    _, encoder = run(source, out, resume=True)
    assert "text number 1" not in encoder.asked
    assert content(out) == calm


def test_one_process_at_a_time_replaces(source, tmp_path):
    out = tmp_path / "out"
    run(source, out)
    before = content(out)

    class Twice(Counter):
        def encode(self, texts):
            with pytest.raises(FusionError, match=f"another process is encoding into {out}"):
                run(source, out, overwrite=True)
            return super().encode(texts)

    _, encoder = run(source, out, encoder=Twice(), overwrite=True)
    assert encoder.asked
    assert content(out) == before


@pytest.mark.parametrize("library", ["pandas", "pyarrow", "polars"])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_is_one_table(source, tmp_path, library, replaced):
    module = pytest.importorskip(library)
    run(source, tmp_path / "out")
    if replaced:
        with pytest.raises(FusionError, match="out of order"):
            run(source, tmp_path / "out", encoder=Tired(), overwrite=True)
    path = str(tmp_path / "out")
    if library == "pandas":
        ids = module.read_parquet(path)["id"]
    elif library == "polars":
        ids = module.scan_parquet(path, hidden_file_prefix="_").collect()["id"]
    else:
        ids = module.dataset.dataset(path).to_table()["id"].to_pylist()
    assert list(ids) == [row["id"] for row in rows(tmp_path / "out")]


def test_ctrl_c_leaves_a_state_to_go_on_from(source, tmp_path, calm):
    class Interrupted(Counter):
        def encode(self, texts):
            if len(self.asked) == 12:
                signal.raise_signal(signal.SIGINT)
            return super().encode(texts)

    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", encoder=Interrupted())
    assert len(list((tmp_path / "out").glob("part-*.parquet"))) == 3
    _, encoder = run(source, tmp_path / "out", resume=True)
    assert "text number 11" not in encoder.asked
    assert content(tmp_path / "out") == calm


FULL = """
import subprocess
from pathlib import Path
from test_bulk_job import FusionError, content, run
full, source, out = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
try:
    run(source, full / "out")
except FusionError as error:
    print(error)
print(sorted({name.partition(".")[2] for name in content(full / "out")}))
subprocess.run(["mount", "-o", "remount,size=4m", str(full)], check=True)
_, encoder = run(source, full / "out", resume=True)
run(source, out)
print(0 < len(encoder.asked) < 401, content(full / "out") == content(out))
"""
LIMITED = """
import resource
from pathlib import Path
from test_bulk_job import FusionError, content, run
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a shard is larger
try:
    run(Path(sys.argv[1]), Path(sys.argv[2]))
except FusionError as error:
    print(error)
print(*content(Path(sys.argv[2])))
"""


def test_full_disk_is_one_line_and_the_job_goes_on_when_there_is_room(tmp_path):
    """On a real tmpfs, where the kernel lets us mount one."""
    disk, source = tmp_path / "disk", tmp_path / "in"
    disk.mkdir()
    source.mkdir()
    text = "".join(f"text {row}\n" for row in range(401))
    (source / "a.txt").write_text(text, encoding="utf-8")
    if not shutil.which("unshare"):
        pytest.skip("no tmpfs can be mounted here")
    inside = f'mount -t tmpfs -o size=64k none {disk} || exit 77; exec "$@"'
    before = ["unshare", "-rm", "sh", "-c", inside, "sh"]
    done = elsewhere(FULL, disk, source, tmp_path / "out", before=before)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no tmpfs can be mounted here")
    error, left, whole = done.stdout.splitlines()
    assert "cannot be written (No space left on device)" in error
    assert "go on with --resume" in error
    assert left == "['jsonl', 'parquet']"  # the journal and whole shards, nothing partial
    assert whole == "True True"


def test_a_file_that_may_not_grow_leaves_nothing_partial(source, tmp_path):
    done = elsewhere(LIMITED, source, tmp_path / "out")
    error = done.stdout.splitlines()[0]
    assert "cannot be written (File too large)" in error
    assert not (tmp_path / "out").exists()


def test_a_second_process_is_turned_away(source, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with (out / JOURNAL).open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(FusionError, match="another process is encoding into"):
            run(source, out, resume=True)
    run(source, out, resume=True)


def test_strict_stops_at_the_first_bad_row(source, tmp_path):
    with pytest.raises(FusionError, match=r"a\.txt:41: empty; repair the row, or leave --strict"):
        run(source, tmp_path / "out", strict=True)
    (source / "a.txt").write_text("nowhere\n", encoding="utf-8")
    (source / "b.txt").unlink()
    with pytest.raises(FusionError, match=r"embedding of 'a\.txt:1' is zero or not finite"):
        run(source, tmp_path / "other", strict=True)


def test_folders_that_are_taken_are_refused(source, tmp_path):
    out = tmp_path / "out"
    run(source, out)
    before = content(out)
    with pytest.raises(FusionError, match="not empty; choose another or use --overwrite or --res"):
        run(source, out)
    with pytest.raises(FusionError, match="model=counter, now it is other: resume with the same"):
        run(source, out, encoder=Counter(model="other"), resume=True)
    with pytest.raises(FusionError, match="shard_rows=4, now it is 5"):
        run(source, out, resume=True, shard_rows=5)
    with pytest.raises(ValueError, match="use one of them"):
        run(source, out, resume=True, overwrite=True)
    assert content(out) == before
    run(source, out, overwrite=True, shard_rows=100)
    assert len(list(out.glob("part-*"))) == 1
    with pytest.raises(FusionError, match="is not an encoding, so --overwrite leaves it alone"):
        run(tmp_path / "out", source, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(FusionError, match="is a file; choose a folder"):
        run(source, tmp_path / "file")


def test_nothing_to_encode_says_why(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("\n\n", encoding="utf-8")
    match = r"no row .* \(2 rejected; the first: a\.txt:1: empty\)"
    with pytest.raises(FusionError, match=match):
        run(path, tmp_path / "out")
    path.write_text("\n" * 10 + "good\n", encoding="utf-8")
    monkeypatch.setattr(job_module, "HOPELESS", 5)
    with pytest.raises(FusionError, match=r"\(5 rejected; the first"):
        run(path, tmp_path / "other")


@pytest.mark.parametrize("lost", ["manifest", "journal"])
def test_shards_of_which_nothing_tells_are_left_alone(source, tmp_path, calm, lost):
    out = tmp_path / "out"
    run(source, out)
    if lost == "manifest":
        (out / MANIFEST).write_text('{"format": 1', encoding="utf-8")
        words = "_manifest.json is damaged.*; start anew with --overwrite"
    else:
        unfinish(out)
        (out / JOURNAL).write_text("\0" * 50, encoding="utf-8")
        words = "nothing in .* tells what its shards hold; start anew with --overwrite"
    before = content(out)
    with pytest.raises(FusionError, match=words):
        run(source, out, resume=True)
    assert content(out) == before
    run(source, out, overwrite=True)
    assert content(out) == calm


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_without_locks_is_told_of_and_used(
    source, tmp_path, calm, monkeypatch, caplog, code
):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    run(source, tmp_path / "out")
    assert "has no locks: see to it that no other process encodes into it" in caplog.text
    assert content(tmp_path / "out") == calm


def test_a_disk_that_fails_to_lock_says_so(source, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with pytest.raises(FusionError, match=r"cannot be locked \(Input/output error\)"):
        run(source, tmp_path / "out")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_manifest_is_read_or_refused(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    shard = {"file": "part-000000.parquet", "rows": 2, "bytes": 3, "sha256": "a" * 64}
    shard |= {"input": "b" * 32, "lost": []}
    plain = {"format": 1, "settings": {}, "rows": 2, "rejected": 0, "shards": [shard]}
    target = data.draw(st.sampled_from([plain, shard]))
    target[data.draw(st.sampled_from([*target, "new"]))] = data.draw(JSON)
    text = json.dumps(plain).encode()
    if data.draw(st.booleans()):
        text = data.draw(st.binary(max_size=50)) + text[data.draw(st.integers(0, len(text))) :]
    (folder / MANIFEST).write_bytes(text)
    try:
        manifest = Manifest.read(folder)
    except FusionError as error:
        if "_manifest.json is damaged" not in str(error):
            raise
    else:
        assert manifest.rows >= 0
        assert all("/" not in shard.file for shard in manifest.shards)
    found, shards = parse_journal(text.splitlines(keepends=True))
    assert found is None or isinstance(found, dict)
    assert isinstance(shards, list)


def test_ids_that_repeat_are_counted_and_named(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(repeats, "PART", 7)
    path = tmp_path / "in.jsonl"
    keys = [*map(str, range(50)), "b", "é", *map(str, range(50, 90)), "é", "b", "b"]
    lines = [json.dumps({"id": key, "text": f"text {n}"}) for n, key in enumerate(keys)]
    path.write_text("\n".join(lines), encoding="utf-8")
    run(path, tmp_path / "out")
    words = "2 ids occur more than once, the first is 'b': a database would keep one row of each"
    assert words in caplog.text
    assert len(rows(tmp_path / "out")) == len(keys)
    caplog.clear()
    run(path, tmp_path / "out", resume=True)
    assert words in caplog.text
    path.write_text("\n".join(lines[:60]), encoding="utf-8")
    caplog.clear()
    run(path, tmp_path / "other")
    assert "more than once" not in caplog.text
