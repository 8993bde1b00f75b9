"""An evaluation on disk: ``results.json``, ``results.csv`` and the per-query scores, written whole.

``per_query.safetensors`` beside the table holds every query's nDCG@10, so that any two methods can
be paired, or an interval drawn anew, without encoding a single text again.
"""

import csv
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fusion.errors import FusionError
from fusion.measure.rows import Row
from fusion.output import check_output

RESULTS = "results.json"
TABLE = "results.csv"
PER_QUERY = "per_query.safetensors"


@contextmanager
def whole_folder(folder: Path | str, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary folder whose files move to ``folder`` only if nothing fails.

    Overwriting replaces files of the same name and leaves the others alone.

    Raises:
        FusionError: As in `check_output`, or nothing can be written there.
    """
    folder = Path(folder)
    check_output(folder, overwrite)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise FusionError(f"cannot write to {folder.parent}: {error.strerror}") from None
    try:
        yield draft
        folder.mkdir(exist_ok=True)
        for file in sorted(draft.iterdir()):
            file.replace(folder / file.name)
    except OSError as error:
        raise FusionError(f"cannot write {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_records(
    folder: Path,
    rows: Sequence[Row],
    environment: Mapping[str, Any],
    comparisons: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write rows and paired tests into an existing folder.

    Args:
        folder: Where to.
        rows: All rows, means included; each named once.
        environment: What the rows were measured with.
        comparisons: The lines of ``comparisons_of``.

    Raises:
        ValueError: Two rows measure the same thing.
    """
    names = [row.name for row in rows]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two rows measure {twice}; give the methods different names or seeds")
    lines = [row.to_dict() for row in rows]
    report = {"environment": environment, "rows": lines, "comparisons": comparisons}
    text = json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False)
    (folder / RESULTS).write_text(text + "\n", encoding="utf-8")
    _write_csv(folder / TABLE, lines)
    per_query = {row.name: row.per_query for row in rows if row.per_query is not None}
    (folder / PER_QUERY).write_bytes(save(per_query))


def read_report(folder: Path | str) -> tuple[dict[str, Any], list[Row]]:
    """Read the environment and the rows of an evaluation, with per-query scores if they are there.

    Raises:
        FusionError: Not an intact evaluation.
    """
    folder = Path(folder)
    try:
        report = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        scores = load_file(folder / PER_QUERY) if (folder / PER_QUERY).exists() else {}
        rows = [Row.from_dict(line) for line in report["rows"]]
        rows = [replace(row, per_query=scores.get(row.name)) for row in rows]
        return report["environment"], rows
    except FileNotFoundError:
        raise FusionError(f"{folder} holds no {RESULTS}; name an evaluation's folder") from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise FusionError(f"{folder} is not an intact evaluation: {error}") from None


def _write_csv(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """The interval takes two columns: a cell holds one number."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer: csv.DictWriter | None = None
        for line in lines:
            low, high = line["ndcg_at_10_ci95"]
            flat = {n: value for n, value in line.items() if n not in ("ndcg_at_10_ci95", "rerank")}
            flat |= {"ndcg_at_10_ci95_low": low, "ndcg_at_10_ci95_high": high}
            if writer is None:
                writer = csv.DictWriter(file, list(flat))
                writer.writeheader()
            writer.writerow(flat)
