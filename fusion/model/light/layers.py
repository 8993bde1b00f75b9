"""Layers in numpy, float32, as torch has them to rounding; and what a module's folder says."""

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

WEIGHTS = "model.safetensors"
ERF_REACH, ERF_STEPS = 6.0, 4096  # a unit; linear between them errs by 8e-9, as float32 rounds
Weights = Mapping[str, np.ndarray]


def dense(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    """``Linear`` of rows [n, D], with its bias where it has one."""
    found = x @ weights[f"{name}.weight"].T
    return found + weights[f"{name}.bias"] if f"{name}.bias" in weights else found


def normed(x: np.ndarray, weights: Weights, name: str, eps: float) -> np.ndarray:
    """``LayerNorm`` of rows [n, d]."""
    x = x - x.mean(axis=1, keepdims=True)
    spread = np.sqrt((x * x).mean(axis=1, keepdims=True) + np.float32(eps))
    return x / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    """``GELU``, the exact one, by a table of the error function."""
    values, slopes = _erf_table()
    places = (np.clip(x * np.float64(0.5**0.5), -ERF_REACH, ERF_REACH) + ERF_REACH) * ERF_STEPS
    below = places.astype(np.int64)
    erf = values.take(below) + slopes.take(below) * (places - below)
    return (0.5 * x * (1 + erf)).astype(np.float32)


@lru_cache
def _erf_table() -> tuple[np.ndarray, np.ndarray]:
    """The error function at its places, and what it grows by up to the next ones."""
    count = round(2 * ERF_REACH * ERF_STEPS) + 1
    values = np.array([math.erf(row / ERF_STEPS - ERF_REACH) for row in range(count)])
    return values, np.diff(values, append=values[-1])


def module_names(folder: Path) -> list[str]:
    """What the modules of a sentence-transformers folder are, from the first on."""
    listed = read_json(folder / "modules.json")
    return [str(entry["type"]).rpartition(".")[2] for entry in listed]


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON
    """What a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))
