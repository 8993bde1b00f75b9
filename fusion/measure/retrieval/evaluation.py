"""Evaluate a run: its encoders, their concat and every compressor, on retrieval data."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from fusion.inputs.data.judged import RetrievalData
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.names import public_names
from fusion.inputs.encoders.text import TextEncoder
from fusion.inputs.store.store import Store
from fusion.measure.naming import check_names
from fusion.measure.retrieval.config import CONCAT, ENCODERS, EvaluationConfig
from fusion.measure.retrieval.sets import check_widths, load_sets
from fusion.measure.retrieval.sweep import Space, measure
from fusion.measure.rows import Row, mean_rows
from fusion.runs.folder import Run
from fusion.runs.fusing import load_encoders
from fusion.space.codes import Precision
from fusion.space.compressor import FittedCompressor
from fusion.space.compressors import FirstK, Gaussian, RandomK

logger = logging.getLogger(__name__)

RANDOM = {"random-k": RandomK, "gaussian": Gaussian}


def evaluate(run: Run, config: EvaluationConfig) -> list[Row]:
    """Measure a run; texts are encoded once for all methods, widths and precisions.

    Returns:
        A row for each data set, method, width, precision and seed; with several data sets also
        their means.

    Raises:
        FusionError: Data or an encoder cannot be had.
        ValueError: A width that the run cannot give.
    """
    return evaluate_sets(run, load_sets(config), config)


def evaluate_sets(run: Run, sets: Sequence[RetrievalData], config: EvaluationConfig) -> list[Row]:
    """As ``evaluate``, on data that is loaded already; its splits may differ."""
    dims = check_widths(run.config.dims, run.blocks.width, config)
    check_names([data.name for data in sets])
    store, encoders = Store(), load_encoders(run.config)
    run.check_encoders(encoders)
    rows: list[Row] = []
    for data in sets:
        found = spaces(run, data, encoders, config, store)
        rows += measure(data, found, dims, config.precisions, config.budget)
    return rows + mean_rows(rows) if len(sets) > 1 else rows


def spaces(
    run: Run,
    data: RetrievalData,
    encoders: Sequence[TextEncoder],
    config: EvaluationConfig,
    store: Store,
) -> Iterator[Space]:
    """The vector spaces of all methods, one at a time."""
    queries = [store.embed(e, data.queries, Role.QUERY, data.query_ids) for e in encoders]
    documents = [store.embed(e, data.documents, Role.DOCUMENT, data.doc_ids) for e in encoders]
    if ENCODERS in config.methods:
        for row, encoder in enumerate(encoders):
            yield _encoder_space(run, row, encoder, queries[row], documents[row])
    fused_queries, fused_documents = run.blocks.transform(queries), run.blocks.transform(documents)
    if CONCAT in config.methods:
        width = (run.blocks.width,)
        yield Space(CONCAT, fused_queries, fused_documents, 0, run.calibration, width)
    coded = any(precision is not Precision.FLOAT32 for precision in config.precisions)
    for method in config.methods:
        if method in (ENCODERS, CONCAT):
            continue
        # A seed also draws the rotation of codes, so with codes every method has several.
        for seed in config.seeds if coded or method in RANDOM else config.seeds[:1]:
            compressor = _compressor(run, method, seed)
            yield Space(
                method,
                compressor.transform(fused_queries),
                compressor.transform(fused_documents),
                seed,
                compressor.transform(run.calibration),
            )


def _encoder_space(
    run: Run, row: int, encoder: TextEncoder, queries: np.ndarray, documents: np.ndarray
) -> Space:
    start = sum(run.blocks.dims[:row])
    calibration = run.calibration[:, start : start + encoder.dim]
    # A block of weight zero holds nothing that a code could be fitted on.
    usable = calibration if run.blocks.weights[row] > 0 else None
    name = public_names(run.config.encoders)[row]
    return Space(f"encoder:{name}", queries, documents, 0, usable, (encoder.dim,))


def _compressor(run: Run, method: str, seed: int) -> FittedCompressor:
    if method in run.compressors:
        return run.compressors[method]
    kind = FirstK() if method == "first-k" else RANDOM[method](seed=seed)
    return kind.fit(run.calibration)  # these learn nothing but the width
