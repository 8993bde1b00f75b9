"""Evaluate an exported model from outside: texts go in, vectors come out, nothing else is known."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from fusion.inputs.corpora import load_data
from fusion.measure.evaluation import EvaluationConfig
from fusion.measure.rows import Row, mean_rows
from fusion.measure.sweep import Space, measure
from fusion.space.codes import Precision
from fusion.space.recipe import check_dims

METHOD = "model"


class EmbeddingModel(Protocol):
    """What an exported model offers, like any sentence-transformers model."""

    def encode_query(self, inputs: list[str]) -> np.ndarray:
        """Float32 ``[n, d]``."""

    def encode_document(self, inputs: list[str]) -> np.ndarray:
        """Float32 ``[n, d]``."""


def evaluate_model(
    model: EmbeddingModel, trained: Sequence[int], config: EvaluationConfig
) -> list[Row]:
    """Measure a model at its widths; ``config.methods`` and ``config.seeds`` do not apply.

    Args:
        model: Whose full-width vectors are cut.
        trained: Its widths, ascending; the last is the full one.
        config: Which data, and which of the widths.

    Raises:
        ValueError: A width that the model has not, or codes, which need a run's training vectors.
    """
    if any(precision is not Precision.FLOAT32 for precision in config.precisions):
        raise ValueError("precisions of a model: float32 only; codes are measured on its RUN")
    dims = check_dims(config.dims or tuple(trained), trained[-1])
    rows: list[Row] = []
    sets = [load_data(name, config.split) for name in config.data]
    for data in sets:
        queries = model.encode_query(data.queries)  # (q, d)
        documents = model.encode_document(data.documents)  # (c, d)
        rows += measure(data, [Space(METHOD, queries, documents)], dims)
    return rows + mean_rows(rows) if len(sets) > 1 else rows
