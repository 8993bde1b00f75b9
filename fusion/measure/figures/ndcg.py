"""nDCG@10 against the bytes of a vector, drawn from the rows of an evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from fusion.measure.comparisons import REFERENCE
from fusion.measure.figures.labels import Labels, Place, around
from fusion.measure.figures.lines import best_coded, line_of, spread
from fusion.measure.figures.style import (
    AIRY,
    BLUE,
    DPI,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PINK,
    YELLOW,
    strip,
)
from fusion.measure.rows import Row, averaged_over_seeds
from fusion.measure.tables import (
    caption,
    data_sets,
    headline,
    human_bytes,
    human_score,
    is_nested,
)

STYLES = {  # method -> colour, marker
    "head": (ORANGE, "o"),
    "pca": (BLUE, "s"),
    "first-k": (GREEN, "^"),
    "gaussian": (PINK, "D"),
    "random-k": (YELLOW, "v"),
}
SPARE = [("#56B4E9", "P"), ("#000000", "X"), ("#999933", "<"), ("#882255", ">"), ("#44AA99", "h")]
BITS = {
    "float16": "16", "int8": "8", "int4": "4", "int3": "3", "int2+": "2+", "int2": "2",
    "binary+": "1+", "binary": "1",
}  # fmt: skip
SMALL_IN_A_LINE = 4
LABEL_GAP = 15  # points, between the middles of two names
BOLD = {"fontsize": 10.5, "fontweight": "bold"}


def ndcg_figure(rows: Sequence[Row], path: Path | str) -> None:
    """Draw nDCG@10 against the bytes of a vector: the mean large, each data set small below it.

    One line a method in float32 with its 95 % interval, a dashed level for the full concat, and
    one dotted line for the best that codes of a single method reach; its points show their bits.
    """
    draw_ndcg(rows)[0].savefig(path, dpi=DPI)


def draw_ndcg(rows: Sequence[Row]) -> tuple[Figure, Labels]:
    """The figure, and the names of its large part."""
    names = data_sets(rows)
    small = names if len(names) > 1 else []
    styles = _styles(rows)
    columns = min(len(small), SMALL_IN_A_LINE) or 1
    lines = -(-len(small) // columns)
    figure = Figure(figsize=(9.6, 6.0 + 2.8 * lines), layout=AIRY)
    grid = figure.add_gridspec(1 + lines, columns, height_ratios=[2.3] + [1] * lines)
    large = figure.add_subplot(grid[0, :])
    _draw_large(large, rows, styles)
    for place, name in enumerate(small):
        axes = figure.add_subplot(grid[1 + place // columns, place % columns])
        of_one = averaged_over_seeds(row for row in rows if row.data == name)
        _draw_panel(axes, of_one, styles, size=0.6)
        axes.set_title(name, loc="left", fontsize=10.5, color=INK)
    labels = Labels(figure, large)  # now that every panel has its place
    _name_all(labels, headline(rows), styles)
    return figure, labels


def _draw_large(axes: Axes, rows: Sequence[Row], styles: Mapping[str, tuple[str, str]]) -> None:
    shown = headline(rows)
    _draw_panel(axes, shown, styles, size=1.0)
    if not best_coded(shown):  # else the coded line reaches further left than their names
        left, right = axes.get_xlim()
        axes.set_xlim(left / (right / left) ** 0.14, right)
    axes.set_title(f"nDCG@10, {caption(rows)}", loc="left", fontsize=13, color=INK, pad=24)
    note = "bands: 95 % bootstrap interval over queries"
    if best_coded(shown):
        note += "; discs: bits a coordinate of the codes"
    axes.text(0, 1.015, note, transform=axes.transAxes, fontsize=9, color=GREY, va="bottom")
    full = _full(shown)
    if full is None:
        axes.set_xlabel("bytes a vector", color=GREY)
        return
    whole = full.bytes_per_vector
    axes.set_xlabel("bytes a vector, and how many times smaller than the full concat", color=GREY)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{human_bytes(round(value))}\n{_times(whole / value)}")
    )


def _full(rows: Sequence[Row]) -> Row | None:
    """The full concat, if it was measured in float32."""
    return next((r for r in rows if r.method == REFERENCE and r.precision == "float32"), None)


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
    """What is not nested is one point; the concat's level is what all others are held against.

    Its star is hollow: full width is where other lines end too.
    """
    full = row.method == REFERENCE
    if full:
        axes.axhline(row.ndcg_at_10, color=INK, linestyle="--", linewidth=1, zorder=1)
    axes.plot(
        row.bytes_per_vector, row.ndcg_at_10, "*" if full else "o",
        markersize=(16 if full else 6) * size, markerfacecolor="none" if full else GREY,
        markeredgecolor=INK if full else "white", markeredgewidth=0.9, zorder=4,
    )  # fmt: skip


def _name_all(labels: Labels, rows: Sequence[Row], styles: Mapping[str, tuple[str, str]]) -> None:
    """Name what the large part shows: lines first, then what has places to choose from."""
    _name_lines(labels, rows, styles)
    _name_codes(labels, rows, styles)
    _name_concat(labels, rows)
    for row in sorted(rows, key=lambda row: -row.ndcg_at_10):
        if row.method.startswith("encoder:") and row.precision == "float32":
            name = f"{row.method.removeprefix('encoder:')} alone"
            at = (row.bytes_per_vector, row.ndcg_at_10)
            labels.put(name, around(at), color=GREY, fontsize=9)


def _name_lines(labels: Labels, rows: Sequence[Row], styles: Mapping[str, tuple[str, str]]) -> None:
    """Each line at its left end, where methods differ most, moved apart where they touch."""
    lines = {method: line for method in styles if (line := line_of(rows, method))}
    order = sorted(lines, key=lambda method: lines[method][0].ndcg_at_10)
    ends = [labels.height(lines[method][0].ndcg_at_10) for method in order]
    for method, end, height in zip(order, ends, spread(ends, LABEL_GAP), strict=True):
        points = [(row.bytes_per_vector, row.ndcg_at_10) for row in lines[method]]
        places = [Place(points[0], (-11, height - end), ha="right")]
        places += [place for point in points for place in around(point)]
        labels.put(method, places, color=styles[method][0], **BOLD)


def _name_codes(labels: Labels, rows: Sequence[Row], styles: Mapping[str, tuple[str, str]]) -> None:
    coded = best_coded(rows)
    if not coded:
        return
    middle = (len(coded) - 1) // 2
    order = sorted(coded, key=lambda row: abs(coded.index(row) - middle))
    points = [(row.bytes_per_vector, row.ndcg_at_10) for row in order]
    places = [Place(point, (-9, 9), ha="right", va="bottom") for point in points]
    places += [Place(point, (9, -9), ha="left", va="top") for point in points]
    places += [place for point in points for place in around(point)]
    method = coded[0].method
    labels.put(f"{method}, coded", places, color=styles[method][0], **BOLD)


def _name_concat(labels: Labels, rows: Sequence[Row]) -> None:
    """On the dashed level, above it if there is room, at the left if there is room."""
    full = _full(rows)
    if full is None:
        return
    places = [
        Place((x, full.ndcg_at_10), (0, side * 4), ha="left", va=va)
        for x in labels.widths(12)
        for side, va in ((1, "bottom"), (-1, "top"))
    ]
    labels.put(f"full concat, {human_score(full.ndcg_at_10)}", places, color=INK, fontsize=9)


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
    strip(axes)
    axes.margins(x=0.06)
