"""What a visitor wants to know: results.md, one table and one figure a question.

The numbers are taken from the JSON that stands behind the tables of docs/measurements.md.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sections.render_checks import render_weights
from sections.render_codes import NAMES, TITLES, best_of_each
from sections.render_compression import CODED, PAPER, RIVAL, full_concat, means, means_by_code
from sections.render_scale import extrapolate
from sections.render_topk import COMPETITORS, records, times_nested

LIKELY = 0.05  # a smaller p, corrected after Holm, is called proven
MEASUREMENTS = "docs/measurements.md"
FIGURES = "experiments/results"


@dataclass(frozen=True)
class Question:
    """What a visitor asks, and what answers it."""

    title: str
    words: str
    """What to know before reading the table."""
    file: str
    """The JSON in experiments/results."""
    table: Callable[[Path], str]
    figure: str
    """The picture in experiments/results; nothing where numbers that are equal would be drawn."""
    alt: str = ""


def page(results: Path) -> str:
    """The text of results.md."""
    parts = [INTRODUCTION, short_reading(results)]
    for question in QUESTIONS:
        path = results / question.file
        table = question.table(path).strip() if path.is_file() else "Not run yet."
        parts += [f"## {question.title}", question.words, table]
        if question.figure:
            parts.append(f"![{question.alt}]({FIGURES}/{question.figure})")
    return "\n\n".join(parts) + "\n"


def short_reading(results: Path) -> str:
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


def _sizes(path: Path) -> str:
    """One line a size, from the smallest code to the full width in floats."""
    report = _read(path)
    full, tests = full_concat(report), _tests(report)
    lines = [
        "| bytes a vector | what is stored | ours | of the full concat | PCA | the paper's head "
        "| better than PCA beyond chance |",
        "|---|---|---|---|---|---|---|",
    ]
    for budget in report["budgets"]:
        score, code = _coded(report, budget), f"{budget['dim']} columns × {budget['precision']}"
        lines.append(
            f"| {budget['limit']} | {code} | {score:.3f} | {score / full:.1%} | | | not tested |"
        )
    for dim, test in tests.items():
        score = _score(report, f"head:{report['ours']}", dim)
        rivals = " | ".join(f"{_score(report, method, dim):.3f}" for method in (RIVAL, PAPER))
        proof = "yes" if test["p_holm"] < LIKELY and test["difference"] > 0 else "no"
        lines.append(
            f"| {4 * dim:,} | {dim} columns, float32 | {score:.3f} | {score / full:.1%} "
            f"| {rivals} | {proof}, {test['difference']:+.4f} |"
        )
    alone = [
        f"{name} alone {_score(report, f'encoder:{name}'):.3f} (of {4 * _width(report, name):,} "
        "bytes)"
        for name in report["encoders"]
    ]
    return "\n".join([*lines, "", f"The full concat scores {full:.3f}, {', '.join(alone)}."])


def _few(path: Path) -> str:
    """The head by documents and width, PCA in brackets."""
    report, everything = _read(path), _read(path.parent / "compression_own.json")
    dims = sorted({row["dim"] for row in report["rows"]})
    lines = [f"| documents | {' | '.join(map(str, dims))} dims |", "|---" * (len(dims) + 1) + "|"]
    for count in sorted({row["documents"] for row in report["rows"]}):
        drawn = {"rows": [row for row in report["rows"] if row["documents"] == count]}
        lines.append(_head_and_pca(f"{count:,}", drawn, "head", dims))
    lines.append(_head_and_pca("all", everything, f"head:{everything['ours']}", dims))
    return "\n".join(lines)


def _head_and_pca(name: str, report: dict[str, Any], head: str, dims: list[int]) -> str:
    cells = [f"{_score(report, head, dim):.3f} ({_score(report, RIVAL, dim):.3f})" for dim in dims]
    return f"| {name} | {' | '.join(cells)} |"


def _quantisers(path: Path) -> str:
    found = json.loads(path.read_text(encoding="utf-8"))
    budgets = sorted({line["budget"] for record in found for line in record["summary"]})
    sizes = " | ".join(f"{budget} bytes" for budget in budgets)
    lines = [f"| fitted on | code | {sizes} | shared besides, bytes a document |"]
    lines.append("|---" * (3 + len(budgets)) + "|")
    for record in found:
        best, fitted_on = best_of_each(record), record["config"]["fitted_on"]
        where = TITLES.get(fitted_on, fitted_on).removeprefix("Fitted on ")
        for method in dict.fromkeys(method for _, method in best):
            of_method = [best[budget, method] for budget in budgets if (budget, method) in best]
            shares = [f"{line['share']:.1%}" for line in of_method]
            shared = [line["shared_bytes_per_vector"] for line in of_method]
            ours = " (ours)" if method == "trellis" else ""
            lines.append(
                f"| {where} | {NAMES[method]}{ours} | {' | '.join(shares)} "
                f"| {min(shared):.1f} – {max(shared):.1f} |"
            )
    return "\n".join(lines)


def _searches(path: Path) -> str:
    lines = [
        f"| queries × documents | k | widths | ours, CPU seconds | "
        f"{' | '.join(f'{name} takes' for name in COMPETITORS.values())} |",
        "|---" * (4 + len(COMPETITORS)) + "|",
    ]
    for (name, device, threads), record in records(path).items():
        if (device, threads) != ("cpu", 1):
            continue
        sizes, times = record["sizes"], [times_nested(record, m) for m in COMPETITORS]
        ours = record["methods"]["nested"]["cpu"]["median"]
        cells = [f"{t:.1f} ×" if t is not None else "–" for t in times]
        lines.append(
            f"| {sizes['queries']:,} × {sizes['documents']:,} ({name}) | {sizes['k']} "
            f"| {len(sizes['dims'])} | {ours:.2f} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _trust(path: Path) -> str:
    metrics, clients = _read(path), _read(path.parent / "clients.json")
    widths = _read(path.parent / "all_widths.json")
    lines = ["| what | beside | largest difference |", "|---|---|---|"]
    lines += [
        f"| nDCG@10 of each query of {line['data']} | pytrec_eval "
        f"| {line['largest_difference']['pytrec_eval, any query']:.0e} |"
        for line in metrics["results"]
    ]
    lines += [
        f"| both metrics at {len(widths['dims'])} widths of one encoding | {name}, width by width "
        f"| {check['largest_difference']:.0e} |"
        for name, check in widths["checks"].items()
    ]
    programs = [name for name in next(iter(clients["ndcg_at_10"].values())) if "fusion" not in name]
    lines += [
        f"| nDCG@10 of an exported model | {' and '.join(programs)} "
        f"| {clients['largest_difference']:.0e} |",
        "| a vector of an exported model | LangChain "
        f"| {clients['langchain_largest_difference_of_a_vector']:.0e} |",
    ]
    open_ = sum(len(of_one) for of_one in widths["unexplained"].values())
    lines += [
        "",
        f"{open_ or 'None'} of the differences above 1e-6 between evaluators at several widths "
        f"{'are' if open_ != 1 else 'is'} unexplained: in the others cosines are so close that a "
        "float32 product swaps them, and ours is the order of float64.",
    ]
    return "\n".join(lines)


def _width(report: dict[str, Any], encoder: str) -> int:
    return next(r["dim"] for r in report["rows"] if r["method"] == f"encoder:{encoder}")


INTRODUCTION = f"""# Results

What `fusion` is good for, what it is not, and the measurements behind each sentence. Scores are
nDCG@10, which is 1 where the ten first answers are the best that there are, in the best order. The
*full concat* is the vectors of all encoders side by side, which is what every smaller vector is
held against; *PCA* is the plain way to make it smaller, our *head* is the trained one. A *code*
stores each column in a few bits: `128 × binary` is 128 columns of one bit, 16 bytes; with a `+` the
columns that vary most have one bit more.

Every number is rendered from the JSON files in `{FIGURES}` by
`python experiments/render/render_results.py`; the commands that wrote them, all widths, seeds,
intervals and records are in [{MEASUREMENTS}]({MEASUREMENTS}). Everything was measured on CPUs."""

QUESTIONS = (
    Question(
        "How small can a vector be, fitted on one's own documents?",
        "Mean test score of NFCorpus, SciFact and ArguAna; the head is fitted on the documents of "
        "each, without queries or labels. Documents are coded, queries are floats. Settings were "
        "picked on dev and train splits, but earlier recipes had been measured on test, so these "
        "scores may be a little too good.",
        "compression_own.json",
        _sizes,
        "own_corpus.png",
        "nDCG@10 against bytes a vector, fitted on each corpus's own documents",
    ),
    Question(
        "And fitted on other texts?",
        "The same, but fitted on Wikipedia paragraphs: less is kept, and above the small widths "
        "PCA does as well.",
        "compression_wikipedia.json",
        _sizes,
        "wikipedia.png",
        "nDCG@10 against bytes a vector, fitted on Wikipedia",
    ),
    Question(
        "How many documents it takes",
        "The head, in brackets PCA, fitted on some of each data set's own documents; means of "
        "several draws. All documents are searched.",
        "few_documents.json",
        _few,
        "few_documents.png",
        "nDCG@10 against the number of documents, head and PCA",
    ),
    Question(
        "How to weigh the encoders",
        "Squared weights are the shares of each encoder's cosine in the fused one. `--weights "
        "auto` finds them without labels.",
        "auto_weights.json",
        lambda path: render_weights(path, asked=False),
        "auto_weights.png",
        "What the full concat adds to the first encoder under each choice of weights",
    ),
    Question(
        "How good are the codes beside product quantisation?",
        "How much of the float concat's score coded documents keep, on dev and train splits, where "
        "the codes were chosen. A product quantiser needs its centroids besides; few documents "
        "share them, and they count as bytes too.",
        "benchmark_codes.json",
        _quantisers,
        "benchmark_codes.png",
        "Share of the score kept against bytes, by kind of code",
    ),
    Question(
        "How fast is an exact search at all widths?",
        "Ours goes once over the corpus for all widths, the others once for each; one thread, "
        "medians of CPU time.",
        "benchmark_topk.json",
        _searches,
        "benchmark_topk.png",
        "Time of other exact searches as a multiple of ours, by workload",
    ),
    Question(
        "What do many rows cost?",
        "What a billion rows would take, from what was measured at a million.",
        "benchmark_scale.json",
        extrapolate,
        "benchmark_scale.svg",
        "Seconds and memory as rows grow",
    ),
    Question(
        "Do other programs give the same numbers?",
        "nDCG@10 and vectors beside those of other programs that were given the same texts or "
        "vectors.",
        "check_metrics.json",
        _trust,
        "",
    ),
)
