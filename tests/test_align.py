"""The doors of an alignment, from pictures on disk to recall, with real weights out of packages."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw
from safetensors.numpy import load_file

from fusion import align, evaluate, export, train
from fusion.errors import FusionError
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.text import load_encoder
from fusion.runs.aligned import AlignedRun
from fusion.runs.aligning import encode_items

COLOURS = ("red", "green", "blue", "yellow", "black", "pink")
SHAPES = {"circle": "ellipse", "square": "rectangle"}
SPLITS = ("train", "train", "train", "val", "test")
FEW = ["--dims", "4,10"]


def draw(colour, shape, place, path):
    image = Image.new("RGB", (96, 96), "white")
    box = [8 + 3 * place, 10 + 2 * place, 70 + 4 * place, 74 + 3 * place]
    getattr(ImageDraw.Draw(image), SHAPES[shape])(box, fill=colour)
    image.save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixty pictures of coloured shapes, each with two captions."""
    folder = tmp_path_factory.mktemp("pictures") / "shapes"
    folder.mkdir()
    lines = []
    for place, split in enumerate(SPLITS):
        for colour in COLOURS:
            for shape in SHAPES:
                name = f"{colour}-{shape}-{place}.png"
                draw(colour, shape, place, folder / name)
                captions = [f"a {colour} {shape}", f"{shape} painted {colour} on white"]
                line = {"image": name, "split": split, "captions": captions}
                lines.append(line | {"captions_xx": f"{shape} {colour}"})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "captions.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(autouse=True)
def one_store(own_cache, store, monkeypatch):
    """Pictures are embedded once for all tests of this file."""
    monkeypatch.setenv("FUSION_CACHE", str(store))


@pytest.fixture(scope="module")
def run(data, store, tmp_path_factory):
    pytest.importorskip("wordllama")
    pytest.importorskip("efficientnet_lite_pytorch")
    folder = tmp_path_factory.mktemp("runs") / "shapes"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_CACHE", str(store))
        assert align.main([*flags(data), *FEW, "--output", str(folder)]) == 0
    return folder


def flags(data):
    return ["--source", "wordllama", "--target", "efficientnet-lite0", "--pairs", str(data)]


def results(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_captions_find_pictures_and_pictures_find_captions(run, data, tmp_path, capsys):
    out = tmp_path / "out"
    precisions = ["--precisions", "float32,int8"]
    assert evaluate.main([str(run), *precisions, "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "shapes test: texts find pictures; 24 queries, 12 to find" in printed
    rows = results(out)["rows"]
    assert len(rows) == 12
    assert {row["bytes_per_vector"] for row in rows} == {16, 40, 4, 10}
    wide = [row for row in rows if row["dim"] == 10 and row["protocol"] == "all-captions"]
    assert min(row["recall_at_1"] for row in wide) > 0.4  # chance is a twelfth
    assert min(row["recall_at_5"] for row in wide) > 0.9
    about = results(out)["environment"]
    assert about["data"] == [{"name": "shapes", "split": "test", "pictures": 12, "texts": 24}]
    assert about["run"]["pairs"] == "shapes"
    assert str(data) not in json.dumps(about)
    assert "Run `shapes`: wordllama with efficientnet-lite0, cca on shapes" in (
        out / "results.md"
    ).read_text(encoding="utf-8")


def test_the_run_folder_holds_what_is_needed_and_gives_the_same_vectors(run, data):
    names = ["config.yaml", "source.safetensors", "target.safetensors", "calibration.safetensors"]
    assert all((run / name).is_file() for name in [*names, "metrics.csv", "environment.json"])
    plain = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert (plain["dims"], plain["method"]) == ([4, 10], "cca")
    tried = (run / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert tried[0] == "shrinkage,power,reciprocal_rank"
    assert len(tried) == 16
    loaded = AlignedRun.load(run)
    texts = loaded.source.blocks.transform(
        [load_encoder("wordllama").encode(["a red circle"], Role.QUERY)]
    )
    tensors = load_file(run / "source.safetensors")
    expected = texts @ tensors["matrix"] + tensors["bias"]
    np.testing.assert_allclose(loaded.source.map.transform(texts), expected, atol=1e-6)
    assert loaded.environment["pair_count"] == 72
    assert loaded.environment["chosen_on"] == "val"


def test_items_are_embedded_by_the_tower_of_their_kind(run, data):
    loaded = AlignedRun.load(run)
    pictures = [{"image": data / f"{colour}-square-4.png"} for colour in COLOURS]
    texts = [f"a {colour} square" for colour in COLOURS]
    found, asked = encode_items(loaded, pictures), encode_items(loaded, texts)
    for rows in (found, asked):
        assert rows.shape == (6, 10)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert ((asked @ found.T).argmax(axis=1) == np.arange(6)).sum() >= 4
    with pytest.raises(ValueError, match="of one kind"):
        encode_items(loaded, [*texts, *pictures])
    with pytest.raises(ValueError, match="at least one"):
        encode_items(loaded, [])


def test_align_says_what_came_out_and_what_to_type_next(run, data, tmp_path, capsys):
    out = tmp_path / "run"
    assert align.main([*flags(data), *FEW, "--max-pairs", "30", "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "fitted: cca on 60 pairs of 30 targets\n" in printed
    assert "chosen: shrinkage " in printed
    results = f"--data {data} --output {tmp_path / 'run-results'}"
    assert f"next:   python -m fusion.evaluate {out} {results}\n" in printed


def test_another_encoder_is_mapped_in_by_texts_alone(run, data, tmp_path, capsys, tiny_encoder):
    out, other = tmp_path / "other", tmp_path / "results"
    command = ["--source", f"wordllama,{tiny_encoder}", "--target", str(run), "--keep", "target"]
    assert align.main([*command, "--pairs", f"texts:{data}", "--output", str(out)]) == 0
    assert "chosen: penalty " in capsys.readouterr().out
    kept, made = AlignedRun.load(run), AlignedRun.load(out)
    np.testing.assert_array_equal(made.target.map.matrix, kept.target.map.matrix)
    assert made.target.blocks == kept.target.blocks
    assert made.config.dims == (4, 10)
    language = ["--data", f"{data}:xx", "--dims", "10"]
    assert evaluate.main([str(out), *language, "--output", str(other)]) == 0
    forth, back = results(other)["rows"][:2]
    assert (forth["data"], forth["queries"]) == ("shapes:xx", 12)
    assert forth["recall_at_1"] > 0.4
    assert back["recall_at_5"] > 0.8


def test_pictures_embedded_elsewhere_are_a_target_too(run, data, tmp_path):
    paths = sorted(data.glob("*.png"))
    items = [{"image": path} for path in paths]
    rows = load_encoder("efficientnet-lite0").encode(items, Role.DOCUMENT)
    np.save(tmp_path / "own.npy", rows)
    (tmp_path / "own.ids.txt").write_text("".join(f"{p.name}\n" for p in paths), encoding="utf-8")
    target = ["--target", f"file:{tmp_path / 'own.npy'}"]
    out = tmp_path / "run"
    assert align.main([*flags(data), *target, *FEW, "--output", str(out)]) == 0
    found, expected = AlignedRun.load(out), AlignedRun.load(run)
    vectors = expected.source.map.transform(expected.source.calibration)
    again = found.source.map.transform(expected.source.calibration)
    np.testing.assert_allclose(again, vectors, atol=1e-3)
    assert evaluate.main([str(out), "--output", str(tmp_path / "results")]) == 0


def failing(capsys, door, arguments):
    capsys.readouterr()
    try:
        code = door.main(arguments)
    except SystemExit as stop:  # argparse's own
        code = stop.code
    lines = [x for x in capsys.readouterr().err.splitlines() if "error:" in x]
    assert len(lines) == 1
    return code, lines[0]


@pytest.mark.parametrize(
    ("changed", "code", "message"),
    [
        (["--pairs", "nowhere"], 1, "pairs 'nowhere' not found: a folder with captions.jsonl"),
        (
            ["--source", "efficientnet-lite0"],
            1,
            "the source of these pairs is texts, which",
        ),
        (
            ["--target", "minilm"],
            1,
            "the target of these pairs is pictures, which",
        ),
        (["--target", "a,a"], 2, "target names one twice: a,a"),
        (["--method", "ridge"], 2, "method ridge maps into the target's space: --keep target"),
        (["--method", "cca", "--keep", "target"], 2, "method cca maps both sides; with --keep"),
        (["--source-weights", "1,2"], 2, "source_weights has 2 entries for 1 encoders (wordllama)"),
        (["--source-weights", "auto"], 2, "'auto' is not a list of numbers"),
        (["--max-pairs", "1"], 2, "max_pairs must be at least 2, got 1"),
        (["--dims", "10,4"], 2, "dims"),
        (["--dims", "36"], 2, "36"),
        (["--seed", "-1"], 2, "seed must be 0 or more"),
        (["--method", "svd"], 2, "invalid choice: 'svd'"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    changed, code, message, data, tmp_path, capsys
):
    out = tmp_path / "run"
    found = failing(capsys, align, [*flags(data), *changed, "--output", str(out)])
    assert found[0] == code
    assert message in found[1]
    assert not out.exists()


def test_a_finished_run_is_not_overwritten_unasked(run, data, capsys):
    before = (run / "environment.json").read_bytes()
    code, line = failing(capsys, align, [*flags(data), *FEW, "--output", str(run)])
    assert code == 1
    assert "exists and is not empty" in line
    assert (run / "environment.json").read_bytes() == before
    code, line = failing(capsys, align, [*flags(data), "--target", str(run), "--output", "x"])
    assert "is a run, whose space is kept: say --keep target" in line


def test_a_broken_picture_is_named_and_nothing_is_written(data, tmp_path, capsys):
    pytest.importorskip("efficientnet_lite_pytorch")
    line = json.loads((data / "captions.jsonl").read_text(encoding="utf-8").splitlines()[0])
    folder = tmp_path / "broken"
    folder.mkdir()
    rows = [line | {"image": f"{name}.png"} for name in ("good", "bad")]
    (folder / "captions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    whole = (data / line["image"]).read_bytes()
    (folder / "good.png").write_bytes(whole)
    (folder / "bad.png").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "run"
    code, said = failing(capsys, align, [*flags(folder), "--output", str(out)])
    assert code == 1
    assert "bad.png is damaged: " in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("wrong", "code", "message"),
    [
        (["--methods", "pca"], 2, "--methods is for a run folder of fusion.train; "),
        (["--budget", "8"], 2, "--budget is for a run folder of fusion.train; "),
        (["--data", "pydocs"], 1, "data 'pydocs': an alignment is measured on pictures with cap"),
        (["--split", "dev"], 1, "has no split 'dev'; it has test, train, val"),
        (["--dims", "11"], 2, "11"),
        (["--precisions", "int9"], 2, "precision 'int9' is unknown"),
    ],
)
def test_an_evaluation_that_cannot_be_costs_no_work(wrong, code, message, run, tmp_path, capsys):
    out = tmp_path / "out"
    found = failing(capsys, evaluate, [str(run), *wrong, "--output", str(out)])
    assert found[0] == code
    assert message in found[1]
    assert not out.exists()


def test_each_kind_of_run_is_told_from_the_other(run, tmp_path, capsys):
    _, line = failing(capsys, export, [str(run), "--output", str(tmp_path / "model")])
    assert "is a run of fusion.align; name one of fusion.train" in line
    folder = tmp_path / "trained"
    folder.mkdir()
    (folder / "config.yaml").write_text("encoders: [minilm]\nblocks: {}\n", encoding="utf-8")
    (folder / "environment.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FusionError, match=r"is a run of fusion\.train; name one of fusion\.align"):
        AlignedRun.load(folder)


def test_a_damaged_or_changed_run_is_refused(run, tmp_path, capsys):
    import shutil

    for name, text, message in (
        ("config.yaml", "pairs: [", "is not a run folder|is damaged"),
        ("environment.json", "{}", "is damaged: 'modalities'"),
        ("source.safetensors", "x", "cannot read a compressor"),
        ("calibration.safetensors", "x", "cannot be read"),
    ):
        folder = shutil.copytree(run, tmp_path / name)
        (folder / name).write_text(text, encoding="utf-8")
        code, line = failing(capsys, evaluate, [str(folder), "--output", str(tmp_path / "out")])
        assert code == 1
        assert any(words in line for words in message.split("|"))
    folder = shutil.copytree(run, tmp_path / "other")
    about = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    about["encoders"]["wordllama"]["weights"] = "0"
    (folder / "environment.json").write_text(json.dumps(about), encoding="utf-8")
    _, line = failing(capsys, evaluate, [str(folder), "--output", str(tmp_path / "out")])
    assert "encoder wordllama has changed since the run was made with it" in line


def test_a_runs_own_config_makes_it_again(run, tmp_path, capsys):
    again = tmp_path / "again"
    assert align.main(["--config", str(run / "config.yaml"), "--output", str(again)]) == 0
    for name in ("source.safetensors", "target.safetensors", "metrics.csv"):
        assert (again / name).read_bytes() == (run / name).read_bytes()
    other = ["--config", str(run / "config.yaml"), "--output", str(tmp_path / "x")]
    assert failing(capsys, train, other)[0] == 2
    assert not (tmp_path / "x").exists()
