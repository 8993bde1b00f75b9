import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from fusion.environment import describe_environment
from fusion.errors import FusionError
from fusion.inputs.data.texts import Texts
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.text import load_encoder
from fusion.inputs.store.store import Store
from fusion.runs.config import RunConfig
from fusion.runs.folder import Run
from fusion.runs.fusing import auto_weights, default_dims, fuse, fuse_queries, load_encoders
from fusion.runs.training import train
from fusion.space.blocks import Blocks, Normalization
from fusion.space.training.recipe import TrainConfig

WORDS = ["the", "cat", "dog", "runs", "sleeps", "and", "a", "of", "to", "query"]


def sentences(count, words=14, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, words)) + f" {row}" for row in range(count)]


@pytest.fixture(scope="module")
def config(tiny_encoder, other_encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(sentences(200)), encoding="utf-8")
    return RunConfig(
        encoders=(str(tiny_encoder), str(other_encoder)),
        weights=(1.0, 0.5),
        texts=str(path),
        dims=(8, 16, 40),
        train=TrainConfig.of("fusion", steps=6, batch_size=32),
    )


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_CACHE", str(tmp_path_factory.mktemp("cache")))
        train(config, path)
    return path


def test_run_comes_back_from_its_folder_as_it_was_trained(folder, config, tmp_path):
    run = Run.load(folder)
    assert run.config.dims == (8, 16, 40)
    assert run.blocks.weights == (1.0, 0.5)
    assert run.calibration.shape == (200, 40)
    again = train(config, tmp_path / "again")
    for name in ("pca", "head"):
        ours = run.compressors[name].transform(run.calibration)
        assert np.array_equal(ours, again.compressors[name].transform(run.calibration))
    assert {p.name for p in folder.iterdir()} == {
        "config.yaml", "environment.json", "head.safetensors", "pca.safetensors",
        "calibration.safetensors", "metrics.csv",
    }  # fmt: skip


def test_fused_vectors_are_weighted_unit_blocks(folder, config):
    run = Run.load(folder)
    fused = fuse(run.blocks, load_encoders(config), ["the cat"], Role.QUERY, Store())
    norms = np.linalg.norm(fused[:, :16]) ** 2, np.linalg.norm(fused[:, 16:]) ** 2
    assert norms == pytest.approx((1.0, 0.5), rel=1e-5)


def test_config_survives_yaml(config):
    plain = yaml.safe_load(yaml.safe_dump(config.to_dict()))
    assert RunConfig.from_dict(plain) == config
    with pytest.raises(ValueError, match=r"does not fit this version.*colour"):
        RunConfig.from_dict({**plain, "colour": "red"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": (1.0,)}, "weights has 1 entries for 2 encoders"),
        ({"encoders": ()}, "encoders is empty"),
        ({"encoders": ("a", "a")}, "names one twice"),
        ({"normalize": "all"}, "'all' is not a valid Normalization"),
        ({"dims": (64, 32)}, "dims must increase, got 64,32"),
        ({"max_texts": 1}, "max_texts must be at least 2"),
    ],
)
def test_bad_values_are_named(config, change, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**{**config.to_dict(), "train": config.train, **change})


def test_dims_that_the_concat_cannot_give_leave_nothing_behind(config, tmp_path):
    too_wide = RunConfig(**{**config.to_dict(), "train": config.train, "dims": (8, 41)})
    with pytest.raises(ValueError, match="dims go up to 41, but the fused embedding has 40"):
        train(too_wide, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_existing_folder_is_refused_unless_a_flag_allows_it(config, folder, tmp_path):
    with pytest.raises(FusionError, match="not empty; choose another or use --overwrite or --res"):
        train(config, folder)
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    for flag in ("overwrite", "resume"):
        with pytest.raises(FusionError, match=f"is not a run folder, so --{flag} leaves it alone"):
            train(config, tmp_path, **{flag: True})
    with pytest.raises(FusionError, match="is a file"):
        train(config, tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "mine"


def test_overwriting_clears_an_earlier_run(config, folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "figures" / "old").mkdir(parents=True)
    (tmp_path / "old.png").touch()
    other = RunConfig(**{**config.to_dict(), "train": config.train, "weights": (1.0, 0.25)})
    train(other, tmp_path, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in folder.iterdir()}
    assert Run.load(tmp_path).blocks.weights == (1.0, 0.25)


def test_texts_that_cannot_be_trained_on_leave_an_earlier_run_alone(config, folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "few.txt").write_text("one\ntwo\nthree\n", encoding="utf-8")
    few = replace(config, texts=str(tmp_path / "few.txt"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="3 texts are too few to train on"):
        train(few, tmp_path, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(ValueError, match="3 texts are too few to train on"):
        train(few, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_device_that_is_not_there_is_one_line(config, tmp_path):
    absent = replace(config, train=replace(config.train, device="cuda"))
    with pytest.raises(FusionError, match="device cuda was asked for, but torch sees none"):
        train(absent, tmp_path / "run")
    with pytest.raises(FusionError, match="device cuda was asked for, but torch sees none"):
        load_encoder(config.encoders[0], device="cuda")
    assert len(load_encoders(absent)) == 2  # to evaluate, any device will do


def test_resuming_a_finished_run_trains_nothing(config, folder, monkeypatch):
    monkeypatch.setattr("fusion.space.training.fit.fit_head", None)
    run = train(config, folder, resume=True)
    assert run.config == Run.load(folder).config
    moved = RunConfig(
        **{**config.to_dict(), "train": replace(config.train, devices=2, strategy="ddp")}
    )
    assert train(moved, folder, resume=True).config.train.devices == 2


def test_interrupted_run_says_so_and_resumes_to_the_same_head(
    config, folder, tmp_path, monkeypatch
):
    import fusion.space.training.fit as training

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit_head", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run")
    with pytest.raises(FusionError, match=r"was interrupted; finish it with fusion.train --resume"):
        Run.load(tmp_path / "run")
    resumed = train(config, tmp_path / "run", resume=True)
    whole = Run.load(folder)
    assert np.array_equal(
        resumed.compressors["head"].transform(whole.calibration),
        whole.compressors["head"].transform(whole.calibration),
    )


def test_resuming_a_finished_run_refuses_other_texts(config, folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    texts = Path(config.texts)
    before = texts.read_text(encoding="utf-8")
    try:
        texts.write_text("\n".join(sentences(200, seed=1)), encoding="utf-8")
        with pytest.raises(FusionError, match="was trained on other texts; start anew"):
            train(config, tmp_path, resume=True)
    finally:
        texts.write_text(before, encoding="utf-8")
    assert train(config, tmp_path, resume=True).config.texts == config.texts


def test_encoders_that_changed_since_the_training_are_refused(config, folder):
    run, encoders = Run.load(folder), load_encoders(config)
    run.check_encoders(encoders)
    half = load_encoders(replace(config, encoder_dtype="bfloat16"))
    run.check_encoders(half)  # may compute elsewhere, or more coarsely
    name = encoders[1].name
    run.environment["encoders"][name] = encoders[1].fingerprint | {"weights": "others"}
    with pytest.raises(FusionError, match=f"encoder {name} has changed since the run"):
        run.check_encoders(encoders)
    del run.environment["encoders"]  # as in runs of earlier versions
    run.check_encoders(encoders)


def test_resume_refuses_other_settings(config, folder):
    other = RunConfig(**{**config.to_dict(), "train": config.train, "weights": (1.0, 0.25)})
    with pytest.raises(FusionError, match=r"\(weights: 1.0,0.5 there, 1.0,0.25 now\): resume with"):
        train(other, folder, resume=True)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.yaml", "is not a run folder"),
        ("environment.json", "was interrupted"),
        ("head.safetensors", "head.safetensors"),
        ("calibration.safetensors", "calibration.safetensors cannot be read"),
    ],
)
def test_missing_file_of_a_run_is_named(folder, tmp_path, file, message):
    for path in folder.iterdir():
        if path.name != file:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(FusionError, match=message):
        Run.load(tmp_path)


@pytest.mark.parametrize("content", ["{", "a: [", "encoders: 3", "[]"])
def test_damaged_config_is_one_line(folder, tmp_path, content):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(FusionError, match=r"config\.yaml is damaged"):
        Run.load(tmp_path)


def test_weights_of_a_single_encoder_and_of_files(config, tmp_path):
    texts = Texts("t", ["0"], ["no sentence here"], [""])
    encoders = load_encoders(config)
    assert auto_weights(encoders[:1], texts, Normalization.PER_MODEL, Store()) == (1.0,)
    np.save(tmp_path / "rows.npy", np.ones((1, 4), np.float32))
    (tmp_path / "rows.ids.txt").write_text("0\n", encoding="utf-8")
    encoders[1] = load_encoder(f"file:{tmp_path / 'rows.npy'}")
    with pytest.raises(FusionError, match=r"weights cannot be chosen with file:.* by hand"):
        auto_weights(encoders, texts, Normalization.PER_MODEL, Store())


def test_auto_weights_need_texts_that_can_be_split(config):
    texts = Texts("t", ["0"], ["no sentence here"], [""])
    with pytest.raises(FusionError, match=r"only 0 texts have a title .* --weights by hand"):
        auto_weights(load_encoders(config), texts, Normalization.PER_MODEL, Store())


@pytest.mark.parametrize(
    ("width", "dims"),
    [
        (1920, (32, 64, 128, 256, 384, 512, 768, 1024)),
        (640, (32, 64, 128, 256, 384, 512, 640)),
        (384, (32, 64, 128, 256, 384)),
        (20, (20,)),
    ],
)
def test_default_dims_are_the_usual_ones_that_fit(width, dims):
    assert default_dims(width) == dims


def test_environment_names_no_path_and_no_host():
    written = json.dumps(describe_environment())
    assert "torch" in written
    assert "/" not in written.replace("/proc", "")


def test_titles_and_sentences_are_embedded_as_queries_of_their_texts(config, tmp_path):
    encoders, store = load_encoders(config), Store(tmp_path)
    blocks = Blocks(config.encoders, tuple(encoder.dim for encoder in encoders))
    cats = "the cat sleeps and runs. A dog runs to the cat."
    texts = Texts("t", ["0", "1", "2"], [cats, "one sentence", cats], ["", "one", "the cat"])

    def queries(**settings):
        return fuse_queries(blocks, encoders, texts, TrainConfig(**settings), store)

    both = queries(sentences=2)
    assert both.owners.tolist() == [0, 0, 1, 2]
    parts = ["the cat sleeps and runs.", "A dog runs to the cat.", "one", "the cat"]
    expected = blocks.transform([encoder.encode(parts, Role.QUERY) for encoder in encoders])
    np.testing.assert_allclose(both.embeddings, expected, atol=1e-6)
    untitled = queries(sentences=2, titles=False)
    assert untitled.owners.tolist() == [0, 0, 2, 2]
    np.testing.assert_allclose(untitled.embeddings, expected[[0, 1, 0, 1]], atol=1e-6)
    assert queries(sentences=0) is None


def test_texts_without_titles_and_sentences_lend_no_queries(config, tmp_path):
    encoders = load_encoders(config)
    blocks = Blocks(config.encoders, tuple(encoder.dim for encoder in encoders))
    texts = Texts("t", ["0"], ["one sentence of five words here"], [""])
    assert fuse_queries(blocks, encoders, texts, TrainConfig(), Store(tmp_path)) is None


def test_embeddings_in_files_have_no_sentences(tmp_path, caplog):
    np.save(tmp_path / "api.npy", np.ones((1, 4), np.float32))
    (tmp_path / "api.ids.txt").write_text("0\n", encoding="utf-8")
    encoder = load_encoder(f"file:{tmp_path / 'api.npy'}")
    texts = Texts("t", ["0"], ["the cat sleeps and runs. A dog runs to the cat."], ["cats"])
    blocks = Blocks(("api",), (4,))
    assert fuse_queries(blocks, [encoder], texts, TrainConfig(), Store(tmp_path)) is None
    assert "an encoder reads its embeddings from files" in caplog.text
