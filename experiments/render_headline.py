"""The table and the figure that README leads with, from what compression.py --setting own wrote."""

import json
from pathlib import Path

from render_compression import CODED as METHODS
from render_compression import by_variant

from fusion.measure.report import ndcg_figure
from fusion.measure.rows import Row

CODED = METHODS["documents"]  # and queries in float32
NAMES = {
    "first-k": "first columns of the concat",
    "head:paper": "the paper's head and loss",
    "pca": "PCA",
}


def table(path: Path) -> str:
    """Mean nDCG@10 of the test sets by method and width, seeds averaged, and the small codes."""
    report = json.loads(path.read_text(encoding="utf-8"))
    ours = f"head:{report.get('ours', 'fusion')}"
    scores = {key: float(of_seeds.mean()) for key, of_seeds in by_variant(report["rows"]).items()}
    widths = sorted(dim for method, dim, code in scores if method == "pca" and code == "float32")
    widths = [dim for dim in widths if (ours, dim, "float32") in scores]
    full = next(score for (method, *_), score in scores.items() if method == "concat")
    single = max(score for (method, *_), score in scores.items() if method.startswith("encoder:"))
    lines = [
        f"| nDCG@10, mean of nfcorpus, scifact, arguana | {' | '.join(map(str, widths))} dims |",
        "|---" * (1 + len(widths)) + "|",
    ]
    for method, name in {**NAMES, ours: "**ours**"}.items():
        cells = [f"{scores[method, dim, 'float32']:.3f}" for dim in widths]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"The full concat (640 dims, 2,560 bytes) scores {full:.3f}, its better encoder alone "
        f"(384 dims, 1,536 bytes) {single:.3f}. {_codes(report, scores, full)}",
    ]
    return "\n".join(lines)


def figure(path: Path, png: Path) -> None:
    """nDCG@10 against bytes a vector."""
    report = json.loads(path.read_text(encoding="utf-8"))
    ours = f"head:{report.get('ours', 'fusion')}"
    names = {"concat": "concat", "pca": "pca", "first-k": "first-k"}
    names |= {ours: "head", CODED: "head"}
    rows = [Row.from_dict(row) for row in report["rows"] if row["seed"] == 0]
    shown = [
        Row(**{**vars(row), "method": names.get(row.method, row.method)})
        for row in rows
        if row.method in names or row.method.startswith("encoder:")
    ]
    ndcg_figure(shown, png)


def _codes(report: dict, scores: dict, full: float) -> str:
    parts = []
    for budget in report["budgets"]:
        score = scores.get((CODED, budget["dim"], budget["precision"]))
        if score is not None:
            parts.append(f"{budget['limit']} bytes keep {score / full:.0%}")
    return f"Of the full concat's score, coded vectors of {', '.join(parts)}." if parts else ""
