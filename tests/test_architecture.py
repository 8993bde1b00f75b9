"""The house stays a house: imports point downwards, heavy libraries stay in their rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fusion"
FLOORS = {  # what each room may know of the package, besides itself
    "search": set(),
    "inputs": set(),
    "space": set(),
    "config": {"inputs", "space"},
    "run": {"config", "inputs", "space"},
    "measure": {"run", "inputs", "space", "search"},
    "model": {"run", "inputs", "space"},
    "bulk": {"model", "run", "inputs", "space"},  # nobody but its door opens on it
}
GROUND = {
    "errors",
    "environment",
    "locks",
    "output",
    "paths",
    "samples",
}  # that every room stands on
HEAVY = {  # library -> the only files that may import it
    "sentence_transformers": {"inputs/encoders.py", "model/*"},
    "lightning": {"space/lightning.py"},
    "triton": {"search/triton_kernel.py"},
    "datasets": {"inputs/hub.py"},
    "pyarrow": {"bulk/*"},
    "ray": {"bulk/ray_engine.py"},
    "matplotlib": {"measure/report.py"},
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
