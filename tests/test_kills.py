"""``kill -9`` at random moments, in fresh processes that fork: those start as often as we like."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

KILLS = 20
FORKING = """
import json, multiprocessing, os, random, shutil, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
folder, kills, chance = Path(sys.argv[2]), int(sys.argv[3]), random.Random(0)
context = multiprocessing.get_context("fork")

def start(work, *arguments):
    child = context.Process(target=work, args=arguments)
    child.start()
    return child

def kill(child, seconds):
    time.sleep(seconds)
    child.kill()
    child.join()
    return child.exitcode == -signal.SIGKILL

def look(folder):
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                seen = os.stat(os.path.join(root, name))
            except FileNotFoundError:  # renamed meanwhile
                continue
            found[root, name] = seen.st_ino, seen.st_size, seen.st_mtime_ns
    return found

def wait_for_changes(child, folder, count):  # of the disk, since clocks run apart under load
    last = look(folder)
    while count and child.is_alive():
        now = look(folder)
        count -= now != last
        last = now

def content(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
"""
TRAIN = """
import fusion.measure.figures.run, fusion.runs.training, fusion.space.training.fit
from fusion import train
os.chdir(folder)

def run(out, *flags):
    arguments = ["--encoders", "file:api.npy", "--texts", "texts.txt", "--dims", "4,8,16"]
    arguments += ["--recipe", "paper", "--epochs", "8", "--batch-size", "32", "--device", "cpu"]
    return train.main([*arguments, "--output", str(out), *flags])

def work(out, *flags):
    null = open(os.devnull, "w")
    os.dup2(null.fileno(), 1), os.dup2(null.fileno(), 2)
    sys.exit(run(out, *flags))

def whole(out, *flags):
    child = start(work, out, *flags)
    child.join()
    assert child.exitcode == 0, child.exitcode

run("calm")  # here, so that what a first run loads is loaded in every child
began = time.monotonic()
whole("calm", "--overwrite")
seconds = time.monotonic() - began
calm, states, killed, finished = content(Path("calm")), [], 0, 0
out = Path("out")
for attempt in range(4 * kills):
    fresh = not out.exists()
    child = start(work, out, *([] if fresh else ["--resume"]))
    wait_for_changes(child, out, killed if fresh else chance.randrange(20))
    if kill(child, chance.uniform(0, 0.05) * seconds):
        killed += 1
        due = killed % 6 == 0 or killed == kills
        states.append(sorted(content(out)) if out.exists() else [])
    else:
        due = True
    if due:  # a few runs, each killed some times
        whole(out, "--resume")
        assert content(out) == calm, [k for k in calm if content(out).get(k) != calm[k]]
        assert sorted(content(out)) == sorted(calm)
        shutil.rmtree(out)
        finished += 1
    if killed == kills:
        break
print(json.dumps({"killed": killed, "finished": finished, "states": states, "names": sorted(calm)}))
"""
STORE = """
import numpy as np
from fusion.inputs.store import shelf as shelf_module
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.store.store import Store
shelf_module.CHUNK = 4
texts = [f"text number {row}" for row in range(120)]

class Encoder:
    name, dim, fingerprint = "slow", 3, {"source": "slow"}

    def __init__(self, log=None):
        self.log = log

    def encode(self, texts, role, ids=None, advance=None):
        time.sleep(0.004)
        if self.log:
            with self.log.open("a") as file:
                file.write("".join(f"{text}\\n" for text in texts))
        return np.array([[len(t), sum(t.encode()) % 97, 1] for t in texts], dtype=np.float32)

def work(root, log=None):
    found = Store(root).embed(Encoder(log), texts, Role.DOCUMENT)
    assert np.array_equal(found, Encoder().encode(texts, Role.DOCUMENT))

def whole(root, log=None):
    child = start(work, root, log)
    child.join()
    assert child.exitcode == 0

began = time.monotonic()
whole(folder / "calm")
seconds, calm, killed, shards = time.monotonic() - began, content(folder / "calm"), 0, []
for attempt in range(4 * kills):  # a writer is killed, and another one beside it is not
    root = folder / f"store-{attempt // 4}"
    beside = start(work, root) if attempt % 4 == 3 else None
    killed += kill(start(work, root), chance.uniform(0, 0.4) * seconds)
    if beside:
        beside.join()
        assert beside.exitcode == 0
        assert content(root) == calm
    shards.append(len(list(root.rglob("[!p]*.npy"))))
    if killed == kills:
        break
whole(root)
assert content(root) == calm
log = folder / "log.txt"
both = [start(work, folder / "two", log) for _ in range(2)]
for child in both:
    child.join()
    assert child.exitcode == 0
assert content(folder / "two") == calm
embedded = log.read_text().splitlines()
print(json.dumps({"killed": killed, "shards": shards, "once": sorted(embedded) == sorted(texts)}))
"""


def in_a_process_that_forks(code, folder):
    """What the code prints last, as JSON."""
    command = [sys.executable, "-c", FORKING + code, Path(__file__).parent, folder, str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_twenty_kills_of_training_change_no_byte(tmp_path):
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 24)) + rng.normal(size=(300, 24))
    np.save(tmp_path / "api.npy", mixed.astype(np.float32))
    (tmp_path / "api.ids.txt").write_text("\n".join(str(row) for row in range(1, 301)))
    (tmp_path / "texts.txt").write_text("\n".join(f"text {row}" for row in range(300)))
    found = in_a_process_that_forks(TRAIN, tmp_path)
    assert found["killed"] == KILLS
    assert found["finished"] >= 3
    assert "curves.png" in found["names"]
    states = {tuple(names) for names in found["states"]}
    assert len(states) >= 3, states  # it was killed in different places
    assert any("checkpoints/last.ckpt" in names for names in states)


def test_twenty_kills_of_the_store_lose_and_duplicate_nothing(tmp_path):
    found = in_a_process_that_forks(STORE, tmp_path)
    assert found["killed"] == KILLS
    assert found["once"]
    assert len(set(found["shards"])) > 5  # killed in different places
