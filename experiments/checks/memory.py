"""How much memory a training takes when its embeddings are larger than it may use.

Writes synthetic embeddings of several sizes as ``file:`` encoders, and trains on each through
``python -m fusion.train`` in a fresh process that the kernel refuses more than a bounded amount of
private memory (RLIMIT_DATA). Private memory is what a machine must have; pages of mapped files are
read in and dropped as there is room.

Command:  python experiments/checks/memory.py [--gigabytes 0.25,1.25] [--limit-gigabytes 0.9]
Hardware: 2 CPU cores, 4 GB of disk, about 3 minutes.
Expected: exit code 0; the largest training's peak stays below the size of its embeddings and
          hardly above the smallest training's: only texts and ids, which are in memory, grow.
Writes:   experiments/results/check_memory.json
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fusion.environment import describe_environment

DIM, ROWS = 768, 16_384  # width; rows written at a time
DIMS = "32,128,256"
OUT = Path(__file__).parents[1] / "results" / "check_memory.json"


def write(folder: Path, rows: int) -> list[str]:
    """Embeddings, ids and texts of so many rows; gives the flags that train on them."""
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((64, DIM), dtype=np.float32)
    path = folder / "embeddings.npy"
    out = np.lib.format.open_memmap(path, "w+", np.float32, (rows, DIM))
    for start in range(0, rows, ROWS):
        part = out[start : start + ROWS]
        part[:] = rng.standard_normal((len(part), 64), dtype=np.float32) @ basis
        part += rng.standard_normal(part.shape, dtype=np.float32)
    del out
    ids = "\n".join(str(row + 1) for row in range(rows))
    path.with_suffix(".ids.txt").write_text(ids, encoding="utf-8")
    texts = folder / "texts.txt"
    texts.write_text("\n".join(f"text {row}" for row in range(rows)), encoding="utf-8")
    return ["--encoders", f"file:{path}", "--texts", str(texts)]


def limited(gigabytes: float) -> Callable[[], None]:
    """What a child does before it begins."""
    most = int(gigabytes * 2**30)
    return lambda: resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def watch(command: list[str], gigabytes: float) -> dict[str, float]:
    """Run a command; its peaks of private and of all resident memory, in MiB."""
    peaks, began = {"RssAnon": 0, "VmHWM": 0}, time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=limited(gigabytes))
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            break
        for line in status.splitlines():
            name, _, value = line.partition(":")
            if name in peaks:
                peaks[name] = max(peaks[name], int(value.split()[0]))
        time.sleep(0.02)
    if process.wait():
        raise SystemExit(f"the training failed with code {process.returncode}")
    return {
        "peak_private_mib": round(peaks["RssAnon"] / 1024),
        "peak_resident_mib": round(peaks["VmHWM"] / 1024),
        "seconds": round(time.monotonic() - began, 1),
    }


def measure(gigabytes: float, limit: float) -> dict[str, float]:
    """One training on embeddings of so many GiB."""
    rows = int(gigabytes * 2**30 / (4 * DIM))
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        command = [sys.executable, "-m", "fusion.train", *write(folder, rows)]
        command += ["--dims", DIMS, "--device", "cpu", "--output", str(folder / "run")]
        found = watch(command, limit)
    size = rows * DIM * 4 / 2**20
    return {"rows": rows, "dim": DIM, "embeddings_mib": round(size), **found}


def main() -> int:
    """Measure, write, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", default="0.25,1.25")
    parser.add_argument("--limit-gigabytes", type=float, default=0.9)
    options = parser.parse_args()
    sizes = [float(part) for part in options.gigabytes.split(",")]
    lines = [measure(size, options.limit_gigabytes) for size in sizes]
    small, large = lines[0], lines[-1]
    # A text, its id and the id's place cost about 400 bytes a row of Python objects.
    allowed = small["peak_private_mib"] + 400 * (large["rows"] - small["rows"]) / 2**20 + 100
    bounded = large["peak_private_mib"] < min(allowed, large["embeddings_mib"])
    report = {
        "environment": describe_environment(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "limit_mib": round(options.limit_gigabytes * 1024),
        "lines": lines,
        "bounded": bounded,
    }
    OUT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for line in lines:
        print(line)
    return 0 if bounded else 1


if __name__ == "__main__":
    sys.exit(main())
