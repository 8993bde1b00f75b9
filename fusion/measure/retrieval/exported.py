"""Evaluate an exported model from outside: texts go in, vectors come out, nothing else is known."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from fusion.inputs.data.judged import RetrievalData
from fusion.measure.retrieval.config import EvaluationConfig
from fusion.measure.retrieval.sets import load_sets
from fusion.measure.retrieval.sweep import Space, measure
from fusion.measure.rows import Row, mean_rows
from fusion.space.codes import Codebook, Precision
from fusion.space.training.recipe import check_dims

METHOD = "model"


class EmbeddingModel(Protocol):
    """What an exported model offers, like any sentence-transformers model."""

    def encode_query(self, inputs: list[str]) -> np.ndarray:
        """Float32 ``[n, d]``."""

    def encode_document(self, inputs: list[str]) -> np.ndarray:
        """Float32 ``[n, d]``."""


def evaluate_model(
    model: EmbeddingModel,
    trained: Sequence[int],
    config: EvaluationConfig,
    codebook: Callable[[Precision, int], Codebook] | None = None,
) -> list[Row]:
    """Measure a model at its widths; ``config.methods`` and ``config.seeds`` do not apply.

    Args:
        model: Whose full-width vectors are cut.
        trained: Its widths, ascending; the last is the full one.
        config: Which data, which of the widths, and how documents are stored.
        codebook: Gives the model's codes of a precision and width.

    Raises:
        ValueError: A width that the model has not, or codes without ``codebook``.
    """
    return evaluate_model_on(model, trained, load_sets(config), config, codebook)


def evaluate_model_on(
    model: EmbeddingModel,
    trained: Sequence[int],
    sets: Sequence[RetrievalData],
    config: EvaluationConfig,
    codebook: Callable[[Precision, int], Codebook] | None = None,
) -> list[Row]:
    """As ``evaluate_model``, on data that is loaded already."""
    coded = [p for p in config.precisions if not p.is_float]
    if coded and codebook is None:
        raise ValueError(f"this model has no codes for {coded[0]}; ask for float32 or float16")
    dims = check_dims(config.dims or tuple(trained), trained[-1])
    if coded and (untrained := sorted(set(dims) - set(trained))):
        raise ValueError(f"the model has codes of its trained widths only, not of {untrained[0]}")
    rows: list[Row] = []
    for data in sets:
        queries = model.encode_query(data.queries)  # (q, d)
        documents = model.encode_document(data.documents)  # (c, d)
        space = Space(METHOD, queries, documents, codebook=codebook)
        rows += measure(data, [space], dims, config.precisions)
    return rows + mean_rows(rows) if len(sets) > 1 else rows
