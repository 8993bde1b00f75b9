"""Peak memory of the streaming search against the bound that its docstring states.

    python experiments/checks/streaming.py

Hardware: any Linux CPU, about two minutes. Each corpus size runs in a fresh process; documents are
drawn chunk by chunk into one buffer, which is there before memory is measured.
To expect: extra memory below the bound and the same for every size; else the exit code is 1.
Writes experiments/results/check_streaming.json.
"""

import argparse
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from fusion.environment import describe_environment
from fusion.topk.streaming import PIECE, NestedSearcher

RESULTS = Path(__file__).parents[1] / "results" / "check_streaming.json"
SIZES = (100_000, 400_000, 1_600_000)
QUERIES, DIMS, K, CHUNK = 300, (64, 128, 192, 256), 100, 20_000


def bound_mb() -> float:
    """What ``NestedSearcher`` promises for one thread."""
    return (64 * len(DIMS) * QUERIES * K + 12 * PIECE * len(DIMS)) / 1e6 + 200


def search(documents: int) -> dict[str, float]:
    """Stream a corpus of random documents; extra memory and seconds of the search alone."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(QUERIES, DIMS[-1], generator=generator)  # (q, d)
    chunk = torch.randn(CHUNK, DIMS[-1], generator=generator)  # (c, d)
    before, seconds = memory_mb("VmRSS"), 0.0
    searcher = NestedSearcher(queries, DIMS, K)
    for _ in range(documents // CHUNK):
        chunk.normal_(generator=generator)
        start = time.perf_counter()
        searcher.add(chunk)
        seconds += time.perf_counter() - start
    searcher.result()
    return {"documents": documents, "extra_mb": memory_mb("VmHWM") - before, "seconds": seconds}


def memory_mb(field: str) -> float:
    """A line of this process's status, in megabytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(field))


def main() -> int:
    """Measure every size, write the JSON, fail if the bound is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, help="one size, in this process")
    documents = parser.parse_args().documents
    if documents:
        print(json.dumps(search(documents)))
        return 0
    lines = []
    for size in SIZES:
        command = [sys.executable, __file__, "--documents", str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        lines.append(json.loads(done.stdout))
        print(f"{size:,} documents: {lines[-1]['extra_mb']:.0f} MB of {bound_mb():.0f} MB allowed")
    report = {
        "environment": describe_environment(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "setting": {"queries": QUERIES, "dims": DIMS, "k": K, "chunk": CHUNK, "threads": 1},
        "bound_mb": bound_mb(),
        "lines": lines,
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return int(any(line["extra_mb"] > bound_mb() for line in lines))


if __name__ == "__main__":
    sys.exit(main())
