"""Where and with what a search was timed, and the file that keeps every record of it."""

import importlib.metadata
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "numpy", "faiss-cpu", "sentence-transformers", "mteb", "usearch", "triton")


def version(library: str) -> str | None:
    """The installed version of a library."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def environment(threads: int) -> dict[str, Any]:
    """Where and with what this was measured."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.strip(),
        "cpu": cpu[0].split(":")[1].strip() if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "threads": threads,
        "python": platform.python_version(),
        "versions": {name: found for name in LIBRARIES if (found := version(name))},
    }


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a record to the file of results, replacing it in one step."""
    records = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    whole = path.with_suffix(".tmp")
    whole.write_text(json.dumps([*records, record], indent=1) + "\n", encoding="utf-8")
    whole.replace(path)
