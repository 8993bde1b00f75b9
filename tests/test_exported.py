import json

import numpy as np
import pytest
from tiny_runs import TEXTS, build_tiny_run

import fusion
from fusion.errors import FusionError
from fusion.evaluate import main
from fusion.inputs.data.retrieval import load_data
from fusion.measure.retrieval.sweep import Space, measure
from fusion.model.folder import export, load
from fusion.model.modules.fused_model import CODEBOOKS
from fusion.space.codes import Codebook


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return build_tiny_run(tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="module")
def model(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    export(run, folder)
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


def test_codes_travel_with_a_model_and_are_those_of_its_run(run, model, data, tmp_path):
    arguments = [str(model), "--data", str(data), "--dims", "24", "--output", str(tmp_path / "out")]
    assert main([*arguments, "--precisions", "float16,int3,binary"]) == 0
    rows = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    assert {row["precision"]: row["bytes_per_vector"] for row in rows} == {
        "float16": 48, "int3": 9, "binary": 3,
    }  # fmt: skip
    vectors = load(model).encode(TEXTS)
    outputs = run.compressors["head"].transform(run.calibration)
    of_the_run = Codebook.fit(outputs, "int3", 24, seed=0)
    book = fusion.load_codebook(model, "int3", 24)
    np.testing.assert_array_equal(book.encode(vectors), of_the_run.encode(vectors))
    with pytest.raises(FusionError, match="no codes of width 5; choose among 4, 8"):
        fusion.load_codebook(model, "int3", 5)


def test_a_saved_copy_of_a_model_keeps_its_codes(model, tmp_path):
    load(model).save_pretrained(str(tmp_path / "copy"))
    assert (tmp_path / "copy" / CODEBOOKS).read_bytes() == (model / CODEBOOKS).read_bytes()
    (tmp_path / "copy" / CODEBOOKS).write_bytes(b"cut")
    with pytest.raises(FusionError, match=f"{CODEBOOKS} is damaged"):
        load(tmp_path / "copy")
    with pytest.raises(FusionError, match="no intact codebooks"):
        fusion.load_codebook(tmp_path / "copy", "int3", 24)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--methods", "pca"], "--methods is for a run"),
        (["--precisions", "int8", "--dims", "5"], "not of 5"),
        (["--dims", "4,99"], "99"),
    ],
)
def test_what_a_model_cannot_give_is_said(model, data, tmp_path, capsys, flags, words):
    arguments = [str(model), "--data", str(data), "--output", str(tmp_path / "out")]
    assert main([*arguments, *flags]) == 2
    assert words in capsys.readouterr().err
