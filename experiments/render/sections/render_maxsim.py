"""Markdown of what benchmarks/maxsim.py measured: late interaction beside its peers.

python experiments/render/sections/render_maxsim.py experiments/results/benchmark_maxsim.json
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OURS, ALL_WIDTHS = "maxsim_topk", "maxsim_topk, all widths"
ST, PADDED = "sentence-transformers maxsim", "padded torch loop"
FLOORS = ("bare product", "bare product, strips")
FLOOR, WIDTHS = "share of the floor", "times one width, at most"
# Asked of one thread: workload, columns, against what, must.
ASKED = (
    ("candidates", 384, ST, 5.0),
    ("candidates", 384, FLOOR, 0.9),
    ("candidates", 384, WIDTHS, 1.5),
    ("candidates", 128, ST, 3.5),
    ("candidates", 128, FLOOR, 0.9),
    ("candidates", 128, WIDTHS, 1.5),
    ("corpus", 384, ST, 3.0),
    ("corpus", 128, ST, 3.0),
)
Key = tuple[str, int]  # workload, columns


def render(json_path: Path | str) -> str:
    """What was asked, every record, and a table for the last record of each search."""
    everything = json.loads(Path(json_path).read_text(encoding="utf-8"))
    latest = {(record["workload"], record["sizes"]["dim"]): record for record in everything}
    return "\n\n".join([_asked(latest), _history(everything), *map(_table, latest.values())]) + "\n"


def _asked(latest: Mapping[Key, dict[str, Any]]) -> str:
    lines = ["| search | columns | against | must | measured | |", "|---|---|---|---|---|---|"]
    for workload, dim, against, must in ASKED:
        record = latest.get((workload, dim))
        found = _measured(_medians(record), against) if record else None
        verdict = "not measured"
        if found is not None:
            kept = found <= must if against == WIDTHS else found >= must
            verdict = "ok" if kept else "**missed**"
        lines.append(f"| {workload} | {dim} | {against} | {must:g} | {_short(found)} | {verdict} |")
    return "\n".join(lines)


def _history(everything: list[dict[str, Any]]) -> str:
    """Every record: the machine is shared, and its speed differs from day to day."""
    lines = [
        f"All records, of which the table above takes the last. `{ST}` and `{PADDED}` are times "
        f"`{OURS}`; the floor is the faster bare product of all token vectors.",
        "",
        f"| search | columns | date | commit | floor, ms | {OURS}, ms | {ST} | {PADDED} "
        f"| {FLOOR} | all widths, times one |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for record in sorted(everything, key=lambda r: (r["workload"], r["sizes"]["dim"])):
        medians, where = _medians(record), record["environment"]
        cells = [record["workload"], str(record["sizes"]["dim"]), where["time"][:10]]
        cells += [where["commit"][:7], _milliseconds(_floor(medians)), _milliseconds(medians[OURS])]
        cells += [_short(_measured(medians, what)) for what in (ST, PADDED, FLOOR, WIDTHS)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _medians(record: dict[str, Any]) -> dict[str, float]:
    """CPU seconds of each method."""
    return {name: row["cpu"]["median"] for name, row in record["methods"].items()}


def _floor(medians: Mapping[str, float]) -> float:
    return min(medians[name] for name in FLOORS if name in medians)


def _measured(medians: Mapping[str, float], against: str) -> float | None:
    if against == FLOOR:
        return _floor(medians) / medians[OURS]
    if against == WIDTHS:
        return medians[ALL_WIDTHS] / medians[OURS]
    return medians[against] / medians[OURS] if against in medians else None


def _table(record: dict[str, Any]) -> str:
    sizes, where, medians = record["sizes"], record["environment"], _medians(record)
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    threads = f"{where['threads']} thread{'s' * (where['threads'] != 1)}"
    lines = [
        f"**{record['workload']}, {sizes['dim']} columns**: {sizes['queries']:,} query of "
        f"{sizes['tokens']} tokens × {sizes['ranked']:,} documents of {_tokens(sizes)} tokens, out "
        f"of {sizes['documents']:,}, k = {sizes['k']}; {where['cpu']}, {threads}, "
        f"{sizes['rounds']} rounds, load average {where['load_average']:.1f} at the end; "
        f"{versions}; commit {where['commit'][:7]}, {where['time'][:10]}.",
        "",
        f"| method | CPU ms, median (range) | times {OURS} | {FLOOR} | same results |",
        "|---|---|---|---|---|",
    ]
    for name, row in record["methods"].items():
        median, least, most = (1e3 * row["cpu"][part] for part in ("median", "min", "max"))
        same = f"{row['same_results']:.4%}" if "same_results" in row else "–"
        cells = [name, f"{median:.2f} ({least:.2f}–{most:.2f})"]
        cells += [f"{medians[name] / medians[OURS]:.2f}"]
        cells += [f"{_floor(medians) / medians[name]:.0%}", same]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _tokens(sizes: dict[str, int]) -> str:
    fewest, most = sizes["fewest"], sizes["most"]
    return str(most) if fewest == most else f"{fewest} to {most}"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    print(render(sys.argv[1]))
