"""What a figure draws: which rows make a line, and where the names of lines stand."""

from collections.abc import Sequence

import numpy as np

from fusion.measure.rows import Row
from fusion.measure.tables import is_nested


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending heights apart to at least ``gap``, each no further than it must.

    Example: 0, 1, 1.5 with a gap of 2 become −1.17, 0.83, 2.83: their mean stays.
    """
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _top(groups[-2], gap) + gap > _bottom(groups[-1], gap):
            last = groups.pop()
            groups[-1] += last
    return [_bottom(group, gap) + gap * place for group in groups for place in range(len(group))]


def _bottom(group: Sequence[float], gap: float) -> float:
    return float(np.mean(group)) - gap * (len(group) - 1) / 2


def _top(group: Sequence[float], gap: float) -> float:
    return float(np.mean(group)) + gap * (len(group) - 1) / 2


def best_coded(rows: Sequence[Row]) -> list[Row]:
    """The codes worth their bytes, of the one nested method that scores best when coded.

    A row stands on this frontier if no row of the same method takes fewer bytes and scores as well.
    """
    coded = [row for row in rows if is_nested(row.method) and row.precision != "float32"]
    if not coded:
        return []
    methods = {row.method for row in coded}
    best = max(
        sorted(methods),
        key=lambda method: np.mean([row.ndcg_at_10 for row in coded if row.method == method]),
    )
    of_best = [row for row in coded if row.method == best]
    frontier: list[Row] = []
    for row in sorted(of_best, key=lambda row: (row.bytes_per_vector, -row.ndcg_at_10)):
        if not frontier or row.ndcg_at_10 > frontier[-1].ndcg_at_10:
            frontier.append(row)
    return frontier


def line_of(rows: Sequence[Row], method: str) -> list[Row]:
    """The float32 rows of a method by width; of its narrowest precision if it has none."""
    of_method = [row for row in rows if row.method == method]
    precision = "float32" if any(r.precision == "float32" for r in of_method) else None
    chosen = [row for row in of_method if row.precision == (precision or of_method[0].precision)]
    return sorted(chosen, key=lambda row: row.dim)
