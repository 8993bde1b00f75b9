"""A short reading of the results, its numbers taken from the JSON that stands behind the tables."""

import json
from pathlib import Path
from typing import Any

from render_compression import CODED, means, means_by_code

LIKELY = 0.05  # a smaller p, corrected after Holm, is called proven


def render(results: Path) -> str:
    """What works, what does not, when fusing does not pay."""
    own, foreign = (_read(results / f"compression_{name}.json") for name in ("own", "wikipedia"))
    equal = _read(results / "paper_concat.json")
    return "\n\n".join([_works(own), _works_not(own, foreign), _pays_not(own, equal)])


def _works(own: dict[str, Any]) -> str:
    full = _score(own, "concat")
    kept = [
        f"{budget['limit']} bytes keep {_coded(own, budget) / full:.1%}"
        for budget in own["budgets"]
    ]
    return (
        "**What works.** Fitting on one's own documents. The head is better than PCA of the same "
        f"documents beyond chance at {proven(own)}, and coded documents keep most of the "
        f"full concat's nDCG@10 of {full:.3f}: {', '.join(kept)}. Queries stay floats; where they "
        "are coded too, one bit a dimension costs several points more, two bits hardly any."
    )


def _works_not(own: dict[str, Any], foreign: dict[str, Any]) -> str:
    tests = _tests(foreign)
    same = [str(dim) for dim, test in tests.items() if test["p_holm"] >= LIKELY]
    paper = {
        name: max(_score(report, "head:paper", dim) - _score(report, "pca", dim) for dim in tests)
        for name, report in (("own documents", own), ("Wikipedia", foreign))
    }
    losses = " and ".join(f"{gap:+.3f} on {name}" for name, gap in paper.items())
    return (
        "**What does not.** Fitted on Wikipedia our head is better than PCA at "
        f"{proven(foreign)}; no difference can be shown at {', '.join(same)} dims: take PCA "
        "there, it is simpler. The paper's head and loss lose to PCA at every width; the narrowest "
        f"gaps are {losses}. None of this was measured with "
        "the paper's four encoders, which need a model hub."
    )


def _pays_not(own: dict[str, Any], equal: dict[str, Any]) -> str:
    better, best = max(
        (row["ndcg_at_10"], row["method"].partition(":")[2])
        for row in own["rows"]
        if row["data"] == "mean" and row["method"].startswith("encoder:")
    )
    plain = _scores(equal["rows"], "per-model")
    single = {row["data"]: row for row in own["rows"] if row["method"] == f"encoder:{best}"}
    below = [name for name, score in plain.items() if score < single[name]["ndcg_at_10"]]
    full = _score(own, "concat")
    return (
        f"**When fusing does not pay.** Where every encoder costs and space does not: {best} alone "
        f"scores {better:.3f}, the weighted concat {full:.3f}, for {_columns(own)} columns instead "
        f"of {single['mean']['dim']}. With equal weights the concat even falls below {best} on "
        f"{', '.join(below) or 'none of the sets'}: choose weights (`--weights auto` needs no "
        "labels)."
    )


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _tests(report: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Ours against PCA, by width."""
    ours = f"head:{report['ours']}"
    return {
        test["dim"]: test
        for test in report["comparisons"]
        if test["method"] == ours and test["precision"] == "float32"
    }


def proven(report: dict[str, Any]) -> str:
    """Widths at which ours is better than PCA beyond chance, and by how much."""
    return ", ".join(
        f"{dim} dims ({test['difference']:+.3f})"
        for dim, test in _tests(report).items()
        if test["p_holm"] < LIKELY and test["difference"] > 0
    )


def _score(report: dict[str, Any], method: str, dim: int | None = None) -> float:
    """Mean of the seeds; without a width, of the one that there is."""
    scores = means(report, method)
    [only] = scores if dim is None else [dim]
    return float(scores[only].mean())


def _coded(report: dict[str, Any], budget: dict[str, Any]) -> float:
    code = budget["dim"], budget["precision"]
    return float(means_by_code(report, CODED["documents"])[code].mean())


def _scores(rows: list[dict[str, Any]], variant: str) -> dict[str, float]:
    found = [row for row in rows if row["variant"] == variant and row["method"] == "concat"]
    return {row["data"]: row["ndcg_at_10"] for row in found}


def _columns(report: dict[str, Any]) -> int:
    return next(row["dim"] for row in report["rows"] if row["method"] == "concat")
