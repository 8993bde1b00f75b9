"""Where names stand in a figure: beside what they name, and over nothing else."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from fusion.measure.figures.style import GREY, HALO

AWAY = 1000.0  # what a pixel of a line costs, times this, costs to stand outside or over a name
FAR = 13.0  # points; from here on a hair joins a name to its point


class Place(NamedTuple):
    """A place for a name: beside a point, at an offset."""

    at: tuple[float, float]
    """The point, in the data's own numbers."""
    offset: tuple[float, float]
    """In points, from there to the name."""
    ha: str = "center"
    va: str = "center"


class Labels:
    """The names of one axes, each put where it covers neither lines nor points nor other names.

    Make it when everything is drawn and the limits stand; the layout is settled by that.
    """

    def __init__(self, figure: Figure, axes: Axes) -> None:
        figure.draw_without_rendering()
        self._renderer = FigureCanvasAgg(figure).get_renderer()
        self._axes, self._dpi = axes, figure.dpi
        parts = [_pixels(line, figure.dpi) for line in axes.lines]
        self._ink = np.concatenate([np.empty((0, 2)), *parts])  # (p, 2)
        self._names: list[Bbox] = []

    def put(self, text: str, places: Iterable[Place], **style: Any) -> Annotation:  # noqa: ANN401
        """Write a name at the first place that is free, or at the one that covers least."""
        best: tuple[float, Annotation] | None = None
        for place in places:
            drawn = self._write(text, place, style)
            cost = self._cost(drawn)
            if best is None or cost < best[0]:
                if best:
                    best[1].remove()
                best = cost, drawn
            else:
                drawn.remove()
            if cost == 0:
                break
        assert best is not None, "a name needs a place"
        self._names.append(self._box(best[1]))
        return best[1]

    def height(self, value: float) -> float:
        """How high a value stands, in points."""
        return float(self._axes.transData.transform((1.0, value))[1]) * 72 / self._dpi

    def widths(self, count: int) -> list[float]:
        """Places along the axis, from the left, in the data's own numbers."""
        places = [(0.005 + 0.9 * i / count, 0.5) for i in range(count)]
        pixels = self._axes.transAxes.transform(places)
        return [float(x) for x, _ in self._axes.transData.inverted().transform(pixels)]

    def covered(self) -> float:
        """What all names cover together: 0 where each stands free."""
        boxes = self._names
        return sum(self._ink_in(box) for box in boxes) + AWAY * sum(
            bool(box.overlaps(other)) for i, box in enumerate(boxes) for other in boxes[:i]
        )

    def _write(self, text: str, place: Place, style: dict[str, Any]) -> Annotation:
        far = max(map(abs, place.offset)) > FAR
        hair = {"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4}
        drawn = self._axes.annotate(
            text, place.at, xytext=place.offset, textcoords="offset points", ha=place.ha,
            va=place.va, path_effects=HALO, zorder=7, arrowprops=hair if far else None, **style,
        )  # fmt: skip
        drawn.set_in_layout(False)
        return drawn

    def _cost(self, drawn: Annotation) -> float:
        box, whole = self._box(drawn), self._axes.get_window_extent()
        inside = whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 <= whole.y1
        others = sum(bool(box.overlaps(other)) for other in self._names)
        return self._ink_in(box) + AWAY * (others + (not inside))

    def _box(self, drawn: Annotation) -> Bbox:
        """Of the words alone, without the hair."""
        drawn.update_positions(self._renderer)
        return Text.get_window_extent(drawn, self._renderer).padded(1)

    def _ink_in(self, box: Bbox) -> float:
        x, y = self._ink.T
        return float(((box.x0 < x) & (x < box.x1) & (box.y0 < y) & (y < box.y1)).sum())


def around(at: tuple[float, float], reach: Sequence[float] = (9, 18, 30, 44)) -> list[Place]:
    """Places around a point, the nearest first: below, above, right and left of it."""
    return [
        place
        for r in reach
        for place in (
            Place(at, (0, -r), va="top"),
            Place(at, (r, 0), ha="left"),
            Place(at, (0, r), va="bottom"),
            Place(at, (-r, 0), ha="right"),
            Place(at, (0.7 * r, -0.7 * r), ha="left", va="top"),
            Place(at, (-0.7 * r, 0.7 * r), ha="right", va="bottom"),
        )
    ]


def _pixels(line: Line2D, dpi: float) -> np.ndarray:
    """What a line covers, a pixel or so apart: its strokes, and the rims of its markers [p, 2]."""
    ends = line.get_transform().transform(line.get_xydata())  # (m, 2)
    ends = ends[np.isfinite(ends).all(axis=1)]
    parts = [ends]
    if line.get_linestyle() not in ("None", "none", ""):
        for start, end in pairwise(ends):
            steps = max(2, int(np.hypot(*(end - start))))
            parts.append(start + np.linspace(0, 1, steps)[:, None] * (end - start))
    if line.get_marker() not in ("None", "none", ""):
        radius = line.get_markersize() / 2 * dpi / 72
        angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        rim = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        parts.append((ends[:, None] + rim).reshape(-1, 2))
    return np.concatenate(parts)
