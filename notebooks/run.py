"""Run the notebooks beside this file from top to bottom; fail with the first cell that fails.

Command: python notebooks/run.py [NAME.ipynb ...]
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main(names: list[str]) -> None:
    """Run the named notebooks, or all of them, each in an empty folder of its own."""
    here = Path(__file__).parent
    for path in [here / name for name in names] or sorted(here.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}})
            client.execute()
        print(f"{path.name}: {len(notebook.cells)} cells ran")


if __name__ == "__main__":
    main(sys.argv[1:])
