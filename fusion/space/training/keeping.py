"""What a training keeps on disk, and how it stops: Lightning's habits, bent to ours."""

import csv
import logging
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fusion.space.training.lightning import Callback, TorchCheckpointIO, lightning

_log = logging.getLogger(__name__)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, also where the temporary folder is another disk."""

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:  # noqa: ANN401 - as Lightning has it
        """Write beside the file, and rename."""
        partial = f"{path}.partial"
        super().save_checkpoint(checkpoint, partial, storage_options)
        Path(partial).replace(path)


def are_whole(*paths: Path) -> bool:
    """Whether a training can go on from its checkpoints; damaged ones are named."""
    for path in paths:
        if not path.exists():
            return False
        try:
            with zipfile.ZipFile(path) as parts:
                damaged = parts.testzip()  # checksums, which torch does not look at
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError):
            damaged = path.name
        if damaged:
            _log.warning("%s is damaged, training starts anew", path)
            return False
    return True


class Metrics(Callback):
    """One line an epoch in a CSV file, also across a resumed training."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ANN401
        """Keep the lines of the epochs that are not trained again."""
        if trainer.current_epoch and self._path.exists():
            with self._path.open(newline="", encoding="utf-8") as file:
                kept = [r for r in csv.DictReader(file) if int(r["epoch"]) < trainer.current_epoch]
            self._rows = list(kept)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ANN401
        """Add the epoch's line; val/loss is empty where there was no validation."""
        validated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
        losses = {k: f"{v.item():.8g}" for k, v in trainer.callback_metrics.items()}
        self._rows.append(
            {
                "epoch": trainer.current_epoch,
                "step": trainer.global_step,
                "lr": f"{trainer.optimizers[0].param_groups[0]['lr']:.6g}",
                "train/loss": losses["train/loss"],
                "val/loss": losses["val/loss"] if validated else "",
            }
        )
        if trainer.is_global_zero:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(".partial")
            with partial.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self._rows[0])
                writer.writeheader()
                writer.writerows(self._rows)
            partial.replace(self._path)


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning's notes about hardware and data loaders are not for the person who trains."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def interruptible(trainer: lightning.Trainer) -> Iterator[None]:
    """Give Ctrl-C back to the caller: Lightning would end the process."""
    try:
        yield
    except SystemExit as ended:
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt from ended
