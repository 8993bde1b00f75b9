"""Queries are encoded without torch as they are with it."""

import json
import shutil

import numpy as np
import pytest
from tiny_models import build_tiny_bert
from tiny_runs import DIMS

from fusion.errors import FusionError
from fusion.model.folder import load
from fusion.model.light.queries import LightModel, can_be_light, query_encoder

QUERIES = [
    "the cat runs",
    "a",
    "Naïve Dog, 3.14 (see [2]).",
    "the cat and " * 60,
    "☃ 日",
]


@pytest.mark.parametrize("dim", [DIMS[0], DIMS[-1]])
def test_light_vectors_are_those_of_the_model(model, dim):
    light = query_encoder(model, dim)
    assert isinstance(light, LightModel)
    wanted = load(model, truncate_dim=dim, device="cpu").encode_query(QUERIES)
    np.testing.assert_allclose(light(QUERIES), wanted, atol=1e-5)  # as fusion.export checks
    np.testing.assert_allclose(np.linalg.norm(light(QUERIES), axis=1), 1, atol=1e-6)


def encoder_of(model):
    return sorted((model / "encoders").iterdir())[0]


CHANGES = {
    "config.json": {"hidden_act": "relu"},
    "1_Pooling/config.json": {"pooling_mode": "max"},
    "sentence_bert_config.json": {"do_lower_case": True},
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_numpy_does_not_know_is_left_to_torch(model, tmp_path, name):
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    assert can_be_light(copy)
    path = encoder_of(copy) / name
    path.write_text(json.dumps(json.loads(path.read_text()) | CHANGES[name]), encoding="utf-8")
    assert not can_be_light(copy)


def test_a_model_with_an_encoder_of_another_kind_is_run_by_torch(model, tmp_path, monkeypatch):
    monkeypatch.setattr("fusion.model.light.queries.KINDS", ())
    encoder = query_encoder(model, DIMS[-1])
    assert not isinstance(encoder, LightModel)
    wanted = load(model, device="cpu").encode_query(QUERIES[:2])
    np.testing.assert_allclose(encoder(QUERIES[:2]), wanted, atol=2e-6)


def test_damaged_weights_are_refused(model, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    weights = encoder_of(copy) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(FusionError, match=r"model\.safetensors is damaged"):
        query_encoder(copy, DIMS[-1])


def test_static_embeddings(tmp_path):
    pytest.importorskip("wordllama")
    from sentence_transformers import SentenceTransformer

    from fusion.inputs.encoders.text import load_encoder
    from fusion.model.light.static import Static

    encoder = load_encoder("wordllama", device="cpu")
    encoder.model.save_pretrained(str(tmp_path / "static"), create_model_card=False)
    assert Static.reads(tmp_path / "static")
    assert not Static.reads(build_tiny_bert(tmp_path / "bert"))
    light = Static(tmp_path / "static")
    wanted = SentenceTransformer(str(tmp_path / "static"), device="cpu").encode(QUERIES)
    np.testing.assert_allclose([light.encode(q) for q in QUERIES], wanted, atol=2e-6)
    assert not light.encode("").any()
