"""Markdown of what few_documents.py measured, beside all documents from compression.py."""

import json
from pathlib import Path

import numpy as np
from sections.render_compression import full_concat, means


def render(path: Path) -> str:
    """nDCG@10 by the number of documents that a space was fitted on, head and PCA."""
    report = json.loads(path.read_text(encoding="utf-8"))
    everything = json.loads((path.parent / "compression_own.json").read_text(encoding="utf-8"))
    dims = sorted({row["dim"] for row in report["rows"]})
    lines = [
        f"Mean test nDCG@10 of NFCorpus, SciFact and ArguAna over {len(report['seeds'])} draws of "
        "documents and, in brackets, the range. Documents that were not drawn are searched all the "
        f"same. The full concat: {full_concat(everything):.4f}.",
        "",
        f"| documents | | {' | '.join(map(str, dims))} |",
        "|---|---|" + "---|" * len(dims),
    ]
    for count in sorted({row["documents"] for row in report["rows"]}):
        drawn = {"rows": [row for row in report["rows"] if row["documents"] == count]}
        for method in ("pca", "head"):
            lines.append(_line(f"{count:,}", method, means(drawn, method)))
    for method, name in (("pca", "pca"), (f"head:{everything['ours']}", "head")):
        lines.append(_line("all", name, means(everything, method)))
    return "\n".join(lines)


def _line(count: str, method: str, scores: dict[int, np.ndarray]) -> str:
    cells = " | ".join(_cell(scores[dim]) for dim in sorted(scores))
    return f"| {count} | {method} | {cells} |"


def _cell(scores: np.ndarray) -> str:
    if len(scores) == 1:
        return f"{scores[0]:.3f}"
    return f"{scores.mean():.3f} ({scores.min():.3f} – {scores.max():.3f})"
