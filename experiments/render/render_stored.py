"""README's table of what one can store where, from what stored.py measured."""

import json
from pathlib import Path
from typing import Any

from fusion.measure.rows import MEAN, Row, averaged_over_seeds

KINDS = {  # method -> where it is kept
    "concat": "anywhere, floats: the concat",
    "float": "anywhere, floats: our head",
    "plain": "a vector database, plain codes",
    "ours": "beside the model, our codes",
}
# Nothing was made to fit these, but they have been looked at.
DEVELOPMENT = {"cacm", "med", "nl2bash"}


def table(path: Path) -> str:
    """A row a way of storing a vector: columns and code, bytes, share of the concat's score."""
    report = json.loads(path.read_text(encoding="utf-8"))
    rows = averaged_over_seeds([Row.from_dict(row) for row in report["rows"]])
    means = [row for row in rows if row.data == MEAN]
    full = next(row.ndcg_at_10 for row in means if row.method == "concat")
    lines = ["| stored in | columns × code | bytes | of the concat's score |", "|---|---|---|---|"]
    order = list(KINDS)
    for row in sorted(means, key=lambda row: (order.index(row.method), -row.bytes_per_vector)):
        lines.append(
            f"| {KINDS[row.method]} | {row.dim} × {row.precision} | {row.bytes_per_vector:,} "
            f"| {row.ndcg_at_10 / full:.1%} |"
        )
    return "\n".join([*lines, "", _conditions(report)])


def _conditions(report: dict[str, Any]) -> str:
    weights = " : ".join(f"{weight:g}" for weight in report["weights"])
    other = set(report["data"]) <= DEVELOPMENT
    made = "on other data" if other else "on dev and train splits, these are test"
    return (
        f"nDCG@10, mean of {', '.join(report['data'])} (recipe and codes were chosen {made}) and "
        f"of {len(report['seeds'])} seeds; {' + '.join(report['encoders'])}, squared weights "
        f"{weights}, recipe `corpus` on each one's own documents. Measured by "
        f"`{report['command'].partition(' --')[0]}`."
    )
