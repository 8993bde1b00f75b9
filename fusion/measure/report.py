"""The report of an evaluation: tables and a picture for people, records for programs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion.measure.archive import read_report, whole_folder, write_records
from fusion.measure.comparisons import comparisons_of
from fusion.measure.figures.ndcg import ndcg_figure
from fusion.measure.page import Made, markdown
from fusion.measure.rows import Row
from fusion.measure.stages import against_first_stage, two_stages_part
from fusion.measure.tables import terminal_table

__all__ = ["Made", "ndcg_figure", "read_report", "terminal_table", "write_report"]


def write_report(
    folder: Path | str,
    rows: Sequence[Row],
    environment: Mapping[str, Any],
    overwrite: bool = False,
    made: Made | None = None,
) -> Path:
    """Write everything that an evaluation has to show, or nothing.

    Args:
        folder: Receives ``results.json``, ``results.csv``, ``results.md``, ``ndcg_vs_bytes.png``
            and ``per_query.safetensors``.
        rows: All rows, with ``mean_rows`` where there are several data sets.
        environment: Versions and hardware, no paths and no names of hosts.
        overwrite: Replace the files of an earlier evaluation.
        made: By what command, of which run and when, for ``results.md``.

    Returns:
        The folder.

    Raises:
        FusionError: The folder is not empty, or cannot be written.
        ValueError: There is nothing to report.
    """
    if not rows:
        raise ValueError("nothing was measured: no row to report")
    plain = [row for row in rows if row.rerank is None]
    comparisons = comparisons_of(plain)
    with whole_folder(folder, overwrite) as draft:
        page = markdown(plain, comparisons, made) + two_stages_part(rows)
        write_records(draft, rows, environment, [*comparisons, *against_first_stage(rows)])
        (draft / "results.md").write_text(page, encoding="utf-8")
        ndcg_figure(plain, draft / "ndcg_vs_bytes.png")
    return Path(folder)
