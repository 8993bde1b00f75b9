import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from tiny_runs import TEXTS, build_tiny_run, expected, with_head

from fusion.errors import FusionError
from fusion.model.folder import build_model, export, load, push
from fusion.model.modules.modeling_fusion import FusedHead
from fusion.model.place import fingerprint
from fusion.space.compressors import PCA


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return build_tiny_run(tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    export(run, folder)
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(exported, tmp_path / "model"))


def test_fusion_loads_a_folder_whatever_code_lies_in_it(folder, exported):
    for path in folder.glob("*.py"):
        path.unlink()
    np.testing.assert_array_equal(load(folder).encode(TEXTS), load(exported).encode(TEXTS))


def test_the_flag_is_needed_without_fusion_and_not_with_it(exported):
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        SentenceTransformer(str(exported))
    load(exported)


def test_loading_with_fusion_runs_no_code_of_the_folder(folder):
    (folder / "modeling_fusion.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    load(folder)


def test_a_model_loaded_with_fusion_saves_a_folder_that_loads_without(exported, tmp_path):
    load(exported, device="cpu").save_pretrained(str(tmp_path / "saved"))
    types = [m["type"] for m in json.loads((tmp_path / "saved/modules.json").read_text())]
    assert types[:2] == ["modeling_fusion.FusedEncoder", "modeling_fusion.FusedHead"]
    again = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True, device="cpu")
    np.testing.assert_array_equal(again.encode(TEXTS), load(exported).encode(TEXTS))
    assert (tmp_path / "saved/README.md").read_text() == (exported / "README.md").read_text()


def test_a_width_is_saved_with_a_model(exported, tmp_path):
    load(exported, truncate_dim=8).save_pretrained(str(tmp_path / "small"))
    assert load(tmp_path / "small").encode(TEXTS).shape[1] == 8


def test_options_reach_the_model_and_unknown_ones_are_refused(exported, monkeypatch):
    asked = load(exported, default_prompt_name="query", similarity_fn_name="dot")
    np.testing.assert_array_equal(asked.encode(TEXTS), load(exported).encode_query(TEXTS))
    assert asked.similarity_fn_name == "dot"
    load(exported, local_files_only=True)
    with pytest.raises(ValueError, match="load takes no option 'nonsense'"):
        load(exported, nonsense=3)
    given = {}
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **places: given.update(places) or exported
    )
    load("own/model", cache_folder="kept", revision="v1", local_files_only=True)
    assert given == {"cache_dir": "kept", "revision": "v1", "local_files_only": True}


@pytest.mark.parametrize(
    ("name", "content"),
    [("modules.json", "[1]"), ("config_sentence_transformers.json", "[]"), ("modules.json", "{")],
)
def test_damaged_json_is_one_line(folder, name, content):
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(FusionError, match="cannot be loaded"):
        load(folder)


def test_a_models_hash_covers_its_encoders_settings(exported, tmp_path):
    short = load(exported)
    before = fingerprint(short[0].settings)
    short.max_seq_length = 5
    short.save_pretrained(str(tmp_path / "short"))
    assert fingerprint(load(tmp_path / "short")[0].settings) != before


def test_nothing_in_the_folder_is_a_pickle(exported):
    kinds = {path.suffix for path in exported.rglob("*") if path.is_file()}
    assert kinds == {".json", ".md", ".py", ".safetensors"}
    with pytest.raises(ValueError, match="safetensors only"):
        load(exported).save_pretrained("anywhere", safe_serialization=False)


def test_no_path_of_this_machine_is_written(run, exported):
    texts = [path.read_text() for path in exported.rglob("*") if path.suffix in (".json", ".md")]
    place = str(Path(run.config.encoders[0]).parent)
    assert not any(place in text or "/somewhere/" in text for text in texts)


def edit(path, change):
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))


def test_a_newer_format_and_an_unknown_field_are_said(folder):
    edit(folder / "fusion_config.json", lambda plain: plain.update(format=2))
    with pytest.raises(FusionError, match="format 2 is newer than 1"):
        load(folder)
    edit(folder / "fusion_config.json", lambda plain: plain.update(format=1, colour="red"))
    with pytest.raises(FusionError, match="unknown field colour"):
        load(folder)
    with pytest.raises(ValueError, match="unknown field colour"):
        SentenceTransformer(str(folder), trust_remote_code=True)


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "a/../../b", "C:\\a", "", "..\\b"])
def test_paths_cannot_leave_the_folder(folder, path):
    edit(folder / "fusion_config.json", lambda plain: plain["encoders"][0].update(path=path))
    with pytest.raises(FusionError, match="leaves the model folder"):
        load(folder)


def test_checksums_and_modules_cannot_name_files_outside(folder):
    edit(folder / "fusion_config.json", lambda p: p["files"].update({"../x": "0" * 64}))
    with pytest.raises(FusionError, match="leaves the model folder"):
        load(folder)


@pytest.mark.parametrize(
    "entry", [{"type": "os.system"}, {"path": "../up"}, {"path": "/etc"}, {"type": "evil.Module"}]
)
def test_a_module_that_is_not_ours_is_refused(folder, entry):
    edit(folder / "modules.json", lambda plain: plain[1].update(entry))
    with pytest.raises(FusionError, match="names a module that fusion has not"):
        load(folder)


WEIGHTS = ["encoders/1-tiny-e5/model.safetensors", "1_FusedHead/model.safetensors"]


@pytest.mark.parametrize("name", [*WEIGHTS, "ranges.safetensors"])
def test_a_truncated_an_edited_and_a_missing_file_are_named(folder, name):
    whole = (folder / name).read_bytes()
    for damaged in (whole[:-9], whole[:-1] + bytes([whole[-1] ^ 1])):
        (folder / name).write_bytes(damaged)
        with pytest.raises(FusionError, match=f"{name} is damaged or was edited"):
            load(folder)
    (folder / name).unlink()
    with pytest.raises(FusionError, match=f"{name} is missing"):
        load(folder)
    with pytest.raises(ValueError, match=f"{name} is missing"):
        SentenceTransformer(str(folder), trust_remote_code=True)


def test_a_pickle_in_an_encoders_place_is_never_opened(folder):
    (folder / "encoders/0-tiny-bge/pytorch_model.bin").write_bytes(b"cos\nsystem\n.")
    with pytest.raises(FusionError, match=r"pytorch_model.bin may hold a pickle"):
        load(folder)


def test_damaged_settings_are_one_line(folder):
    for text in ("{", "[]", "{}", '{"encoders": [{}], "dims": [1], "normalize": "none"}'):
        (folder / "fusion_config.json").write_text(text)
        with pytest.raises(FusionError, match=r"fusion_config.json cannot be used") as caught:
            load(folder)
        assert "\n" not in str(caught.value)
    (folder / "modules.json").unlink()
    with pytest.raises(FusionError, match=r"no exported model: it has no modules.json"):
        load(folder)


def test_a_name_that_is_no_folder_is_said(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FusionError, match="neither a folder nor a model"):
        load("nobody/nothing-at-all")


def test_an_output_without_a_name_and_one_behind_a_link(run, tmp_path):
    with pytest.raises(ValueError, match="has no name"):
        export(run, Path())
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    export(run, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "modules.json").is_file()


def test_a_failing_export_leaves_nothing(run, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr("fusion.model.modules.fused_encoder.save_file", full)
    with pytest.raises(OSError, match="no space"):
        export(run, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_only_an_exported_model_is_overwritten(run, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("years of work")
    with pytest.raises(FusionError, match="not empty"):
        export(run, taken)
    with pytest.raises(FusionError, match="is not an exported model, so --over"):
        export(run, taken, overwrite=True)
    assert (taken / "thesis.txt").read_text() == "years of work"
    export(run, tmp_path / "model")
    export(run, tmp_path / "model", "pca", overwrite=True)
    assert type(load(tmp_path / "model")[1]) is Dense


def test_an_earlier_model_stays_where_the_new_one_cannot_have_its_name(run, tmp_path, monkeypatch):
    export(run, tmp_path / "model")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    rename = Path.replace

    def refused(self, target):
        if self.name == ".model.partial":
            raise OSError("read-only")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(OSError, match="read-only"):
        export(run, tmp_path / "model", "pca", overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_embeddings_of_others_and_unknown_compressors_cannot_be_exported(run, tmp_path):
    of_others = replace(run, config=replace(run.config, encoders=("file:x.npy",), weights=(1.0,)))
    with pytest.raises(FusionError, match="embeddings, not an encoder"):
        export(of_others, tmp_path / "model")
    with pytest.raises(FusionError, match="no compressor 'svd'; choose among head, pca"):
        export(run, tmp_path / "model", "svd")


SHAPES = {
    "linear": (
        Dense,
        {"input_norm": False, "bias": False, "batch_norm": False, "negative_slope": None},
    ),
    "affine": (Dense, {"input_norm": False, "negative_slope": None}),
    "paper": (FusedHead, {}),
    "paper with output norm": (FusedHead, {"output_norm": True}),
    "residual": (FusedHead, {"residual_width": 8, "batch_norm": False}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_head_exports_and_stays_what_it_is(run, shape, tmp_path):
    kind, changes = SHAPES[shape]
    changed = with_head(run, **changes)
    build_model(changed).save_pretrained(str(tmp_path / "model"))
    model = load(tmp_path / "model", device="cpu")
    assert type(model[1]) is kind
    right = expected(changed, TEXTS, "query", "head", 16)
    np.testing.assert_allclose(model.encode_query(TEXTS, truncate_dim=16), right, atol=1e-5)


@pytest.mark.parametrize("normalize", ["none", "global"])
def test_other_normalizations_and_centred_pca_export(run, normalize, tmp_path):
    blocks = replace(run.blocks, normalize=normalize)
    changed = replace(run, blocks=blocks)
    changed = replace(changed, compressors={"pca": PCA(centred=True).fit(run.calibration)})
    model = build_model(changed, "pca")
    right = expected(changed, TEXTS, "document", "pca", 8)
    np.testing.assert_allclose(model.encode(TEXTS, truncate_dim=8), right, atol=1e-5)


def test_the_checksums_are_those_of_the_files(exported):
    files = json.loads((exported / "fusion_config.json").read_text())["files"]
    for name, digest in files.items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == digest
    weights = {str(p.relative_to(exported)) for p in exported.rglob("*.safetensors")}
    assert weights <= set(files)


def test_a_hub_that_says_no_leaves_the_folder(exported, monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", unreachable)
    with pytest.raises(FusionError, match="is written and checked, but the hub did not take it"):
        push(exported, "me/tiny")
    assert (exported / "modules.json").is_file()


def test_ranges_that_are_no_safetensors_are_said(folder):
    (folder / "ranges.safetensors").write_bytes(b"not a tensor")
    edit(folder / "fusion_config.json", lambda plain: plain["files"].clear())
    with pytest.raises(FusionError, match=r"ranges.safetensors cannot be read"):
        load(folder)
    save_file({"other": np.zeros(2)}, folder / "ranges.safetensors")
    load(folder).encode(TEXTS)  # floats need no ranges
