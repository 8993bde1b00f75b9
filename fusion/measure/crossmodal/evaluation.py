"""Evaluate an alignment: its pictures and texts find each other, at every width and precision."""

from collections.abc import Iterator, Sequence

import numpy as np

from fusion.errors import FusionError
from fusion.inputs.data.captions import Captions, is_captions, load_captions
from fusion.inputs.encoders.catalogue import Modality
from fusion.inputs.store.store import Store
from fusion.measure.crossmodal.config import CrossConfig
from fusion.measure.crossmodal.rows import CrossRow
from fusion.measure.crossmodal.sweep import CrossSpace, measure
from fusion.measure.naming import check_names
from fusion.runs.aligned import AlignedRun, Tower
from fusion.runs.aligning import Side
from fusion.space.codes import Precision
from fusion.space.training.recipe import check_dims


def load_captions_sets(config: CrossConfig) -> list[Captions]:
    """All data sets; one that is nowhere fails before another is read.

    Raises:
        FusionError: Data cannot be had or read, or holds no pictures with captions.
        ValueError: Two have the same name.
    """
    for name in config.data:
        if not is_captions(name):
            raise FusionError(
                f"data {name!r}: an alignment is measured on pictures with captions, a folder with "
                "captions.jsonl here or in $FUSION_DATA/multimodal"
            )
    sets = [load_captions(name, config.split) for name in config.data]
    check_names([data.name for data in sets])
    return sets


def evaluate_pictures(
    run: AlignedRun, sets: Sequence[Captions], config: CrossConfig
) -> list[CrossRow]:
    """Measure an alignment; captions and pictures are embedded once for all that is measured.

    Raises:
        FusionError: An encoder cannot be had or has changed, or the run's towers are both of texts.
        ValueError: A width that the run cannot give.
    """
    dims = check_dims(config.dims or run.config.dims, run.config.dims[-1])
    kinds = run.source.modality, run.target.modality
    if kinds != (Modality.TEXT, Modality.IMAGE):
        raise FusionError("both towers of this alignment are of texts: there are no pictures in it")
    source, target = (_side(run, tower) for tower in (run.source, run.target))
    store, rows = Store(), []
    for data in sets:
        texts = run.source.map.transform(source.fuse(data, Modality.TEXT, store))
        pictures = run.target.map.transform(target.fuse(data, Modality.IMAGE, store))
        for space, precisions in _spaces(run, texts, pictures, config):
            rows += measure(data, space, dims, precisions)
    return rows


def _spaces(
    run: AlignedRun, texts: np.ndarray, pictures: np.ndarray, config: CrossConfig
) -> Iterator[tuple[CrossSpace, list[Precision]]]:
    """A space for each seed, with the precisions that a seed changes."""
    of_texts, of_pictures = (t.map.transform(t.calibration) for t in (run.source, run.target))
    for seed in config.seeds:
        fitted = [p for p in config.precisions if seed == config.seeds[0] or not p.is_float]
        yield CrossSpace(run.config.method, texts, pictures, of_texts, of_pictures, seed), fitted


def _side(run: AlignedRun, tower: Tower) -> Side:
    side = Side.of(tower, run.config.encoder_dtype)
    run.check_encoders(side.encoders)
    return side
