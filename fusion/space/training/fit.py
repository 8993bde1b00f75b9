"""Training of the head, on Lightning."""

import logging
import math
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion.errors import FusionError
from fusion.space.head import FusionHead
from fusion.space.pca import PCA
from fusion.space.training.batches import Batches, HeldBack, Queries, Rows, Subset
from fusion.space.training.distributed import gather_rows
from fusion.space.training.held import SHARES, HeldBackTexts
from fusion.space.training.keeping import Metrics, WholeCheckpoints, are_whole, interruptible, quiet
from fusion.space.training.lightning import (
    Callback,
    EarlyStopping,
    LightningEnvironment,
    MisconfigurationException,
    ModelCheckpoint,
    OptimizerLRSchedulerConfig,
    lightning,
)
from fusion.space.training.losses import LOSSES, NeighbourKL
from fusion.space.training.plan import Plan, accelerator, device_count, make_plan
from fusion.space.training.ranks import is_first
from fusion.space.training.recipe import RECIPES, TrainConfig, check_dims

__all__ = ["RECIPES", "TrainConfig", "fit_head"]

_log = logging.getLogger(__name__)
_START_ROWS = 100_000  # more texts do not move the principal components


def fit_head(
    embeddings: np.ndarray,
    config: TrainConfig,
    dims: Sequence[int],
    *,
    queries: Queries | None = None,
    folder: Path | str | None = None,
    resume: bool = False,
) -> FusionHead:
    """Train a head and give back its best epoch, judged on held-back texts.

    With the loss "kl" a held-back text is judged among all texts, and as much of the PCA start is
    kept as that asks for; with "mse", a mean over pairs, held-back texts are compared with one
    another. The split, the batches and the start follow from the seed on every machine. The head
    itself is the same to the last bit only on one machine with as many threads and devices:
    elsewhere products are summed in another order, each step carries that on, and the choice may
    differ where two epochs or shares are all but equal.

    Args:
        embeddings: ``[n, D]`` fused embeddings of the training texts, in memory or memory-mapped.
        config: how to train.
        dims: increasing widths to train for; the last is the width of the output.
        queries: query-like parts of the texts, fused; each has to find its neighbours among the
            batch's texts, as the text itself has to.
        folder: where ``metrics.csv`` and, until the training is done, checkpoints stand.
        resume: go on from the last checkpoint in ``folder``, if there is one.

    Raises:
        ValueError: dims that do not increase or that the embeddings cannot give, too few texts.
        FusionError: a checkpoint of another configuration, or a loss that is not finite.
    """
    dims = check_dims(dims, embeddings.shape[1])
    if resume and folder is None:
        raise ValueError("resume needs the folder of the run to go on with")
    place = nullcontext(folder) if folder is not None else tempfile.TemporaryDirectory()
    with place as name:
        plan = make_plan(embeddings, config, dims, queries)
        # Absolute: Lightning would take a leading ~ for the home folder, and nobody else would.
        return _train(plan, Path(name).absolute(), resume)


def check_devices(config: TrainConfig) -> None:
    """Find out before any work whether the devices can be had.

    Raises:
        FusionError: there are not as many, or Lightning knows no such strategy.
    """
    try:
        with quiet():
            lightning.Trainer(
                **_place(config), plugins=_launcher(config), logger=False, barebones=True
            )
    except (MisconfigurationException, ValueError, ImportError, RuntimeError, KeyError) as error:
        reason = str(error).partition(". ")[0]
        asked = f"devices={config.devices}, nodes={config.nodes}, strategy={config.strategy}"
        raise FusionError(f"cannot train on {asked}: {reason}") from error


def _place(config: TrainConfig) -> dict[str, Any]:
    return {
        "accelerator": accelerator(config),
        "devices": device_count(config),
        "num_nodes": config.nodes,
        "strategy": config.strategy,
    }


def _launcher(config: TrainConfig) -> list[Any]:
    """Who started this process: nobody that matters, if it trains alone.

    Lightning would look for Slurm, torchrun, LSF or MPI in the environment, and a training on one
    device may well stand in a job of theirs that is about something else.
    """
    return [LightningEnvironment()] if config.devices == 1 and config.nodes == 1 else []


def _train(plan: Plan, folder: Path, resume: bool) -> FusionHead:
    config, checkpoints = plan.config, folder / "checkpoints"
    best_path, last_path = checkpoints / "best.ckpt", checkpoints / "last.ckpt"
    first = is_first(config)
    if first and not resume:
        shutil.rmtree(checkpoints, ignore_errors=True)
    training = _Training(plan)
    kind = accelerator(config)
    if first and plan.world > 1 and kind == "cpu" and training.head.config.batch_norm:
        _log.warning(
            "BatchNorm: each process on a CPU takes statistics of its own share of a batch"
        )
    with quiet():
        trainer = lightning.Trainer(
            **_place(config),
            sync_batchnorm=plan.world > 1 and kind == "cuda",
            precision="32-true" if config.precision == "32" else "bf16-mixed",
            max_epochs=plan.epochs,
            check_val_every_n_epoch=plan.validate_every,
            gradient_clip_val=config.clip_norm or None,
            callbacks=_callbacks(plan, folder, best_path, last_path),
            logger=False,
            enable_progress_bar=sys.stdout.isatty(),
            enable_model_summary=False,
            num_sanity_val_steps=0,
            plugins=[WholeCheckpoints(), *_launcher(config)],
            use_distributed_sampler=False,
        )
        start = last_path if resume and are_whole(last_path, best_path) else None
        with interruptible(trainer):
            trainer.fit(training, ckpt_path=start, weights_only=True)
    kept: Any = _keep(training, best_path) if first else None
    head = training.mixed(*trainer.strategy.broadcast(kept))
    if first:
        last_path.unlink(missing_ok=True)  # first: it can be gone on with only beside the best
        shutil.rmtree(checkpoints)
    return head.eval()


def _callbacks(plan: Plan, folder: Path, best_path: Path, last_path: Path) -> list[Callback]:
    """The best weights and the place to go on from are two things, and two explicit callbacks."""
    best = ModelCheckpoint(
        dirpath=best_path.parent,
        filename=best_path.stem,
        monitor="val/loss",
        mode="min",
        save_weights_only=True,
        save_on_train_epoch_end=True,
        every_n_epochs=plan.validate_every,
        enable_version_counter=False,
    )
    last = ModelCheckpoint(
        dirpath=best_path.parent,
        filename=last_path.stem,
        save_on_train_epoch_end=True,
        every_n_epochs=plan.validate_every,
        enable_version_counter=False,
    )
    callbacks: list[Callback] = [Metrics(folder / "metrics.csv"), best, last]
    if patience := plan.config.patience:
        callbacks.append(
            EarlyStopping("val/loss", patience=patience, mode="min", check_on_train_epoch_end=False)
        )
    return callbacks


Weights = dict[str, Tensor]


def _keep(training: "_Training", path: Path) -> tuple[Weights, float]:
    """The best epoch's weights and the share of the start to mix in; says what was chosen."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    state = {key.removeprefix("head."): value for key, value in checkpoint["state_dict"].items()}
    epochs, held = f"epoch {checkpoint['epoch']} of {training.plan.epochs} (from 0)", training.held
    if held is None:
        _log.info("kept %s: the least loss of %d held-back texts", epochs, len(training.plan.held))
        return state, training.plan.config.keep_start

    def at(share: float) -> FusionHead:
        return training.mixed(state, share).to(held.device)

    share = training.plan.config.keep_start
    if training.may_return:
        share = held.share_of_start((share, *(s for s in SHARES if s > share)), at)
    _log.info("kept %s and %.0f %% of the start: the least loss of %s", epochs, 100 * share, held)
    return state, share


class _Training(lightning.LightningModule):
    """One head, its teacher and its batches."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        config, width = plan.config, plan.embeddings.shape[1]
        self.plan = plan
        kind = LOSSES[config.loss]
        softness = (config.temperature, config.student_temperature, config.spread)
        self.loss = kind(*softness) if issubclass(kind, NeighbourKL) else kind()
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.head = FusionHead(config.head_config(width, plan.dims[-1]))
        rows = plan.train[:: math.ceil(len(plan.train) / _START_ROWS)].numpy()
        teacher: Tensor | None = None
        if config.start == "pca" or config.teacher_power:
            sample: Any = Subset(plan.embeddings, rows)  # (n, D)
            if config.start == "pca":
                fitted = PCA(plan.dims[-1], power=config.start_power).fit(sample)
                self.head.start_from(torch.from_numpy(fitted.matrix))
            if config.teacher_power:
                fitted = PCA(power=config.teacher_power).fit(sample)
                teacher = torch.from_numpy(fitted.matrix)  # (D, D)
        self.start = self.head.linear.weight.detach().clone()  # (d, D)
        column = torch.arange(1, plan.dims[-1] + 1)[:, None]  # (d, 1)
        pace = (plan.dims[0] / column).clamp(max=1) ** config.pace  # (d, 1)
        self.pace: Tensor
        self.register_buffer("pace", pace, persistent=False)
        self.teacher: Tensor | None
        self.register_buffer("teacher", teacher, persistent=False)

    @property
    def may_return(self) -> bool:
        """Whether the way back to the start, PCA, is one that other texts may want."""
        config = self.plan.config
        linear = config.head == "linear" and not config.residual_width
        return linear and config.start == "pca"

    @cached_property
    def held(self) -> HeldBackTexts | None:
        """What judges a head, on the device of the training; None for a loss without neighbours."""
        if not isinstance(self.loss, NeighbourKL):
            return None
        return HeldBackTexts(self.plan, self.loss, self.teacher, self.device)

    def mixed(self, state: Weights, share: float) -> FusionHead:
        """The head with these weights, but for a share of the start in its matrix."""
        # A new one: Lightning leaves BatchNorm of another class behind where it was synchronised.
        with torch.random.fork_rng():
            head = FusionHead(self.head.config)
        head.load_state_dict(state)
        if share:
            with torch.no_grad():
                head.linear.weight.lerp_(self.start.cpu(), share)
        return head.eval()

    def on_fit_start(self) -> None:
        """Lay the embeddings down where the batches are wanted."""
        self.rows = Rows(self.plan.embeddings, self.device)
        if self.plan.queries:
            self.query_rows = Rows(self.plan.queries.embeddings, self.device)

    def _loss(self, indices: Tensor, total: int = 0) -> Tensor:
        """The loss of a batch of ``total`` texts, this process's share; 0: of these texts alone."""
        kinds = [self.rows[indices]]  # (b, D) each
        if self.plan.queries:
            kinds.append(self._queries(kinds[0], self.plan.queries.of(indices, self.global_step)))
        student, teacher = [], []
        for embeddings in kinds:
            mapped = self.head(embeddings)  # (b, d)
            target = embeddings if self.teacher is None else embeddings @ self.teacher  # (b, D)
            student.append(gather_rows(mapped, total) if total else mapped)
            teacher.append(gather_rows(target, total) if total else target)
        count = sum(len(part) for part in student[1:])
        return self.loss(torch.cat(student), torch.cat(teacher), self.plan.dims, count)

    def _queries(self, texts: Tensor, rows: Tensor) -> Tensor:
        """A query ``[b, D]`` of each text; a text that has none stands for itself."""
        has = (rows >= 0).to(texts.device)  # (b,)
        return torch.where(has[:, None], self.query_rows[rows.clamp(min=0)], texts)  # (b, D)

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        """The loss of one batch, of whose indices this process has its share."""
        total = self.plan.batch_size
        loss = self._loss(batch, total)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=total)
        return loss

    def validation_step(self, batch: Tensor, _: int) -> None:
        """The same loss of held-back texts: among all texts, or of a batch of them."""
        loss = self._loss(batch) if self.held is None else self.held.loss(self.head)
        if not torch.isfinite(loss):
            raise FusionError(
                f"the loss is {loss.item()} in epoch {self.current_epoch}: "
                f"lower lr ({self.plan.config.lr}) or look for NaN in the embeddings"
            )
        self.log("val/loss", loss, prog_bar=True, batch_size=len(batch), sync_dist=True)

    def train_dataloader(self) -> Batches:
        """Batches of indices, of each the share of this process."""
        plan, trainer = self.plan, self.trainer
        return Batches(
            plan.train,
            plan.batch_size,
            plan.epoch_steps,
            plan.config.seed,
            lambda: trainer.current_epoch,
            trainer.global_rank,
            plan.world,
        )

    def val_dataloader(self) -> HeldBack:
        """The held-back texts, in the same batches every time; in one if among all texts."""
        held = self.plan.held
        return HeldBack(held, self.plan.batch_size if self.held is None else len(held))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with a schedule by steps, which a checkpoint restores exactly."""
        config = self.plan.config
        optimizer = torch.optim.AdamW(
            self.parameters(),
            lr=config.lr,
            eps=config.adam_eps,
            weight_decay=config.weight_decay,
            fused=config.precision == "32",  # else Lightning refuses to clip gradients
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as Lightning has it
        """A step in which late columns go a shorter way."""
        weight = self.head.linear.weight  # (d, D)
        before = weight.detach().clone() if self.plan.config.pace else None
        super().optimizer_step(*args, **kwargs)
        if before is not None:
            with torch.no_grad():
                weight.copy_(torch.lerp(before, weight, self.pace))

    def _lr_factor(self, step: int) -> float:
        plan, config = self.plan, self.plan.config
        if config.schedule == "step":
            return config.step_gamma ** (step // plan.epoch_steps // config.step_epochs)
        if config.schedule == "cosine":
            return 0.5 + 0.5 * math.cos(math.pi * step / (plan.epochs * plan.epoch_steps))
        return 1.0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down what this training is, for whoever wants to go on with it."""
        checkpoint["fusion"] = self.plan.identity

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with a training of something else."""
        ours, theirs = self.plan.identity, checkpoint.get("fusion", {})
        changed = [key for key in ours if ours[key] != theirs.get(key)]
        if changed:
            key = changed[0]
            raise FusionError(
                f"the checkpoint was made with {key}={theirs.get(key)}, now it is {ours[key]}: "
                "resume with the same settings, or start anew"
            )
