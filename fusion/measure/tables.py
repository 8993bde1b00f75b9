"""Rows as tables for people: methods × widths, at the terminal and in Markdown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fusion.measure.comparisons import REFERENCE
from fusion.measure.rows import MEAN, Row, averaged_over_seeds


def data_sets(rows: Iterable[Row]) -> list[str]:
    """The data sets in the order in which they were measured, without their mean."""
    return [name for name in dict.fromkeys(row.data for row in rows) if name != MEAN]


def headline(rows: Sequence[Row]) -> list[Row]:
    """The rows to show first, one a variant: the mean over data sets, or the only data set."""
    averaged = averaged_over_seeds(row for row in rows if row.data == MEAN)
    return averaged or averaged_over_seeds(row for row in rows if row.data == rows[0].data)


def caption(rows: Sequence[Row]) -> str:
    """What a headline is about: "scifact", or "mean of nfcorpus, scifact"."""
    names = data_sets(rows)
    return names[0] if len(names) == 1 else f"mean of {', '.join(names)}"


def is_nested(method: str) -> bool:
    """Whether a method gives vectors of many widths; the others are what they are measured by."""
    return method != REFERENCE and not method.startswith("encoder:")


def terminal_table(rows: Sequence[Row]) -> str:
    """Methods × widths, nDCG@10, with the bytes of each width; one block a precision.

    The best nested method of each width wears an asterisk. Seeds are averaged.
    """
    seeds = _seeds(rows)
    blocks = [_aligned(_Grid.of(block, seeds)) for block in _by_precision(headline(rows))]
    parts = [f"nDCG@10, {caption(rows)}", *blocks]
    if any("*" in block for block in blocks):
        parts.append("* the best nested method of its width")
    return "\n\n".join(parts)


def piped_tables(rows: Sequence[Row], data: str) -> list[str]:
    """Markdown tables of one data set or of the mean of all, one a precision; seeds averaged."""
    seeds = _seeds(rows)
    shown = averaged_over_seeds(row for row in rows if row.data == data)
    return [_piped(_Grid.of(block, seeds)) for block in _by_precision(shown)]


def human_bytes(count: int) -> str:
    """Bytes as a person reads them: 53 B, 1,536 B, 12.3 kB."""
    return f"{count:,} B" if count < 10_000 else f"{count / 1000:.1f} kB"


def human_score(value: float) -> str:
    """Four digits, without the zero that every score starts with."""
    return f"{value:.4f}".removeprefix("0")


@dataclass(frozen=True)
class _Grid:
    """Methods × widths of one data set and precision."""

    precision: str
    dims: list[int]
    sizes: list[str]
    names: dict[str, str]  # method -> what stands before its line
    rows: dict[tuple[str, int], Row]
    best: set[tuple[str, int]]

    @classmethod
    def of(cls, rows: Sequence[Row], seeds: dict[str, int]) -> "_Grid":
        dims = sorted({row.dim for row in rows})
        bytes_of = {row.dim: row.bytes_per_vector for row in rows}
        methods = dict.fromkeys(row.method for row in rows)
        return cls(
            precision=rows[0].precision,
            dims=dims,
            sizes=[human_bytes(bytes_of[dim]) for dim in dims],
            names={m: f"{m} ({seeds[m]} seeds)" if seeds[m] > 1 else m for m in methods},
            rows={(row.method, row.dim): row for row in rows},
            best=_best(rows),
        )


def _best(rows: Sequence[Row]) -> set[tuple[str, int]]:
    """The best nested method of each width, and those that show the same four digits.

    Nobody is best where there is nobody to beat: a single method, or all alike.
    """
    best = set()
    for dim in {row.dim for row in rows}:
        shown = {
            row.method: human_score(row.ndcg_at_10)
            for row in rows
            if row.dim == dim and is_nested(row.method)
        }
        top = max(shown.values(), default="")
        if set(shown.values()) != {top}:
            best |= {(method, dim) for method, text in shown.items() if text == top}
    return best


def _by_precision(rows: Sequence[Row]) -> list[list[Row]]:
    return [
        [row for row in rows if row.precision == precision]
        for precision in dict.fromkeys(row.precision for row in rows)
    ]


def _seeds(rows: Iterable[Row]) -> dict[str, int]:
    seeds: dict[str, set[int]] = {}
    for row in rows:
        seeds.setdefault(row.method, set()).add(row.seed)
    return {method: len(found) for method, found in seeds.items()}


def _aligned(grid: _Grid) -> str:
    lines = [
        [f"{grid.precision}, dims", *(f"{dim} " for dim in grid.dims)],
        ["bytes a vector", *(f"{size.removesuffix(' B')} " for size in grid.sizes)],
    ]
    for method, name in grid.names.items():
        line = [name]
        for dim in grid.dims:
            row = grid.rows.get((method, dim))
            star = "*" if (method, dim) in grid.best else " "
            line.append(f"{human_score(row.ndcg_at_10)}{star}" if row else "")
        lines.append(line)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    texts = []
    for name, *cells in lines:
        padded = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        texts.append(" ".join([name.ljust(widths[0]), *padded]).rstrip())
    rule = "─" * max(len(text) for text in texts)
    return "\n".join([*texts[:2], rule, *texts[2:]])


def _piped(grid: _Grid) -> str:
    """Markdown knows one header line: width and bytes share it."""
    columns = zip(grid.dims, grid.sizes, strict=True)
    lines = [
        [grid.precision, *(f"{dim}<br>{size}" for dim, size in columns)],
        ["---", *("---:" for _ in grid.dims)],
    ]
    for method, name in grid.names.items():
        cells = (_piped_cell(grid, method, dim) for dim in grid.dims)
        lines.append([name, *cells])
    return pipes(lines)


def _piped_cell(grid: _Grid, method: str, dim: int) -> str:
    row = grid.rows.get((method, dim))
    if row is None:
        return ""
    low, high = row.ndcg_at_10_ci95
    text = human_score(row.ndcg_at_10)
    bold = "**" if (method, dim) in grid.best else ""
    return f"{bold}{text}{bold} ± {human_score((high - low) / 2)}"


def pipes(lines: Iterable[Iterable[str]]) -> str:
    """Cells as lines of a Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
