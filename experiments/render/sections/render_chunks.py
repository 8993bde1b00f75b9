"""Markdown of what becomes of long documents, by chunks.py."""

import json
from pathlib import Path
from typing import Any


def render(path: Path) -> str:
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
