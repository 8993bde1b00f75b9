"""Markdown of what compression.py measured: asked against measured, and how to read it.

Command:  python experiments/render/sections/render_compression.py JSON …
Expected: one section a file; every number comes from the JSON, but for what was asked.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusion.measure.rows import MEAN

RIVAL, PAPER = "pca", "head:paper"
CODED = {"documents": "head, documents coded", "both": "head, both coded"}
ASKED_DIMS = (32, 64, 128, 256, 384, 512, 640)
ASKED = {
    "wikipedia": {
        "must": (0.300, 0.418, 0.473, 0.4955, 0.4995, 0.502, 0.502),
        "goal": (0.330, 0.435, 0.482, 0.499, 0.503, 0.505, 0.506),
    },
    "own": {
        "must": (0.402, 0.453, 0.485, 0.501, 0.503, 0.505, 0.505),
        "goal": (0.430, 0.475, 0.498, 0.508, 0.511, 0.513, 0.513),
    },
}
# Bytes a vector: the share of the concat's mean that must be kept, and the goal.
ASKED_BYTES: dict[str, dict[int, tuple[float, float | None]]] = {
    "wikipedia": {27: (0.90, 0.93), 53: (0.96, 0.98), 128: (0.985, None)},
    "own": {16: (0.83, 0.88), 27: (0.91, 0.94), 53: (0.96, 0.985), 128: (0.995, 1.005)},
}
TITLES = {
    "wikipedia": "Fitted on {:,} Wikipedia paragraphs",
    "own": "Fitted on each data set's own documents (no queries, no labels)",
}


def render(paths: Sequence[Path | str]) -> str:
    """The tables of all files, one section each."""
    reports = [json.loads(Path(path).read_text(encoding="utf-8")) for path in paths]
    return "\n".join(line for report in reports for line in _section(report))


def _section(report: dict[str, Any]) -> list[str]:
    weights = " : ".join(f"{weight:g}" for weight in report["weights"])
    seeds, where = report["seeds"], report["environment"]
    return [
        f"### {TITLES[report['setting']].format(report['max_texts'])}",
        "",
        f"Mean test nDCG@10 of NFCorpus, SciFact and ArguAna; {' and '.join(report['encoders'])}, "
        f"squared block weights {weights}; heads: mean and range over {len(seeds)} seeds; "
        f"the paper's recipe with {report['recipes']['paper']['epochs']} epochs. "
        f"Our heads took {_training(report)} s to train, {where['threads']} thread(s). "
        f"Commit {where['commit']}, {where['date'][:10]}.",
        "",
        *_floats(report),
        "",
        *_codes(report),
        "",
        *_reading(report),
        "",
    ]


def _training(report: dict[str, Any]) -> str:
    """From the quickest training of our recipe to the longest, in seconds."""
    seconds = [s for key, s in report["training_seconds"].items() if key.startswith(report["ours"])]
    return f"{min(seconds):.0f} to {max(seconds):.0f}" if seconds else "an unknown number of"


def by_variant(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, int, str], np.ndarray]:
    """Means over the data sets, one a seed, by method, width and precision."""
    found: dict[tuple[str, int, str], list[float]] = {}
    for row in rows:
        if row["data"] == MEAN:
            key = row["method"], row["dim"], row["precision"]
            found.setdefault(key, []).append(row["ndcg_at_10"])
    return {key: np.array(scores) for key, scores in found.items()}


def means(report: dict[str, Any], method: str) -> dict[int, np.ndarray]:
    """Scores of all seeds by width, float32 vectors."""
    found = by_variant(report["rows"]).items()
    return {dim: s for (name, dim, code), s in found if (name, code) == (method, "float32")}


def means_by_code(report: dict[str, Any], method: str) -> dict[tuple[int, str], np.ndarray]:
    """Scores of all seeds by width and precision."""
    found = by_variant(report["rows"]).items()
    return {(dim, code): s for (name, dim, code), s in found if name == method}


def _ours(report: dict[str, Any]) -> str:
    return f"head:{report['ours']}"


def full_concat(report: dict[str, Any]) -> float:
    """The score of the full concat."""
    (scores,) = means(report, "concat").values()
    return float(scores.mean())


def _floats(report: dict[str, Any]) -> list[str]:
    name = _ours(report)
    ours = means(report, name)
    dims = sorted(ours)
    lines = [f"| dims | {' | '.join(map(str, dims))} |", "|---" * (len(dims) + 1) + "|"]
    for method in ("first-k", RIVAL, PAPER, name):
        scores = means(report, method)
        lines.append(_line(method, [f"{scores[dim].mean():.4f}" for dim in dims]))
    lines.append(_line("its range", [f"{ours[d].min():.4f} – {ours[d].max():.4f}" for d in dims]))
    for level, asked in ASKED[report["setting"]].items():
        of_dim = dict(zip(ASKED_DIMS, asked, strict=True))
        lines.append(_line(level, [_asked(of_dim.get(d), ours[d].mean()) for d in dims]))
    tests = _tests(report)
    lines.append(_line("against PCA", [f"{tests[d]['difference']:+.4f}" for d in dims]))
    lines.append(_line("95 % interval", [_interval(tests[d]["ci95"]) for d in dims]))
    lines.append(_line("p (Holm)", [f"{tests[d]['p_holm']:.2g}" for d in dims]))
    others = [
        f"{method.removeprefix('encoder:')}{' alone' * method.startswith('encoder:')} "
        f"{scores.mean():.4f}"
        for method in ("concat", *(f"encoder:{name}" for name in report["encoders"]))
        for scores in means(report, method).values()
    ]
    return [*lines, "", f"At full width: {', '.join(others)}."]


def _tests(report: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Our paired tests against PCA, by width."""
    return {line["dim"]: line for line in report["comparisons"] if line["method"] == _ours(report)}


def _codes(report: dict[str, Any]) -> list[str]:
    full = full_concat(report)
    scores = {side: means_by_code(report, method) for side, method in CODED.items()}
    lines = [
        "| bytes a vector | code | nDCG@10 | of the concat | must | goal | queries coded too |",
        "|---|---|---|---|---|---|---|",
    ]
    for budget in report["budgets"]:
        code = (budget["dim"], budget["precision"])
        mean, both = (scores[side][code].mean() for side in CODED)
        must, goal = ASKED_BYTES[report["setting"]].get(budget["limit"], (None, None))
        lines.append(
            f"| {budget['limit']} | {code[0]} × {code[1]} | {mean:.4f} | {mean / full:.1%} "
            f"| {_asked(must, mean / full, share=True)} | {_asked(goal, mean / full, share=True)} "
            f"| {both / full:.1%} |"
        )
    return lines


def _reading(report: dict[str, Any]) -> list[str]:
    """What the tests against PCA say, in words."""
    tests = _tests(report)
    better = [d for d, t in tests.items() if t["difference"] > 0 and t["p_holm"] < 0.05]
    worse = [d for d, t in tests.items() if t["difference"] < 0 and t["p_holm"] < 0.05]
    open_ = [d for d in tests if d not in better + worse]
    ours, musts = means(report, _ours(report)), ASKED[report["setting"]]["must"]
    missed = [d for d, m in zip(ASKED_DIMS, musts, strict=True) if _short(ours, d, m)]
    said = [
        (better, "Better than PCA beyond chance at {} dims."),
        (worse, "Worse than PCA beyond chance at {} dims."),
        (open_, "No difference from PCA can be shown at {} dims."),
        (missed, "Below what was asked (must) at {} dims."),
    ]
    return [" ".join(words.format(", ".join(map(str, dims))) for dims, words in said if dims)]


def _short(ours: dict[int, np.ndarray], dim: int, must: float) -> bool:
    return dim in ours and bool(ours[dim].mean() < must)


def _line(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _asked(asked: float | None, measured: float, *, share: bool = False) -> str:
    if asked is None:
        return "–"
    words = f"{asked:.1%}" if share else f"{asked:.4g}"
    return f"{words} {'✓' if measured >= asked else '✗'}"


def _interval(ci95: Sequence[float]) -> str:
    return f"{ci95[0]:+.4f} … {ci95[1]:+.4f}"


if __name__ == "__main__":
    print(render(sys.argv[1:]))
