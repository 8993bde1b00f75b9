"""The report of an evaluation, and its pictures: nDCG against bytes, and a run's losses.

Colours are those of Okabe and Ito, told apart by colour-blind readers too, and every method has a
marker of its own. Figures are made without pyplot: no window, no global state.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusion.errors import LIBRARIES, FusionError, MissingExtraError
from fusion.measure.archive import read_report, whole_folder, write_records
from fusion.measure.comparisons import REFERENCE, comparisons_of
from fusion.measure.curves import best_coded, height_at, line_of, spread
from fusion.measure.rows import Row, averaged_over_seeds
from fusion.measure.tables import (
    caption,
    data_sets,
    headline,
    human_bytes,
    human_score,
    is_nested,
    markdown,
    terminal_table,
)

try:
    from matplotlib import patheffects
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
except ImportError as error:
    raise MissingExtraError(*LIBRARIES["matplotlib"]) from error

__all__ = [
    "loss_figure",
    "ndcg_figure",
    "read_report",
    "terminal_table",
    "write_report",
]

INK, GREY, PALE = "#222222", "#767676", "#e4e4e4"
STYLES = {  # method -> colour, marker
    "head": ("#D55E00", "o"),
    "pca": ("#0072B2", "s"),
    "first-k": ("#009E73", "^"),
    "gaussian": ("#CC79A7", "D"),
    "random-k": ("#E69F00", "v"),
}
SPARE = [("#56B4E9", "P"), ("#000000", "X"), ("#999933", "<"), ("#882255", ">"), ("#44AA99", "h")]
BITS = {
    "float16": "16", "int8": "8", "int4": "4", "int3": "3", "int2+": "2+", "int2": "2",
    "binary+": "1+", "binary": "1",
}  # fmt: skip
AIRY = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
HALO = [patheffects.withStroke(linewidth=3, foreground="white")]
LOSSES = {"train": ("training", GREY), "val": ("validation", "#D55E00")}
SMALL_IN_A_LINE = 4
LABEL_GAP = 0.036  # of the axes' height, between the middles of two labels


def write_report(
    folder: Path | str,
    rows: Sequence[Row],
    environment: Mapping[str, Any],
    overwrite: bool = False,
) -> Path:
    """Write everything that an evaluation has to show, or nothing.

    Args:
        folder: Receives ``results.json``, ``results.csv``, ``results.md``, ``ndcg_vs_bytes.png``
            and ``per_query.safetensors``.
        rows: All rows, with ``mean_rows`` where there are several data sets.
        environment: Versions and hardware, no paths and no names of hosts.
        overwrite: Replace the files of an earlier evaluation.

    Returns:
        The folder.

    Raises:
        FusionError: The folder is not empty, or cannot be written.
        ValueError: There is nothing to report.
    """
    if not rows:
        raise ValueError("nothing was measured: no row to report")
    comparisons = comparisons_of(rows)
    with whole_folder(folder, overwrite) as draft:
        write_records(draft, rows, environment, comparisons)
        (draft / "results.md").write_text(markdown(rows, comparisons), encoding="utf-8")
        ndcg_figure(rows, draft / "ndcg_vs_bytes.png")
    return Path(folder)


def ndcg_figure(rows: Sequence[Row], path: Path | str) -> None:
    """Draw nDCG@10 against the bytes of a vector: the mean large, each data set small below it.

    One line a method in float32 with its 95 % interval, a dashed level for the full concat, and
    one dotted line for the best that codes of a single method reach; its points show their bits.
    """
    names = data_sets(rows)
    small = names if len(names) > 1 else []
    styles = _styles(rows)
    columns = min(len(small), SMALL_IN_A_LINE) or 1
    lines = -(-len(small) // columns)
    figure = Figure(figsize=(9.6, 6.0 + 2.8 * lines), layout=AIRY)
    grid = figure.add_gridspec(1 + lines, columns, height_ratios=[2.3] + [1] * lines)
    _draw_large(figure.add_subplot(grid[0, :]), rows, styles)
    for place, name in enumerate(small):
        axes = figure.add_subplot(grid[1 + place // columns, place % columns])
        of_one = averaged_over_seeds(row for row in rows if row.data == name)
        _draw_panel(axes, of_one, styles, size=0.6)
        axes.set_title(name, loc="left", fontsize=10.5, color=INK)
    figure.savefig(path, dpi=160)


def _draw_large(axes: Axes, rows: Sequence[Row], styles: Mapping[str, tuple[str, str]]) -> None:
    shown = headline(rows)
    _draw_panel(axes, shown, styles, size=1.0)
    if not best_coded(shown):  # else the coded line reaches further left than their names
        left, right = axes.get_xlim()
        axes.set_xlim(left / (right / left) ** 0.1, right)
    _label_lines(axes, shown, styles)
    _label_encoders(axes, shown, styles)
    axes.set_title(f"nDCG@10, {caption(rows)}", loc="left", fontsize=13, color=INK, pad=24)
    note = "bands: 95 % bootstrap interval over queries"
    if best_coded(shown):
        note += "; discs: bits a coordinate of the codes"
    axes.text(0, 1.015, note, transform=axes.transAxes, fontsize=9, color=GREY, va="bottom")
    full = [row for row in shown if row.method == REFERENCE and row.precision == "float32"]
    if not full:
        axes.set_xlabel("bytes a vector", color=GREY)
        return
    whole = full[0].bytes_per_vector
    axes.set_xlabel("bytes a vector, and how many times smaller than the full concat", color=GREY)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{human_bytes(round(value))}\n{_times(whole / value)}")
    )


def _times(ratio: float) -> str:
    """How many times smaller: 512×, 2.5×."""
    return f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.3g}×"


def _styles(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    spare = iter(SPARE * len(rows))
    methods = dict.fromkeys(row.method for row in rows if is_nested(row.method))
    return {method: STYLES.get(method) or next(spare) for method in methods}


def _draw_panel(
    axes: Axes, rows: Sequence[Row], styles: Mapping[str, tuple[str, str]], size: float
) -> None:
    for method, (colour, marker) in styles.items():
        x, y, ci95 = _curve(line_of(rows, method))
        axes.fill_between(x, ci95[:, 0], ci95[:, 1], color=colour, alpha=0.07, linewidth=0)
        axes.plot(x, y, color=colour, marker=marker, markersize=6 * size, linewidth=2 * size)
    coded = best_coded(rows)
    if coded:
        x, y, _ = _curve(coded)
        colour = styles[coded[0].method][0]
        axes.plot(x, y, color=colour, linestyle=(0, (1, 1.6)), linewidth=1.8 * size)
        if size < 1:
            axes.plot(x, y, "o", color=colour, markersize=3)
        for row in coded if size == 1 else ():
            _draw_bits(axes, row, colour)
    for row in rows:
        if not is_nested(row.method) and row.precision == "float32":
            _draw_reference(axes, row, size)
    _dress(axes, large=size == 1)


def _draw_bits(axes: Axes, row: Row, colour: str) -> None:
    """A point of a coded line is the number of bits of its coordinates, in a white disc."""
    at = (row.bytes_per_vector, row.ndcg_at_10)
    axes.plot(*at, "o", color="white", markeredgecolor=colour, markersize=11, zorder=5)
    axes.annotate(
        BITS[row.precision], at, color=colour, fontsize=7, ha="center", va="center_baseline",
        zorder=6, fontweight="bold",
    )  # fmt: skip


def _draw_reference(axes: Axes, row: Row, size: float) -> None:
    """What is not nested is one point; the concat's level is what all others are held against."""
    full = row.method == REFERENCE
    if full:
        axes.axhline(row.ndcg_at_10, color=INK, linestyle="--", linewidth=1, zorder=1)
    marker = "*" if full else "o"
    axes.plot(
        row.bytes_per_vector, row.ndcg_at_10, marker, color=INK if full else GREY,
        markersize=(13 if full else 6) * size, markeredgecolor="white", zorder=4,
    )  # fmt: skip
    if full and size == 1:
        axes.text(
            0.005, row.ndcg_at_10, f"full concat, {human_score(row.ndcg_at_10)}",
            transform=axes.get_yaxis_transform(), color=INK, fontsize=9, va="bottom",
        )  # fmt: skip


def _label_encoders(axes: Axes, rows: Sequence[Row], methods: Iterable[str]) -> None:
    """Name the single encoders below all lines, best first, joined to their points by a hair."""
    lines = [line for method in methods if (line := line_of(rows, method))]
    low, high = axes.get_ylim()
    columns: dict[int, list[Row]] = defaultdict(list)  # encoders of one width share their names
    for row in sorted(rows, key=lambda row: -row.ndcg_at_10):
        if row.method.startswith("encoder:") and row.precision == "float32":
            columns[row.bytes_per_vector].append(row)
    for size, column in columns.items():
        lowest = column[-1].ndcg_at_10
        floor = min([height_at(line, size) for line in lines] + [lowest])
        axes.annotate(
            "\n".join(f"{row.method.removeprefix('encoder:')} alone" for row in column),
            (size, lowest), xytext=(size, floor - 0.035 * (high - low)), color=GREY, fontsize=9,
            ha="center", va="top", path_effects=HALO,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkB": 3},
        )  # fmt: skip


def _label_lines(axes: Axes, rows: Sequence[Row], styles: Mapping[str, tuple[str, str]]) -> None:
    """Name each line at its left end, where methods differ most, moved apart where they touch."""
    lines = {method: line_of(rows, method) for method in styles}
    ends = {m: (line[0].bytes_per_vector, line[0].ndcg_at_10) for m, line in lines.items() if line}
    order = sorted(ends, key=lambda method: ends[method][1])
    low, high = axes.get_ylim()
    heights = spread([ends[method][1] for method in order], LABEL_GAP * (high - low))
    for method, height in zip(order, heights, strict=True):
        axes.annotate(
            method, ends[method], xytext=(-11, height), textcoords=("offset points", "data"),
            color=styles[method][0], fontsize=10.5, fontweight="bold", ha="right", va="center",
            path_effects=HALO,
        )  # fmt: skip
    coded = best_coded(rows)
    if coded:
        middle = coded[(len(coded) - 1) // 2]
        axes.annotate(
            f"{middle.method}, coded", (middle.bytes_per_vector, middle.ndcg_at_10),
            xytext=(-11, 5), textcoords="offset points", color=styles[middle.method][0],
            fontsize=10.5, fontweight="bold", ha="right", path_effects=HALO,
        )  # fmt: skip


def _curve(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bytes (m,), scores (m,) and intervals (m, 2)."""
    x = np.array([row.bytes_per_vector for row in rows])
    y = np.array([row.ndcg_at_10 for row in rows])
    return x, y, np.array([row.ndcg_at_10_ci95 for row in rows]).reshape(-1, 2)


def _dress(axes: Axes, large: bool) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=12 if large else 5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: human_bytes(round(value))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.2f}".removeprefix("0")))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    _strip(axes)
    axes.margins(x=0.06)


def loss_figure(metrics_csv: Path | str, path: Path | str) -> None:
    """Draw the losses of a training run, one point an epoch, and mark the epoch that was kept.

    Args:
        metrics_csv: What Lightning's CSV logger wrote, with ``epoch`` and columns that begin with
            ``train/loss`` and ``val/loss``.
        path: The picture.

    Raises:
        FusionError: The file does not exist or holds no losses.
    """
    losses = {name: _losses(Path(metrics_csv), f"{name}/loss") for name in LOSSES}
    if not any(losses.values()):
        raise FusionError(f"{metrics_csv} holds no train/loss or val/loss: nothing to draw")
    figure = Figure(figsize=(7.2, 4.2), layout=AIRY)
    axes = figure.add_subplot()
    drawn = {name: by_epoch for name, by_epoch in losses.items() if by_epoch}
    last = max(max(by_epoch) for by_epoch in drawn.values())
    for name, by_epoch in drawn.items():
        axes.plot(
            list(by_epoch), list(by_epoch.values()), color=LOSSES[name][1], linewidth=2,
            marker="o", markersize=3,
        )  # fmt: skip
    axes.set_xlim(-0.02 * (last + 1), last + 0.17 * (last + 1))
    axes.set_xticks(
        [t for t in MaxNLocator(8, integer=True).tick_values(0, last) if 0 <= t <= last]
    )
    axes.margins(y=0.12)
    _label_losses(axes, drawn)
    if "val" in drawn:
        best = best_epoch(drawn["val"])
        axes.plot(best, drawn["val"][best], "o", markersize=11, mfc="none", mec=INK)
        axes.annotate(
            f"kept: epoch {best}", (best, drawn["val"][best]), xytext=(0, 14),
            textcoords="offset points", color=INK, fontsize=9, ha="center", path_effects=HALO,
        )  # fmt: skip
    axes.set_title("Loss, by epoch", loc="left", fontsize=13, color=INK, pad=10)
    _strip(axes)
    figure.savefig(path, dpi=160)


def _label_losses(axes: Axes, losses: Mapping[str, Mapping[int, float]]) -> None:
    ends = {name: list(by_epoch.items())[-1] for name, by_epoch in losses.items()}
    order = sorted(ends, key=lambda name: ends[name][1])
    low, high = axes.get_ylim()
    heights = spread([ends[name][1] for name in order], 0.06 * (high - low))
    for name, height in zip(order, heights, strict=True):
        label, colour = LOSSES[name]
        axes.annotate(
            label, ends[name], xytext=(9, height), textcoords=("offset points", "data"),
            color=colour, fontweight="bold", va="center", path_effects=HALO,
        )  # fmt: skip


def _strip(axes: Axes) -> None:
    """Leave the data, pale lines to read it by, and the ground that it stands on."""
    axes.grid(axis="y", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.tick_params(colors=GREY, labelsize=8.5, length=0)


def best_epoch(losses: Mapping[int, float]) -> int:
    """The epoch of the lowest loss, the first of equals."""
    return min(losses, key=losses.__getitem__)


def _losses(path: Path, name: str) -> dict[int, float]:
    """Mean of a logged loss in each epoch."""
    values: dict[int, list[float]] = defaultdict(list)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                logged = line.get(f"{name}_epoch") or line.get(name)
                if logged and line.get("epoch"):
                    values[int(line["epoch"])].append(float(logged))
    except FileNotFoundError:
        raise FusionError(f"{path} does not exist; train first") from None
    return {epoch: float(np.mean(found)) for epoch, found in sorted(values.items())}
