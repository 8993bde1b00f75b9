"""Markdown of what benchmark_codes.py measured: our codes beside FAISS's product quantisers.

Command:  python experiments/render/sections/render_codes.py JSON
"""

import json
import sys
from pathlib import Path
from typing import Any

TITLES = {"documents": "Fitted on each data set's own documents"}
NAMES = {
    "scalar": "scalar",
    "scalar-fitted": "scalar, rotation fitted",
    "trellis": "trellis",
    "pq": "FAISS PQ",
    "opq": "FAISS OPQ",
}


def render(path: Path) -> str:
    """One table a record: the best width of each kind of code at each number of bytes."""
    records = json.loads(path.read_text(encoding="utf-8"))
    return "\n".join(line for record in records for line in _table(record))


def _table(record: dict[str, Any]) -> list[str]:
    config = record["config"]
    fitted_on, data = config["fitted_on"], config["data"].replace(",", ", ")
    flags = ("fitted_on", "power", "methods", "budgets")
    command = " ".join(f"--{flag.replace('_', '-')} {config[flag]}" for flag in flags)
    lines = [
        f"### {TITLES.get(fitted_on, f'Fitted on {fitted_on}')}",
        "",
        f"`python experiments/benchmarks/codes.py {command}`",
        "",
        f"PCA with each component scaled by its eigenvalue to the power {config['power']:g}; "
        f"{data}; seeds {config['seeds']}; {record['date'][:10]}. Shares are of the float concat's "
        "nDCG@10. Shared: what decoding needs besides, once for a corpus, here spread over its "
        "documents.",
        "",
        "| bytes a vector | code | shared bytes a document | kept | queries coded too |",
        "|---|---|---|---|---|",
    ]
    for (budget, method), line in best_of_each(record).items():
        name = f"{NAMES[method]}, {line['dim']} × {line['precision']}"
        lines.append(
            f"| {budget} | {name} | {line['shared_bytes_per_vector']:.1f} "
            f"| {line['share']:.1%} | {line['share_both_coded']:.1%} |"
        )
    return [*lines, ""]


def best_of_each(record: dict[str, Any]) -> dict[tuple[int, str], dict[str, Any]]:
    """The best width of each kind of code at each number of bytes, the best kind first."""
    best: dict[tuple[int, str], dict[str, Any]] = {}
    for line in record["summary"]:  # the best first
        best.setdefault((line["budget"], line["method"]), line)
    return best


if __name__ == "__main__":
    print(render(Path(sys.argv[1])))
