"""What a training will do with its texts and devices, worked out before it begins."""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion.errors import FusionError
from fusion.space.training.batches import Queries, split
from fusion.space.training.recipe import WHERE, TrainConfig

JUDGED = "held-back texts among all"
"""What the least loss is of, with the loss "kl"."""
_PASSES = 50  # over few texts in a run given in steps: more of them learn these texts by heart
_VALIDATIONS = 25  # about so many in a run given in steps, whose epochs may be very short


@dataclass(frozen=True)
class Plan:
    """Texts, batches and epochs of one training."""

    embeddings: np.ndarray
    config: TrainConfig
    dims: tuple[int, ...]
    train: Tensor
    held: Tensor
    batch_size: int
    devices: int
    world: int
    epoch_steps: int
    epochs: int
    validate_every: int
    queries: Queries | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with: configuration, widths and embeddings."""
        settings = self.config.to_dict()
        for where in WHERE:
            del settings[where]
        queries = _digest(self.queries.embeddings) if self.queries else None
        read: dict[str, Any] = {"embeddings": _digest(self.embeddings), "queries": queries}
        if self.config.loss == "kl":  # a best loss of another kind cannot be gone on with
            read["judged"] = JUDGED
        return {**settings, "dims": list(self.dims), **read}


def _digest(embeddings: np.ndarray) -> list[int | str]:
    sample = np.ascontiguousarray(embeddings[:: max(len(embeddings) // 16, 1)], dtype=np.float32)
    return [*embeddings.shape, hashlib.blake2b(sample.tobytes(), digest_size=8).hexdigest()]


def make_plan(
    embeddings: np.ndarray,
    config: TrainConfig,
    dims: tuple[int, ...],
    queries: Queries | None = None,
) -> Plan:
    """Split the texts, and count batches and epochs.

    Raises:
        ValueError: too few texts.
    """
    train, held = split(len(embeddings), config.validation, config.seed)
    devices = device_count(config)
    world = devices * config.nodes
    batch_size = min(config.batch_size, len(train))
    if len(train) < 2 * world:
        raise ValueError(
            f"{len(embeddings)} texts are too few to train on: at least {2 + 2 * world} are needed"
        )
    if batch_size < 2 * world:
        raise ValueError(
            f"batch_size {batch_size} is too small to share out over {world} devices: at least "
            f"{2 * world} are needed"
        )
    epoch_steps = len(train) // batch_size
    epochs, every = config.epochs, 1
    if epochs is None:
        assert config.steps is not None  # TrainConfig has either
        epoch_steps = min(epoch_steps, config.steps)
        epochs = min(max(1, round(config.steps / epoch_steps)), _PASSES)
        every = math.ceil(epochs / _VALIDATIONS)
        epochs = math.ceil(epochs / every) * every  # the last epoch is validated too
    return Plan(
        embeddings,
        config,
        dims,
        train,
        held,
        batch_size,
        devices,
        world,
        epoch_steps,
        epochs,
        every,
        queries,
    )


def accelerator(config: TrainConfig) -> str:
    """The kind of device to train on: "cuda" or "cpu"."""
    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if config.device == "cuda" and not torch.cuda.is_available():
        raise FusionError("device cuda was asked for, but torch sees none; use cpu or auto")
    return config.device


def device_count(config: TrainConfig) -> int:
    """How many devices of each node to train on."""
    if config.devices >= 1:
        return config.devices
    return max(1, torch.cuda.device_count()) if accelerator(config) == "cuda" else 1
