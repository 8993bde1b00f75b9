"""Print pip constraints that hold every dependency at its lower bound in pyproject.toml.

python .ci/oldest.py > oldest.txt
pip install --constraint oldest.txt --editable '.[train,embedded,bulk,dev]'
"""

import re
import sys
import tomllib
from pathlib import Path

LOWER_BOUND = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*>=\s*([0-9][0-9a-z.]*)")


def lower_bounds(pyproject: Path) -> list[str]:
    """One constraint for each requirement that has a lower bound."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    found = [LOWER_BOUND.match(line) for group in groups for line in group]
    return sorted({f"{match[1]}=={match[2]}" for match in found if match})


if __name__ == "__main__":
    sys.stdout.write("\n".join(lower_bounds(Path(__file__).parents[1] / "pyproject.toml")) + "\n")
