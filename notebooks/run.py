"""Run the notebooks beside this file from top to bottom, and compare what they print with what
stands in them; fail with the first cell that fails or prints something else.

Command: python notebooks/run.py [--write] [NAME.ipynb ...]

--write stores the new outputs instead. Numbers may differ a little, since processors sum in other
orders; of a picture only that it is there is compared. Texts such as docstrings change with the
packages that they come from: outputs of other versions than these are not compared, which is said.
"""

import argparse
import re
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
ABSOLUTE, RELATIVE = 0.02, 0.05  # a score's third decimal may move, a share's second
PACKAGES = ("lightning", "matplotlib", "numpy", "scipy", "scikit-learn", "sentence-transformers",
            "torch")  # fmt: skip


def main() -> None:
    """Run the named notebooks, or all of them, each in an empty folder of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="store the outputs")
    parser.add_argument("names", nargs="*", metavar="NAME.ipynb")
    options = parser.parse_args()
    for path in [HERE / name for name in options.names] or sorted(HERE.glob("*.ipynb")):
        stored = nbformat.read(path, as_version=4)
        fresh = execute(nbformat.read(path, as_version=4))
        if options.write:
            nbformat.write(fresh, path)
            print(f"{path.name}: stored")
        elif stored.metadata.get("versions") != fresh.metadata["versions"]:
            print(f"{path.name}: ran; its outputs are of other versions and were not compared")
        elif wrong := differences(stored, fresh):
            sys.exit(f"{path.name}: {wrong[0]}")
        else:
            print(f"{path.name}: {len(fresh.cells)} cells ran and print what stands there")


def execute(notebook: NotebookNode) -> NotebookNode:
    """The notebook with new outputs, without what libraries write to stderr."""
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": folder}})
        client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    notebook.metadata["versions"] = versions()
    return notebook


def versions() -> dict[str, str]:
    """Of Python, and of what the texts and the numbers come from."""
    found = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    return found | {name: version(name).partition("+")[0] for name in PACKAGES}


def differences(stored: NotebookNode, fresh: NotebookNode) -> list[str]:
    """What two runs of the same notebook print differently, for a person."""
    found = []
    for number, (before, now) in enumerate(zip(stored.cells, fresh.cells, strict=True)):
        if before.cell_type != "code":
            continue
        old, new = contents(before), contents(now)
        if old.keys() != new.keys():
            found.append(f"cell {number} gave {list(old)}, now {list(new)}")
        for kind in old.keys() & new.keys():
            found += [f"cell {number} {words}" for words in unlike(old[kind], new[kind])]
    return found


def contents(cell: NotebookNode) -> dict[str, str]:
    """Kind of output -> its text, pictures as nothing."""
    found: dict[str, str] = {}
    for output in cell.outputs:
        parts = {"printed": output.text} if "text" in output else output.get("data", {})
        for kind, text in parts.items():
            found[kind] = found.get(kind, "") + ("" if kind.startswith("image/") else text)
    return found


def unlike(old: str, new: str) -> list[str]:
    """What is not as before: numbers too far apart, or other words in too many lines.

    Two answers whose scores are nearly the same may change places on another processor, so a
    quarter of the lines may have other words; numbers beside the same words may not move far.

    >>> unlike("128 dims: 0.912", "128 dims: 0.915"), len(unlike("128 dims", "256 dims"))
    ([], 1)
    """
    if old.count("\n") != new.count("\n"):
        return [f"gave {old!r}, now {new!r}"]
    pairs = list(zip(old.splitlines(), new.splitlines(), strict=True))
    moved = [pair for pair in pairs if words_of(pair[0]) != words_of(pair[1])]
    wrong = [pair for pair in pairs if pair not in moved and not near_all(*pair)]
    wrong += moved if 4 * len(moved) > len(pairs) else []
    return [f"gave {a!r}, now {b!r}" for a, b in wrong]


def words_of(line: str) -> str:
    """A line without its numbers."""
    return " ".join(NUMBER.sub("#", line).split())


def near_all(a: str, b: str) -> bool:
    """Whether the numbers of two lines of the same words are as good as the same."""
    return all(near(x, y) for x, y in zip(NUMBER.findall(a), NUMBER.findall(b), strict=True))


def near(a: str, b: str) -> bool:
    """Whether two numbers are as good as the same; counts may be off by one."""
    x, y = (float(number.rstrip(",").replace(",", "")) for number in (a, b))
    if all(number.strip("-").isdigit() for number in (a, b)) and abs(x - y) <= 1:
        return True
    return abs(x - y) <= ABSOLUTE + RELATIVE * max(abs(x), abs(y))


if __name__ == "__main__":
    main()
