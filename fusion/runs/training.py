"""A run from texts to fitted compressors: everything of ``python -m fusion.train``."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.environment import describe_environment
from fusion.errors import FusionError
from fusion.inputs.data.texts import check_texts, load_texts
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.text import FrozenEncoder
from fusion.inputs.reading.chunks import Chunking
from fusion.inputs.store.store import Store
from fusion.output import check_output, write_whole
from fusion.runs.config import AUTO, RunConfig
from fusion.runs.folder import CONFIG, ENVIRONMENT, Run, begin, check_same, write_calibration
from fusion.runs.fusing import (
    auto_weights,
    default_dims,
    fuse,
    fuse_queries,
    load_encoders,
    take_apart,
)
from fusion.runs.tokens import token_sample
from fusion.samples import evenly_spaced
from fusion.space.blocks import Blocks
from fusion.space.training.ranks import is_first
from fusion.space.training.recipe import check_dims

if TYPE_CHECKING:
    from fusion.space.training.batches import Queries

CALIBRATION_ROWS = 4096  # more do not move the levels of a code


def train(config: RunConfig, folder: Path, *, overwrite: bool = False, resume: bool = False) -> Run:
    """Embed, fuse, fit and save: everything of ``python -m fusion.train``.

    Nothing is written to ``folder`` before encoders, texts, weights and dims are known to be good.
    Of several processes all read and compute, and only the first writes.

    Raises:
        FusionError: Something cannot be had or read, or the folder is there already.
        ValueError: A value that cannot be.
    """
    config = config.settled()
    if is_first(config.train):
        check_output(folder, overwrite, resume, marks=(CONFIG,), kind="a run folder")
        if resume and (folder / CONFIG).is_file():
            check_same(folder, config.to_dict())
    config.check_encoders()
    check_texts(config.texts)
    store, texts = Store(), load_texts(config.texts, config.max_texts, config.reading)
    # From here on there is torch, after seconds.
    from fusion.space.training.fit import check_devices

    check_devices(config.train)
    encoders = load_encoders(config, config.train.device)
    texts = take_apart(texts, encoders, Chunking(config.chunk, config.chunk_overlap))
    blocks = Blocks(
        config.encoders,
        tuple(encoder.dim for encoder in encoders),
        config.normalize,
        () if isinstance(config.weights, str) else config.weights,
    )
    dims = check_dims(config.dims or default_dims(blocks.width), blocks.width)
    if config.weights == AUTO:
        blocks = replace(blocks, weights=auto_weights(encoders, texts, blocks.normalize, store))
    if config.tokens:
        fused, queries = token_sample(blocks, encoders, texts, config, store), None
    else:
        fused = fuse(blocks, encoders, texts.texts, Role.DOCUMENT, store, texts.ids)
        queries = fuse_queries(blocks, encoders, texts, config.train, store)
    resolved = replace(config, dims=dims, weights=blocks.weights)
    environment = describe_environment() | {
        "encoders": {e.name: e.fingerprint for e in encoders if isinstance(e, FrozenEncoder)},
        "texts": texts.digest,
        "text_count": len(fused) if config.tokens else len(texts),
    }
    return _fit(resolved, blocks, fused, queries, folder, resume, environment)


def _fit(
    config: RunConfig,
    blocks: Blocks,
    fused: np.ndarray,
    queries: "Queries | None",
    folder: Path,
    resume: bool,
    environment: dict[str, Any],
) -> Run:
    from fusion.space.compressors import PCA, HeadCompressor
    from fusion.space.training.fit import fit_head
    from fusion.space.training.plan import make_plan

    first, plain = is_first(config.train), config.to_dict() | {"blocks": blocks.to_dict()}
    if resume and (folder / ENVIRONMENT).is_file():
        known = Run.load(folder).environment.get("texts", environment["texts"])
        if known != environment["texts"]:
            raise FusionError(f"{folder} was trained on other texts; start anew with --overwrite")
        if first:
            begin(folder, plain, resume)
        return Run.load(folder)
    # What may be wrong with the texts shows before an earlier run is cleared away.
    make_plan(fused, config.train, config.dims, queries)
    pca = PCA().fit(fused)
    if first:
        begin(folder, plain, resume)
        pca.save(folder / "pca.safetensors")
    trained = fit_head(
        fused, config.train, config.dims, queries=queries, folder=folder, resume=resume
    )
    head = HeadCompressor(config.dims, config.train, trained)
    calibration = np.ascontiguousarray(fused[evenly_spaced(len(fused), CALIBRATION_ROWS)])
    run = Run(config, blocks, {"pca": pca, "head": head}, calibration, environment)
    if first:
        head.save(folder / "head.safetensors")
        write_calibration(folder, run.calibration)
        # Last: it says that the run is finished.
        write_whole(folder / ENVIRONMENT, json.dumps(run.environment, indent=2) + "\n")
    return run
