"""Markdown of what two_stages.py measured: the first results of one vector, ordered anew by MaxSim.

python experiments/render/sections/render_two_stages.py experiments/results/two_stages.json
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
ALONE = "one vector, nothing ordered anew"


def render(json_path: Path | str) -> str:
    """Each way of storing token vectors: bytes, nDCG@10 of each data set, and the weight found."""
    report = json.loads(Path(json_path).read_text(encoding="utf-8"))
    rows = [row for row in report["rows"] if row["data"] != "mean"]
    names = list(dict.fromkeys(row["data"] for row in rows))
    where = report["environment"]
    lines = [
        f"First stage: the concat of {' and '.join(report['encoders'])}, squared weights "
        f"{' : '.join(f'{weight:g}' for weight in report['weights'])}, float32. Second: the best "
        f"100, cosine + weight · MaxSim of {report['encoders'][0]}'s tokens. In brackets the "
        f"weight that was found without labels. {where['cpu']}, torch {where['torch']}, commit "
        f"{where['commit']}, {where['date'][:10]}.",
        "",
        f"| token vectors of a document | bytes | {' | '.join(names)} | mean |",
        "|---|---|" + "---|" * (len(names) + 1),
    ]
    ways = list(dict.fromkeys(map(_way, rows)))
    lines += [_line(way, [row for row in rows if _way(row) == way], names) for way in ways]
    return "\n".join([*lines, "", *_compared(report)]) + "\n"


def _way(row: Row) -> str:
    second = row.get("rerank")
    if second is None:
        return ALONE
    many = re.search(r"-(\d+)x", row["method"])
    count = f"at most {many[1]} vectors" if many else "all"
    return f"{count}, {second['dim']} × {second['precision']}"


def _line(way: str, rows: list[Row], names: list[str]) -> str:
    by_name = {row["data"]: row for row in rows}
    cells = [_cell(by_name.get(name)) for name in names]
    scores = [row["ndcg_at_10"] for row in rows]
    mean = f"{np.mean(scores):.4f}" if len(rows) == len(names) else "–"
    sizes = [row["rerank"]["bytes_per_document"] for row in rows if row.get("rerank")]
    size = f"{np.mean(sizes):,.0f}" if sizes else "0"
    return f"| {way} | {size} | {' | '.join(cells)} | {mean} |"


def _cell(row: Row | None) -> str:
    if row is None:
        return "–"
    second = row.get("rerank")
    return f"{row['ndcg_at_10']:.4f}" + (f" ({second['weight']:.2f})" if second else "")


def _compared(report: dict[str, Any]) -> list[str]:
    """What each data set gains by all tokens in float16, with its interval."""
    words = []
    for found in report["comparisons"]:
        if found["method"].endswith("-384-float16"):
            low, high = found["ci95"]
            words.append(f"{found['data']} {found['difference']:+.4f} ({low:+.4f} to {high:+.4f})")
    return [f"All tokens in float16 against the first stage alone: {'; '.join(words)}."]


if __name__ == "__main__":
    print(render(sys.argv[1]))
