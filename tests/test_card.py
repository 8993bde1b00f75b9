import json

import pytest
import yaml

from fusion.errors import FusionError
from fusion.model.card import read_results, render_card
from fusion.model.modules.settings import EncoderEntry, FusionSettings

SETTINGS = FusionSettings(
    (
        EncoderEntry("minilm", "encoders/0", 4, 1.0, source="package:x", licence="apache-2.0"),
        EncoderEntry("bge", "encoders/1", 2, 0.5, source="BAAI/b", revision="abc", licence="mit"),
        EncoderEntry("mine", "encoders/2", 2, 0.5),
    ),
    "per-model",
    (2, 4, 8),
)


def row(dim, precision="float32", data="scifact", method="head", score=0.5, seed=0):
    size = {"float32": 4 * dim, "int8": dim, "binary": dim // 8 + 1}[precision]
    return {
        "data": data, "split": "test", "method": method, "dim": dim, "precision": precision,
        "bytes_per_vector": size, "seed": seed, "ndcg_at_10": score,
    }  # fmt: skip


def header(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_encoders_stand_with_licence_revision_and_origin():
    card = render_card("me/fused", SETTINGS, "pydocs", "head")
    assert "| [bge](https://huggingface.co/BAAI/b) | 0.5 | 2 | mit | `abc` |" in card
    assert "| mine | 0.5 | 2 | unknown | not recorded |" in card
    assert header(card)["base_model"] == ["sentence-transformers/all-MiniLM-L6-v2", "BAAI/b"]
    assert header(card)["license"] == "other"


def test_the_table_and_the_model_index_come_out_of_the_evaluation(tmp_path):
    rows = [
        row(8, score=0.71239), row(4, score=0.6), row(8, "int8", score=0.71),
        row(8, data="arguana", score=0.3), row(8, method="pca", score=0.9),
        row(4, seed=1, score=0.1),
    ]  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps({"rows": rows}))
    card = render_card("m", SETTINGS, "t", "head", read_results(tmp_path, "head"))
    table = [line for line in card.splitlines() if line.startswith(("| 4", "| 8", "| dims"))]
    assert table == [
        "| dims | stored as | bytes | scifact | arguana |",
        "| 4 | float32 | 16 | 0.6000 | – |",
        "| 8 | float32 | 32 | 0.7124 | 0.3000 |",
        "| 8 | int8 | 8 | 0.7100 | – |",
    ]
    results = header(card)["model-index"][0]["results"]
    assert {r["metrics"][0]["value"] for r in results} == {0.71239, 0.6, 0.3, 0.1}


def test_without_an_evaluation_no_number_is_made_up():
    card = render_card("m", SETTINGS, "t", "head")
    assert "Not measured" in card
    assert "model-index" not in header(card)


def test_the_snippets_are_python_and_name_the_model():
    card = render_card("me/fused", SETTINGS, "t", "head")
    snippets = [part.split("```")[0] for part in card.split("```python\n")[1:]]
    assert len(snippets) == 3
    for snippet in snippets:
        compile(snippet, "card", "exec")
        assert "me/fused" in snippet
    for word in ("ONNX", "text-embeddings-inference", "fastembed", "document"):
        assert word in card


def test_a_folder_of_texts_is_not_told(tmp_path):
    card = render_card("m", SETTINGS, str(tmp_path / "secret.jsonl"), "head")
    assert str(tmp_path) not in card
    assert "`secret.jsonl`" in card


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": [{"method": "head"}]}', '{"rows": 1}'])
def test_results_of_another_kind_are_refused(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(FusionError, match=r"no results.json of fusion.evaluate"):
        read_results(tmp_path / "r.json", "head")


def test_results_without_the_compressor_are_refused(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps({"rows": [row(4, method="pca")]}))
    with pytest.raises(FusionError, match="no row of the method 'head'"):
        read_results(tmp_path / "r.json", "head")
