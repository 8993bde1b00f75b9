"""``results.md`` of an evaluation: what came out, how it was made, then the tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fusion.measure.comparisons import REFERENCE, RIVAL
from fusion.measure.rows import MEAN, Row
from fusion.measure.statistics import RESAMPLES
from fusion.measure.summary import three_sentences
from fusion.measure.tables import caption, human_bytes, piped_tables, pipes

FIGURE = "![nDCG@10 against bytes per vector](ndcg_vs_bytes.png)"
INTRODUCTION = (
    "nDCG@10 as trec_eval has it; ± is half the width of the 95 % bootstrap interval over queries; "
    "bold is the best nested method of a width. Whether two methods differ is told by the tests "
    "at the end, not by whether their intervals overlap: they answer the same queries."
)


@dataclass(frozen=True)
class Made:
    """How an evaluation came about."""

    command: str
    """As it was typed."""
    subject: str
    """What was measured: the run, or the model."""
    date: str
    """ISO 8601."""

    def __str__(self) -> str:
        return f"```\n{self.command}\n```\n\n{self.subject}, {self.date}."


def markdown(
    rows: Sequence[Row], comparisons: Sequence[dict[str, Any]], made: Made | None = None
) -> str:
    """The whole of ``results.md``.

    Args:
        rows: All rows, means included.
        comparisons: The lines of ``comparisons_of``.
        made: How they came about, if that is known.
    """
    first, *others = sorted(dict.fromkeys(row.data for row in rows), key=lambda name: name != MEAN)
    sentences = "\n".join(f"- {sentence}" for sentence in three_sentences(rows, comparisons))
    parts = ["# Results", sentences, *([str(made)] if made else []), FIGURE, INTRODUCTION]
    parts += [f"## {_title(rows, first)}", *piped_tables(rows, first)]
    parts += [_folded(_title(rows, name), piped_tables(rows, name)) for name in others]
    parts += [
        _comparison_part(comparisons, method)
        for method in (REFERENCE, RIVAL)
        if any(line["against"]["method"] == method for line in comparisons)
    ]
    return "\n\n".join(parts) + "\n"


def _title(rows: Sequence[Row], name: str) -> str:
    title = caption(rows) if name == MEAN else name
    queries = next(row.queries for row in rows if row.data == name)
    return f"{title[0].upper()}{title[1:]} ({queries:,} queries)"


def _folded(title: str, parts: Sequence[str]) -> str:
    """Below a fold that opens with a click; the blank lines let Markdown be read inside it."""
    return "\n\n".join([f"<details><summary>{title}</summary>", *parts, "</details>"])


def _comparison_part(comparisons: Sequence[dict[str, Any]], against: str) -> str:
    lines = [line for line in comparisons if line["against"]["method"] == against]
    what = f"the full {against}" if against == REFERENCE else f"{against}, width by width"
    cells = [
        [
            line["method"], str(line["dim"]), line["precision"],
            human_bytes(line["bytes_per_vector"]), f"{line['difference']:+.4f}",
            " … ".join(f"{end:+.4f}" for end in line["ci95"]), f"{line['p_holm']:.4f}",
        ]
        for line in lines
    ]  # fmt: skip
    header = ["method", "dims", "precision", "bytes", "difference", "95 % interval", "p"]
    rule = ["---", "---:", "---", "---:", "---:", "---:", "---:"]
    explained = (
        "Difference in nDCG@10 over all data sets (the mean over seeds), its bootstrap interval, "
        "and the p-value of a paired randomisation test, adjusted by Holm for "
        f"{len(lines)} tests; {RESAMPLES:,} random swaps can show no p below "
        f"{len(lines) / (RESAMPLES + 1):.4f}."
    )
    title = f"Against {what} ({len(lines)} test{'s' * (len(lines) != 1)})"
    return _folded(title, [explained, pipes([header, rule, *cells])])
