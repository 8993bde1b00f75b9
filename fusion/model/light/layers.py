"""Layers in numpy, float32, as torch has them to rounding; and what a module's folder says."""

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

WEIGHTS = "model.safetensors"
ERF_REACH, ERF_STEPS = 6.0, 1 << 16  # linear between them errs by 4e-9, less than float32 rounds
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
    places, values = _erf_table()
    return (0.5 * x * (1 + np.interp(x * math.sqrt(0.5), places, values))).astype(np.float32)


@lru_cache
def _erf_table() -> tuple[np.ndarray, np.ndarray]:
    places = np.linspace(-ERF_REACH, ERF_REACH, ERF_STEPS)
    return places, np.array([math.erf(place) for place in places.tolist()])


def module_names(folder: Path) -> list[str]:
    """What the modules of a sentence-transformers folder are, from the first on."""
    listed = read_json(folder / "modules.json")
    return [str(entry["type"]).rpartition(".")[2] for entry in listed]


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON
    """What a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))
