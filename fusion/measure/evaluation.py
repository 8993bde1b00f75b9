"""Evaluate a run: its encoders, their concat and every compressor, on retrieval data."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fusion.inputs.catalogue import Role
from fusion.inputs.corpora import RetrievalData, load_data
from fusion.inputs.encoders import TextEncoder
from fusion.inputs.store import Store
from fusion.measure.rows import Row, mean_rows
from fusion.measure.sweep import Space, measure
from fusion.run import Run, load_encoders
from fusion.space.codes import Precision
from fusion.space.compressor import FittedCompressor
from fusion.space.compressors import FirstK, Gaussian, RandomK
from fusion.space.recipe import check_dims

logger = logging.getLogger(__name__)

ENCODERS, CONCAT = "encoders", "concat"
METHODS = (ENCODERS, CONCAT, "first-k", "random-k", "gaussian", "pca", "head")
RANDOM = {"random-k": RandomK, "gaussian": Gaussian}
PAPER_DATA = ("nfcorpus", "scifact", "arguana")


@dataclass(frozen=True)
class EvaluationConfig:
    """What to measure."""

    data: tuple[str, ...] = PAPER_DATA
    """Names or folders of retrieval data."""
    split: str = "test"
    """``test``, ``dev`` or ``train``."""
    methods: tuple[str, ...] = METHODS
    """Any of METHODS."""
    dims: tuple[int, ...] = ()
    """Widths of the nested methods; empty for those that the run was trained for."""
    precisions: tuple[Precision, ...] = (Precision.FLOAT32,)
    """How documents are stored."""
    seeds: tuple[int, ...] = (0,)
    """Of random-k, of the Gaussian projection, and of the rotation of codes."""
    budget: int | None = None
    """Bytes a vector: codes of more are left out, and unless ``dims`` says otherwise the widest
    vector of each precision that they hold is measured too."""

    def __post_init__(self) -> None:
        for name in ("data", "methods", "precisions", "seeds"):
            _check_list(name, getattr(self, name))
        if min(self.seeds) < 0:
            raise ValueError(f"seeds must be 0 or more, got {min(self.seeds)}")
        for method in self.methods:
            if method not in METHODS:
                raise ValueError(f"method {method!r} is unknown; choose among {','.join(METHODS)}")
        if self.dims:
            check_dims(self.dims, self.dims[-1])
        if self.budget is not None and self.budget < 1:
            raise ValueError(f"budget must be positive, got {self.budget} bytes")
        object.__setattr__(self, "precisions", tuple(Precision(p) for p in self.precisions))


def _check_list(name: str, values: Sequence[object]) -> None:
    if not values:
        raise ValueError(f"{name} is empty: name at least one")
    if len(set(values)) < len(values):
        raise ValueError(f"{name} names one twice: {','.join(map(str, values))}")


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


def load_sets(config: EvaluationConfig) -> list[RetrievalData]:
    """All data before any work, so that a typo costs none.

    Raises:
        FusionError: One cannot be had.
        ValueError: Two have one name.
    """
    sets = [load_data(name, config.split) for name in config.data]
    check_names(sets)
    return sets


def evaluate_sets(run: Run, sets: Sequence[RetrievalData], config: EvaluationConfig) -> list[Row]:
    """As ``evaluate``, on data that is loaded already; its splits may differ."""
    dims = check_dims(config.dims or _default_dims(run, config), run.blocks.width)
    check_names(sets)
    encoders = load_encoders(run.config)
    run.check_encoders(encoders)
    store = Store()
    rows: list[Row] = []
    for data in sets:
        found = spaces(run, data, encoders, config, store)
        rows += measure(data, found, dims, config.precisions, config.budget)
    return rows + mean_rows(rows) if len(sets) > 1 else rows


def _default_dims(run: Run, config: EvaluationConfig) -> tuple[int, ...]:
    """The widths of the run, and those that fill the budget in some precision."""
    if config.budget is None:
        return run.config.dims
    filling = {precision.widest(config.budget) for precision in config.precisions}
    return tuple(sorted({*run.config.dims, *(d for d in filling if 0 < d <= run.blocks.width)}))


def check_names(sets: Sequence[RetrievalData]) -> None:
    """Refuse two data sets that results could not tell apart.

    Raises:
        ValueError: Two have the same name, which is that of their folder.
    """
    names = [data.name for data in sets]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two data sets are called {twice}: rename one folder")


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
    return Space(f"encoder:{encoder.name}", queries, documents, 0, usable, (encoder.dim,))


def _compressor(run: Run, method: str, seed: int) -> FittedCompressor:
    if method in run.compressors:
        return run.compressors[method]
    kind = FirstK() if method == "first-k" else RANDOM[method](seed=seed)
    return kind.fit(run.calibration)  # these learn nothing but the width
