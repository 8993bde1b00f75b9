"""A row of the report: one data set, method, width, precision and seed, and what they scored."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from fusion.measure.statistics import SEED, bootstrap_means, intervals

MEAN = "mean"
"""The data of a row that averages all data sets, each counting the same."""


class Variant(NamedTuple):
    """What a row measures, whatever the data and the seed."""

    method: str
    dim: int
    precision: str


@dataclass(frozen=True)
class Rerank:
    """The second stage of a row: what orders the first results anew."""

    run: str
    """The run that gave the token vectors, its folder's name."""
    method: str
    """``concat``, ``pca`` or ``head``: what maps them."""
    dim: int
    """Leading columns of a token's vector that were scored."""
    precision: str
    """How the documents' token vectors were stored; the queries' stay float16."""
    top: int
    """Results of the first stage that were ordered anew."""
    weight: float | None
    """Of MaxSim beside the cosine's 1; None in a mean of data sets, which have their own."""
    vectors_per_document: float
    """On average."""
    bytes_per_document: float
    """Of them, on average."""


@dataclass(frozen=True)
class Row:
    """One line of ``results.json``, and the per-query scores that it was averaged from."""

    data: str
    split: str
    method: str
    """``encoder:NAME`` for a single encoder, else the compressor's name."""
    dim: int
    """Leading columns that were scored."""
    precision: str
    """How the documents were stored; the queries stay float32."""
    bytes_per_vector: int
    """Of a stored document, all told."""
    seed: int
    """Of the method, and of the codes' rotation."""
    ndcg_at_10: float
    ndcg_at_10_ci95: tuple[float, float]
    """Bootstrap percentile interval over queries; for several data sets, drawn in each."""
    recall_at_100: float
    queries: int
    """How many queries were counted."""
    per_query: np.ndarray | None = field(default=None, repr=False, compare=False)
    """nDCG@10 of each query, float64 [q], NaN where not counted; None for a mean of data sets."""
    rerank: Rerank | None = None
    """What ordered the results of ``method`` anew; ``bytes_per_vector`` are then both stages'."""

    @property
    def variant(self) -> Variant:
        """Method, width and precision."""
        return Variant(self.method, self.dim, self.precision)

    @property
    def name(self) -> str:
        """Unique within one evaluation: the key of the row's per-query scores on disk."""
        return f"{self.data}/{self.split}/{self.method}/{self.dim}/{self.precision}/{self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """The line of ``results.json``: everything but the per-query scores."""
        line = asdict(replace(self, per_query=None))
        del line["per_query"]
        if self.rerank is None:
            del line["rerank"]
        return line | {"ndcg_at_10_ci95": list(self.ndcg_at_10_ci95)}

    @classmethod
    def from_dict(cls, line: dict[str, Any], per_query: np.ndarray | None = None) -> "Row":
        """Undo `to_dict`."""
        low, high = line["ndcg_at_10_ci95"]
        changed = {"ndcg_at_10_ci95": (low, high), "per_query": per_query}
        second = {"rerank": Rerank(**line["rerank"])} if "rerank" in line else {}
        return cls(**line | changed | second)


def with_intervals(rows: Sequence[Row]) -> list[Row]:
    """Fill in the interval of each row of **one** data set; all rows share their draws."""
    if not rows:
        return []
    found = intervals(_drawn_means(rows))
    return [
        replace(row, ndcg_at_10_ci95=(float(low), float(high)))
        for row, (low, high) in zip(rows, found, strict=True)
    ]


def mean_rows(rows: Sequence[Row]) -> list[Row]:
    """One row over all data sets for whatever was measured on each; none for a single data set."""
    sets = list(dict.fromkeys(row.data for row in rows if row.data != MEAN))
    if len(sets) < 2:
        return []
    by_key = {(row.data, row.variant, row.seed): row for row in rows}
    keys = list(dict.fromkeys((row.variant, row.seed) for row in rows if row.data != MEAN))
    shared = [key for key in keys if all((data, *key) in by_key for data in sets)]
    if not shared:
        return []
    table = [[by_key[(data, *key)] for key in shared] for data in sets]
    found = intervals(np.mean([_drawn_means(of_one_set) for of_one_set in table], axis=0))
    return [
        _mean_row([of_one_set[i] for of_one_set in table], (float(low), float(high)))
        for i, (low, high) in enumerate(found)
    ]


def averaged_over_seeds(rows: Iterable[Row]) -> list[Row]:
    """One row a data set and variant: the mean over its seeds, named by the first of them."""
    groups: dict[tuple[str, Variant], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.data, row.variant].append(row)
    return [_over_seeds(group) for group in groups.values()]


def _drawn_means(rows: Sequence[Row]) -> np.ndarray:
    """Bootstrap means [r, m] of rows of one data set; another data set draws on its own."""
    scores = np.stack([row.per_query for row in rows if row.per_query is not None], axis=1)
    return bootstrap_means(scores, seed=(SEED, crc32(rows[0].data.encode())))


def _mean_row(rows: list[Row], ci95: tuple[float, float]) -> Row:
    splits = dict.fromkeys(row.split for row in rows)
    return replace(
        rows[0],
        data=MEAN,
        split=",".join(splits),
        bytes_per_vector=round(float(np.mean([row.bytes_per_vector for row in rows]))),
        ndcg_at_10=float(np.mean([row.ndcg_at_10 for row in rows])),
        ndcg_at_10_ci95=ci95,
        recall_at_100=float(np.mean([row.recall_at_100 for row in rows])),
        queries=sum(row.queries for row in rows),
        per_query=None,
        rerank=_mean_rerank([row.rerank for row in rows if row.rerank is not None]),
    )


def _mean_rerank(stages: list[Rerank]) -> Rerank | None:
    if not stages:
        return None
    return replace(
        stages[0],
        weight=None,
        vectors_per_document=float(np.mean([stage.vectors_per_document for stage in stages])),
        bytes_per_document=float(np.mean([stage.bytes_per_document for stage in stages])),
    )


def _over_seeds(rows: list[Row]) -> Row:
    """The interval is the mean of the seeds' intervals: seeds share queries and draws."""
    if len(rows) == 1:
        return rows[0]
    scores = [row.per_query for row in rows if row.per_query is not None]
    low, high = np.mean([row.ndcg_at_10_ci95 for row in rows], axis=0)
    return replace(
        rows[0],
        ndcg_at_10=float(np.mean([row.ndcg_at_10 for row in rows])),
        ndcg_at_10_ci95=(float(low), float(high)),
        recall_at_100=float(np.mean([row.recall_at_100 for row in rows])),
        per_query=np.mean(scores, axis=0) if len(scores) == len(rows) else None,
    )
