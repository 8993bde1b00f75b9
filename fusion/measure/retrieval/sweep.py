"""Measure spaces on a retrieval data set: every method at every width and precision.

Texts are encoded once, outside; a space brings the vectors, and one nested search gives the
rankings of all its widths. What depends on the machine are the vectors, which an encoder, a fitted
compressor and a fitted codebook made there: their last bits may move a document past another.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fusion.inputs.data.judged import RetrievalData
from fusion.measure.retrieval.metrics import Judgements, in_trec_order, ndcg_at_k, recall_at_k
from fusion.measure.rows import Row, with_intervals
from fusion.space.codes import Codebook, Precision
from fusion.topk.cosines import rank_documents
from fusion.topk.nested import nested_topk

log = logging.getLogger(__name__)

NDCG_CUTOFF = 10
RECALL_CUTOFF = 100
BLOCK = 1024  # documents in float64 at a time


@dataclass(frozen=True, eq=False)
class Space:
    """The vectors of one method for the queries and documents of one data set."""

    method: str
    """``encoder:NAME``, ``concat``, or a compressor's name."""
    queries: np.ndarray
    """float32 [q, d]; need not be unit-norm."""
    documents: np.ndarray
    """float32 [c, d], in the order of the data set's documents."""
    seed: int = 0
    """What the method was made with; the codes' rotation is drawn from it too."""
    calibration: np.ndarray | None = None
    """float32 [n, d], vectors of training texts that codes are fitted on; float32 needs none."""
    dims: tuple[int, ...] | None = None
    """Widths to measure, instead of the sweep's: ``(d,)`` for a space that is not nested."""
    codebook: Callable[[Precision, int], Codebook] | None = None
    """Gives the codes of a precision and width, fitted elsewhere; instead of ``calibration``."""

    def __post_init__(self) -> None:
        for name in ("queries", "documents", "calibration"):
            rows = getattr(self, name)
            if rows is not None and (rows.ndim != 2 or rows.shape[1] != self.queries.shape[1]):
                raise ValueError(
                    f"{name} of {self.method} have shape {rows.shape}; "
                    f"the queries have {self.queries.shape[-1]} columns"
                )

    def widths(self, dims: Sequence[int]) -> list[int]:
        """Those of the sweep's widths (or of its own) that the space can give, ascending."""
        wanted = sorted(set(dims if self.dims is None else self.dims))
        return [dim for dim in wanted if dim <= self.queries.shape[1]]

    def has_no_code_for(self, precision: Precision) -> bool:
        """Whether it lacks what a code of this precision is fitted on."""
        return self.calibration is None and self.codebook is None and not precision.is_float


def measure(
    data: RetrievalData,
    spaces: Iterable[Space],
    dims: Sequence[int],
    precisions: Sequence[Precision | str] = (Precision.FLOAT32,),
    at_most: int | None = None,
) -> list[Row]:
    """Score every space at every width and precision.

    Args:
        data: The data set; its documents in descending order of their ids, so that "ties to the
            lower index" is trec_eval's order of ties.
        spaces: Taken one at a time, so that a generator keeps a single one in memory.
        dims: Widths of the nested spaces; a space is measured at those it can give.
        precisions: How documents are stored. Queries stay float32, as a search service has them.
            A space that has nothing to fit a code on is left out there, with a warning.
        at_most: Leave out codes of more bytes a vector; float32, which costs little, stays.

    Raises:
        ValueError: The vectors do not fit the data set.
    """
    if any(a <= b for a, b in zip(data.doc_ids, data.doc_ids[1:], strict=False)):
        raise ValueError(f"documents of {data.name} must be in descending order of their ids")
    judgements = Judgements.from_qrels(data.query_ids, data.doc_ids, data.qrels)
    wanted = [Precision(precision) for precision in precisions]
    rows = [
        row_of(data, judgements, space.method, space.seed, found)
        for space in spaces
        for found in searched(data, space, dims, wanted, at_most)
    ]
    return with_intervals(rows)


@dataclass(frozen=True, eq=False)
class Found:
    """The ranking of one space at one width and precision."""

    dim: int
    precision: Precision
    bytes_per_vector: int
    scores: np.ndarray
    """float32 [q, k], cosines, descending; -inf at an empty place."""
    indices: np.ndarray
    """int64 [q, k], in trec_eval's order."""


def searched(
    data: RetrievalData,
    space: Space,
    dims: Sequence[int],
    precisions: Sequence[Precision],
    at_most: int | None = None,
    depth: int = RECALL_CUTOFF,
) -> Iterator[Found]:
    """The first ``depth`` documents of every query at every width and precision of a space.

    Args:
        data: The data set.
        space: Its vectors.
        dims: Widths; the space is searched at those that it can give.
        precisions: How documents are stored.
        at_most: Leave out codes of more bytes a vector.
        depth: Documents a query.
    """
    _check_fits(data, space)
    widths = space.widths(dims)
    if not widths:
        log.warning(
            "%s has %d columns: none of the widths %s fits, it is left out",
            space.method, space.queries.shape[1], ",".join(map(str, dims)),
        )  # fmt: skip
        return
    for precision in precisions:
        log.info("%s: searching %s in %s", data.name, space.method, precision)
        if space.has_no_code_for(precision):
            log.warning(
                "%s: there is nothing to fit %s codes on, they are left out",
                space.method,
                precision,
            )
        elif precision is Precision.FLOAT32:
            found = _ranked(data, space.queries, space.documents, widths, depth)  # (l, q, k)
            for dim, scores, indices in zip(widths, *found, strict=True):
                yield Found(dim, precision, 4 * dim, scores, indices)
        else:
            fitting = (d for d in widths if at_most is None or precision.bytes_of(d) <= at_most)
            for dim in fitting:
                yield _coded(data, space, dim, precision, depth)


def _coded(data: RetrievalData, space: Space, dim: int, precision: Precision, depth: int) -> Found:
    book = _codebook(space, dim, precision)
    decoded = book.decode(book.encode(space.documents))  # (c, dim)
    scores, indices = _ranked(data, space.queries, decoded, [dim], depth)
    return Found(dim, precision, book.bytes_per_vector, scores[0], indices[0])


def _codebook(space: Space, dim: int, precision: Precision) -> Codebook:
    if space.codebook is not None:
        return space.codebook(precision, dim)
    # A float precision fits nothing: the documents only tell it the width.
    fitted_on = space.documents[:1] if space.calibration is None else space.calibration
    return Codebook.fit(fitted_on, precision, dim, seed=space.seed)


def _ranked(
    data: RetrievalData, queries: np.ndarray, documents: np.ndarray, dims: Sequence[int], depth: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first documents of every query at every width in trec_eval's order.

    Returns:
        Scores float32 and indices int64, both [l, q, k].
    """
    found = nested_topk(queries, documents, dims, depth + 1, exclude=data.exclude)
    scores, indices = (part.numpy() for part in found)
    ranked = in_trec_order(scores, indices)[..., :depth]
    if scores.shape[2] > depth:
        for level, row in np.argwhere(scores[..., -2] == scores[..., -1]):
            left = documents[:, : dims[level]]
            exclude = data.exclude[row]
            ranked[level, row] = _first(queries[row, : dims[level]], left, exclude, depth)
    return scores[..., :depth], ranked


def _first(query: np.ndarray, documents: np.ndarray, exclude: int, depth: int) -> np.ndarray:
    """The same of one query [d] at one width, int64 [k]; for more ties in float32 than are kept."""
    blocks = (documents[start : start + BLOCK] for start in range(0, len(documents), BLOCK))
    cosines = [rank_documents(query.astype(np.float64), part.astype(np.float64)) for part in blocks]
    scores = np.concatenate(cosines).astype(np.float32)
    if exclude >= 0:
        scores[exclude] = -np.inf
    return np.argsort(-scores, kind="stable")[:depth]


def row_of(
    data: RetrievalData, judgements: Judgements, method: str, seed: int, found: Found
) -> Row:
    """What a ranking scores, without its interval.

    Raises:
        ValueError: No query has both a judgement and a document to find.
    """
    per_query = ndcg_at_k(found.indices, judgements, NDCG_CUTOFF)
    counted = int(np.isfinite(per_query).sum())
    if not counted:
        raise ValueError(f"no query of {data.name} has both a judgement and a document to find")
    return Row(
        data=data.name,
        split=data.split,
        method=method,
        dim=found.dim,
        precision=str(found.precision),
        bytes_per_vector=found.bytes_per_vector,
        seed=seed,
        ndcg_at_10=float(np.nanmean(per_query)),
        ndcg_at_10_ci95=(np.nan, np.nan),
        recall_at_100=float(np.nanmean(recall_at_k(found.indices, judgements, RECALL_CUTOFF))),
        queries=counted,
        per_query=per_query,
    )


def _check_fits(data: RetrievalData, space: Space) -> None:
    shapes = (len(space.queries), len(space.documents))
    if shapes != (len(data.query_ids), len(data.doc_ids)):
        raise ValueError(
            f"{space.method} has {shapes[0]} queries and {shapes[1]} documents; "
            f"{data.name} has {len(data.query_ids)} and {len(data.doc_ids)}"
        )
