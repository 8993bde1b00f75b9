"""The figures of results.md that no evaluation draws: one a question, readable in black and white.

Lines are told apart by markers and dashes as well as by colours, and names cover nothing.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter
from sections.render_checks import weights_table
from sections.render_codes import NAMES, TITLES, best_of_each
from sections.render_compression import full_concat, means
from sections.render_topk import COMPETITORS, records, times_nested

from fusion.measure.figures.labels import Labels, Place, around
from fusion.measure.figures.style import (
    AIRY,
    BLUE,
    DPI,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PINK,
    strip,
)

LOOKS = [(ORANGE, "o", "-"), (BLUE, "s", "--"), (GREEN, "^", "-."), (PINK, "D", ":")]
SCALED = {  # of benchmark_scale.json: what is drawn, and its name
    "encode": "encode, without the model",
    "stream_1": "search, shards streaming by",
    "hold_1": "search, in memory",
}
ALONE = "first alone"  # what the choices of weights are drawn against
WIDTHS = (32, 128)  # of the figure of few documents: more would lie on one another


def few(path: Path, png: Path) -> None:
    """nDCG@10 against the number of documents that the space was fitted on."""
    report = json.loads(path.read_text(encoding="utf-8"))
    everything = json.loads((path.parent / "compression_own.json").read_text(encoding="utf-8"))
    counts = sorted({row["documents"] for row in report["rows"]})
    parts = [{"rows": [r for r in report["rows"] if r["documents"] == n]} for n in counts]
    figure, (axes,) = _frame("How many documents it takes", "mean test nDCG@10 of three data sets")
    lines = {}
    for dim in WIDTHS:
        for (name, last), look in zip(
            (("head", f"head:{everything['ours']}"), ("pca", "pca")), LOOKS, strict=False
        ):
            scores = [float(means(part, name)[dim].mean()) for part in parts]
            scores.append(float(means(everything, last)[dim].mean()))
            lines[f"{name}, {dim} dims"] = (list(enumerate(scores)), look)
    full = full_concat(everything)
    axes.axhline(full, color=INK, linestyle=(0, (6, 3)), linewidth=1)
    _lines(axes, lines)
    axes.set_xticks(range(len(counts) + 1), [f"{n:,}" for n in counts] + ["all"])
    axes.set_xlim(-0.3, len(counts) + 1.1)
    axes.margins(y=0.12)  # room for the name above the highest level
    axes.set_xlabel("documents that the space was fitted on", color=GREY)
    labels = Labels(figure, axes)
    _name_lines(labels, lines)
    labels.put("full concat", [Place((0, full), (0, 5), "left", "bottom")], color=INK, fontsize=9)
    figure.savefig(png, dpi=DPI)


def codes(path: Path, png: Path) -> None:
    """The share of the float score that each kind of code keeps, against its bytes."""
    found = json.loads(path.read_text(encoding="utf-8"))
    figure, panels = _frame(
        *[""] * 2, panels=len(found), heads=[_fitted_on(record) for record in found]
    )
    methods = list(dict.fromkeys(line["method"] for r in found for line in r["summary"]))
    looks = dict(zip(sorted(methods, key=list(NAMES).index), LOOKS, strict=False))
    for axes, record in zip(panels, found, strict=True):
        best = best_of_each(record)
        budgets = sorted({budget for budget, _ in best})
        for method, (colour, marker, dash) in looks.items():
            points = [(b, best[b, method]["share"]) for b in budgets if (b, method) in best]
            if points:
                axes.plot(
                    *zip(*points, strict=True), color=colour, marker=marker, linestyle=dash,
                    linewidth=2, label=f"{NAMES[method]}{' (ours)' * (method == 'trellis')}",
                )  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(budgets))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} bytes"))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.set_ylim(0.7, 1)
    _legend(figure, panels[0])
    figure.savefig(png, dpi=DPI)


def weights(path: Path, png: Path) -> None:
    """What the concat adds to the first encoder's nDCG@10 under each choice of weights.

    Data sets lie far apart and choices close together: the scores themselves would show neither.
    """
    names, rows = weights_table(path)
    figure, (axes,) = _frame(
        "How to weigh the encoders", "test nDCG@10 of the full concat, less that of the first alone"
    )
    alone = rows.pop(ALONE)
    for step, (name, scores), (colour, marker, _) in zip(
        (-1, 0, 1), rows.items(), LOOKS, strict=False
    ):
        gains = [score - base for score, base in zip(scores, alone, strict=True)]
        places = [place + 0.12 * step for place in range(len(names))]
        axes.plot(places, gains, marker, color=colour, markersize=8, label=name)
    axes.axhline(0, color=INK, linewidth=1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.3f}"))
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.4, len(names) - 0.6)
    axes.margins(y=0.12)
    _legend(figure, axes)
    figure.savefig(png, dpi=DPI)


def topk(path: Path, png: Path) -> None:
    """How many times as long as ours other exact searches take at all widths, by workload."""
    latest = {k: v for k, v in records(path).items() if k[1:] == ("cpu", 1)}
    figure, (axes,) = _frame(
        "Time of an exact search at all widths", "times ours, 1 thread; to the right of 1 is slower"
    )
    names = [workload for workload, *_ in latest][::-1]
    for (method, words), (colour, marker, _) in zip(COMPETITORS.items(), LOOKS, strict=False):
        times = [
            (value, place)
            for place, key in enumerate(reversed(latest))
            if (value := times_nested(latest[key], method)) is not None
        ]
        axes.plot(*zip(*times, strict=True), marker, color=colour, markersize=8, label=words)
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([1, 2, 5, 10, 20, 40]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    _legend(figure, axes)
    figure.savefig(png, dpi=DPI)


def scale(path: Path, svg: Path) -> None:
    """Seconds and memory of encoding and of both ways of searching, as rows grow."""
    cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    rows = [case["rows"] for case in cases]
    heads = [("Time", "seconds, by rows"), ("Memory", "peak of the process in MiB, by rows")]
    figure, panels = _frame(*[""] * 2, panels=2, heads=heads)
    for axes, measured in zip(panels, ("seconds", "peak_mib"), strict=True):
        for (job, name), (colour, marker, dash) in zip(SCALED.items(), LOOKS, strict=False):
            values = [case[job][measured] for case in cases]
            axes.plot(
                rows, values, color=colour, marker=marker, linestyle=dash, linewidth=2, label=name
            )
        axes.set(xscale="log", yscale="log")
        axes.xaxis.set_major_locator(FixedLocator(rows))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.9g}"))
    panels[1].set_ylim(100, 1e4)
    _legend(figure, panels[0])
    # Nothing that changes from one drawing to the next: text as text, no date, ids by a salt.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "scale"}):
        figure.savefig(svg, metadata={"Date": None})


def _fitted_on(record: Mapping[str, Any]) -> tuple[str, str]:
    fitted_on = record["config"]["fitted_on"]
    title = TITLES.get(fitted_on, f"Fitted on {fitted_on}")
    return title, "nDCG@10 kept by coded documents, of the float concat's"


def _frame(
    title: str, note: str, panels: int = 1, heads: Sequence[tuple[str, str]] = ()
) -> tuple[Figure, list[Axes]]:
    """A figure with a title and a small note over each panel."""
    figure = Figure(figsize=(7.2 if panels == 1 else 5.6 * panels, 4.4), layout=AIRY)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for part, (head, small) in zip(axes, heads or [(title, note)], strict=True):
        part.set_title(head, loc="left", fontsize=12, color=INK, pad=22)
        part.text(0, 1.02, small, transform=part.transAxes, fontsize=9, color=GREY, va="bottom")
        strip(part)
    return figure, axes


Lines = Mapping[str, tuple[Sequence[tuple[float, float]], tuple[str, str, str]]]


def _lines(axes: Axes, lines: Lines) -> None:
    for points, (colour, marker, dash) in lines.values():
        axes.plot(
            *zip(*points, strict=True), color=colour, marker=marker, linestyle=dash, linewidth=2
        )


def _name_lines(labels: Labels, lines: Lines) -> None:
    for name, (points, (colour, *_)) in lines.items():
        rises: Iterable[float] = (0, 7, -7, 11, -11)
        places = [Place(points[-1], (9, rise), ha="left") for rise in rises]
        labels.put(name, [*places, *around(points[-1])], color=colour, fontsize=9.5)


def _legend(figure: Figure, axes: Axes) -> None:
    """Below the panels, where nothing is drawn."""
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncol=len(names), frameon=False, fontsize=9
    )
