"""Markdown of what benchmark_training.py measured.

python experiments/render/sections/render_training.py experiments/results/training_cpu.json
"""

import json
import sys
from pathlib import Path
from typing import Any

PRODUCTS = "head: matrix products"
NESTED = "step: nested MSE"


def render(json_path: Path | str) -> str:
    """The tables of one JSON file, with a line on where they were measured."""
    report = json.loads(Path(json_path).read_text(encoding="utf-8"))
    return "\n".join([_origin(report), "", *_steps(report), "", *_training(report), ""])


def _origin(report: dict[str, Any]) -> str:
    where, what = report["environment"], report["setting"]
    threads = f", {where['threads']} CPU thread{'s' * (where['threads'] != 1)}"
    return (
        f"Batch {what['batch']}, {what['in_dim']} → {what['dims'][-1]}, "
        f"{len(what['dims'])} widths; {where['device']}{threads}, "
        f"clock: {where['clock']}, torch {where['torch']}, "
        f"commit {where['commit']}, {where['date'][:10]}."
    )


def _steps(report: dict[str, Any]) -> list[str]:
    steps = report["steps"]
    products, nested = (steps[name]["median_ms"] for name in (PRODUCTS, NESTED))
    lines = [
        "| what | median ms | 20 % – 80 % | of the head's matrix products | of a nested MSE step |",
        "|---|---|---|---|---|",
    ]
    for name, row in steps.items():
        median = row["median_ms"]
        lines.append(
            f"| {name} | {median:.1f} | {row['p20_ms']:.1f} – {row['p80_ms']:.1f} "
            f"| {median / products:.2f} | {median / nested:.2f} |"
        )
    return lines


def _training(report: dict[str, Any]) -> list[str]:
    rows = report["training"]
    columns = list(next(iter(rows.values())))
    lines = [
        f"| precision | {' | '.join(column.replace('_', ' ') for column in columns)} |",
        "|---|" + "---|" * len(columns),
    ]
    lines += [f"| {name} | {' | '.join(str(r[c]) for c in columns)} |" for name, r in rows.items()]
    return lines


if __name__ == "__main__":
    print(render(sys.argv[1]))
