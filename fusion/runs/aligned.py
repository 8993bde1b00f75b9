"""The folder of an alignment: two towers that end in one nested space.

It holds ``config.yaml``, ``source.safetensors`` and ``target.safetensors`` (the maps, means folded
in), ``calibration.safetensors`` (fused training vectors of both sides that codes are fitted on),
``metrics.csv`` (what was tried on the pairs held back) and, written last, ``environment.json``.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fusion.errors import FusionError
from fusion.inputs.encoders.catalogue import Modality
from fusion.inputs.encoders.text import TextEncoder
from fusion.output import write_tensors, write_whole
from fusion.runs.align_config import AlignConfig
from fusion.runs.folder import (
    CALIBRATION,
    CONFIG,
    ENVIRONMENT,
    check_unchanged,
    read_calibration,
)
from fusion.space.blocks import Blocks
from fusion.space.compressor import FittedCompressor

SIDES = ("source", "target")
METRICS = "metrics.csv"


@dataclass(frozen=True, eq=False)
class Tower:
    """Encoders, blocks and a map: one side of an aligned space."""

    blocks: Blocks
    """How embeddings become one vector; its names are the encoders."""
    map: FittedCompressor
    """From there into the shared space."""
    calibration: np.ndarray
    """float32 [n, D], fused training vectors that codes are fitted on."""
    modality: Modality
    """What its encoders take."""


@dataclass(frozen=True, eq=False)
class AlignedRun:
    """A finished alignment, as it stands in its folder."""

    config: AlignConfig
    """As resolved: ``dims`` and weights are what was used."""
    source: Tower
    target: Tower
    environment: dict[str, Any]
    """Versions, hardware, fingerprints of the encoders, and what was chosen."""

    @classmethod
    def load(cls, folder: Path) -> "AlignedRun":
        """Read a run folder.

        Raises:
            FusionError: It is no folder of an alignment, was interrupted, or a file is damaged.
        """
        config, blocks, environment = read_aligned(folder)
        from fusion.space.compressors import load_compressor

        fused = dict(zip(SIDES, read_calibration(folder, SIDES), strict=True))
        kinds = environment["modalities"]
        maps = {side: load_compressor(folder / f"{side}.safetensors") for side in SIDES}
        source, target = (
            Tower(blocks[side], maps[side], fused[side], Modality(kinds[side])) for side in SIDES
        )
        return cls(config, source, target, environment)

    def check_encoders(self, encoders: Sequence[TextEncoder]) -> None:
        """Refuse encoders that are no longer what they were when the run was made.

        Raises:
            FusionError: The weights or settings of one are others.
        """
        check_unchanged(self.environment, encoders, made="made", again="align again")

    def save(self, folder: Path, trials: Sequence[dict[str, float]]) -> None:
        """Write everything but the configuration, which stands there already."""
        for side in SIDES:
            getattr(self, side).map.save(folder / f"{side}.safetensors")
        fused = {side: np.ascontiguousarray(getattr(self, side).calibration) for side in SIDES}
        write_tensors(folder / CALIBRATION, fused)
        write_whole(folder / METRICS, _as_csv(trials))
        # Last: it says that the run is finished.
        write_whole(folder / ENVIRONMENT, json.dumps(self.environment, indent=2) + "\n")

    def plain(self) -> dict[str, Any]:
        """The configuration, for YAML."""
        blocks = {side: getattr(self, side).blocks.to_dict() for side in SIDES}
        return self.config.to_dict() | {"blocks": blocks}


def is_aligned(folder: Path) -> bool:
    """Whether a run folder is one of an alignment."""
    try:
        plain = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(plain, dict) and "pairs" in plain


def read_aligned(folder: Path) -> tuple[AlignConfig, dict[str, Blocks], dict[str, Any]]:
    """What a finished alignment is made of, and its environment; of its maps nothing is read.

    Raises:
        FusionError: As ``AlignedRun.load``.
    """
    if not (folder / CONFIG).is_file():
        raise FusionError(f"{folder} is not a run folder: it has no {CONFIG}")
    if not (folder / ENVIRONMENT).is_file():
        raise FusionError(f"{folder} was interrupted; make it again with fusion.align --overwrite")
    try:
        plain = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        environment = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
        if "pairs" not in plain:
            raise FusionError(f"{folder} is a run of fusion.train; name one of fusion.align")
        blocks = plain.pop("blocks")
        blocks = {side: Blocks.from_dict(blocks[side]) for side in SIDES}
        config = AlignConfig.from_dict(plain)
        for side in SIDES:
            Modality(environment["modalities"][side])
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FusionError(f"{folder / CONFIG} is damaged: {error}") from error
    return config, blocks, environment


def _as_csv(trials: Sequence[dict[str, float]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(trials[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(trials)
    return out.getvalue()
