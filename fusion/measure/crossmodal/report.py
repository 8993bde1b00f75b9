"""The report of pictures and texts: tables for people, records for programs."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from fusion.measure.archive import PER_QUERY, RESULTS, TABLE, whole_folder
from fusion.measure.crossmodal.rows import CUTOFFS, CrossRow, Direction, Protocol
from fusion.measure.page import Made
from fusion.measure.tables import human_bytes, pipes

TITLES = {
    (Direction.TEXT_TO_IMAGE, Protocol.ALL_CAPTIONS): "texts find pictures",
    (Direction.IMAGE_TO_TEXT, Protocol.ALL_CAPTIONS): "pictures find texts (any of their own)",
    (Direction.IMAGE_TO_TEXT, Protocol.ONE_CAPTION): "pictures find texts (one caption a picture)",
}
HEADER = ["dims", "precision", "bytes", *(f"R@{k}" for k in CUTOFFS), "median rank"]
INTRODUCTION = (
    "R@k: the share of queries, in percent, with something right among the first k; ± is half the "
    "width of the 95 % bootstrap interval over whole pictures. Equal captions count as right. Any "
    "of a picture's captions makes the task easier the more there are; with one caption a picture, "
    "averaged over which one, it is as hard as the other direction. rsum is the sum of the six R@k "
    "of both directions with all captions."
)


def write_crossmodal(
    folder: Path,
    rows: Sequence[CrossRow],
    environment: Mapping[str, Any],
    overwrite: bool = False,
    made: Made | None = None,
) -> Path:
    """Write ``results.json``, ``results.csv``, ``results.md`` and the per-picture hits, or nothing.

    Raises:
        FusionError: The folder is not empty, or cannot be written.
        ValueError: There is nothing to report.
    """
    if not rows:
        raise ValueError("nothing was measured: no row to report")
    lines = [row.to_dict() for row in rows]
    with whole_folder(folder, overwrite) as draft:
        report = {"environment": environment, "rows": lines, "comparisons": []}
        text = json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False)
        (draft / RESULTS).write_text(text + "\n", encoding="utf-8")
        _write_csv(draft / TABLE, lines)
        (draft / "results.md").write_text(markdown(rows, made), encoding="utf-8")
        (draft / PER_QUERY).write_bytes(save({row.name: row.hits for row in rows}))
    return Path(folder)


def terminal_page(rows: Sequence[CrossRow]) -> str:
    """One aligned table a data set and direction."""
    parts = []
    for title, block in _blocks(rows):
        lines = [HEADER, *(_cells(row) for row in block)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
        texts = ["  ".join(c.rjust(w) for c, w in zip(x, widths, strict=True)) for x in lines]
        parts.append("\n".join([title, texts[0], "─" * len(texts[0]), *texts[1:]]))
    return "\n\n".join(parts)


def markdown(rows: Sequence[CrossRow], made: Made | None = None) -> str:
    """The whole of ``results.md``."""
    parts = ["# Results", *([str(made)] if made else []), INTRODUCTION]
    for title, block in _blocks(rows):
        cells = [_cells(row, spread=True) for row in block]
        rule = ["---:" if name != "precision" else "---" for name in HEADER]
        parts += [f"## {title[0].upper()}{title[1:]}", pipes([HEADER, rule, *cells])]
        if block[0].rsum is not None and block[0].direction is Direction.TEXT_TO_IMAGE:
            parts.append(f"rsum: {'; '.join(_sum(row) for row in block)}.")
    return "\n\n".join(parts) + "\n"


def _blocks(rows: Sequence[CrossRow]) -> Iterable[tuple[str, list[CrossRow]]]:
    for data in dict.fromkeys(row.data for row in rows):
        for kind, title in TITLES.items():
            block = [r for r in rows if r.data == data and (r.direction, r.protocol) == kind]
            if block:
                counts = f"{block[0].queries:,} queries, {block[0].gallery:,} to find"
                yield f"{data} {block[0].split}: {title}; {counts}", block


def _cells(row: CrossRow, spread: bool = False) -> list[str]:
    recall = [
        f"{100 * value:.1f}" + (f" ± {50 * (high - low):.1f}" if spread else "")
        for value, (low, high) in zip(row.recall, row.recall_ci95, strict=True)
    ]
    rank = "beyond 100" if row.median_rank is None else f"{row.median_rank:g}"
    return [str(row.dim), row.precision, human_bytes(row.bytes_per_vector), *recall, rank]


def _sum(row: CrossRow) -> str:
    low, high = row.rsum_ci95 or (0.0, 0.0)
    return f"{row.rsum:.1f} [{low:.1f}, {high:.1f}] at {row.dim} dims in {row.precision}"


def _write_csv(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """An interval takes two columns: a cell holds one number."""
    flat = [_flat(line) for line in lines]
    names = dict.fromkeys(name for line in flat for name in line)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(names))
        writer.writeheader()
        writer.writerows(flat)


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in line.items():
        if name.endswith("_ci95"):
            found[f"{name}_low"], found[f"{name}_high"] = value
        else:
            found[name] = value
    return found
