"""The hall: a run, from texts to fitted compressors, and its folder on disk.

A run folder holds ``config.yaml``, ``pca.safetensors``, ``head.safetensors``,
``calibration.safetensors`` (fused training vectors that codes are fitted on), ``metrics.csv`` and,
written last, ``environment.json``: a folder without it was interrupted.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from fusion.config import AUTO, RunConfig
from fusion.environment import describe_environment
from fusion.errors import FusionError
from fusion.inputs.catalogue import Role
from fusion.inputs.encoders import FrozenEncoder, TextEncoder, load_encoder
from fusion.inputs.fingerprints import same_encoder
from fusion.inputs.precomputed import PrecomputedEncoder
from fusion.inputs.store import Store
from fusion.inputs.texts import Texts, check_texts, load_texts, pseudo_queries, query_like
from fusion.output import check_output, write_tensors, write_whole
from fusion.samples import evenly_spaced
from fusion.space.blocks import Blocks, Normalization
from fusion.space.compressor import FittedCompressor
from fusion.space.ranks import is_first
from fusion.space.recipe import WHERE, TrainConfig, check_dims

if TYPE_CHECKING:  # torch is loaded once all that can be checked without it is checked
    from fusion.space.batches import Queries

logger = logging.getLogger(__name__)

CONFIG, ENVIRONMENT, CALIBRATION = "config.yaml", "environment.json", "calibration.safetensors"
DEFAULT_DIMS = (32, 64, 128, 256, 384, 512, 768, 1024)
CALIBRATION_ROWS = 4096  # more do not move the levels of a code
AUTO_PAIRS = 3000  # pseudo-queries that weights are chosen on
IN_MEMORY = 2**30  # bytes of fused embeddings; more are memory-mapped


@dataclass(frozen=True)
class Run:
    """A finished run, as it stands in its folder."""

    config: RunConfig
    """As resolved: ``weights`` and ``dims`` are what was used."""
    blocks: Blocks
    """How embeddings become one vector."""
    compressors: dict[str, FittedCompressor]
    """``pca`` and ``head``."""
    calibration: np.ndarray
    """float32 [n, D], fused training vectors that codes are fitted on."""
    environment: dict[str, Any]
    """Versions and hardware of the run."""

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """Read a run folder.

        Raises:
            FusionError: It is no run folder, was interrupted, or a file is damaged.
        """
        config, blocks, environment = read_config(folder)
        from fusion.space.compressors import load_compressor

        compressors = {name: load_compressor(folder / f"{name}.safetensors") for name in METHODS}
        return cls(config, blocks, compressors, _read_calibration(folder), environment)

    def check_encoders(self, encoders: Sequence[TextEncoder]) -> None:
        """Refuse encoders that are no longer what they were when the run was trained.

        Raises:
            FusionError: The weights or settings of one are others.
        """
        known = self.environment.get("encoders", {})  # runs of earlier versions know none
        for encoder in encoders:
            before = known.get(encoder.name)
            if before and not same_encoder(before, encoder.fingerprint):
                raise FusionError(
                    f"encoder {encoder.name} has changed since the run was trained with it; "
                    "train again, or bring the old one back"
                )


METHODS = ("pca", "head")


def read_config(folder: Path) -> tuple[RunConfig, Blocks, dict[str, Any]]:
    """What a finished run is made of, and its environment; of its weights nothing is read.

    Raises:
        FusionError: As ``Run.load``.
    """
    if not (folder / CONFIG).is_file():
        raise FusionError(f"{folder} is not a run folder: it has no {CONFIG}")
    if not (folder / ENVIRONMENT).is_file():
        raise FusionError(f"{folder} was interrupted; finish it with fusion.train --resume")
    try:
        plain = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        environment = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
        blocks = Blocks.from_dict(plain.pop("blocks"))
        config = RunConfig.from_dict(plain)
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FusionError(f"{folder / CONFIG} is damaged: {error}") from error
    return config, blocks, environment


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
            _check_same(folder, config.to_dict())
    config.check_encoders()
    check_texts(config.texts)
    store, texts = Store(), load_texts(config.texts, config.max_texts)
    from fusion.space.training import check_devices  # from here on there is torch, after seconds

    check_devices(config.train)
    encoders = load_encoders(config, config.train.device)
    blocks = Blocks(
        config.encoders,
        tuple(encoder.dim for encoder in encoders),
        config.normalize,
        () if isinstance(config.weights, str) else config.weights,
    )
    dims = check_dims(config.dims or default_dims(blocks.width), blocks.width)
    if config.weights == AUTO:
        blocks = replace(blocks, weights=auto_weights(encoders, texts, blocks.normalize, store))
    fused = fuse(blocks, encoders, texts.texts, Role.DOCUMENT, store, texts.ids)
    queries = fuse_queries(blocks, encoders, texts, config.train, store)
    resolved = replace(config, dims=dims, weights=blocks.weights)
    environment = describe_environment() | {
        "encoders": {e.name: e.fingerprint for e in encoders if isinstance(e, FrozenEncoder)},
        "texts": texts.digest,
        "text_count": len(texts),
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
    from fusion.space.compressors import PCA
    from fusion.space.plan import make_plan
    from fusion.space.training import fit_head

    first, plain = is_first(config.train), config.to_dict() | {"blocks": blocks.to_dict()}
    if resume and (folder / ENVIRONMENT).is_file():
        known = Run.load(folder).environment.get("texts", environment["texts"])
        if known != environment["texts"]:
            raise FusionError(f"{folder} was trained on other texts; start anew with --overwrite")
        if first:
            _begin(folder, plain, resume)
        return Run.load(folder)
    # What may be wrong with the texts shows before an earlier run is cleared away.
    make_plan(fused, config.train, config.dims, queries)
    pca = PCA().fit(fused)
    if first:
        _begin(folder, plain, resume)
        pca.save(folder / "pca.safetensors")
    head = fit_head(fused, config.train, config.dims, queries=queries, folder=folder, resume=resume)
    calibration = np.ascontiguousarray(fused[evenly_spaced(len(fused), CALIBRATION_ROWS)])
    run = Run(config, blocks, {"pca": pca, "head": head}, calibration, environment)
    if first:
        head.save(folder / "head.safetensors")
        _write_calibration(folder, run.calibration)
        # Last: it says that the run is finished.
        write_whole(folder / ENVIRONMENT, json.dumps(run.environment, indent=2) + "\n")
    return run


def _begin(folder: Path, plain: dict[str, Any], resume: bool) -> None:
    written = yaml.safe_dump(plain, sort_keys=False)
    if resume and (folder / CONFIG).is_file():
        _check_same(folder, plain)
    elif folder.is_dir():
        _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CONFIG, written)


def _clear(folder: Path) -> None:
    """Remove an earlier run; if that is cut short, an unfinished run folder is left."""
    (folder / ENVIRONMENT).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != CONFIG:
            path.unlink()


def load_encoders(config: RunConfig, device: str = "auto") -> list[TextEncoder]:
    """The run's encoders, each loaded once; not bound to the device that it was trained on."""
    return [load_encoder(name, config.encoder_dtype, device) for name in config.encoders]


def fuse(
    blocks: Blocks,
    encoders: Sequence[TextEncoder],
    texts: Sequence[str],
    role: Role,
    store: Store,
    ids: Sequence[str] | None = None,
) -> np.ndarray:
    """Embed texts with every encoder (through the store) and fuse them: float32 [n, D].

    Large ones lie in a memory-mapped file without a name, which goes when this process does.

    Raises:
        FusionError: The store's disk has no room for that file.
    """
    stored = [store.open(encoder, texts, role, ids) for encoder in encoders]
    shape = (len(texts), blocks.width)
    room = None if 4 * shape[0] * shape[1] <= IN_MEMORY else store.room(shape)
    return blocks.transform(stored, room)


def fuse_queries(
    blocks: Blocks,
    encoders: Sequence[TextEncoder],
    texts: Texts,
    config: TrainConfig,
    store: Store,
) -> "Queries | None":
    """Embed titles or sentences of the texts as queries; None where there are none to have.

    Embeddings that lie in files are of whole texts: with such an encoder there are none.
    """
    from fusion.space.batches import Queries

    if config.sentences and any(isinstance(encoder, PrecomputedEncoder) for encoder in encoders):
        logger.warning(
            "no titles or sentences are learned from: an encoder reads its embeddings from files"
        )
        return None
    titles = texts.titles if config.titles else ()
    parts, owners = query_like(texts.texts, config.sentences, titles)
    if not parts:
        return None
    logger.info("%d titles and sentences to learn from", len(parts))
    return Queries(fuse(blocks, encoders, parts, Role.QUERY, store), np.array(owners))


def default_dims(width: int) -> tuple[int, ...]:
    """The usual widths up to that of the concat, and the concat's own if it is small."""
    usual = tuple(dim for dim in DEFAULT_DIMS if dim <= width)
    return usual if width >= DEFAULT_DIMS[-1] or width in usual else (*usual, width)


def auto_weights(
    encoders: Sequence[TextEncoder], texts: Texts, normalize: Normalization, store: Store
) -> tuple[float, ...]:
    """Choose block weights without labels: titles or first sentences have to find their texts.

    Raises:
        FusionError: Fewer than 50 texts can be split into a title or sentence and a rest.
    """
    from fusion.space.weights import choose_weights

    if len(encoders) == 1:
        return (1.0,)
    for encoder in encoders:
        if isinstance(encoder, PrecomputedEncoder):
            raise FusionError(
                f"weights cannot be chosen with {encoder.name}: there is nothing to embed queries "
                "with; give --weights by hand, one number an encoder"
            )
    queries, rests = pseudo_queries(texts.texts, AUTO_PAIRS, texts.titles)
    if len(queries) < 50:
        raise FusionError(
            f"only {len(queries)} texts have a title or first sentence and a rest, too few to "
            "choose weights on; give --weights by hand, one number an encoder"
        )
    weights = choose_weights(
        [store.embed(encoder, queries, Role.QUERY) for encoder in encoders],
        [store.embed(encoder, rests, Role.DOCUMENT) for encoder in encoders],
        normalize,
    )
    chosen = ", ".join(f"{e.name} {w:g}" for e, w in zip(encoders, weights, strict=True))
    logger.info("weights chosen on %d pseudo-queries: %s", len(queries), chosen)
    return weights


def _write_calibration(folder: Path, vectors: np.ndarray) -> None:
    write_tensors(folder / CALIBRATION, {"fused": vectors})


def _read_calibration(folder: Path) -> np.ndarray:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(folder / CALIBRATION)["fused"]
    except (OSError, SafetensorError, KeyError) as error:
        raise FusionError(f"{folder / CALIBRATION} cannot be read: {error}") from error


def _check_same(folder: Path, plain: dict[str, Any]) -> None:
    """Refuse to go on with other settings; what is not settled yet (weights, dims) is no other."""
    now = yaml.safe_load(yaml.safe_dump(plain, sort_keys=False))  # as it would be read again
    try:
        before = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        there, here = ({**p, **_named("train", p["train"], WHERE)} for p in (before, now))
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError) as error:
        raise FusionError(f"{folder / CONFIG} is damaged; start anew with --overwrite") from error
    changed = [
        f"{key}: {_shown(there.get(key))} there, {_shown(value)} now"
        for key, value in here.items()
        if key != "train" and value not in ([], AUTO) and there.get(key) != value
    ]
    if changed:
        raise FusionError(
            f"{folder} was begun with other settings ({'; '.join(changed)}): resume with the same "
            "ones, or start anew with --overwrite"
        )


def _named(part: str, fields: dict[str, Any], left_out: Sequence[str]) -> dict[str, Any]:
    """Fields of a part under names of their own; it may go on on other devices."""
    return {f"{part}.{name}": value for name, value in fields.items() if name not in left_out}


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
