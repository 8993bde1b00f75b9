"""How all figures look.

Colours are those of Okabe and Ito, told apart by colour-blind readers too; whatever they tell apart
is also told by a marker, a dash or a name beside it, so that a figure can be read in black and
white.
"""

from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK, GREY, PALE = "#222222", "#767676", "#e4e4e4"
ORANGE, BLUE, GREEN, PINK, YELLOW = "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00"
AIRY = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
HALO = [patheffects.withStroke(linewidth=3, foreground="white")]
DPI = 160


def strip(axes: Axes) -> None:
    """Leave the data, pale lines to read it by, and the ground that it stands on."""
    axes.grid(axis="y", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.tick_params(colors=GREY, labelsize=8.5, length=0)
