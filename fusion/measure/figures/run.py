"""A training run as a picture: what its head keeps at each width, and how its loss fell."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from fusion.errors import FusionError
from fusion.measure.figures.labels import Labels, Place, around
from fusion.measure.figures.style import AIRY, DPI, GREY, INK, ORANGE, strip

if TYPE_CHECKING:
    from fusion.measure.neighbours import Kept

LOSSES = {"train": ("training", GREY, "s"), "val": ("held back", ORANGE, "o")}


def run_figure(metrics_csv: Path | str, path: Path | str, kept: "Kept | None" = None) -> None:
    """Draw the share of neighbours kept at each width, and the losses, one point an epoch.

    Args:
        metrics_csv: What the training logged, with ``epoch`` and columns that begin with
            ``train/loss`` and ``val/loss``.
        path: The picture.
        kept: What the finished head keeps; None draws the losses alone.

    Raises:
        FusionError: The file does not exist or holds no losses.
    """
    draw_run(metrics_csv, kept)[0].savefig(path, dpi=DPI)


def draw_run(metrics_csv: Path | str, kept: "Kept | None" = None) -> tuple[Figure, list[Labels]]:
    """The figure, and the names of its panels."""
    losses = {name: logged_losses(Path(metrics_csv), f"{name}/loss") for name in LOSSES}
    drawn = {name: by_epoch for name, by_epoch in losses.items() if by_epoch}
    if not drawn:
        raise FusionError(f"{metrics_csv} holds no train/loss or val/loss: nothing to draw")
    panels = 2 if kept else 1
    figure = Figure(figsize=(6.4 * panels, 4.4), layout=AIRY)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    if kept:
        _draw_kept(axes[0], kept)
    _draw_losses(axes[-1], drawn)
    labels = [Labels(figure, part) for part in axes]  # now that every panel has its place
    if kept:
        _name_shares(labels[0], kept)
    _name_losses(labels[-1], drawn)
    return figure, labels


def _draw_kept(axes: Axes, kept: "Kept") -> None:
    dims = list(kept.shares)
    axes.plot(dims, list(kept.shares.values()), color=ORANGE, marker="o", linewidth=2)
    axes.set_xscale("log", base=2)
    axes.set_xlim(dims[0] / 1.35, dims[-1] * 1.35)
    axes.set_ylim(0, 1.12)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_xticks(_apart(dims), [str(dim) for dim in _apart(dims)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set_xlabel("dims", color=GREY)
    _head(axes, "Nearest neighbours kept, by width", _asked(kept))


def _asked(kept: "Kept") -> str:
    return (
        f"of the {kept.nearest} nearest by the full concat; {kept.queries:,} held-back of "
        f"{kept.texts:,} texts"
    )


def _apart(dims: Sequence[int]) -> list[int]:
    """The widths whose numbers have room below a logarithmic axis, the widest among them."""
    chosen: list[int] = []
    least = (dims[-1] / dims[0]) ** (1 / 9)
    for dim in reversed(dims):
        if not chosen or chosen[-1] / dim >= least:
            chosen.append(dim)
    return chosen[::-1]


def _name_shares(labels: Labels, kept: "Kept") -> None:
    """The share beside each point that has room for it; the widest has, whatever its place."""
    for dim, share in reversed(kept.shares.items()):
        if dim in _apart(list(kept.shares)):
            places = around((dim, share), reach=(8, 14))
            labels.put(f"{100 * share:.0f} %", places, color=INK, fontsize=9)


def _draw_losses(axes: Axes, losses: Mapping[str, Mapping[int, float]]) -> None:
    last = max(max(by_epoch) for by_epoch in losses.values())
    for name, by_epoch in losses.items():
        _, colour, marker = LOSSES[name]
        axes.plot(
            list(by_epoch), list(by_epoch.values()), color=colour, linewidth=2,
            marker=marker, markersize=3,
        )  # fmt: skip
    if "val" in losses:
        best = best_epoch(losses["val"])
        axes.plot(best, losses["val"][best], "o", markersize=11, mfc="none", mec=INK)
    axes.set_xlim(-0.04 * (last + 1), last + 0.25 * (last + 1))
    axes.set_xticks(
        [t for t in MaxNLocator(8, integer=True).tick_values(0, last) if 0 <= t <= last]
    )
    axes.margins(y=0.16)
    axes.set_xlabel("epoch", color=GREY)
    _head(axes, "Loss, by epoch", "what training lowers; the ring is the epoch that was kept")
    strip(axes)


def _name_losses(labels: Labels, losses: Mapping[str, Mapping[int, float]]) -> None:
    for name, by_epoch in losses.items():
        label, colour, _ = LOSSES[name]
        points = list(by_epoch.items())
        places = [Place(points[-1], (9, rise), ha="left") for rise in (0, 8, -8, 12, -12)]
        places += [place for point in reversed(points) for place in around(point)]
        labels.put(label, places, color=colour, fontweight="bold", fontsize=10)
    if "val" in losses:
        best = best_epoch(losses["val"])
        places = around((best, losses["val"][best]), reach=(12, 22, 34, 50))
        labels.put(f"kept: epoch {best}", places, color=INK, fontsize=9)


def _head(axes: Axes, title: str, note: str) -> None:
    """A title, and below it in small what it is a title of."""
    axes.set_title(title, loc="left", fontsize=13, color=INK, pad=24)
    axes.text(0, 1.02, note, transform=axes.transAxes, fontsize=9, color=GREY, va="bottom")
    strip(axes)


def best_epoch(losses: Mapping[int, float]) -> int:
    """The epoch of the lowest loss, the first of equals."""
    return min(losses, key=losses.__getitem__)


def logged_losses(path: Path, name: str) -> dict[int, float]:
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
