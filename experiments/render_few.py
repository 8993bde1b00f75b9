"""Markdown of what few_documents.py measured, beside all documents from compression.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from render_compression import means

from fusion.measure.rows import MEAN


def render(path: Path) -> str:
    """nDCG@10 by the number of documents that a space was fitted on, head and PCA."""
    report = json.loads(path.read_text(encoding="utf-8"))
    everything = json.loads((path.parent / "compression_own.json").read_text(encoding="utf-8"))
    dims = sorted({row["dim"] for row in report["rows"]})
    lines = [
        f"Mean test nDCG@10 of NFCorpus, SciFact and ArguAna over {len(report['seeds'])} draws of "
        "documents and, in brackets, the range. Documents that were not drawn are searched all the "
        f"same. The full concat: {_full(everything):.4f}.",
        "",
        f"| documents | | {' | '.join(map(str, dims))} |",
        "|---|---|" + "---|" * len(dims),
    ]
    for count in sorted({row["documents"] for row in report["rows"]}):
        for method in ("pca", "head"):
            scores = [_scores(report, count, method, dim) for dim in dims]
            lines.append(f"| {count:,} | {method} | {' | '.join(map(_cell, scores))} |")
    for method, name in (("pca", "pca"), (f"head:{everything['ours']}", "head")):
        of_all = means(everything, method)
        lines.append(f"| all | {name} | {' | '.join(_cell(of_all[dim]) for dim in dims)} |")
    return "\n".join(lines)


def _scores(report: dict[str, Any], count: int, method: str, dim: int) -> np.ndarray:
    """One score a draw."""
    return np.array(
        [
            row["ndcg_at_10"]
            for row in report["rows"]
            if (row["documents"], row["method"], row["dim"]) == (count, method, dim)
            and row["data"] == MEAN
        ]
    )


def _cell(scores: np.ndarray) -> str:
    if len(scores) == 1:
        return f"{scores[0]:.3f}"
    return f"{scores.mean():.3f} ({scores.min():.3f} – {scores.max():.3f})"


def _full(report: dict[str, Any]) -> float:
    (scores,) = means(report, "concat").values()
    return float(scores.mean())
