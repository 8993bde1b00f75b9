"""Markdown of the paper's tables: ours beside what was published, and what was not run here."""

import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

TABLES = {
    "encoders": "Single encoders",
    "concat": "Concat, with and without per-model normalisation",
    "epochs": "Epochs",
    "widths": "Widths",
    "truncation": "Truncation to 768 dims",
    "quantisation": "Quantisation",
    "count": "Number of encoders",
}


def render(folder: Path) -> str:
    """All tables whose JSON is in the folder; the others are named as not run."""
    parts: list[str] = []
    missing: list[str] = []
    published: list[str] = []
    for name, title in TABLES.items():
        path = folder / f"paper_{name}.json"
        if not path.is_file():
            missing.append(title.lower())
            continue
        report = json.loads(path.read_text(encoding="utf-8"))
        published = published or _published(report)
        parts += [f"### {title}", "", f"`{report['command']}`", "", *_table(report), ""]
    if published:
        parts += ["### Published figures", "", *published, ""]
    if missing:
        parts.append(f"Not run here: {', '.join(missing)}.")
        parts.append("The embedded pair has 640 columns in all, so there is no truncation to 768.")
    parts.append("The paper's four encoders need a model hub; none of them was run here.")
    return "\n".join(parts)


def _table(report: dict) -> list[str]:
    """One line a variant, method, width and precision; seeds averaged, ± their deviation."""
    groups: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in report["rows"]:
        label = re.sub(r",? ?seed \d+$", "", row["variant"]) or "the paper's recipe"
        key = (label, row["method"], row["dim"], row["precision"], row["bytes_per_vector"])
        groups[key][row["data"]].append(row["ndcg_at_10"])
    sets = [*report["data"], "mean"]
    lines = [
        f"| variant | method | dims | precision | bytes | {' | '.join(sets)} |",
        "|---" * (5 + len(sets)) + "|",
    ]
    for (label, *rest), scores in groups.items():
        cells = [_cell(scores[name]) for name in sets]
        lines.append(f"| {label} | {' | '.join(map(str, [*rest, *cells]))} |")
    return lines


def _cell(scores: list[float]) -> str:
    if not scores:
        return ""
    text = f"{mean(scores):.4f}"
    return f"{text} ± {stdev(scores):.4f}" if len(set(scores)) > 1 else text


def _published(report: dict) -> list[str]:
    lines = [f"| what | {' | '.join(report['data'])} | source |", "|---" * 5 + "|"]
    for line in report["published"]:
        cells = " | ".join(f"{score:.4f}" for score in line["ndcg_at_10"])
        lines.append(f"| {line['what']} | {cells} | {line['source']} |")
    return lines
