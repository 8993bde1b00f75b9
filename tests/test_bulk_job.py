import fcntl
import json
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

from fusion.bulk import job as job_module
from fusion.bulk.engine import OneDevice
from fusion.bulk.job import JobConfig, encode_rows
from fusion.bulk.manifest import JOURNAL, MANIFEST, Manifest, parse_journal
from fusion.bulk.reader import Fields, Reader
from fusion.bulk.shards import sha256
from fusion.bulk.sources import find_sources
from fusion.errors import FusionError

WIDTH = 3


class Counter:
    """An encoder that remembers what it was asked for; codes are made from the text."""

    def __init__(self, seconds=0.0, model="counter"):
        self.settings = {"model": model, "width": WIDTH, "precision": "float32"}
        self.about = {"list_of": "float32", "list_size": WIDTH, "bytes_per_vector": 12}
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
    reader = Reader(find_sources(str(source), out), options.pop("fields", Fields()))
    config = JobConfig(shard_rows=shard_rows, **options)
    return encode_rows(reader, out, OneDevice(encoder), config), encoder


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
    rejects = (tmp_path / "out" / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["reason"] for line in rejects] == [
        "empty",
        "invalid UTF-8 at byte 0",
        "its embedding is zero or not finite",
    ]
    assert Manifest.read(tmp_path / "out") == manifest
    assert sorted(content(tmp_path / "out")) == sorted(
        [MANIFEST, "rejects.jsonl", *(shard.file for shard in manifest.shards)]
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
    if not finished:  # as if killed before the manifest
        manifest = Manifest.read(out)
        journal = [{"settings": manifest.settings}, *(s.to_dict() for s in manifest.shards)]
        text = "".join(json.dumps(line) + "\n" for line in journal)
        (out / JOURNAL).write_text(text + '{"file": "part-0', encoding="utf-8")
        (out / MANIFEST).unlink()
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


def test_resume_encodes_only_what_changed_in_the_input(source, tmp_path):
    run(source, tmp_path / "out")
    text = (source / "a.txt").read_text(encoding="utf-8").replace("number 5\n", "number five\n")
    (source / "a.txt").write_text(text, encoding="utf-8")
    (source / "b.txt").unlink()
    manifest, encoder = run(source, tmp_path / "out", resume=True)
    changed = ["text number 4", "text number five", "text number 6", "text number 7"]
    assert encoder.asked == [*changed, "nowhere"]
    run(source, tmp_path / "anew")
    assert content(tmp_path / "out") == content(tmp_path / "anew")
    assert manifest.rows == 40


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


def test_damaged_manifest_costs_time_but_no_row(source, tmp_path, calm, caplog):
    run(source, tmp_path / "out")
    (tmp_path / "out" / MANIFEST).write_text('{"format": 1', encoding="utf-8")
    run(source, tmp_path / "out", resume=True)
    assert "manifest.json is damaged" in caplog.text
    assert content(tmp_path / "out") == calm


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
        if "manifest.json is damaged" not in str(error):
            raise
    else:
        assert manifest.rows >= 0
        assert all("/" not in shard.file for shard in manifest.shards)
    found, shards = parse_journal(text.splitlines(keepends=True))
    assert found is None or isinstance(found, dict)
    assert isinstance(shards, list)
