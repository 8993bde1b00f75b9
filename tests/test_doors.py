import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from fusion import evaluate, train
from fusion.space.training.recipe import TrainConfig

SCARCE = ["--recipe", "fusion", "--epochs", "2", "--batch-size", "32"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A BEIR folder whose queries repeat words of their documents, and a file of texts."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    documents = ["".join(rng.choice(letters, 3)) + " the cat " + letters[r % 26] for r in range(80)]
    (root / "beir" / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{row}", "title": "", "text": text} for row, text in enumerate(documents)]
    queries = [{"_id": f"q{row}", "text": documents[row][:5]} for row in range(30)]
    for name, lines in (("corpus", rows), ("queries", queries)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (root / "beir" / f"{name}.jsonl").write_text(text, encoding="utf-8")
    qrels = "query-id\tcorpus-id\tscore\n" + "".join(f"q{r}\td{r}\t1\n" for r in range(30))
    (root / "beir" / "qrels" / "test.tsv").write_text(qrels, encoding="utf-8")
    return root / "beir"


@pytest.fixture(scope="module")
def shared_ids(data, tmp_path_factory):
    """The same data, its queries called like documents; two of them are documents."""
    root = tmp_path_factory.mktemp("shared") / "ids"
    shutil.copytree(data, root)
    for name in ("queries.jsonl", "qrels/test.tsv"):
        text = (root / name).read_text(encoding="utf-8")
        renamed = text.replace('"q', '"d').replace("\nq", "\nd")
        (root / name).write_text(renamed, encoding="utf-8")
    with (root / "queries.jsonl").open("a", encoding="utf-8") as file:
        for row in (70, 71):
            document = (data / "corpus.jsonl").read_text(encoding="utf-8").splitlines()[row]
            file.write(f"{document}\n")
    with (root / "qrels" / "test.tsv").open("a", encoding="utf-8") as file:
        file.write("d70\td0\t1\nd71\td1\t1\n")
    return root


@pytest.fixture(scope="module")
def flags(tiny_encoder, other_encoder, data):
    return ["--encoders", f"{tiny_encoder},{other_encoder}", "--texts", f"data:{data}", *SCARCE]


@pytest.fixture(scope="module")
def run(flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train.main([*flags, "--dims", "4,16,40", "--output", str(folder)]) == 0
    return folder


def failing(capsys, door, arguments):
    """Exit code and the single line of the error."""
    capsys.readouterr()
    try:
        code = door.main(arguments)
    except SystemExit as stop:  # argparse's own
        code = stop.code
    lines = [x for x in capsys.readouterr().err.splitlines() if "error:" in x]
    assert len(lines) == 1
    return code, lines[0]


def test_train_says_what_it_changes_what_came_out_and_what_to_type_next(
    flags, data, tmp_path, capsys
):
    assert train.main([*flags, "--weights", "1,0.5", "--output", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "recipe:   fusion, weights 1,0.5, epochs 2, batch_size 32\n" in out
    assert "lr" not in out.split("recipe:")[1].split("\n")[0]  # nor anything else of the recipe
    assert "batch_size: 32" in (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8")
    kept = out.split("kept:")[1].split("\n")[0]
    assert re.fullmatch(r" +32 dims \d+%, 40 dims \d+% of the 10 nearest by .* of 80 texts\)", kept)
    results = ["--data", str(data), "--output", str(tmp_path / "run-results")]
    assert f"next:     python -m fusion.evaluate {tmp_path / 'run'} {' '.join(results)}\n" in out
    assert evaluate.main([str(tmp_path / "run"), *results, "--methods", "pca"]) == 0
    assert f"next:   python -m fusion.export {tmp_path / 'run'} --r" in capsys.readouterr().out
    assert (tmp_path / "run" / "curves.png").stat().st_size > 5_000
    assert (tmp_path / "run" / "metrics.csv").is_file()


def test_a_recipe_ousts_the_settings_of_a_runs_config(run):
    plain = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    del plain["blocks"]
    plain["train"] |= {"seed": 7, "device": "cpu"}
    again = train.resolve(dict(plain)).train
    assert (again.recipe, again.batch_size) == ("fusion", 32)
    paper = train.resolve(plain | {"recipe": "paper", "lr": 0.5}).train
    assert paper == TrainConfig.of("paper", lr=0.5, seed=7, device="cpu")


def test_queries_that_are_called_like_documents(run, data, shared_ids, tmp_path, capsys):
    scores = {}
    for name, folder in (("apart", data), ("shared", shared_ids)):
        out = tmp_path / name
        arguments = [str(run), "--data", str(folder), "--methods", "concat", "--output", str(out)]
        assert evaluate.main(arguments) == 0
        scores[name] = load_file(out / "per_query.safetensors").popitem()[1]
        (line,) = json.loads((out / "results.json").read_text())["environment"]["data"]
        said = "ids: 2 queries are documents too, and do not find themselves"
        assert line["self_matches_left_out"] == 2 * (name == "shared")
        assert (said in capsys.readouterr().out) == (name == "shared")
    np.testing.assert_array_equal(scores["shared"][:30], scores["apart"])
    assert scores["apart"].mean() > 0.2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--budget", "20", "--precisions", "binary"], "compared with float32"),
        (["--precisions", "int8,int8"], "precisions names one twice: int8,int8"),
        (["--seeds", "0,-1"], "seeds must be 0 or more, got -1"),
        (["--seeds", "1,1"], "seeds names one twice"),
    ],
)
def test_values_that_cannot_be_cost_no_work(run, data, tmp_path, capsys, wrong, message):
    arguments = [str(run), "--data", str(data), *wrong, "--output", str(tmp_path / "out")]
    code, line = failing(capsys, evaluate, arguments)
    assert code == 2
    assert message in line


def test_data_sets_of_one_name_and_outputs_below_a_file(run, data, tmp_path, capsys, monkeypatch):
    shutil.copytree(data, tmp_path / "other" / data.name)
    both = f"{data},{tmp_path / 'other' / data.name}"
    arguments = [str(run), "--data", both, "--output", str(tmp_path / "out")]
    assert f"two data sets are called {data.name}" in failing(capsys, evaluate, arguments)[1]
    (tmp_path / "file").touch()
    arguments = [str(run), "--data", str(data), "--output", str(tmp_path / "file" / "out")]
    assert "file is a file, so" in failing(capsys, evaluate, arguments)[1]
    monkeypatch.chdir(data)
    assert evaluate.main([str(run), "--data", ".", "--output", str(tmp_path / "here")]) == 0
    report = json.loads((tmp_path / "here" / "results.json").read_text(encoding="utf-8"))
    assert {row["data"] for row in report["rows"]} == {data.name}


def test_evaluate_writes_rows_that_the_contract_names(run, data, tmp_path, capsys):
    arguments = [str(run), "--data", str(data), "--seeds", "0,1", "--output", str(tmp_path / "out")]
    assert evaluate.main(arguments) == 0
    report = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    rows = report["rows"]
    keys = ["data", "split", "method", "dim", "precision", "bytes_per_vector", "seed"]
    keys += ["ndcg_at_10", "ndcg_at_10_ci95", "recall_at_100", "queries"]
    assert all(list(row) == keys for row in rows)
    found = {(row["method"], row["dim"], row["seed"]) for row in rows}
    nested = {("pca", d, 0) for d in (4, 16, 40)} | {("head", d, 0) for d in (4, 16, 40)}
    random = {("gaussian", d, s) for d in (4, 16, 40) for s in (0, 1)}
    assert nested | random | {("concat", 40, 0)} <= found
    full = {row["method"]: row["ndcg_at_10"] for row in rows if row["dim"] == 40}
    assert full["pca"] == pytest.approx(full["concat"], abs=1e-9)  # PCA is a rotation there
    assert full["first-k"] == full["concat"] > 0.2
    assert report["environment"]["run"]["dims"] == [4, 16, 40]
    assert "nDCG@10, beir" in capsys.readouterr().out
    for name in ("results.md", "results.csv", "ndcg_vs_bytes.png"):
        assert (tmp_path / "out" / name).stat().st_size > 100
    page = (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    assert page.startswith("# Results\n\n- The full concat (40 dims) scores ")
    assert f"```\npython -m fusion.evaluate {' '.join(arguments)}\n```\n\nRun `run`: " in page
    assert re.search(r"recipe fusion, fitted on .*, \d{4}-\d\d-\d\d\.\n", page)


def test_codes_are_measured_at_every_width(run, data, tmp_path):
    arguments = [str(run), "--data", str(data), "--methods", "encoders,pca", "--dims", "16,40"]
    arguments += ["--precisions", "float32,int8,binary", "--output", str(tmp_path / "out")]
    assert evaluate.main(arguments) == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["rows"]
    sizes = {(r["precision"], r["bytes_per_vector"]) for r in rows if r["dim"] == 40}
    assert {("float32", 160), ("int8", 40), ("binary", 5)} <= sizes


def test_flags_go_over_the_config_file(flags, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("seed: 7\ndims: [4, 8]\nweights: auto\nepochs: 3\n", encoding="utf-8")
    arguments = [*flags, "--config", str(config), "--weights", "1,0.25", "--seed", "5"]
    assert train.main([*arguments, "--output", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "recipe:   fusion, weights 1,0.25, dims 4,8, epochs 2, batch_size 32, seed 5\n" in out


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["--encoders", "bge-smal"], 1, "encoder 'bge-smal' is not a known name"),
        (["--dims", "64,32"], 2, "dims must increase, got 64,32"),
        (["--dims", "8,2000"], 2, "dims go up to 2000, but the fused embedding has 40 columns"),
        (["--dims", "8,x"], 2, "'8,x' is not a list of integers"),
        (["--weights", "1,2,3"], 2, "weights has 3 entries for 2 encoders"),
        (["--weights", "much"], 2, "'much' is not a list of numbers, nor auto"),
        (["--texts", "nowhere.txt"], 1, "texts 'nowhere.txt' not found: tried nowhere.txt"),
        (["--loss", "hinge"], 2, "loss must be one of"),
        (["--config", "nowhere.yaml"], 2, "--config nowhere.yaml cannot be read"),
        (["--colour", "red"], 2, "unrecognized arguments: --colour red"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(flags, tmp_path, capsys, change, code, message):
    found = failing(capsys, train, [*flags, *change, "--output", str(tmp_path / "run")])
    assert found[0] == code
    assert message in found[1]
    assert not (tmp_path / "run").exists()


def test_missing_output_is_bad_usage(flags, capsys):
    assert failing(capsys, train, flags) == (
        2, "python -m fusion.train: error: the following arguments are required: --output",
    )  # fmt: skip


def test_empty_text_file_is_one_line(flags, tmp_path, capsys):
    (tmp_path / "empty.txt").touch()
    arguments = [*flags, "--texts", str(tmp_path / "empty.txt"), "--output", str(tmp_path / "run")]
    code, line = failing(capsys, train, arguments)
    assert code == 1
    assert "empty.txt holds no text" in line


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_embedding_without_direction_names_row_and_encoder(flags, data, tmp_path, capsys, value):
    rows = np.ones((80, 4), dtype=np.float32)
    rows[3] = value
    np.save(tmp_path / "api.npy", rows)
    ids = "\n".join(f"d{row}" for row in range(80))
    (tmp_path / "api.ids.txt").write_text(ids, encoding="utf-8")
    encoder = f"file:{tmp_path / 'api.npy'}"
    arguments = [*flags, "--encoders", encoder, "--output", str(tmp_path / "run")]
    code, line = failing(capsys, train, arguments)
    assert code == 1
    assert f"encoder '{encoder}': the embedding of row 3 is" in line


def test_existing_output_is_refused(run, flags, data, tmp_path, capsys):
    code, line = failing(capsys, train, [*flags, "--output", str(run)])
    assert code == 1
    assert "use --overwrite or --resume" in line
    (tmp_path / "notes.txt").touch()
    code, line = failing(
        capsys, evaluate, [str(run), "--data", str(data), "--output", str(tmp_path)]
    )
    assert code == 1
    assert "exists and is not empty; choose another or use --overwrite" in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--methods", "pcaa"], "method 'pcaa' is unknown; choose among encoders,concat"),
        (["--precisions", "int7"], "'int7' is unknown; choose among float32"),
        (["--dims", "8,41"], "dims go up to 41"),
        (["--data", "nfcorpuss"], "data 'nfcorpuss' not found: tried nfcorpuss"),
        (["--split", "dev"], "dev.tsv is missing; qrels/ holds test.tsv"),
    ],
)
def test_bad_evaluation_is_one_line(run, data, tmp_path, capsys, change, message):
    arguments = [str(run), "--data", str(data), *change, "--output", str(tmp_path / "out")]
    code, line = failing(capsys, evaluate, arguments)
    assert code in (1, 2)
    assert message in line
    assert not (tmp_path / "out").exists()


def test_full_disk_is_one_line(run, data, tmp_path, capsys, monkeypatch):
    import fusion.measure.report as report

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "ndcg_figure", full)
    code, line = failing(
        capsys, evaluate, [str(run), "--data", str(data), "--output", str(tmp_path / "out")]
    )
    assert code == 1
    assert "No space left on device" in line
    assert not any(tmp_path.iterdir())  # nothing half-written


def test_traceback_only_when_asked_for(run, tmp_path, capfd):
    arguments = [str(run), "--data", "nowhere", "--output", str(tmp_path / "out")]
    assert evaluate.main(arguments) == 1
    assert "Traceback" not in capfd.readouterr().err
    code = "import sys; from fusion.evaluate import main; sys.exit(main(sys.argv[1:]))"
    loud = subprocess.run(
        [sys.executable, "-c", code, *arguments, "-v"], capture_output=True, text=True, check=False
    )
    assert "Traceback" in loud.stderr
    assert loud.returncode == 1


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_training_resumes_to_equal_bytes(flags, tmp_path, sent, code):
    folder = tmp_path / "run"
    arguments = [*flags, "--epochs", "60", "--output"]
    command = [sys.executable, "-m", "fusion.train", *arguments, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (folder / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert (b"--resume" in errors) is (sent == signal.SIGINT)
    assert b"Traceback" not in errors
    assert not (folder / "environment.json").exists()
    assert train.main([*arguments, str(folder), "--resume"]) == 0
    assert train.main([*arguments, str(tmp_path / "calm")]) == 0
    resumed, calm = (
        {path.name: path.read_bytes() for path in each.iterdir()}
        for each in (folder, tmp_path / "calm")
    )
    assert resumed == calm


@pytest.mark.parametrize("door", ["train", "evaluate"])
def test_help_teaches_with_examples(door):
    shown = subprocess.run(
        [sys.executable, "-m", f"fusion.{door}", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "examples:\n" in shown.stdout
    assert f"python -m fusion.{door}" in shown.stdout


def test_budget_is_chosen_on_dev_and_confirmed_on_test(run, data, tmp_path, capsys):
    dev = data / "qrels" / "dev.tsv"
    lines = (data / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    dev.write_text("".join(lines[:12]), encoding="utf-8")
    arguments = [str(run), "--data", str(data), "--methods", "concat,pca", "--budget", "16"]
    try:
        assert evaluate.main([*arguments, "--output", str(tmp_path / "out")]) == 0
        out = capsys.readouterr().out
        between = [*arguments, "--dims", "8", "--output", str(tmp_path / "between")]
        assert evaluate.main(between) == 0
    finally:
        dev.unlink()
    assert "train with 8 among the widths: --dims 4,8,16,40" in capsys.readouterr().out
    assert "best within 16 bytes: pca, " in out
    assert "chosen on beir dev" in out
    assert "on test: " in out
    rows = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["rows"]
    assert {row["dim"] for row in rows if row["precision"] == "float32"} == {4, 8, 16, 32, 40}
    coded = {(row["dim"], row["precision"]) for row in rows if row["precision"] != "float32"}
    assert {(32, "int4"), (40, "int3"), (40, "binary"), (8, "float16")} <= coded
    assert max(row["bytes_per_vector"] for row in rows if row["precision"] != "float32") == 16
    dim = int(out.partition("pca, ")[2].partition(" dims")[0])
    assert (f"train with {dim} among the widths: --dims" in out) == (dim not in (4, 16, 40))


def test_config_of_a_run_repeats_the_run(run, flags, tmp_path, capsys):
    arguments = ["--config", str(run / "config.yaml")]
    assert train.main([*arguments, "--output", str(tmp_path / "again")]) == 0
    for name in ("config.yaml", "pca.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes()
    changed = ["--epochs", "1", "--normalize", "none", "--output", str(tmp_path / "other")]
    assert train.main([*arguments, *changed]) == 0
    assert "normalize: none" in (tmp_path / "other" / "config.yaml").read_text(encoding="utf-8")
