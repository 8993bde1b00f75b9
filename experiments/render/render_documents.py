"""Markdown of how few documents do, and of what becomes of long ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from render_compression import full_concat, means


def render_few(path: Path) -> str:
    """nDCG@10 by the number of documents that a space was fitted on, head and PCA.

    From few_documents.py, beside all documents from compression.py.
    """
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


def render_chunks(path: Path) -> str:
    """nDCG@10 by what becomes of a long page, with intervals and paired tests."""
    report = json.loads(path.read_text(encoding="utf-8"))
    before = report["queries"] - report["behind"]
    lines = [
        f"{report['queries']} headings as queries, {report['pages']} pages; {before} sections "
        f"begin within the {report['limit']} tokens that minilm reads of a page, "
        f"{report['behind']} behind.",
        "",
        "| encoders | a page is stored | vectors | nDCG@10 | within | behind | against as it is |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_way(row) for row in report["rows"]]
    weights = ", ".join(f"{name} {weight:g}" for name, weight in report["weights"].items())
    lines += [
        "",
        "In brackets 95 % intervals over queries; p by a paired randomisation test. Squared "
        f"weights of both: {weights}. wordllama reads pages of any length, minilm cuts them.",
    ]
    return "\n".join(lines)


def _way(row: dict[str, Any]) -> str:
    low, high = row["ci95"]
    return (
        f"| {' + '.join(row['encoders'])} | {row['way']} | {row['texts']:,} "
        f"| {row['ndcg_at_10']:.3f} ({low:.3f}–{high:.3f}) | {row['before']:.3f} "
        f"| {row['behind']:.3f} | {_against(row['against'])} |"
    )


def _against(found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    low, high = found["ci95"]
    p_value = f"p = {found['p_value']:.3f}" if found["p_value"] >= 0.001 else "p < .001"
    return f"{found['difference']:+.3f} ({low:+.3f} to {high:+.3f}), {p_value}"
