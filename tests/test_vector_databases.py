"""The two scripts that docs/clients.md names, run as a person would run them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_runs import DIMS, many

from fusion import encode
from fusion.model.folder import load

EXPERIMENTS = Path(__file__).parents[1] / "experiments" / "clients"
QUESTION = "does the dog run"


@pytest.fixture(scope="module")
def vectors(model, tmp_path_factory):
    root = tmp_path_factory.mktemp("vectors")
    (root / "texts.txt").write_text("\n".join(many(300)), encoding="utf-8")
    options = ["--shard-rows", "100", "--truncate-dim", str(DIMS[1]), "--devices", "cpu"]
    arguments = [str(model), "--input", str(root / "texts.txt"), "--output", str(root / "out")]
    assert encode.main([*arguments, *options]) == 0
    return root / "out"


@pytest.mark.parametrize(
    ("script", "package"),
    [("load_lancedb.py", "lancedb"), ("load_qdrant.py", "qdrant_client")],
)
def test_database_finds_what_an_exact_search_finds(script, package, model, vectors, tmp_path):
    pytest.importorskip(package)
    command = [sys.executable, str(EXPERIMENTS / script), str(vectors), str(tmp_path / "db")]
    done = subprocess.run(
        [*command, str(model), QUESTION], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    table = pq.read_table(sorted(vectors.glob("part-*.parquet")))
    rows = np.array(table["embedding"].to_pylist())  # (c, d)
    asked = load(model, truncate_dim=DIMS[1], device="cpu").encode_query(QUESTION)
    cosines = dict(zip(table["id"].to_pylist(), (rows @ asked).tolist(), strict=True))
    best = sorted(cosines.values(), reverse=True)[:10]
    assert len({key for key, _ in lines}) == 10
    assert [float(score) for _, score in lines] == pytest.approx(best, abs=2e-4)
    assert [cosines[key] for key, _ in lines] == pytest.approx(best, abs=2e-4)
