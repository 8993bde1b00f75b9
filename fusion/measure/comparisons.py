"""Paired tests between measured variants: any two, or each of them against what it has to beat."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fusion.measure.rows import MEAN, Row, Variant, averaged_over_seeds
from fusion.measure.statistics import Comparison, compare_columns, holm

REFERENCE = "concat"
"""What every variant is compared with at its full width: nothing was compressed there."""
RIVAL = "pca"
"""What every other method is compared with, width by width: the best linear keeper of cosines is
the bar that a learned head has to clear."""

Scores = dict[Variant, dict[str, np.ndarray]]
"""Per-query scores of each variant on each data set, averaged over seeds."""


def compare_variants(
    rows: Iterable[Row], ours: Variant, theirs: Variant, data: str = MEAN
) -> Comparison:
    """Paired test of two measured variants, on one data set or (``mean``) over all of them.

    Several seeds of a variant are averaged query by query first.

    Raises:
        ValueError: A variant was not measured, or its per-query scores are not at hand.
    """
    scores = _scores(row for row in rows if data in (MEAN, row.data))
    for variant in (ours, theirs):
        if variant not in scores:
            raise ValueError(f"no per-query scores of {'/'.join(map(str, variant))} on {data}")
    if scores[ours].keys() != scores[theirs].keys():
        raise ValueError(
            f"{ours.method} was measured on {sorted(scores[ours])}, "
            f"{theirs.method} on {sorted(scores[theirs])}; evaluate both on the same data"
        )
    return _compare(scores, [(ours, theirs)], list(scores[ours]))[0]


def comparisons_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Test each variant against the full concat, and against PCA at its width and precision.

    Over all data sets. p-values are adjusted (Holm) within each of the two families. A variant
    that was not measured on every data set, or whose per-query scores are not at hand, is left out.
    """
    scores = _scores(rows)
    sets = list(dict.fromkeys(data for of_variant in scores.values() for data in of_variant))
    variants = [v for v, of_variant in scores.items() if len(of_variant) == len(sets)]
    bytes_of = {row.variant: row.bytes_per_vector for row in rows}
    lines = []
    for pairs in (_against_reference(variants), _against_rival(variants)):
        found = _compare(scores, pairs, sets)
        adjusted = holm([comparison.p_value for comparison in found])
        lines += [
            ours._asdict()
            | {"bytes_per_vector": bytes_of[ours], "against": theirs._asdict()}
            | asdict(comparison)
            | {"ci95": list(comparison.ci95), "p_holm": p_holm}
            for (ours, theirs), comparison, p_holm in zip(pairs, found, adjusted, strict=True)
        ]
    return lines


def _against_reference(variants: Sequence[Variant]) -> list[tuple[Variant, Variant]]:
    full = [v for v in variants if v.method == REFERENCE and v.precision == "float32"]
    if not full:
        return []
    widest = max(full, key=lambda variant: variant.dim)
    return [(variant, widest) for variant in variants if variant != widest]


def _against_rival(variants: Sequence[Variant]) -> list[tuple[Variant, Variant]]:
    pairs = [(v, v._replace(method=RIVAL)) for v in variants if v.method not in (RIVAL, REFERENCE)]
    return [(ours, theirs) for ours, theirs in pairs if theirs in variants]


def _scores(rows: Iterable[Row]) -> Scores:
    scores: Scores = {}
    for row in averaged_over_seeds(row for row in rows if row.data != MEAN):
        if row.per_query is not None:
            scores.setdefault(row.variant, {})[row.data] = row.per_query
    return scores


def _compare(
    scores: Scores, pairs: Sequence[tuple[Variant, Variant]], sets: Sequence[str]
) -> list[Comparison]:
    if not pairs:
        return []
    differences = [
        np.stack([scores[ours][data] - scores[theirs][data] for ours, theirs in pairs], axis=1)
        for data in sets
    ]
    return compare_columns(differences)
