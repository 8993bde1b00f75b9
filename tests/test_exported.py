import json

import numpy as np
import pytest
from tiny_runs import TEXTS, build_tiny_run

from fusion.evaluate import main
from fusion.inputs.corpora import load_data
from fusion.measure.sweep import Space, measure
from fusion.model.folder import export, load


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    export(build_tiny_run(tmp_path_factory.mktemp("encoders")), folder)
    return folder


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": f"d{row}", "title": "", "text": text} for row, text in enumerate(TEXTS)]
    queries = [{"_id": f"q{row}", "text": text[:9]} for row, text in enumerate(TEXTS)]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    lines = [f"q{row}\td{row}\t1" for row in range(len(TEXTS))]
    (folder / "qrels/test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
    return folder


def test_a_model_folder_is_measured_by_its_own_vectors(model, data, tmp_path):
    arguments = [str(model), "--data", str(data), "--dims", "4,24", "--output"]
    assert main([*arguments, str(tmp_path / "out")]) == 0
    rows = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    loaded, read = load(model), load_data(str(data))
    space = Space(
        "model", loaded.encode_query(read.queries), loaded.encode_document(read.documents)
    )
    right = {row.dim: row.ndcg_at_10 for row in measure(read, [space], [4, 24])}
    assert {row["dim"]: row["ndcg_at_10"] for row in rows} == pytest.approx(right)
    assert not np.array_equal(space.queries, loaded.encode(read.queries))  # prompts matter


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--methods", "pca"], "--methods is for a run"),
        (["--precisions", "int8"], "float32 only"),
        (["--dims", "4,99"], "99"),
    ],
)
def test_what_a_model_cannot_give_is_said(model, data, tmp_path, capsys, flags, words):
    arguments = [str(model), "--data", str(data), "--output", str(tmp_path / "out")]
    assert main([*arguments, *flags]) == 2
    assert words in capsys.readouterr().err
