"""The check at the end of every export: does a stranger's program get the run's own vectors?"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from fusion.errors import FusionError
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.text import load_encoder
from fusion.runs.folder import Run

TOLERANCE = 1e-5
TEXTS = [
    "How are small text encoders combined?",
    "vaccine",
    "Naïve Bayes, 3.14 and the rest (see [2]).",
    "The cat sleeps while the dog runs, and nobody has asked either of them for an opinion. " * 4,
]
# Runs where fusion cannot be imported. The blocks come out too: they tell which encoder is off.
STRANGER = """
import sys
sys.modules["fusion"] = None
import torch
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer
folder, texts, out = sys.argv[1], sys.argv[3:], {}
model = SentenceTransformer(folder, trust_remote_code=True, device="cpu")
for role in ("query", "document"):
    with torch.inference_mode():
        features = model.preprocess(texts, prompt=model.prompts[role])
        out[role + ".blocks"] = model[0](features)["sentence_embedding"].numpy().copy()
    out[role] = model.encode(texts, prompt_name=role, show_progress_bar=False)
save_file(out, sys.argv[2])
"""


def check_model(run: Run, folder: Path, compressor: str) -> float:
    """Reload an exported folder in a process without fusion and compare it with the run.

    Returns:
        The largest difference of any component of a unit vector.

    Raises:
        FusionError: The folder does not load, or a vector differs by more than 1e-5.
    """
    found = _load_elsewhere(folder)
    encoders = [load_encoder(name, "float32", "cpu") for name in run.config.encoders]
    largest = 0.0
    for role in Role:
        fused = run.blocks.transform([encoder.encode(TEXTS, role) for encoder in encoders])
        start = 0
        for encoder in encoders:
            block = slice(start, start + encoder.dim)
            off = _largest(found[f"{role}.blocks"][:, block] - fused[:, block])
            if off > TOLERANCE:
                raise FusionError(_words(folder, f"encoder {encoder.name}", role, off))
            start += encoder.dim
        nested = run.compressors[compressor].transform(fused)  # (n, d)
        off = _largest(found[role] - nested / np.linalg.norm(nested, axis=1, keepdims=True))
        if off > TOLERANCE:
            raise FusionError(_words(folder, f"compressor {compressor}", role, off))
        largest = max(largest, off)
    return largest


def _largest(difference: np.ndarray) -> float:
    return float(np.nan_to_num(np.abs(difference), nan=np.inf).max())


def _words(folder: Path, part: str, role: str, off: float) -> str:
    return (
        f"the model written to {folder} does not give the run's vectors: {part} is off by up to "
        f"{off:.1e} for a {role} (allowed: {TOLERANCE:.0e})"
    )


def _load_elsewhere(folder: Path) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "vectors.safetensors"
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        # A modules cache of its own: it works where the user's cannot be written, and is not stale.
        environment |= {"HF_MODULES_CACHE": scratch, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", STRANGER, str(folder.resolve()), str(out), *TEXTS],
            capture_output=True, text=True, cwd=scratch, env=environment, check=False,
        )  # fmt: skip
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise FusionError(f"the model written to {folder} does not load without fusion: {last}")
        return load_file(out)
