"""The Ray engine beside the local one, and its processes really killed."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import many

from fusion import encode
from fusion.bulk.encoder import EncodeConfig, ModelEncoder
from fusion.bulk.engine import OneDevice
from fusion.bulk.writing.shards import Chunk, Row
from fusion.errors import FusionError

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")

from fusion.bulk.ray_engine import Feed, ModelActor, RayDevices, Task, _plain  # noqa: E402 - not where Ray is missing


@pytest.fixture(scope="module")
def session():
    """One Ray for all tests of this file; starting it takes seconds."""
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address="local", num_cpus=2, **options)
    yield
    ray.shutdown()
    assert processes("") == {}


def processes(name, root=None):
    """Ray's processes below a process (this one by default) whose command begins with a name."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            pid, status = int(folder.name), (folder / "stat").read_text()
            commands[pid] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            continue  # it has ended
        parents[pid] = int(status.rpartition(")")[2].split()[1])
    found = {}
    for pid, command in commands.items():
        above, root = pid, root or os.getpid()
        while above not in (0, root):
            above = parents.get(above, 0)
        if above == root and pid != root and "ray" in command and command.startswith(name):
            found[pid] = command
    return found


def chunks_of(count, rows):
    texts = many(count * rows)
    cut = [texts[start : start + rows] for start in range(0, len(texts), rows)]
    return [Chunk(n, tuple(Row(text, text) for text in part)) for n, part in enumerate(cut)]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def flags(model, source, out, *more):
    named = [str(model), "--input", str(source), "--output", str(out)]
    return [*named, "--lines", "--shard-rows", "7", *more]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in")
    (folder / "a.txt").write_text("\n".join(many(60)) + "\n\n", encoding="utf-8")
    (folder / "b.txt").write_bytes(b"more\n\xff\nand more\n")
    return folder


def test_no_ray_at_the_address_is_one_line(model, source, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray itself would ask for minutes"))
    more = ["--engine", "ray", "--ray-address", "127.0.0.1:1"]
    assert encode.main(flags(model, source, tmp_path / "out", *more)) == 1
    [line] = [x for x in capsys.readouterr().err.splitlines() if "error:" in x]
    assert "--ray-address 127.0.0.1:1: no Ray there" in line
    assert not (tmp_path / "out").exists()


def test_both_engines_write_the_same_bytes(session, model, source, tmp_path):
    more = ["--precision", "int8", "--truncate-dim", "16"]
    ours, theirs = tmp_path / "local", tmp_path / "ray"
    assert encode.main(flags(model, source, ours, *more, "--devices", "cpu")) == 0
    assert encode.main(flags(model, source, theirs, *more, "--engine", "ray")) == 0
    assert content(theirs) == content(ours)
    assert {"_manifest.json", "_rejects.jsonl", "part-000008.parquet"} < set(content(ours))


def test_killed_processes_are_replaced_and_no_row_is_lost(session, model):
    """The actor and the source, each by a real SIGKILL while chunks travel."""
    config = EncodeConfig(str(model))
    first = ModelEncoder(config, "cpu")
    chunks = chunks_of(40, 20)
    victims, found = [], {}
    for done, (chunk, codes, kept) in enumerate(RayDevices(first, config, workers=1).run(chunks)):
        if done == 3:
            victims += processes("ray::MapWorker")
            os.kill(victims[0], signal.SIGKILL)
        if done == 20:
            [reader] = processes("ray::ReadTexts")
            victims.append(reader)
            os.kill(reader, signal.SIGKILL)
        assert chunk.number not in found
        found[chunk.number] = chunk, codes, kept
    assert len(victims) == 2
    assert not set(victims) & set(processes("ray::"))
    assert sorted(found) == list(range(40))
    for chunk, codes, kept in OneDevice(first).run(chunks):
        other = found[chunk.number]
        assert other[0] == chunk
        assert np.array_equal(other[1], codes)
        assert np.array_equal(other[2], kept)


def test_chunk_that_is_back_is_not_encoded_again():
    answer = ModelActor(None)({"number": np.array([7]), "texts": np.array([[]], dtype=object)})
    assert answer["number"].tolist() == [7]
    assert answer["codes"].shape[:2] == answer["kept"].shape == (1, 0)


def test_another_model_on_a_worker_is_refused(session, model):
    config = EncodeConfig(str(model))
    feed = ray.remote(Feed).options(num_cpus=0).remote()
    actor = ModelActor(Task(config, {"model": "another"}, "cpu", feed))
    batch = {"number": np.array([0]), "texts": np.array([["a", "b"]], dtype=object)}
    with pytest.raises(FusionError, match=r"^/\S+/tiny is another model on [\d.]+$"):
        actor(batch)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ("fusion.errors.FusionError: m is another model on x", "m is another model on x"),
        (
            "numpy.exceptions.AxisError: axis 1 is out of bounds",
            "an actor of Ray failed: numpy.exceptions.AxisError: axis 1 is out of bounds; "
            "go on with --resume",
        ),
    ],
)
def test_cause_is_found_in_what_ray_says(last, words):
    text = f"""ray::MapWorker.submit() (pid=1, ip=x)
  File "a.py", line 3, in f
ValueError: on the way
During handling of the above exception, another exception occurred:
{last}

The above exception was the direct cause of the following exception:

ray.exceptions.UserCodeException: Failed to apply UDF.
To change it, configure `retried_io_errors` for I/O; `max_map_retries` for any task)."""
    assert str(_plain(RuntimeError(text))) == words


def test_strict_stops_in_the_midst_of_the_job(session, model, source, tmp_path, capsys):
    more = ["--engine", "ray", "--workers", "1", "--strict"]
    assert encode.main(flags(model, source, tmp_path / "out", *more)) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: a.txt:61: empty; repair the row")
    assert len(list((tmp_path / "out").glob("part-*.parquet"))) > 0
    end = time.monotonic() + 60
    while processes("ray::ReadTexts") and time.monotonic() < end:
        time.sleep(0.05)
    assert processes("ray::ReadTexts") == {}  # on a cluster it would wait for ever


def test_feed_keeps_the_places_of_chunks():
    async def use():
        feed = Feed()
        asked = [asyncio.ensure_future(feed.get(number)) for number in range(4)]
        await feed.put(1, ["b"])  # overtakes
        await feed.put(0, ["a"])
        assert [await asked[0], await asked[1]] == [["a"], ["b"]]
        await feed.drop(0)
        assert [await feed.get(0), await feed.get(1)] == [[], ["b"]]
        assert not asked[2].done()
        await feed.close(2)
        assert [await asked[2], await asked[3]] == [None, None]

    asyncio.run(use())


def test_what_ends_its_process_again_and_again_is_not_tried_for_ever():
    async def use():
        feed = Feed()
        await feed.put(0, ["a"])
        assert [await feed.begin(0) for _ in range(3)] == [1, 2, 3]
        await feed.drop(0)
        assert await feed.begin(0) == 1

    asyncio.run(use())


@pytest.mark.slow
def test_killed_driver_takes_ray_along_and_resume_finds_every_byte(
    session, model, source, tmp_path
):
    out, journal = tmp_path / "out", tmp_path / "out" / "_progress.jsonl"
    more = ["--shard-rows", "1"]
    command = [sys.executable, "-m", "fusion.encode", *flags(model, source, out, *more)]
    with_ray = ["--engine", "ray", "--workers", "1"]
    process = subprocess.Popen([*command, *with_ray])
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 800):
        time.sleep(0.005)
    theirs = processes("", process.pid)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert any(name.startswith("ray::MapWorker") for name in theirs.values())
    before = len(list(out.glob("part-*.parquet")))
    assert 0 < before < 62
    assert encode.main(flags(model, source, out, *more, *with_ray, "--resume")) == 0
    assert encode.main(flags(model, source, tmp_path / "calm", *more, "--devices", "cpu")) == 0
    assert content(out) == content(tmp_path / "calm")
    # Its agents, which watch over the others, look only every half a minute.
    left = [name for pid, name in theirs.items() if Path(f"/proc/{pid}").exists()]
    assert [name for name in left if "Agent" not in name] == []
