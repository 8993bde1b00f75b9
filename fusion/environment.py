"""What numbers depend on besides code and data: versions and hardware."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def describe_environment() -> dict[str, Any]:
    """Versions and hardware that numbers depend on; no paths, no host names."""
    import torch

    packages = ("fusion-embeddings", "torch", "sentence-transformers", "transformers", "numpy")
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "cpu": _cpu_model(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(named, platform.machine())}, {os.cpu_count()} cores"
