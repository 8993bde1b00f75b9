"""What a search of shards costs as rows grow: the first answer, the next one, memory.

    python experiments/benchmarks/search.py --model MODEL

Hardware: a Linux machine's CPU, otherwise idle; two minutes and 200 MB of disk. MODEL is what
``fusion.export`` made of minilm and wordllama, with codes of 128 columns.

Codes of 32 bytes a row (int2, 128 columns) are random bytes, written with ids and short texts by
the writer that encoding uses. The first answer is that of ``fusion.search`` in a fresh process,
start and end included; the next ones come from an open ``fusion.Index``, query encoded and texts
read. A scan is one query's vector against all shards as they stream by; reading is that without
scores. Memory is the peak of a fresh process. Seconds are wall clock, the least of some repeats,
beside the processor's own, which other work on the machine hardly moves.

To expect: a first answer within 2 s and the next within 50 ms at 100,000 rows; a scan's time that
grows with the rows and is at most 1.3 times that of reading where two cores are free; memory that
does not grow. Writes experiments/results/benchmark_search.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from records import environment

from fusion.bulk.finished import open_shards
from fusion.bulk.searching.index import MEMORY, Index
from fusion.bulk.writing.manifest import MODEL_PATH, Manifest
from fusion.bulk.writing.shards import Columns, write_shard
from fusion.model.modules.settings import CONFIG, FusionSettings
from fusion.model.place import fingerprint

RESULTS = Path(__file__).parents[1] / "results" / "benchmark_search.json"
SIZES = (10_000, 100_000, 1_000_000)
SHARD_ROWS, BYTES, WIDTH, K = 4096, 32, 128, 10
QUERY = "How do I close a file when an error is raised?"
OTHERS = ["what is a lambda", "iterate over a dictionary", "a class with slots", "an open socket"]
# The kernel's ru_maxrss would be this process's where it is the greater: it outlives exec.
PEAK = """
status = open("/proc/self/status").read()
print(status.split("VmHWM:")[1].split()[0])
"""
DOOR = "import sys; from fusion.search import main; main(sys.argv[1:])"
SCAN = """
import json, sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from search import scan
print(json.dumps(scan(Path(sys.argv[1]), int(sys.argv[2]))))
"""
TEXT = "a text of the length that a paragraph of documentation has, number "


def write_shards(folder: Path, rows: int, model: Path) -> None:
    """Random codes with ids and texts, as a finished encoding of the model."""
    chance = np.random.default_rng(0)
    settings = {
        "model": fingerprint(FusionSettings.read(model / CONFIG)), "role": "document",
        "width": WIDTH, "precision": "int2", "codes": "fitted", "keep": ["text"],
    }  # fmt: skip
    shards = []
    for number, start in enumerate(range(0, rows, SHARD_ROWS)):
        ids = [f"d{row}" for row in range(start, min(start + SHARD_ROWS, rows))]
        texts = [TEXT * 3 + key for key in ids]
        columns = Columns(f"part-{number:06}.parquet", ids, {"text": texts}, "0" * 32)
        codes = chance.integers(0, 256, (len(ids), BYTES)).astype(np.uint8)
        shards.append(write_shard(folder, columns, codes, {}))
    about = {"list_of": "uint8", "list_size": BYTES, "bytes_per_vector": BYTES, "ranges": None}
    Manifest(settings, tuple(shards), 0, about | {MODEL_PATH: str(model)}).write(folder)


def clocked(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the wall clock and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def least(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    """The least of some repeats, each clock by itself."""
    found = [clocked(work) for _ in range(repeats)]
    walls, cpus = zip(*found, strict=True)
    return {"seconds": min(walls), "cpu_seconds": min(cpus)}


def in_fresh_process(code: str, *arguments: str) -> tuple[dict[str, float], str]:
    """Seconds, processor's seconds and peak memory of some code, and what it printed."""
    began = time.perf_counter()
    command = [sys.executable, "-c", code + PEAK, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    *printed, peak = process.stdout.read().splitlines()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} failed")
    seconds = {"seconds": time.perf_counter() - began, "cpu_seconds": used.ru_utime + used.ru_stime}
    return seconds | {"peak_mib": int(peak) / 1024}, "\n".join(printed)


def first_answers(folder: Path, repeats: int) -> dict[str, float]:
    """``python -m fusion.search`` with its start: the least seconds, the greatest memory."""
    arguments = (str(folder), "--query", QUERY, "-k", str(K))
    runs = [in_fresh_process(DOOR, *arguments)[0] for _ in range(repeats)]
    least_of = {key: min(run[key] for run in runs) for key in ("seconds", "cpu_seconds")}
    return least_of | {"peak_mib": max(run["peak_mib"] for run in runs)}


def scan(folder: Path, repeats: int) -> dict[str, Any]:
    """One query's vector against all shards, beside reading them: in turns, in this process."""
    index, shards = Index.open(folder, memory=0), open_shards(folder)
    vector = np.random.default_rng(1).standard_normal((1, WIDTH)).astype(np.float32)
    index.nearest(vector, K)  # its tables are made once
    runs = []
    for _ in range(repeats):
        read = clocked(lambda: sum(len(block.codes) for block in shards.blocks()))
        runs.append((read, clocked(lambda: index.nearest(vector, K))))
    names = ("seconds", "cpu_seconds")
    reading, searching = (
        {name: min(run[side][row] for run in runs) for row, name in enumerate(names)}
        for side in (0, 1)
    )
    return {"read": reading, "search": searching}


def next_answers(folder: Path, repeats: int) -> dict[str, float]:
    """A query of an open index that has answered one before."""
    index = Index.open(folder, memory=MEMORY)
    index.search(QUERY, K)
    asked = iter(OTHERS * repeats)
    return least(lambda: index.search(next(asked), K), repeats)


def measure(rows: int, model: Path, repeats: int) -> dict[str, Any]:
    """All of one size."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_shards(folder, rows, model)
        here = str(Path(__file__).parent)
        own, printed = in_fresh_process(SCAN, scratch, str(repeats), here)
        return {
            "rows": rows,
            "bytes_on_disk": sum(path.stat().st_size for path in folder.iterdir()),
            "first": first_answers(folder, repeats),
            "next": next_answers(folder, 4 * repeats),
            "scan": json.loads(printed) | {"peak_mib": own["peak_mib"]},
        }


def main() -> None:
    """Measure all sizes, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    options = parser.parse_args()
    model = options.model.resolve()
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    report = {
        "command": "python experiments/benchmarks/search.py --model MODEL",
        "environment": environment(threads),
        "precision": "int2", "width": WIDTH, "bytes_per_vector": BYTES, "k": K,
        "repeats": options.repeats,
        "cases": [measure(int(n), model, options.repeats) for n in options.sizes.split(",")],
    }  # fmt: skip
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report["cases"], indent=1))


if __name__ == "__main__":
    main()
