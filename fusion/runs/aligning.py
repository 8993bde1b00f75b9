"""From pairs to two towers of one nested space: everything of ``python -m fusion.align``."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fusion.alignment.fitting import Fitted, Method, fit
from fusion.alignment.pairs import Pairs
from fusion.environment import describe_environment
from fusion.errors import FusionError
from fusion.inputs.data.captions import Captions, load_captions, splits_of
from fusion.inputs.encoders.catalogue import Modality, Role
from fusion.inputs.encoders.precomputed import PrecomputedEncoder
from fusion.inputs.encoders.text import TextEncoder, load_encoder
from fusion.inputs.items import as_items
from fusion.inputs.store.store import Store
from fusion.output import check_output
from fusion.runs.align_config import AlignConfig
from fusion.runs.aligned import AlignedRun, Tower, is_aligned
from fusion.runs.folder import CONFIG, Run, begin
from fusion.runs.fusing import default_dims, fuse
from fusion.runs.training import CALIBRATION_ROWS
from fusion.samples import evenly_spaced
from fusion.space.blocks import Blocks
from fusion.space.compressors import FirstK
from fusion.space.training.recipe import check_dims

LEARN, CHOOSE = "train", ("val", "dev")
"""Splits to learn from, and to choose settings on."""


@dataclass(frozen=True, eq=False)
class Side:
    """One side of the pairs: its encoders, loaded, and how they are set side by side."""

    encoders: list[TextEncoder]
    blocks: Blocks

    @classmethod
    def load(
        cls, names: Sequence[str], weights: tuple[float, ...], dtype: str, device: str = "auto"
    ) -> "Side":
        """Load encoders, each once."""
        encoders = [load_encoder(name, dtype, device) for name in names]
        dims = tuple(encoder.dim for encoder in encoders)
        return cls(encoders, Blocks(tuple(names), dims, weights=weights))

    @classmethod
    def of(cls, tower: Tower, dtype: str) -> "Side":
        """The encoders of a tower, and its blocks as they are."""
        return cls([load_encoder(name, dtype) for name in tower.blocks.names], tower.blocks)

    def fuse(self, data: Captions, modality: Modality, store: Store) -> np.ndarray:
        """Fused vectors float32 [n, D] of the captions, or of the pictures."""
        fuse_all = partial(fuse, self.blocks, self.encoders, store=store)
        if modality is Modality.TEXT:
            return fuse_all(data.texts, Role.QUERY, ids=data.text_ids)
        return fuse_all(data.pictures, Role.DOCUMENT, ids=data.picture_ids)

    def fingerprints(self) -> dict[str, dict[str, str]]:
        """By name; embeddings out of files may come from another file tomorrow."""
        known = (e for e in self.encoders if not isinstance(e, PrecomputedEncoder))
        return {encoder.name: encoder.fingerprint for encoder in known}


@dataclass(frozen=True, eq=False)
class _Goal:
    """What the source is brought together with."""

    through: Tower | None
    """The tower that gives the vectors to fit on; None for plain encoders."""
    side: Side
    """Its encoders."""
    tower: Tower | None
    """What becomes the run's target; None where it is made here."""
    dims: tuple[int, ...]
    """Widths of a space that is kept; empty where there is none."""
    fingerprints: dict[str, dict[str, str]]


def align(config: AlignConfig, folder: Path, *, overwrite: bool = False) -> AlignedRun:
    """Embed both sides of pairs, fit their maps, and save them.

    Nothing is written to ``folder`` before encoders, pairs and widths are known to be good.

    Raises:
        FusionError: Something cannot be had or read, or the folder is there already.
        ValueError: A value that cannot be.
    """
    config = config.settled()
    check_output(folder, overwrite, marks=(CONFIG,), kind="a run folder")
    config.check()
    store, learned, judged = Store(), *_data(config)
    source = Side.load(config.source, config.source_weights, config.encoder_dtype)
    goal = _goal(config)
    target_is = Modality.TEXT if config.of_texts else Modality.IMAGE
    pairs, rows = _pairs(config, source, goal, learned, target_is, store)
    held = _pairs(config, source, goal, judged, target_is, store)[0] if judged else None
    dims = _dims(config, pairs, goal)
    fitted = fit(Method(config.method), pairs, dims, held, config.seed)
    tower = goal.tower or _target_tower(goal.side.blocks, fitted, rows, target_is)
    environment = describe_environment() | {
        "encoders": source.fingerprints() | goal.fingerprints,
        "modalities": {"source": str(Modality.TEXT), "target": str(tower.modality)},
        "pairs": learned.digest(pictures=not config.of_texts),
        "pair_count": len(pairs.owner),
        "target_count": len(pairs.target),
        "chosen_on": judged.split if judged else "pairs held back",
        "chosen": fitted.chosen.settings,
        "reciprocal_rank": fitted.chosen.reciprocal_rank,
    }
    resolved = replace(config, dims=dims, source_weights=source.blocks.weights)
    if config.target_run is None:
        resolved = replace(resolved, target_weights=tower.blocks.weights)
    made = Tower(source.blocks, fitted.source, _thinned(pairs.source), Modality.TEXT)
    run = AlignedRun(resolved, made, tower, environment)
    begin(folder, run.plain(), resume=False)
    run.save(folder, [t.settings | {"reciprocal_rank": t.reciprocal_rank} for t in fitted.trials])
    return run


def encode_items(run: AlignedRun, items: Sequence[Any], store: Store | None = None) -> np.ndarray:
    """Vectors of texts, or of pictures, in a run's space.

    Args:
        run: An alignment; its encoders are loaded anew, so give many items at once.
        items: Texts, or ``{"image": path}``; of one kind.
        store: Where embeddings are kept; the usual place by default.

    Returns:
        float32 [n, d], unit-norm at the full width; the first columns are the narrow vectors.

    Raises:
        FusionError: The run has no tower for such items, or an encoder cannot be had.
        ValueError: The items are of both kinds, or there are none.
    """
    known = as_items(items)
    kinds = {Modality.TEXT if isinstance(item, str) else Modality.IMAGE for item in known}
    if len(kinds) != 1:
        raise ValueError("items must be texts or pictures, of one kind, and at least one of them")
    tower = next((t for t in (run.source, run.target) if t.modality in kinds), None)
    if tower is None:
        raise FusionError("both towers of this alignment are of texts: there are no pictures in it")
    side = Side.of(tower, run.config.encoder_dtype)
    run.check_encoders(side.encoders)
    role = Role.QUERY if tower.modality is Modality.TEXT else Role.DOCUMENT
    fused = fuse(side.blocks, side.encoders, known, role, store or Store())
    return _unit(tower.map.transform(fused))


def _data(config: AlignConfig) -> tuple[Captions, Captions | None]:
    """What to learn from, and what to choose on, if the data has a split for that."""
    name = config.of_texts or config.pairs
    splits = splits_of(name)
    if LEARN not in splits:
        raise FusionError(
            f"{name} has no split {LEARN!r} to learn from; it has {', '.join(splits)}"
        )
    judged = next((split for split in CHOOSE if split in splits), None)
    learned = load_captions(name, LEARN).first(config.max_pairs)
    return learned, load_captions(name, judged) if judged else None


def _goal(config: AlignConfig) -> _Goal:
    """Load the target: plain encoders, or the towers of a run."""
    folder = config.target_run
    if folder is None:
        side = Side.load(config.target, config.target_weights, config.encoder_dtype)
        return _Goal(None, side, None, (), side.fingerprints())
    if is_aligned(folder):
        run = AlignedRun.load(folder)
        wanted = Modality.TEXT if config.of_texts else Modality.IMAGE
        through = next((t for t in (run.source, run.target) if t.modality is wanted), None)
        if through is None:
            raise FusionError(f"{folder} has no tower of {wanted}s to map these pairs into")
        goal = _Goal(
            through, Side.of(through, config.encoder_dtype), run.target, run.config.dims, {}
        )
        run.check_encoders(goal.side.encoders)
        return replace(goal, fingerprints=run.environment["encoders"])
    trained = Run.load(folder)
    if not config.of_texts:
        raise FusionError(f"{folder} is a run of texts; pair it with texts: --pairs texts:NAME")
    head, calibration = trained.compressors["head"], trained.calibration
    tower = Tower(trained.blocks, head, calibration, Modality.TEXT)
    goal = _Goal(tower, Side.of(tower, config.encoder_dtype), tower, trained.config.dims, {})
    trained.check_encoders(goal.side.encoders)
    return replace(goal, fingerprints=goal.side.fingerprints())


def _pairs(
    config: AlignConfig,
    source: Side,
    goal: _Goal,
    data: Captions,
    target_is: Modality,
    store: Store,
) -> tuple[Pairs, np.ndarray]:
    """The pairs, and the fused target rows [m, E] before a kept tower's map."""
    left = source.fuse(data, Modality.TEXT, store)
    rows = goal.side.fuse(data, target_is, store)
    right = rows if goal.through is None else _unit(goal.through.map.transform(rows))
    owner = np.arange(len(left)) if target_is is Modality.TEXT else data.owner
    return Pairs(left, right, owner), rows


def _dims(config: AlignConfig, pairs: Pairs, goal: _Goal) -> tuple[int, ...]:
    """The widths: those asked for, those of the space that is kept, or the usual ones."""
    if goal.dims:
        return check_dims(config.dims or goal.dims, goal.dims[-1])
    if config.keep:  # columns of a space that nobody sorted are not nested
        return check_dims(config.dims or (pairs.target.shape[1],), pairs.target.shape[1])
    most = min(pairs.source.shape[1], pairs.target.shape[1], len(pairs.target) - 1)
    return check_dims(config.dims or default_dims(most), most)


def _target_tower(blocks: Blocks, fitted: Fitted, rows: np.ndarray, modality: Modality) -> Tower:
    found = fitted.target if fitted.target is not None else FirstK().fit(rows[:1])
    return Tower(blocks, found, _thinned(rows), modality)


def _thinned(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows[evenly_spaced(len(rows), CALIBRATION_ROWS)])


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
