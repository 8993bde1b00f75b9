"""Measure a space of pictures and texts: both ways, at every width and precision.

Intervals come from drawing whole pictures with all of their captions: captions of one picture are
not independent of one another.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np

from fusion.inputs.data.captions import Captions
from fusion.measure.crossmodal.judging import Hits, Truth
from fusion.measure.crossmodal.rows import CUTOFFS, CrossRow, Direction, Protocol
from fusion.measure.statistics import SEED, bootstrap_ratios, intervals
from fusion.space.codes import Codebook, Precision
from fusion.topk.nested import nested_topk

log = logging.getLogger(__name__)

RANKED = 100  # a median rank beyond it is not told


@dataclass(frozen=True, eq=False)
class CrossSpace:
    """The vectors of one method for the captions and pictures of one data set."""

    method: str
    texts: np.ndarray
    """float32 [n, d]; need not be unit-norm."""
    pictures: np.ndarray
    """float32 [m, d]."""
    text_calibration: np.ndarray
    """float32 [·, d], texts that codes are fitted on; never those that are measured."""
    picture_calibration: np.ndarray
    """float32 [·, d], likewise."""
    seed: int = 0
    """Of the codes' rotation."""


@dataclass(frozen=True, eq=False)
class _Found:
    """The rankings of a space at one width and precision."""

    dim: int
    precision: Precision
    pictures: np.ndarray  # int64 (n, k), found by each text
    texts: np.ndarray  # int64 (m, k), found by each picture
    alone: list[np.ndarray]  # int64 (m, k) each, among one caption a picture


def measure(
    data: Captions,
    space: CrossSpace,
    dims: Sequence[int],
    precisions: Sequence[Precision],
) -> list[CrossRow]:
    """Score a space at every width and precision, both ways.

    Args:
        data: The captions and pictures.
        space: Their vectors.
        dims: Widths, ascending.
        precisions: How the gallery is stored; what asks stays float32.

    Returns:
        Three rows for each width and precision: texts that find pictures, pictures that find any
        of their captions, and pictures that find the only one there is.
    """
    truth = Truth.of(data.texts, data.owner, len(data.pictures))
    rows: list[CrossRow] = []
    for precision in precisions:
        log.info("%s: searching %s in %s", data.name, space.method, precision)
        for found in _searched(space, data.owner, dims, precision):
            rows += _with_intervals(list(_rows(data, space, truth, found)), data)
    return rows


def _searched(
    space: CrossSpace, owner: np.ndarray, dims: Sequence[int], precision: Precision
) -> Iterator[_Found]:
    """Floats are searched at all widths in one pass; a code has one width."""
    whole = precision is Precision.FLOAT32
    for widths in [list(dims)] if whole else [[dim] for dim in dims]:
        texts, pictures = space.texts, space.pictures
        if not whole:
            texts = _stored(texts, space.text_calibration, precision, widths[0], space.seed)
            pictures = _stored(
                pictures, space.picture_calibration, precision, widths[0], space.seed
            )
        forth = _nearest(space.texts, pictures, widths)  # (l, n, k)
        back = _nearest(space.pictures, texts, widths)  # (l, m, k)
        chosen = [texts[rows] for rows in _choices(owner)]
        alone = [_nearest(space.pictures, gallery, widths) for gallery in chosen]
        for level, dim in enumerate(widths):
            of_one = [found[level] for found in alone]
            yield _Found(dim, precision, forth[level], back[level], of_one)


def _stored(
    rows: np.ndarray, calibration: np.ndarray, precision: Precision, dim: int, seed: int
) -> np.ndarray:
    """What comes back of rows that were coded, float32 [n, dim]."""
    book = Codebook.fit(calibration, precision, dim, seed=seed)
    return book.decode(book.encode(rows))


def _rows(data: Captions, space: CrossSpace, truth: Truth, found: _Found) -> Iterator[CrossRow]:
    forth = truth.right_pictures(found.pictures)
    yield _row(data, space, found, Direction.TEXT_TO_IMAGE, forth, data.owner)
    every = np.arange(truth.pictures)
    back = truth.right_texts(found.texts)
    yield _row(data, space, found, Direction.IMAGE_TO_TEXT, back, every)
    alone = [
        truth.of_texts(rows).right_texts(ranked)
        for rows, ranked in zip(_choices(data.owner), found.alone, strict=True)
    ]
    yield _averaged(
        [_row(data, space, found, Direction.IMAGE_TO_TEXT, hits, every) for hits in alone]
    )


def _choices(owner: np.ndarray) -> list[np.ndarray]:
    """Rows of one text a picture: all first ones, all second ones, as far as every picture has."""
    first = np.unique(owner, return_index=True)[1]
    fewest = int(np.bincount(owner).min())
    return [first + number for number in range(fewest)]


def _nearest(queries: np.ndarray, gallery: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """The nearest of the gallery at every width, int64 [l, q, k]."""
    return nested_topk(queries, gallery, dims, min(RANKED, len(gallery)))[1].numpy()


def _row(
    data: Captions,
    space: CrossSpace,
    found: _Found,
    direction: Direction,
    hits: Hits,
    owner: np.ndarray,
) -> CrossRow:
    right = hits.any_hit()  # (q, cutoffs)
    counts = np.zeros((len(data.pictures), len(CUTOFFS)))
    np.add.at(counts, owner, right)
    forth = direction is Direction.TEXT_TO_IMAGE
    return CrossRow(
        data=data.name,
        split=data.split,
        method=space.method,
        dim=found.dim,
        precision=str(found.precision),
        bytes_per_vector=found.precision.bytes_of(found.dim),
        seed=space.seed,
        direction=direction,
        protocol=Protocol.ALL_CAPTIONS,
        queries=len(right),
        gallery=len(data.pictures) if forth else len(data.texts),
        recall=tuple(right.mean(axis=0).tolist()),
        recall_ci95=((np.nan, np.nan),) * len(CUTOFFS),
        fraction=tuple(hits.fraction().mean(axis=0).tolist()),
        median_rank=hits.median_rank(),
        hits=counts,
    )


def _averaged(rows: list[CrossRow]) -> CrossRow:
    """One row of the one-caption galleries: the mean over which caption it is."""
    ranks = [row.median_rank for row in rows]
    return replace(
        rows[0],
        protocol=Protocol.ONE_CAPTION,
        gallery=len(rows[0].hits),
        recall=tuple(np.mean([row.recall for row in rows], axis=0).tolist()),
        fraction=tuple(np.mean([row.fraction for row in rows], axis=0).tolist()),
        median_rank=None if None in ranks else float(np.mean(ranks)),  # type: ignore[arg-type]
        hits=np.mean([row.hits for row in rows], axis=0),
    )


def _with_intervals(rows: list[CrossRow], data: Captions) -> list[CrossRow]:
    """Fill in the intervals of one variant's rows; they share their draws of pictures."""
    texts = np.bincount(data.owner, minlength=len(data.pictures)).astype(np.float64)  # (m,)
    asked = [texts if r.direction is Direction.TEXT_TO_IMAGE else np.ones_like(texts) for r in rows]
    sums = np.hstack([row.hits for row in rows])  # (m, rows * cutoffs)
    counts = np.repeat(np.stack(asked, axis=1), len(CUTOFFS), axis=1)
    seed = (SEED, crc32(data.name.encode()))
    drawn = bootstrap_ratios(sums, counts, seed)  # (r, rows * cutoffs)
    bounds = intervals(drawn).reshape(len(rows), len(CUTOFFS), 2)
    full = [i for i, row in enumerate(rows) if row.protocol is Protocol.ALL_CAPTIONS]
    rsum = 100 * sum(sum(rows[i].recall) for i in full)
    columns = [len(CUTOFFS) * i + place for i in full for place in range(len(CUTOFFS))]
    low, high = intervals(100 * drawn[:, columns].sum(axis=1, keepdims=True))[0]
    return [
        replace(
            row,
            recall_ci95=tuple((float(a), float(b)) for a, b in bounds[i]),
            rsum=rsum if i in full else None,
            rsum_ci95=(float(low), float(high)) if i in full else None,
        )
        for i, row in enumerate(rows)
    ]
