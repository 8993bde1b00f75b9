"""A path means one thing wherever it stands, and a name of the catalogue never means a path."""

import os
import shutil
import stat
from importlib.util import find_spec

import numpy as np
import pytest
import yaml

from fusion import evaluate, train
from fusion.errors import FusionError
from fusion.inputs.data.retrieval import find_folder, load_data
from fusion.inputs.data.texts import load_texts, settled_texts
from fusion.inputs.encoders.names import folder_of, public_names, settled
from fusion.inputs.encoders.text import load_encoder
from fusion.model.folder import export, load, load_codebook
from fusion.paths import as_path, default_root
from fusion.runs.folder import Run
from fusion.space.training.fit import fit_head
from fusion.space.training.recipe import TrainConfig

SCARCE = ["--dims", "4,8", "--epochs", "1", "--batch-size", "32"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with texts, embeddings and data in it; the work is elsewhere."""
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir()
    (home / "data" / "beir" / "mini" / "qrels").mkdir(parents=True)
    lines = [f"text number {row} of a few" for row in range(60)]
    (home / "t.txt").write_text("\n".join(lines), encoding="utf-8")
    np.save(home / "api.npy", np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32))
    (home / "api.ids.txt").write_text("\n".join(map(str, range(1, 61))), encoding="utf-8")
    mini = home / "data" / "beir" / "mini"
    (mini / "corpus.jsonl").write_text('{"_id": "1", "text": "a"}\n', encoding="utf-8")
    (mini / "queries.jsonl").write_text('{"_id": "2", "text": "a"}\n', encoding="utf-8")
    (mini / "qrels" / "test.tsv").write_text("2\t1\t1\n", encoding="utf-8")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    return home


def files(folder):
    return {path.name for path in folder.iterdir()}


def test_home_is_home_in_every_flag(home):
    words = ["--encoders=file:~/api.npy", "--texts=~/t.txt", *SCARCE]
    assert train.main([*words, "--output=~/run"]) == 0
    assert {"head.safetensors", "environment.json", "curves.png"} <= files(home / "run")
    results = ["--data=~/data/beir/mini", "--methods", "pca", "--output=~/results"]
    assert evaluate.main(["~/run", *results]) == 0
    assert "results.json" in files(home / "results")
    assert files(home.parent / "work") == set()


def test_home_is_home_in_a_config_and_in_variables(home, monkeypatch):
    flags = {"encoders": ["file:~/api.npy"], "texts": "~/t.txt", "output": "~/run", "epochs": 1}
    (home / "c.yaml").write_text(yaml.safe_dump(flags | {"dims": [4, 8]}), encoding="utf-8")
    monkeypatch.setenv("FUSION_DATA", "~/data")
    monkeypatch.setenv("FUSION_CACHE", "~/cache")
    assert train.main(["--config", "~/c.yaml"]) == 0
    assert Run.load(home / "run").config.texts == str(home / "t.txt")
    assert evaluate.main(["~/run", "--data", "mini", "--methods", "pca", "--output=~/results"]) == 0
    assert default_root() == home / "cache"
    assert files(home.parent / "work") == set()


def test_home_is_home_in_a_library_call(home, model):
    shutil.copytree(model, home / "model")
    assert load("~/model").encode("cat").shape == (24,)
    assert load_codebook("~/model", "int8", 8).dim == 8


def test_a_folder_called_tilde_is_one_folder_for_all_who_write_to_it(home):
    """Lightning takes a leading ~ for the home folder; the files of a run would part ways."""
    rows = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    fit_head(rows, TrainConfig(steps=None, epochs=1, sentences=0), (4, 8), folder="~")
    assert files(home.parent / "work" / "~") == {"metrics.csv"}
    assert "checkpoints" not in files(home)


def test_a_finished_run_is_at_home_in_every_folder(home, monkeypatch):
    for path in home.glob("api.*"):
        shutil.copy(path, home.parent / "work")
    shutil.copy(home / "t.txt", home.parent / "work")
    words = ["--encoders", "file:api.npy", "--texts", "t.txt", *SCARCE]
    assert train.main([*words, "--output", "run"]) == 0
    monkeypatch.chdir(home)
    run = Run.load(home.parent / "work" / "run")
    assert run.config.encoders == (f"file:{home.parent / 'work' / 'api.npy'}",)
    run.config.check_encoders()
    assert load_texts(run.config.texts).digest == run.environment["texts"]
    assert run.config.described()["encoders"] == ["api.npy"]  # what others read names no folder
    assert run.config.described()["texts"] == "t.txt"


def test_a_name_of_the_catalogue_means_the_catalogue(home, tiny_encoder):
    pytest.importorskip("wordllama")
    before = load_encoder("wordllama").fingerprint
    shutil.copytree(tiny_encoder, "wordllama")
    assert folder_of("wordllama") is None
    assert load_encoder("wordllama").fingerprint == before
    folder = home.parent / "work" / "wordllama"
    assert settled("wordllama") == "wordllama"
    assert settled("./wordllama") == str(folder)
    assert load_encoder("./wordllama").dim == load_encoder(str(tiny_encoder)).dim != 256


def test_a_folder_without_a_corpus_hides_no_data(home, monkeypatch):
    (home.parent / "work" / "mini").mkdir()
    with pytest.raises(FusionError, match="mini/ holds nothing"):
        load_data("mini")
    monkeypatch.setenv("FUSION_DATA", str(home / "data"))
    assert find_folder("mini") == home / "data" / "beir" / "mini"
    shutil.copytree(home / "data" / "beir" / "mini", "mini", dirs_exist_ok=True)
    assert str(find_folder("mini")) == "mini"  # the folder comes first, if it holds data


def test_embedded_names_of_texts_mean_themselves(home, monkeypatch):
    from fusion.inputs.data import retrieval as corpora

    shutil.copytree(home / "data" / "beir" / "mini", "pydocs")
    (home.parent / "work" / "wikipedia").write_text("a text", encoding="utf-8")
    monkeypatch.setattr(corpora, "load_data", lambda name: corpora.RetrievalData(
        name, "test", [], [], ["e"], ["embedded"], {}))  # fmt: skip
    assert load_texts("data:pydocs").texts == ["embedded"]
    assert settled_texts("data:pydocs,pydocs,wikipedia") == "data:pydocs,pydocs,wikipedia"
    with pytest.raises(FusionError, match="'wikipedia' not found: tried no file"):
        load_texts("wikipedia")
    assert settled_texts("data:./pydocs").endswith("work/pydocs")


def test_public_names_keep_apart_what_is_called_alike():
    assert public_names(["minilm", "/a/x", "file:/b/y.npy", "BAAI/bge"]) == [
        "minilm", "x", "y.npy", "BAAI/bge",
    ]  # fmt: skip
    assert public_names(["/a/x", "/b/x"]) == ["/a/x", "/b/x"]


def test_without_a_home_folder_the_way_out_is_named(monkeypatch):
    for name in ("HOME", "FUSION_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 123_456_789)  # a user without a name
    with pytest.raises(FusionError, match="no home folder to keep embeddings in: set FUSION_CACHE"):
        default_root()
    with pytest.raises(FusionError, match="~/x: there is no such home folder"):
        as_path("~/x")
    if find_spec("wordllama") is None:  # its package wants a home folder when it is imported
        pytest.skip("wordllama is not installed")
    assert load_encoder("wordllama").dim == 256


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_may_be_read_by_whom_the_umask_lets(tmp_path, tiny_encoder, umask, monkeypatch):
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))
    (tmp_path / "t.txt").write_text(
        "\n".join(f"the cat {row} runs" for row in range(60)), encoding="utf-8"
    )
    words = ["--encoders", str(tiny_encoder), "--texts", str(tmp_path / "t.txt"), *SCARCE]
    before = os.umask(umask)
    try:
        assert train.main([*words, "--output", str(tmp_path / "run")]) == 0
        export(Run.load(tmp_path / "run"), tmp_path / "model")
    finally:
        os.umask(before)
    for name in ("run", "model", "cache"):
        found = {
            p: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / name).rglob("*") if p.is_file()
        }
        assert len(found) > 2
        assert set(found.values()) == {0o666 & ~umask}, found
