"""What claims to be the same on every machine, in processes that compute in other ways.

Each setting takes other kernels: fewer instructions for torch, for its products, for numpy's own
loops and for its BLAS, and another number of threads. A library takes from them what it knows.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = {
    "plain": {"ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "Nehalem"},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
    "narrow": {
        "MKL_CBWR": "COMPATIBLE",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX AVX2 FMA3",
    },
    "two threads": {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
}
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
CODE = """
import hashlib, json, sys
import numpy as np, torch
from fusion.measure.statistics import bootstrap_means, compare
from fusion.measure.retrieval.sweep import Space, measure
from fusion.space.training.batches import Batches, split
from fusion.space.codes import Codebook
from fusion.space.codes.grids import gaussian_levels
from fusion.space.codes.trellis import trellis_levels
from fusion.space.compressors import Gaussian, RandomK
from fusion.space.weights import Pairs, choose_weights
sys.path.insert(0, sys.argv[2])
from test_codes import embeddings
from test_sweep import Task, vectors
from test_weights import close_calls

def name(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()

def batches():
    return [b.numpy() for b in Batches(torch.arange(999), 100, 9, 3, lambda: 2)]

rows, pairs, books = embeddings(600), close_calls(), sys.argv[1]
found = {
    "levels": name(*(gaussian_levels(b) for b in range(1, 9))),
    "trellis": name(trellis_levels(1, 1024), trellis_levels(3, 256)),
    "batches": name(*batches(), *(part.numpy() for part in split(999, 0.05, 3))),
    "random-k": name(RandomK(9, 1).fit(rows)._columns),
    "gaussian": name(Gaussian(9, 1).fit(rows)._matrix),
    "weights": choose_weights(*pairs),
    "ranks": name(Pairs.of(*pairs).reciprocal_ranks(np.array([1, 0.4]))),
    "p": compare([rows[:, 0]], [rows[:, 1]], resamples=500).p_value,
}
for precision in ("float16", "int8", "int4", "int2+", "binary"):
    book = Codebook.load(f"{books}/{precision}.safetensors")
    found[precision] = name(book.encode(rows))
found["ranking"] = {}
copies = np.tile(rows[:30], (5, 1))
for precision in ("float32", "binary"):
    space = Space("head", vectors(1, 30, 48), copies, codebook=lambda *_: book)  # the last: binary
    measured = measure(Task("t"), [space], [40], [precision])
    found["ranking"][precision] = [row.ndcg_at_10 for row in measured]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """Codebooks are fitted once and saved: a fit is not the same everywhere."""
    from test_codes import embeddings

    from fusion.space.codes import Codebook

    root = tmp_path_factory.mktemp("books")
    for precision in ("float16", "int8", "int4", "int2+", "binary"):
        Codebook.fit(embeddings(600), precision, 40).save(root / f"{precision}.safetensors")
    return root


def computed(books: Path, setting: dict[str, str]) -> dict[str, object]:
    environment = {**os.environ, **THREADS, **setting}
    out = subprocess.run(
        [sys.executable, "-c", CODE, str(books), str(Path(__file__).parent)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout)


@pytest.fixture(scope="module")
def usual(books):
    return computed(books, {})


@pytest.fixture(scope="module", params=list(SETTINGS))
def found(books, request):
    return computed(books, SETTINGS[request.param])


def test_what_follows_from_the_data_does_so_under_every_setting(found, usual):
    without = {name: value for name, value in found.items() if name != "ranking"}
    assert without == {name: usual[name] for name in without}
    assert len(without) > 10


def test_scores_of_a_corpus_of_copies_do_so_too(found, usual):
    assert found["ranking"] == usual["ranking"]
