"""An exported model among strangers: its own code is all that it needs."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer
from tiny_runs import TEXTS, build_tiny_run
from transformers.dynamic_module_utils import get_imports, get_relative_imports

import fusion
from fusion.model.folder import export, load
from fusion.model.modules.files import code_files
from fusion.space.codes import Precision

STRANGER = """
import importlib.util, sys
assert importlib.util.find_spec("fusion") is None, "this environment has fusion"
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], trust_remote_code=True, device="cpu")
texts = sys.argv[3:]
out = {"query": model.encode_query(texts), "document": model.encode(texts),
       "8": model.encode(texts, truncate_dim=8), "int8": model.encode(texts, precision="int8"),
       "float16": model.encode(texts, precision="float16")}
for name in ("float16", "int8", "int4", "int3", "int2+", "int2", "binary+", "binary"):
    book = model.codes(name, 16)
    out[name + ".codes"] = book.encode(out["document"])
    out[name + ".scores"] = book.score(out["query"], out[name + ".codes"])
save_file(out, sys.argv[2])
model.save_pretrained(sys.argv[2] + ".again")
"""
# The card's programs, one after the other, as a person would type them in.
CARD = """
import importlib.util, pathlib, sys
assert importlib.util.find_spec("fusion") is None, "this environment has fusion"
text = pathlib.Path(sys.argv[1], "README.md").read_text(encoding="utf-8")
for program in text.split("```python\\n")[1:]:
    exec(program.split("```")[0], globals())
assert codes.dtype == "uint8" and codes.shape == (len(documents), book.bytes_per_vector)
assert scores.dtype == "float32" and scores.shape == (len(queries), len(documents))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return build_tiny_run(tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    export(run, folder)
    return folder


@pytest.fixture(scope="module")
def second_environment(tmp_path_factory):
    """An environment with everything that is installed here, but without fusion."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    packages = sysconfig.get_path("purelib")
    own = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    # Paths named in a .pth file are searched, but .pth files there (an editable fusion) are not.
    (Path(own) / "borrowed.pth").write_text(f"{packages}\n", encoding="utf-8")
    return home / ("Scripts" if os.name == "nt" else "bin") / "python"


@pytest.fixture(scope="module")
def elsewhere(exported, second_environment, tmp_path_factory):
    """Runs a program in the second environment, beside the model's folder."""
    scratch = tmp_path_factory.mktemp("cache")
    environment = {"PATH": os.environ["PATH"], "HF_MODULES_CACHE": str(scratch)}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def start(program, *arguments):
        subprocess.run(
            [str(second_environment), "-c", program, *map(str, arguments)],
            check=True, cwd=exported.parent, env=environment,
        )  # fmt: skip

    return start


@pytest.fixture(scope="module")
def of_a_stranger(exported, elsewhere, tmp_path_factory):
    """What a program without fusion makes of the model, and the folder that it saved."""
    out = tmp_path_factory.mktemp("stranger") / "vectors.safetensors"
    elsewhere(STRANGER, exported, out, *TEXTS)
    return load_file(out), Path(f"{out}.again")


@pytest.mark.slow
def test_three_ways_to_load_give_equal_bits(exported, of_a_stranger):
    elsewhere, saved = of_a_stranger
    trusted = SentenceTransformer(str(exported), trust_remote_code=True, device="cpu")
    ours = fusion.load(exported, device="cpu")
    again = load(saved, device="cpu")  # saved there, loaded here
    for model in (trusted, ours, again):
        np.testing.assert_array_equal(model.encode_query(TEXTS), elsewhere["query"])
        np.testing.assert_array_equal(model.encode(TEXTS), elsewhere["document"])
        np.testing.assert_array_equal(model.encode(TEXTS, truncate_dim=8), elsewhere["8"])
        for precision in ("int8", "float16"):
            found = model.encode(TEXTS, precision=precision)
            np.testing.assert_array_equal(found, elsewhere[precision], strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [p for p in Precision if p != "float32"])
def test_documents_are_coded_and_scored_without_fusion(exported, of_a_stranger, precision):
    elsewhere, _ = of_a_stranger
    book = fusion.load_codebook(exported, precision, 16)
    codes = book.encode(elsewhere["document"])
    assert codes.shape == (len(TEXTS), book.bytes_per_vector)
    np.testing.assert_array_equal(elsewhere[f"{precision}.codes"], codes, strict=True)
    scores = book.score(elsewhere["query"], codes)
    np.testing.assert_array_equal(elsewhere[f"{precision}.scores"], scores, strict=True)


@pytest.mark.slow
def test_the_cards_programs_run_without_fusion(exported, elsewhere):
    elsewhere(CARD, exported)


def test_the_files_that_travel_are_the_files_that_run(exported):
    own = {path.name: path.read_bytes() for path in code_files().values()}
    assert {path.name: path.read_bytes() for path in exported.rglob("*.py")} == own
    package = Path(fusion.__file__).parent
    assert all(path.is_relative_to(package) for path in code_files().values())
    # Modules of these very files are what fusion runs.
    load(exported).codes("int2", 16)
    running = {Path(m.__file__) for m in list(sys.modules.values()) if getattr(m, "__file__", None)}
    assert set(code_files().values()) <= running


def test_a_folder_saved_by_a_stranger_holds_the_same_code(exported, tmp_path):
    model = SentenceTransformer(str(exported), trust_remote_code=True, device="cpu")
    model.save_pretrained(str(tmp_path / "again"))
    own = {path.relative_to(exported): path.read_bytes() for path in exported.rglob("*.py")}
    again = tmp_path / "again"
    assert {path.relative_to(again): path.read_bytes() for path in again.rglob("*.py")} == own


def test_the_first_file_names_all_that_travel():
    """Older loaders follow the names in the first file and no further."""
    own = code_files()
    named = {f"{name}.py" for name in get_relative_imports(own["modeling_fusion.py"])}
    assert named == set(own) - {"modeling_fusion.py"}
    for path in own.values():
        assert {f"{name}.py" for name in get_relative_imports(path)} <= set(own), path


def test_the_files_that_travel_need_only_what_a_stranger_has():
    allowed = {"numpy", "safetensors", "sentence_transformers", "torch", *sys.stdlib_module_names}
    for path in code_files().values():
        assert set(get_imports(path)) <= allowed, path
