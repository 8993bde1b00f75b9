"""A run's folder on disk.

It holds ``config.yaml``, ``pca.safetensors``, ``head.safetensors``, ``calibration.safetensors``
(fused training vectors that codes are fitted on), ``metrics.csv`` and, written last,
``environment.json``: a folder without it was interrupted.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fusion.errors import FusionError
from fusion.inputs.encoders.fingerprints import same_encoder
from fusion.inputs.encoders.text import TextEncoder
from fusion.output import write_tensors, write_whole
from fusion.runs.config import AUTO, LATER, RunConfig
from fusion.space.blocks import Blocks
from fusion.space.compressor import FittedCompressor
from fusion.space.training.recipe import WHERE

CONFIG, ENVIRONMENT, CALIBRATION = "config.yaml", "environment.json", "calibration.safetensors"
METHODS = ("pca", "head")
FUSED = "fused"  # the name of the vectors in their file


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
        [calibration] = read_calibration(folder, (FUSED,))
        return cls(config, blocks, compressors, calibration, environment)

    def check_encoders(self, encoders: Sequence[TextEncoder]) -> None:
        """Refuse encoders that are no longer what they were when the run was trained.

        Raises:
            FusionError: The weights or settings of one are others.
        """
        check_unchanged(self.environment, encoders, made="trained", again="train again")


def check_unchanged(
    environment: dict[str, Any], encoders: Sequence[TextEncoder], *, made: str, again: str
) -> None:
    """Refuse encoders that are no longer what a run's environment says they were.

    Args:
        environment: Of the run; those of earlier versions know no encoders.
        encoders: As they are now.
        made: What was done with them, for a person.
        again: What to do about it.

    Raises:
        FusionError: The weights or settings of one are others.
    """
    known = environment.get("encoders", {})
    for encoder in encoders:
        before = known.get(encoder.name)
        if before and not same_encoder(before, encoder.fingerprint):
            raise FusionError(
                f"encoder {encoder.name} has changed since the run was {made} with it; {again}, or "
                "bring the old one back"
            )


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
        if "pairs" in plain:
            raise FusionError(f"{folder} is a run of fusion.align; name one of fusion.train")
        blocks = Blocks.from_dict(plain.pop("blocks"))
        config = RunConfig.from_dict(plain)
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FusionError(f"{folder / CONFIG} is damaged: {error}") from error
    return config, blocks, environment


def begin(folder: Path, plain: dict[str, Any], resume: bool) -> None:
    """Write the configuration; what an earlier run left is cleared away, or gone on with."""
    written = yaml.safe_dump(plain, sort_keys=False)
    if resume and (folder / CONFIG).is_file():
        check_same(folder, plain)
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


def check_same(folder: Path, plain: dict[str, Any]) -> None:
    """Refuse to go on with other settings; what is not settled yet (weights, dims) is no other."""
    now = yaml.safe_load(yaml.safe_dump(plain, sort_keys=False))  # as it would be read again
    try:
        before = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        there, here = ({**p, **_named("train", p["train"], WHERE)} for p in (before, now))
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError) as error:
        raise FusionError(f"{folder / CONFIG} is damaged; start anew with --overwrite") from error
    usual = {name: None for name in LATER if name in there}  # where it is not written
    changed = [
        f"{key}: {_shown(there.get(key))} there, {_shown(value)} now"
        for key, value in {**usual, **here}.items()
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


def write_calibration(folder: Path, vectors: np.ndarray) -> None:
    """Write fused training vectors float32 [n, D] that codes are fitted on."""
    write_tensors(folder / CALIBRATION, {FUSED: vectors})


def read_calibration(folder: Path, names: Sequence[str]) -> list[np.ndarray]:
    """Fused training vectors float32 [n, any], by the names that they are written under.

    Raises:
        FusionError: They cannot be read, or a name is missing.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(folder / CALIBRATION)
        return [found[name] for name in names]
    except (OSError, SafetensorError, KeyError) as error:
        raise FusionError(f"{folder / CALIBRATION} cannot be read: {error}") from error
