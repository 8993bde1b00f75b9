"""Markdown of what benchmark_topk.py measured.

python experiments/render_topk.py experiments/results/benchmark_topk.json
"""

import json
import sys
from pathlib import Path
from typing import Any

OURS = "nested"
FLOORS = ("one matrix product", "one matrix product, oneDNN")


def render(json_path: Path | str) -> str:
    """One table for each workload, device and thread count; the last record of each counts."""
    records = json.loads(Path(json_path).read_text(encoding="utf-8"))
    latest: dict[tuple[str, str, int], dict[str, Any]] = {}
    memory: dict[tuple[str, str, int], dict[str, float]] = {}
    for record in records:
        rows = record["methods"]
        key = record["workload"], record["device"], record["environment"]["threads"]
        if all("wall" not in row for row in rows.values()):
            memory[key] = {name: row["extra_memory_mb"] for name, row in rows.items()}
            continue
        latest[key] = record
    parts = [_table(record, memory.get(key, {})) for key, record in latest.items()]
    if all(record["device"] == "cpu" for record in latest.values()):
        parts.append(
            "Same results: the share of indices that equal the first method's; the others order "
            "equal scores, such as those of duplicate documents, as it happens."
        )
        parts.append("The CUDA engine is not measured: no GPU was to be had.")
    return "\n\n".join(parts) + "\n"


def _table(record: dict[str, Any], memory: dict[str, float]) -> str:
    sizes, where, rows = record["sizes"], record["environment"], record["methods"]
    clock = "cpu" if all("cpu" in row for row in rows.values()) else "wall"
    pairs = sizes["queries"] * sizes["documents"] * len(sizes["dims"])
    medians = {name: row[clock]["median"] for name, row in rows.items()}
    floor = min((medians[name] for name in FLOORS if name in medians), default=None)
    lines = [
        f"**{record['workload']}**: {sizes['queries']:,} queries × {sizes['documents']:,} "
        f"documents, dims {', '.join(map(str, sizes['dims']))}, k = {sizes['k']}; "
        + _origin(record, where),
        "",
        f"| method | {clock} seconds, median (range) | times {OURS} | ns a pair and level | "
        "share of the floor | extra memory, MB | same results |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        seconds, ours = row[clock], medians.get(OURS)
        whole = "subset" not in name
        cells = [
            name,
            f"{seconds['median']:.3f} ({seconds['min']:.3f}–{seconds['max']:.3f})",
            f"{seconds['median'] / ours:.2f}" if ours and whole else "–",
            f"{seconds['median'] / pairs * 1e9:.2f}" if whole and name not in FLOORS else "–",
            f"{floor / seconds['median']:.0%}" if floor and whole else "–",
            _megabytes(row.get("extra_memory_mb", memory.get(name))),
            f"{row['same_results']:.4%}" if "same_results" in row else "–",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _megabytes(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _origin(record: dict[str, Any], where: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    device = where["cpu"] if record["device"] == "cpu" else record["device"]
    return (
        f"{device}, {where['threads']} thread{'s' * (where['threads'] != 1)}, "
        f"{record['sizes']['rounds']} rounds, load average {where['load_average']:.1f} at the end; "
        f"{versions}; commit {where['commit'][:7]}, {where['time'][:10]}."
    )


if __name__ == "__main__":
    print(render(sys.argv[1]))
