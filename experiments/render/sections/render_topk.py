"""Markdown of what benchmark_topk.py measured.

python experiments/render/sections/render_topk.py experiments/results/benchmark_topk.json
"""

import json
import sys
from pathlib import Path
from typing import Any

OURS, KEPT, UNSETTLED = "nested", "nested, norms kept", "nested, near ties left"
TORCH, ONEDNN = "torch per level", "torch per level, oneDNN"
FAISS, ST = "faiss IndexFlatIP per level", "ST semantic_search per level"
FLOOR, MEMORY = "share of the floor", "MB at most"
SETTLING = "share for near ties, at most"
COMPETITORS = {TORCH: "torch", FAISS: "FAISS", ST: "sentence-transformers"}  # width by width
# Asked of one thread: workload, our method, against what, must, stretch.
ASKED = (
    ("small", OURS, TORCH, 4.5, 7.0),
    ("small", OURS, FAISS, 3.0, None),
    ("small", OURS, ST, 6.0, None),
    ("small", OURS, MEMORY, 80, None),
    ("small-k1000", OURS, TORCH, 4.2, 6.0),
    ("small-k1000", OURS, FAISS, 4.2, None),
    ("small-k1000", OURS, ST, 15.0, None),
    ("medium", OURS, TORCH, 6.0, 8.5),
    ("medium", OURS, ONEDNN, 4.0, None),
    ("medium", OURS, ST, 6.3, None),
    ("medium", OURS, FLOOR, 0.48, 0.65),
    ("large", OURS, TORCH, 5.3, 7.0),
    ("large", OURS, FAISS, 4.8, None),
    ("large", OURS, ST, 5.3, None),
    ("large", OURS, FLOOR, 0.48, 0.65),
    ("few", OURS, TORCH, 7.0, None),
    ("few", KEPT, TORCH, 14.0, 20.0),
    *((name, OURS, SETTLING, 0.1, 0.05) for name in ("small", "small-k1000", "medium", "few")),
)
Key = tuple[str, str, int]  # workload, device, threads
FLOORS = ("one matrix product", "one matrix product, oneDNN")


def render(json_path: Path | str) -> str:
    """One table for each workload, device and thread count; the last record of each counts."""
    everything = json.loads(Path(json_path).read_text(encoding="utf-8"))
    latest = records(json_path)
    memory = {
        _key(record): {name: row["extra_memory_mb"] for name, row in record["methods"].items()}
        for record in everything
        if not _has_times(record)
    }
    parts = [_asked(latest, memory), _history(everything)]
    parts += [_table(record, memory.get(key, {})) for key, record in latest.items()]
    if all(record["device"] == "cpu" for record in latest.values()):
        parts.append(
            "Same results: the share of indices that equal the first method's; the others order "
            "equal scores, such as those of duplicate documents, as it happens."
        )
        parts.append("The CUDA engine is not measured: no GPU was to be had.")
    return "\n\n".join(parts) + "\n"


def records(json_path: Path | str) -> dict[Key, dict[str, Any]]:
    """The last record of each workload, device and number of threads that has times."""
    found = json.loads(Path(json_path).read_text(encoding="utf-8"))
    return {_key(record): record for record in found if _has_times(record)}


def times_nested(record: dict[str, Any], method: str) -> float | None:
    """How many times as long as ours a method takes; None if it was not measured."""
    return _measured(record["methods"], {}, OURS, method)


def _key(record: dict[str, Any]) -> Key:
    return record["workload"], record["device"], record["environment"]["threads"]


def _has_times(record: dict[str, Any]) -> bool:
    return any("wall" in row for row in record["methods"].values())


def _asked(latest: dict[Key, dict[str, Any]], memory: dict[Key, dict[str, float]]) -> str:
    """What was asked of the CPU engine, and what was measured."""
    lines = [
        "| workload | method | against | must | stretch | measured | |",
        "|---|---|---|---|---|---|---|",
    ]
    for workload, ours, against, must, stretch in ASKED:
        key = (workload, "cpu", 1)
        rows = latest[key]["methods"] if key in latest else {}
        found = _measured(rows, memory.get(key, {}), ours, against)
        verdict = "not measured"
        if found is not None:
            sign = -1 if against in (MEMORY, SETTLING) else 1  # less is more
            verdict = "ok" if sign * found >= sign * must else "**missed**"
            verdict = "stretch" if stretch and sign * found >= sign * stretch else verdict
        cells = [workload, ours, against, f"{must:g}", f"{stretch:g}" if stretch else "–"]
        lines.append(f"| {' | '.join([*cells, _short(found), verdict])} |")
    return "\n".join(lines)


def _history(everything: list[dict[str, Any]]) -> str:
    """Every record of one thread: the machine is shared, and its speed differs from day to day."""
    lines = [
        "The floor is one product of all queries and documents in float32; int8 products of codes "
        "rule most documents out at a quarter of its price, so that a search can come near it.",
        "",
        "All records of one thread, of which the table above takes the last. The machine is "
        "virtual: what its neighbours leave of cache and memory shows in the matrix product, and "
        "moves the ratios too.",
        "",
        "| workload | date | commit | matrix product, s | nested, s | torch | torch, norms kept | "
        "faiss | ST | share of the floor | for near ties |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    asked = [(OURS, TORCH), (KEPT, TORCH), (OURS, FAISS), (OURS, ST), (OURS, FLOOR)]
    asked.append((OURS, SETTLING))
    workloads = list(dict.fromkeys(workload for workload, *_ in ASKED))
    for record in sorted(
        (r for r in everything if _is_timed(r, workloads)),
        key=lambda r: (workloads.index(r["workload"]), r["environment"]["time"]),
    ):
        rows, where = record["methods"], record["environment"]
        product = min(rows[name]["cpu"]["median"] for name in FLOORS if name in rows)
        cells = [record["workload"], where["time"][:10], where["commit"][:7], f"{product:.3f}"]
        cells.append(f"{rows[OURS]['cpu']['median']:.3f}")
        cells += [_short(_measured(rows, {}, *pair)) for pair in asked]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _is_timed(record: dict[str, Any], workloads: list[str]) -> bool:
    rows = record["methods"]
    alone = record["device"] == "cpu" and record["environment"]["threads"] == 1
    whole = OURS in rows and any(name in rows for name in FLOORS)
    return record["workload"] in workloads and alone and whole and "cpu" in rows[OURS]


def _measured(
    rows: dict[str, Any], memory: dict[str, float], ours: str, against: str
) -> float | None:
    if against == MEMORY:
        return memory.get(ours)
    medians = {name: row["cpu"]["median"] for name, row in rows.items()}
    if against == FLOOR:
        floor = min((medians[name] for name in FLOORS if name in medians), default=None)
        return None if floor is None or ours not in medians else floor / medians[ours]
    if against == SETTLING:
        alone = medians.get(UNSETTLED)
        return None if alone is None or ours not in medians else medians[ours] / alone - 1
    return medians[against] / medians[ours] if {against, ours} <= medians.keys() else None


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


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
