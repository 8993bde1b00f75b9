"""What notebooks/run.py takes for the same output, and what notebooks may import."""

import ast
import importlib.util
import json
from pathlib import Path

import pytest

import fusion

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.fixture(scope="module")
def run():
    for package in ("nbclient", "nbformat"):
        pytest.importorskip(package)
    spec = importlib.util.spec_from_file_location("run_notebooks", NOTEBOOKS / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_cells(path: Path) -> list[dict]:
    return [
        c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"
    ]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebooks_use_public_names_and_keep_their_outputs(path):
    cells = code_cells(path)
    for cell in cells:
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "fusion":
                assert node.module == "fusion"
                assert {alias.name for alias in node.names} <= set(fusion.__all__)
            elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "fusion":
                assert node.attr in fusion.__all__
    assert all(cell["execution_count"] for cell in cells)
    printed = [output for cell in cells for output in cell["outputs"]]
    assert len(printed) >= 4
    assert all(output.get("name") != "stderr" for output in printed)
    assert "/tmp/" not in json.dumps(printed)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("0.912", "0.915", True),
        ("0.512", "0.612", False),
        ("head 0.51 0.70", "head 0.52 0.70", True),
        ("head 0.51 0.70", "pca 0.51 0.70", False),
        ("head 0.51", "head 0.51 0.70", False),
        ("of ten: 8 9", "of ten: 9 9", True),
        ("of ten: 8 9", "of ten: 6 9", False),
        ("1,536 bytes", "1,536 bytes", True),
        ("1,536 bytes", "2,560 bytes", False),
        ("at most 3e-08", "at most 6e-08", True),
        ("at most 3e-08", "at most 3e-01", False),
        ("a\nb\nc\nd\ne\nf\ng\nh", "a\nb\nd\nc\ne\nf\ng\nh", True),  # two answers change places
        ("a\nb\nc\nd", "b\na\nd\nc", False),
        ("a\nb", "a", False),
        ("a\nb\nc\nd 0.1", "a\nb\nc\nd 0.9", False),
    ],
)
def test_outputs_are_compared_as_a_person_would(run, old, new, same):
    assert (not run.unlike(old, new)) == same


def test_an_output_that_is_gone_or_new_is_told(run):
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    picture = new_output("display_data", {"image/png": "iVBO", "text/plain": "<Image>"})
    other = new_output("display_data", {"image/png": "AAAA", "text/plain": "<Image>"})
    said = new_output("stream", text="0.512\n")

    def book(*outputs):
        return new_notebook(cells=[new_code_cell("x", outputs=list(outputs))])

    assert run.differences(book(picture), book(other)) == []
    assert run.differences(book(picture, said), book(picture, said)) == []
    [words] = run.differences(book(picture, said), book(said))
    assert words == "cell 0 gave ['image/png', 'text/plain', 'printed'], now ['printed']"
