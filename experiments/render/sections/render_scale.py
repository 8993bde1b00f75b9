"""Markdown of what benchmark_scale.py measured, and the way to 10^9 rows.

python experiments/render/sections/render_scale.py experiments/results/benchmark_scale.json
"""

import json
import sys
from pathlib import Path
from typing import Any

BILLION = 1_000_000_000


def render(path: Path) -> str:
    """The tables of results.md."""
    report = json.loads(path.read_text(encoding="utf-8"))
    where, cases = report["environment"], report["cases"]
    versions = ", ".join(f"{name} {found}" for name, found in where["versions"].items())
    lines = [
        f"{where['cpu']}, {where['cores']} cores; {versions}; load average "
        f"{where['load_average']:.1f} at the start; commit {where['commit'][:7]}, "
        f"{where['time'][:10]}. The encoder is a stand-in that takes no time, so this is what the "
        f"job itself costs: JSON lines in, shards of {report['width']} float32 columns out. "
        "The first rows pay for the start.",
        "",
        "| rows | seconds | rows/s | µs a row | peak memory, MiB | of it libraries "
        "| MB of input | MB of shards | bytes a row |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        job = case["encode"]
        cells = [
            f"{job['rows']:,}",
            f"{job['seconds']:.2f}",
            f"{job['rows_per_second']:,.0f}",
            f"{job['seconds'] / job['rows'] * 1e6:.1f}",
            f"{job['peak_mib']:.0f}",
            f"{job['libraries_mib']:.0f}",
            f"{job['input_bytes'] / 1e6:,.1f}",
            f"{job['bytes_on_disk'] / 1e6:,.1f}",
            f"{job['bytes_on_disk'] / job['rows']:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_search(report), "", _model(report), "", "![Cost against rows](FIGURE)"]
    return "\n".join(lines).replace("FIGURE", f"experiments/results/{figure_name(path)}")


def _search(report: dict[str, Any]) -> list[str]:
    dims = ", ".join(map(str, report["dims"]))
    lines = [
        f"Exact search of these shards, k = {report['k']}, at the dims {dims} at once (LanceDB and "
        f"Qdrant: {report['width']} alone, without an index, Qdrant in local mode); seconds of a "
        "call, and the peak memory of its process:",
        "",
        "| rows | 1 query, shards streaming by | 100 queries, streaming | MiB | 1 query, in memory "
        "| 100 queries, in memory | MiB | LanceDB, 1 query | Qdrant, 1 query |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in report["cases"]:
        cells = [
            f"{case['rows']:,}",
            _seconds(case["stream_1"]),
            _seconds(case["stream_100"]),
            f"{case['stream_100']['peak_mib']:.0f}",
            _seconds(case["hold_1"]),
            _seconds(case["hold_100"]),
            f"{case['hold_100']['peak_mib']:.0f}",
            _seconds(case.get("lancedb")),
            _seconds(case.get("qdrant")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _seconds(measured: dict[str, float] | None) -> str:
    return "–" if measured is None else f"{measured['seconds']:.4f}"


def _model(report: dict[str, Any]) -> str:
    model = report["model"]
    if model is None:
        return "The rate of a real model was not measured."
    return (
        f"A real model, {' + '.join(model['encoders'])} in float32 on {model['threads']} threads: "
        f"{model['rows_per_second']:.1f} passages a second ({model['texts']} Wikipedia texts of "
        f"{model['words_a_text']:.0f} words on average), {model['peak_mib']:.0f} MiB at most."
    )


def extrapolate(path: Path) -> str:
    """The page of docs/scale.md: a billion rows, from the largest size that was measured."""
    report = json.loads(path.read_text(encoding="utf-8"))
    where = report["environment"]
    largest = max(report["cases"], key=lambda case: case["rows"])
    job, rows, model = largest["encode"], largest["rows"], report["model"]
    row_bytes = job["bytes_on_disk"] / rows
    ids = row_bytes - 4 * report["width"]
    code = report["width"] // 2
    names = report["manifest"]  # measured for a billion rows
    scan = largest["stream_1"]["seconds"]
    held = largest["hold_1"]["seconds"]
    lines = [
        f"| 10⁹ rows, {report['width']} columns | measured at 10⁶ | times | makes |",
        "|---|---|---|---|",
        f"| reading, sharding, checksums, one process | {rows / job['seconds']:,.0f} rows/s "
        f"| 10⁹ / {rows / job['seconds']:,.0f} s | {_time(BILLION * job['seconds'] / rows)} |",
        f"| memory of that process | {job['peak_mib']:.0f} MiB "
        f"| 1, and the names of {names['shards']:,} shards ({names['peak_mib']:.0f} MiB, measured) "
        f"| {job['peak_mib'] + names['peak_mib']:.0f} MiB |",
        f"| shards, float32 | {row_bytes:,.0f} bytes a row | 10⁹ | {_disk(row_bytes)} |",
        f"| shards, int4 | {code} + {ids:.0f} bytes a row | 10⁹ | {_disk(code + ids)} |",
        f"| one exact query, shards streaming by | {scan:.2f} s | 1,000 "
        f"| {_time(scan * BILLION / rows)} |",
        f"| one exact query, float32 in memory | {held * 1000:.0f} ms | 1,000, with "
        f"{4 * report['width']:,} GB | {_time(held * BILLION / rows)} |",
    ]
    if model is not None:
        rate, cores = model["rows_per_second"], report["environment"]["cores"]
        hours = BILLION / rate * cores / 3600
        lines.insert(
            2,
            f"| {' + '.join(model['encoders'])} on {cores} cores | {rate:.1f} rows/s "
            f"| 10⁹ / {rate:.1f} s × {cores} cores | {hours:,.0f} core hours: "
            f"{_time(hours * 3.6)} on 1,000 cores |",
        )
    patience = _rounded(rows / held)
    lines += [
        "",
        f"({where['cpu']}, {where['cores']} cores.) One exact query over {rows:,} rows, at "
        f"{len(report['dims'])} widths at once, takes {held * 1000:.0f} ms; LanceDB's exact "
        f"search takes {largest['lancedb']['seconds'] * 1000:.0f} ms at one. A second is reached "
        f"at about {patience:,} rows: from there on, or where the vectors no longer fit into "
        "memory, load the shards into a database and build its index: "
        "`experiments/clients/load_lancedb.py` and `load_qdrant.py` beside it do the loading.",
    ]
    return "\n".join(lines)


def _rounded(number: float) -> int:
    size = 10 ** (len(str(int(number))) - 1)
    return round(number / size) * size


def _disk(row_bytes: float) -> str:
    return f"{row_bytes * BILLION / 1e9:,.0f} GB"


def _time(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} seconds"


def figure_name(path: Path) -> str:
    """Of the figure that belongs to a JSON."""
    return f"{path.stem}.svg"


if __name__ == "__main__":
    source = Path(sys.argv[1])
    print(render(source), extrapolate(source), sep="\n\n")
