"""Which vector to store for a given number of bytes: chosen on one split, confirmed on another."""

from collections.abc import Sequence
from dataclasses import dataclass

from fusion.errors import FusionError
from fusion.measure.comparisons import REFERENCE, compare_variants
from fusion.measure.rows import MEAN, Row, Variant, averaged_over_seeds
from fusion.measure.statistics import Comparison
from fusion.space.codes import Precision


@dataclass(frozen=True)
class Choice:
    """The best variant within a budget, and what it keeps where it was not chosen."""

    budget: int
    """Bytes a vector, at most."""
    chosen_on: str
    """Data and splits, for a person."""
    chosen: Row
    """The winner's scores where it was chosen."""
    confirmed: Row
    """Its scores on the split that is reported."""
    full: Row
    """The full concat on that split."""
    distance: Comparison
    """The winner less the full concat, with its interval."""

    def __str__(self) -> str:
        low, high = self.confirmed.ndcg_at_10_ci95
        below, above = self.distance.ci95
        full = self.full.ndcg_at_10
        share = self.confirmed.ndcg_at_10 / full if full else float("nan")
        smaller = self.full.bytes_per_vector / self.confirmed.bytes_per_vector
        return (
            f"best within {self.budget} bytes: {self.confirmed.method}, {self.confirmed.dim} dims, "
            f"{self.confirmed.precision} ({self.confirmed.bytes_per_vector} bytes, {smaller:.0f} "
            f"times smaller), chosen on {self.chosen_on}\n"
            f"nDCG@10 {self.confirmed.ndcg_at_10:.4f} [{low:.4f}, {high:.4f}] on "
            f"{self.confirmed.split}: {share:.1%} of the full concat's "
            f"{full:.4f}, difference {self.distance.difference:+.4f} "
            f"[{below:+.4f}, {above:+.4f}]"
        )


def choose(chosen_rows: Sequence[Row], reported_rows: Sequence[Row], budget: int) -> Choice:
    """Take the variant with the highest mean nDCG@10 within a budget.

    Args:
        chosen_rows: Rows of the splits to choose on; with several data sets also their means.
        reported_rows: Rows of the same variants, and of the full concat in float32, on the
            reported split.
        budget: Bytes a vector, at most.

    Raises:
        FusionError: Nothing that was measured is that small.
        ValueError: A variant was not measured on the reported split.
    """
    rivals = [row for row in _overall(chosen_rows) if row.method != REFERENCE]
    if not rivals:
        raise FusionError("nothing but the concat was measured: name pca or head in --methods")
    candidates = [row for row in rivals if row.bytes_per_vector <= budget]
    if not candidates:
        smallest = min(row.bytes_per_vector for row in rivals)
        raise FusionError(
            f"nothing was measured within {budget} bytes a vector; the smallest has {smallest}: "
            "give smaller --dims or --precisions"
        )
    # At equal scores the smaller vector wins.
    winner = max(candidates, key=lambda row: (row.ndcg_at_10, -row.bytes_per_vector))
    reported = {row.variant: row for row in _overall(reported_rows)}
    full = next(
        row
        for row in reported.values()
        if row.method == REFERENCE and row.precision == Precision.FLOAT32
    )
    if winner.variant not in reported:
        raise ValueError(f"{winner.variant} was not measured on the reported split")
    used = {row.data: row.split for row in chosen_rows if row.data != MEAN}
    distance = compare_variants(reported_rows, winner.variant, Variant(*full.variant))
    return Choice(
        budget,
        ", ".join(f"{name} {split}" for name, split in used.items()),
        winner,
        reported[winner.variant],
        full,
        distance,
    )


def _overall(rows: Sequence[Row]) -> list[Row]:
    """The means over data sets, or the rows of the only one; seeds averaged."""
    means = [row for row in rows if row.data == MEAN] or list(rows)
    return averaged_over_seeds(means)
