"""What is not installed is missed only by what needs it, and says which extra brings it."""

import json
import subprocess
import sys

import pytest

from fusion import train
from fusion.errors import FusionError, MissingExtraError
from fusion.inputs.data import pydocs

# A finder that stands before all others: as if these had never been installed.
BARE = """
import sys
class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("lightning", "pytorch_lightning", "matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Bare())
"""
USE = """
import json
import fusion
from fusion.encode import main as encode
from fusion.export import main as export
run, texts, folder = sys.argv[1:]
assert export([run, "--output", folder + "/model"]) == 0
model = fusion.load(folder + "/model", device="cpu")
book = fusion.load_codebook(folder + "/model", "int2", 16)
codes = book.encode(model.encode_document(["the cat", "a dog"]))
assert book.score(model.encode_query(["cat"]), codes).shape == (1, 2)
flags = ["--input", texts, "--output", folder + "/shards", "--devices", "cpu"]
assert encode([folder + "/model", *flags]) == 0
"""
TRAIN = """
from fusion.train import main
sys.exit(main(json.loads(sys.argv[1])))
"""


def bare(program, *arguments):
    return subprocess.run(
        [sys.executable, "-c", f"{BARE}\nimport json\n{program}", *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    file = tmp_path_factory.mktemp("texts") / "texts.txt"
    words = ["cat", "dog", "runs", "sleeps", "query", "passage", "sentence"]
    lines = [f"the {words[r % 7]} {words[r // 7 % 7]} of {words[r // 49]} and" for r in range(200)]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def flags(tiny_encoder, other_encoder, texts):
    encoders = ["--encoders", f"{tiny_encoder},{other_encoder}", "--texts", str(texts)]
    return [*encoders, "--dims", "4,16", "--epochs", "1", "--batch-size", "32"]


@pytest.mark.slow
def test_loading_encoding_and_exporting_need_no_extra_of_training(flags, texts, tmp_path):
    run = tmp_path / "run"
    assert train.main([*flags, "--output", str(run)]) == 0
    done = bare(USE, run, texts, tmp_path)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "shards" / "_manifest.json").read_text(encoding="utf-8"))
    assert manifest


@pytest.mark.parametrize(
    ("verb", "said"),
    [("train", "training runs on Lightning"), ("evaluate", "figures are drawn by matplotlib")],
)
def test_a_door_that_needs_an_extra_says_so_before_any_work(verb, said, flags, tmp_path):
    out = tmp_path / "out"
    arguments = [*flags, "--output", str(out)] if verb == "train" else ["run", "--output", str(out)]
    done = bare(TRAIN.replace("fusion.train", f"fusion.{verb}"), json.dumps(arguments))
    assert done.returncode == 1
    assert done.stderr == f"error: {said}: pip install -e '.[train]'\n"
    assert not out.exists()


@pytest.mark.parametrize(
    "program",
    ["from fusion import fit_head", "from fusion.space.training.fit import check_devices"],
)
def test_training_without_lightning_names_the_extra(program):
    said = "training runs on Lightning: pip install -e '.[train]'"
    done = bare(program)
    assert done.stderr.splitlines()[-1] == f"fusion.errors.MissingExtraError: {said}"


def test_pydocs_without_what_it_reads_is_no_other_data_set(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"docstrings of matplotlib too: .*\.\[train\]'"):
        pydocs._source_files()


def test_a_missing_extra_is_both_kinds_of_error():
    error = MissingExtraError("it draws", "train")
    assert isinstance(error, FusionError)
    assert isinstance(error, ImportError)
    assert str(error) == "it draws: pip install -e '.[train]'"
