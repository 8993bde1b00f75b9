"""Markdown of what keep_epoch.py measured: which criterion keeps which epoch, and what it costs.

python experiments/render/sections/render_epoch.py experiments/results/keep_epoch.json
"""

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

CHOSEN, BEST = "among all, with start", "best point"
RIVALS = ("among few", "start", "last epoch")
LOSS = 0.002  # of nDCG@10: what is less is no loss to speak of
Row = dict[str, Any]
Case = tuple[str, str, int]  # corpus, recipe, documents


def render(json_path: Path | str) -> str:
    """Criteria beside one another, each corpus and number of documents, and where ours loses."""
    report = json.loads(Path(json_path).read_text(encoding="utf-8"))
    rows = [row for row in report["rows"] if row["searched"] == "all"]
    parts = [_introduction(report), _losses(report["dims"], rows)]
    parts += [_table(column, report["dims"][column], rows) for column in (0, -1)]
    return "\n\n".join(parts) + "\n"


def _introduction(report: dict[str, Any]) -> str:
    where = report["environment"]
    return (
        f"Mean nDCG@10 over {len(report['seeds'])} seeds; all documents are searched. *start*: no "
        "training; *last epoch*: no choice; *among few*: the epoch with the least loss of "
        "held-back texts, each compared with the others held back; *among all*: each with "
        f"all texts; *{CHOSEN}*, as `fusion.train` does: and as much of the start as lowers that "
        "loss too; *best point*: what scores best on these very queries, which nobody can know. "
        f"{where['cpu']}, torch {where['torch']}, commit {where['commit']}, {where['date'][:10]}."
    )


def _cases(rows: Iterable[Row]) -> Iterator[tuple[Case, dict[str, np.ndarray]]]:
    """Each training, and the mean nDCG@10 [l] that every criterion gets of it."""
    for case, found in groupby(rows, key=lambda r: (r["corpus"], r["recipe"], r["documents"])):
        scores: dict[str, list[list[float]]] = {}
        for row in found:
            scores.setdefault(row["criterion"], []).append(row["ndcg_at_10"])
        yield case, {name: np.mean(of_one, axis=0) for name, of_one in scores.items()}


def _losses(dims: list[int], rows: list[Row]) -> str:
    """Where the criterion that is used does worse than one that could be."""
    lines = [
        f"Where *{CHOSEN}* loses more than {LOSS:g} to another criterion that looks at no query, "
        f"at {dims[0]} dims, and how it stands beside each:",
        "",
        f"| corpus | recipe | documents | {CHOSEN} | {' | '.join(f'beside {n}' for n in RIVALS)} |",
        "|---|---|---|---|" + "---|" * len(RIVALS),
    ]
    chosen = [(case, scores) for case, scores in _cases(rows) if CHOSEN in scores]
    beside = {
        name: [scores[CHOSEN][0] - scores[name][0] for _, scores in chosen] for name in RIVALS
    }
    for ((corpus, recipe, documents), scores), *gains in zip(chosen, *beside.values(), strict=True):
        if min(gains) < -LOSS:
            cells = [corpus, recipe, f"{documents:,}", f"{scores[CHOSEN][0]:.4f}"]
            lines.append(f"| {' | '.join([*cells, *map(_signed, gains)])} |")
    lines.append("")
    lines += [_balance(name, gains) for name, gains in beside.items()]
    return "\n".join(lines)


def _balance(name: str, gains: list[float]) -> str:
    return (
        f"- beside *{name}*, of {len(gains)} trainings {sum(g > LOSS for g in gains)} gain and "
        f"{sum(g < -LOSS for g in gains)} lose more than {LOSS:g}: from {_signed(min(gains))} to "
        f"{_signed(max(gains))}, {_signed(float(np.mean(gains)))} in the mean"
    )


def _table(column: int, dim: int, rows: list[Row]) -> str:
    names = list(dict.fromkeys(row["criterion"] for row in rows))
    names.sort(key=lambda name: name == BEST)
    lines = [
        f"**{dim} dims**",
        "",
        f"| corpus | recipe | documents | {' | '.join(names)} |",
        "|---|---|---|" + "---|" * len(names),
    ]
    for (corpus, recipe, documents), scores in _cases(rows):
        cells = [f"{scores[n][column]:.4f}" if n in scores else "–" for n in names]
        lines.append(f"| {corpus} | {recipe} | {documents:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


if __name__ == "__main__":
    print(render(sys.argv[1]))
