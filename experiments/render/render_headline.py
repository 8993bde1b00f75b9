"""The table of docs/choose_a_vector.md and README's figure, from compression.py --setting own."""

import json
from pathlib import Path

from render_reading import proven
from sections.render_compression import CODED as METHODS
from sections.render_compression import by_variant

from fusion.measure.figures.ndcg import ndcg_figure
from fusion.measure.rows import Row, averaged_over_seeds

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
        f"(384 dims, 1,536 bytes) {single:.3f}.",
        "",
        *_codes(report, scores, full),
        "",
        _conditions(report),
    ]
    return "\n".join(lines)


def figure(path: Path, png: Path) -> None:
    """nDCG@10 against bytes a vector."""
    report = json.loads(path.read_text(encoding="utf-8"))
    ours = f"head:{report.get('ours', 'fusion')}"
    names = {"concat": "concat", "pca": "pca", "first-k": "first-k"}
    names |= {ours: "head", CODED: "head"}
    rows = averaged_over_seeds([Row.from_dict(row) for row in report["rows"]])
    shown = [
        Row(**{**vars(row), "method": names.get(row.method, row.method)})
        for row in rows
        if row.method in names or row.method.startswith("encoder:")
    ]
    ndcg_figure(shown, png)


def _codes(report: dict, scores: dict, full: float) -> list[str]:
    kept = {
        budget["limit"]: (f"{budget['dim']} × {budget['precision']}", score / full)
        for budget in report["budgets"]
        if (score := scores.get((CODED, budget["dim"], budget["precision"]))) is not None
    }
    return [
        f"| bytes of a coded vector | {' | '.join(map(str, kept))} |",
        "|---" * (1 + len(kept)) + "|",
        f"| columns × code | {' | '.join(way for way, _ in kept.values())} |",
        f"| of the full concat's score | {' | '.join(f'{s:.1%}' for _, s in kept.values())} |",
    ]


def _conditions(report: dict) -> str:
    weights = " : ".join(f"{weight:g}" for weight in report["weights"])
    return (
        f"{' + '.join(report['encoders'])}, squared weights {weights}, means over "
        f"{len(report['seeds'])} seeds; documents coded, queries float32. Better than PCA beyond "
        f"chance at {proven(report)}; further up no difference can be shown. Settings were picked "
        "on dev and train splits, but earlier ones had been measured on test, so these scores may "
        "be a little too good."
    )
