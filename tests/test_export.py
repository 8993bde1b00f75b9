import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer
from tiny_models import build_tiny_bert
from tiny_runs import build_tiny_run, expected, many

from fusion.errors import FusionError
from fusion.export import main
from fusion.model.check import TEXTS, check_model
from fusion.model.folder import export, load
from fusion.model.modules.files import seal
from fusion.runs.config import RunConfig
from fusion.runs.folder import Run
from fusion.runs.training import train
from fusion.space.compressors import PCA
from fusion.space.training.recipe import TrainConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return build_tiny_run(tmp_path_factory.mktemp("encoders"))


@pytest.fixture
def door(run, monkeypatch):
    """The door opens on a run that was never written."""
    monkeypatch.setattr(
        "fusion.runs.folder.read_config", lambda folder: (run.config, run.blocks, {})
    )
    monkeypatch.setattr(Run, "load", classmethod(lambda cls, folder: run))
    return lambda *arguments: main(["run", *map(str, arguments)])


def test_a_model_is_written_and_checked_from_outside(door, tmp_path, capsys):
    rows = [{"data": "d", "split": "test", "method": "pca", "dim": 4, "precision": "float32",
             "bytes_per_vector": 16, "ndcg_at_10": 0.25}]  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps({"rows": rows}))
    code = door(
        "--output", tmp_path / "m", "--compressor", "pca", "--results", tmp_path / "results.json"
    )
    assert code == 0
    assert "loads without fusion" in capsys.readouterr().out
    assert "| 4 | float32 | 16 | 0.2500 |" in (tmp_path / "m/README.md").read_text()
    load(tmp_path / "m")


def test_a_mismatch_names_the_encoder_and_deletes_nothing(run, tmp_path):
    folder = tmp_path / "m"
    export(run, folder)
    weights = folder / "encoders/2-tiny-gist/model.safetensors"
    tensors = {key: value * np.float32(1.01) for key, value in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    seal(folder)  # as if it had been exported so
    with pytest.raises(FusionError, match=r"encoder .*tiny-gist is off by up to \d"):
        check_model(run, folder, "head")
    assert weights.is_file()


def in_this_process(folder):
    """What the stranger's program gives, without the seconds that its start takes."""
    model, found = load(folder, device="cpu"), {}
    for role in ("query", "document"):
        with torch.inference_mode():
            features = model.preprocess(TEXTS, prompt=model.prompts[role])
            found[f"{role}.blocks"] = model[0](features)["sentence_embedding"].numpy()
        found[role] = model.encode(TEXTS, prompt_name=role)
    return found


def test_a_wrong_compressor_is_found_too(run, tmp_path, monkeypatch):
    monkeypatch.setattr("fusion.model.check._load_elsewhere", in_this_process)
    export(run, tmp_path / "m", "pca")
    assert check_model(run, tmp_path / "m", "pca") < 1e-5
    other = replace(run, compressors={"pca": PCA(power=-0.3).fit(run.calibration)})
    with pytest.raises(FusionError, match="compressor pca is off by up to"):
        check_model(other, tmp_path / "m", "pca")


def test_a_failing_check_exits_1_and_keeps_the_folder(door, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("fusion.model.check.STRANGER", "raise SystemExit('no such module')")
    assert door("--output", tmp_path / "m") == 1
    assert "does not load without fusion: no such module" in capsys.readouterr().err
    assert (tmp_path / "m/modules.json").is_file()


def test_an_earlier_model_stays_until_the_new_one_is_known_to_be_good(
    door, tmp_path, monkeypatch, capsys
):
    assert door("--output", tmp_path / "m") == 0
    before = contents(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr("fusion.model.check.STRANGER", "raise SystemExit('no such module')")
        assert door("--output", tmp_path / "m", "--compressor", "pca", "--overwrite") == 1
    assert "no such module; the earlier model stays" in capsys.readouterr().err
    assert contents(tmp_path) == before
    assert door("--output", tmp_path / "m", "--compressor", "pca", "--overwrite") == 0
    assert contents(tmp_path) != before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def contents(folder):
    """Every file below a folder, hidden ones too."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_hub_is_one_line_after_the_folder_is_written(door, tmp_path, monkeypatch, capsys):
    def unreachable(*args, **kwargs):
        raise OSError("cannot\nconnect")

    monkeypatch.setattr("fusion.model.check.check_model", lambda *_: 0.0)
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", unreachable)
    assert door("--output", tmp_path / "m", "--push-to-hub", "me/m") == 1
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.endswith("but the hub did not take it: cannot connect")
    assert 'SentenceTransformer("me/m"' in (tmp_path / "m/README.md").read_text()


def test_a_taken_folder_and_bad_results_fail_before_the_work(door, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").touch()
    assert door("--output", tmp_path / "taken") == 1
    assert "not empty" in capsys.readouterr().err
    assert door("--output", tmp_path / "new", "--results", tmp_path / "none.json") == 1
    assert not (tmp_path / "new").exists()
    with pytest.raises(SystemExit, match="2"):
        door("--compressor", "pca")


@pytest.mark.parametrize("saved", [{"truncate_dim": 8}, {"default_prompt_name": "query"}])
def test_settings_that_act_in_no_module_act_in_the_model_too(tmp_path, saved):
    """An encoder that was saved with them: the model gives the run's vectors all the same."""
    prompts = {"query": "query : ", "document": "passage : "}
    folder = build_tiny_bert(tmp_path / "plain", prompts=prompts)
    SentenceTransformer(str(folder), device="cpu", **saved).save_pretrained(str(tmp_path / "saved"))
    other = build_tiny_bert(tmp_path / "other", dim=8, seed=1)
    names = (str(tmp_path / "saved"), str(other))
    texts = tmp_path / "t.txt"
    texts.write_text("\n".join(many(80)), encoding="utf-8")
    config = RunConfig(names, texts=str(texts), train=TrainConfig.of("fusion", epochs=1))
    run = train(config, tmp_path / "run")
    assert run.blocks.dims == (saved.get("truncate_dim", 16), 8)
    export(run, tmp_path / "model")
    assert check_model(run, tmp_path / "model", "head") < 1e-5
    model = load(tmp_path / "model", device="cpu")
    for role in ("query", "document"):
        vectors = model.encode(TEXTS, prompt_name=role)
        wanted = expected(run, TEXTS, role, "head", run.config.dims[-1])
        np.testing.assert_allclose(vectors, wanted, atol=1e-5)


def test_a_plain_model_is_named_in_plain_words(tiny_encoder, tmp_path):
    with pytest.raises(FusionError, match=r"fusion\.export did not write; .* --encoders") as error:
        load(tiny_encoder)
    assert "{" not in str(error.value)
    with pytest.raises(FusionError, match="is no exported model: it has no fusion_config"):
        load(tmp_path)
