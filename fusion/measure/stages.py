"""What a second stage gains over its first: paired tests, and the table of both."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fusion.measure.comparisons import compare_variants
from fusion.measure.rows import MEAN, Row, Variant, averaged_over_seeds
from fusion.measure.statistics import holm
from fusion.measure.tables import human_bytes, human_score, pipes

LEAST = 0.001  # a p-value that is told
STAGES = "+tokens:"
"""Stands between the first stage's method and what orders its results anew."""
COLUMNS = ("data", "first stage", "bytes", "second stage", "bytes", "weight", "nDCG@10",
           "alone", "difference", "p (Holm)")  # fmt: skip


def against_first_stage(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Test each two-stage row against its first stage, on each data set and over all of them.

    p-values are adjusted (Holm) over all of these tests.

    Returns:
        Lines as those of ``comparisons_of``, and ``data``.
    """
    second = _second(rows)
    found = [compare_variants(rows, row.variant, _first(row), row.data) for row in second]
    adjusted = holm([comparison.p_value for comparison in found])
    return [
        row.variant._asdict()
        | {"bytes_per_vector": row.bytes_per_vector, "against": _first(row)._asdict()}
        | asdict(comparison)
        | {"ci95": list(comparison.ci95), "p_holm": p_holm, "data": row.data}
        for row, comparison, p_holm in zip(second, found, adjusted, strict=True)
    ]


def stage_lines(rows: Sequence[Row]) -> list[list[str]]:
    """The cells of ``COLUMNS``, a line a two-stage row: means over data sets first."""
    tests = against_first_stage(rows)
    alone = {(row.data, row.variant): row for row in averaged_over_seeds(rows)}
    lines = []
    for row, test in zip(_second(rows), tests, strict=True):
        first, stage = alone[row.data, _first(row)], row.rerank
        assert stage is not None
        low, high = test["ci95"]
        lines.append([
            row.data,
            f"{first.method}, {row.dim} dims, {row.precision}",
            human_bytes(first.bytes_per_vector),
            f"{stage.method}, {stage.vectors_per_document:.0f} × {stage.dim} dims, "
            f"{stage.precision}, best {stage.top}",
            human_bytes(round(stage.bytes_per_document)),
            "each its own" if stage.weight is None else f"{stage.weight:.2f}",
            human_score(row.ndcg_at_10),
            human_score(first.ndcg_at_10),
            f"{test['difference']:+.4f} [{low:+.4f}, {high:+.4f}]",
            f"{test['p_holm']:.3f}" if test["p_holm"] >= LEAST else f"< {LEAST}",
        ])  # fmt: skip
    return lines


def two_stages_part(rows: Sequence[Row]) -> str:
    """The part of ``results.md`` on two stages; empty where there is but one."""
    lines = stage_lines(rows)
    if not lines:
        return ""
    return "\n".join([
        "\n## Two stages",
        "",
        "A document's score is its cosine + weight × MaxSim, the weight found without labels.",
        "",
        pipes([COLUMNS, ["---"] * len(COLUMNS), *lines]),
        "",
    ])  # fmt: skip


def stage_sentences(rows: Sequence[Row]) -> list[str]:
    """A sentence a two-stage row, for the terminal: the means over data sets first."""
    return [
        f"{data}: {first} ({size}) + {second} ({more}), weight {weight}: "
        f"nDCG@10 {both} against {alone} alone, {difference}, p {p}"
        for data, first, size, second, more, weight, both, alone, difference, p in stage_lines(rows)
    ]


def _second(rows: Sequence[Row]) -> list[Row]:
    """Two-stage rows, seeds averaged, the means over data sets first."""
    found = averaged_over_seeds(row for row in rows if row.rerank is not None)
    return sorted(found, key=lambda row: row.data != MEAN)


def _first(row: Row) -> Variant:
    """What a two-stage row has to beat."""
    return row.variant._replace(method=row.method.partition(STAGES)[0])
