"""How fast the nested loss is, and what bfloat16 gives and takes.

    python experiments/benchmarks/training.py --device cpu --threads 1
    python experiments/benchmarks/training.py --device cuda

One process times, in turns, at batch 512, 1920 -> 1024 and eight widths: the head's own matrix
products, one training step with the nested losses, the same loss computed for each width by itself,
and its broadcast form of shape [n, n, d]. Then it trains the paper's head in float32 and in
bf16-mixed. To expect: a nested step within 1.5 times the matrix products, and at least 100 times
faster than the broadcast form.

Needs 16 GB of memory for the broadcast form (--skip-broadcast leaves it out). Writes
experiments/results/training_DEVICE.json; render_training.py makes Markdown of it.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import fusion
from fusion.space.compressors import HeadCompressor
from fusion.space.head import FusionHead, HeadConfig
from fusion.space.training.losses import GramMSE, NeighbourKL
from fusion.space.training.recipe import TrainConfig

RESULTS = Path(__file__).parents[1] / "results"
# CPU time of the process leaves out what its neighbours on a shared machine take; a GPU's work is
# only seen on the wall.
CLOCKS = {"cpu": time.process_time, "cuda": time.perf_counter}
Loss = Callable[[Tensor, Tensor, Sequence[int]], Tensor]


@dataclass(frozen=True)
class Setting:
    """The sizes of the step that is timed and of the training that is compared."""

    batch: int = 512
    in_dim: int = 1920
    dims: tuple[int, ...] = (32, 64, 128, 256, 384, 512, 768, 1024)
    rounds: int = 9
    """Each contestant runs once a round; the median is reported."""
    broadcast_rounds: int = 1
    train_texts: int = 8_000
    train_epochs: int = 2
    seed: int = 0


def broadcast_mse(student: Tensor, teacher: Tensor, dims: Sequence[int]) -> Tensor:
    """Every pair of texts side by side, [n, n, d], and the teacher's anew for each width."""
    others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)  # (n, n)
    total = student.new_zeros(())
    for dim in dims:
        prefix = student[:, :dim]  # (n, d)
        given = F.cosine_similarity(prefix[:, None], prefix[None], dim=2)  # (n, n)
        wanted = F.cosine_similarity(teacher[:, None], teacher[None], dim=2)  # (n, n)
        total = total + F.mse_loss(given[others], wanted[others])
    return total


def separate_mse(student: Tensor, teacher: Tensor, dims: Sequence[int]) -> Tensor:
    """One normalised matrix product for each width, left to autograd."""
    others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)  # (n, n)
    unit = F.normalize(teacher, dim=1)  # (n, D)
    wanted = (unit @ unit.T)[others]  # (n * (n - 1),)
    total = student.new_zeros(())
    for dim in dims:
        prefix = F.normalize(student[:, :dim], dim=1)  # (n, d)
        total = total + F.mse_loss((prefix @ prefix.T)[others], wanted)
    return total


class Bench:
    """Contestants for one setting on one device."""

    def __init__(self, setting: Setting, device: torch.device) -> None:
        torch.manual_seed(setting.seed)
        self.setting, self.device = setting, device
        self.x = torch.randn(setting.batch, setting.in_dim, device=device)  # (n, D)
        self.grad = torch.randn(setting.batch, setting.dims[-1], device=device)  # (n, d)
        self.head = FusionHead(HeadConfig(setting.in_dim, setting.dims[-1])).to(device)
        self.weight = torch.randn(setting.dims[-1], setting.in_dim, device=device)  # (d, D)
        self.optimizer = torch.optim.AdamW(self.head.parameters(), 1e-3, fused=True)
        self.clock = CLOCKS[device.type]

    def products(self) -> None:
        """The three matrix products of the head: forward, by its weight, by its input."""
        _ = self.x @ self.weight.T, self.grad.T @ self.x, self.grad @ self.weight

    def forward_backward(self) -> None:
        """The whole head forward and backward, without a loss."""
        self.optimizer.zero_grad()
        self.head(self.x).backward(self.grad)

    def step(self, loss: Loss) -> Callable[[], None]:
        """A whole training step: head, loss, backward, AdamW."""

        def run() -> None:
            self.optimizer.zero_grad()
            loss(self.head(self.x), self.x, self.setting.dims).backward()
            self.optimizer.step()

        return run

    def loss_alone(self, loss: Loss) -> Callable[[], None]:
        """A loss and its gradient by the head's output."""
        student = torch.randn_like(self.grad).requires_grad_()

        def run() -> None:
            student.grad = None
            loss(student, self.x, self.setting.dims).backward()

        return run

    def seconds(self, run: Callable[[], None]) -> float:
        """One run, until the device is done with it."""
        self.wait()
        began = self.clock()
        run()
        self.wait()
        return self.clock() - began

    def wait(self) -> None:
        """Until a GPU has nothing left to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def agreement(bench: Bench) -> float:
    """Largest relative difference of the three forms' values: they must be one loss."""
    student = bench.head.eval()(bench.x[:64]).detach()
    bench.head.train()
    values = [
        loss(student, bench.x[:64], bench.setting.dims).item()
        for loss in (GramMSE(), separate_mse, broadcast_mse)
    ]
    return (max(values) - min(values)) / values[0]


def time_steps(bench: Bench, broadcast: bool) -> dict[str, dict[str, float]]:
    """Milliseconds of each contestant: median, 20th and 80th percentile, number of runs."""
    contestants = {
        "head: matrix products": bench.products,
        "head: forward and backward": bench.forward_backward,
        "loss alone: nested MSE": bench.loss_alone(GramMSE()),
        "loss alone: nested KL": bench.loss_alone(NeighbourKL()),
        "loss alone: MSE width by width": bench.loss_alone(separate_mse),
        "step: nested MSE": bench.step(GramMSE()),
        "step: nested KL": bench.step(NeighbourKL()),
        "step: MSE width by width": bench.step(separate_mse),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for warm in range(bench.setting.rounds + 2):
        for name, run in contestants.items():
            seconds = bench.seconds(run)
            if warm >= 2:
                times[name].append(seconds)
    if broadcast:
        run = bench.step(broadcast_mse)
        rounds = range(bench.setting.broadcast_rounds)
        times["step: MSE broadcast"] = [bench.seconds(run) for _ in rounds]
    return {name: summary(values) for name, values in times.items()}


def summary(seconds: list[float]) -> dict[str, float]:
    """Milliseconds."""
    low, high = np.percentile(seconds, [20, 80])
    return {
        "median_ms": round(1e3 * statistics.median(seconds), 3),
        "p20_ms": round(1e3 * low, 3),
        "p80_ms": round(1e3 * high, 3),
        "runs": len(seconds),
    }


def texts_like(setting: Setting, n: int) -> np.ndarray:
    """Embeddings ``[n, D]`` with topics and a falling spectrum, as encoders give them."""
    rng = np.random.default_rng(setting.seed)
    rank = 256
    spectrum = np.arange(1, rank + 1) ** -0.5  # (r,)
    topics = rng.normal(size=(200, rank)) * spectrum  # (t, r)
    inner = topics[rng.integers(200, size=n)] + rng.normal(size=(n, rank)) * spectrum  # (n, r)
    outer = inner @ rng.normal(size=(rank, setting.in_dim)) / rank**0.5  # (n, D)
    outer += 0.05 * rng.normal(size=outer.shape)
    return (outer / np.linalg.norm(outer, axis=1, keepdims=True)).astype(np.float32)


def neighbours_kept(full: np.ndarray, short: np.ndarray, device: torch.device) -> float:
    """Share of each text's ten nearest neighbours that the short vectors find too."""
    found = []
    for vectors in (full, short):
        unit = F.normalize(torch.from_numpy(vectors).to(device), dim=1)  # (n, d)
        found.append((unit @ unit.T).fill_diagonal_(-2).topk(10).indices)  # (n, k)
    same = (found[0][:, :, None] == found[1][:, None, :]).any(dim=2)  # (n, k)
    return same.float().mean().item()


def train(setting: Setting, device: torch.device, precision: str) -> dict[str, float]:
    """Train the paper's head once: speed, memory, and how well neighbours are kept."""
    unseen = 1_000
    embeddings = texts_like(setting, setting.train_texts + unseen)
    config = TrainConfig.of(
        "paper",
        epochs=setting.train_epochs,
        batch_size=setting.batch,
        precision=precision,
        device=device.type,
        seed=setting.seed,
    )
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    clock = CLOCKS[device.type]
    began = clock()
    compressor = HeadCompressor(setting.dims, config).fit(embeddings[unseen:])
    seconds = clock() - began
    per_epoch = round(setting.train_texts * (1 - config.validation)) // setting.batch
    row = {
        "steps": per_epoch * setting.train_epochs,
        "seconds": round(seconds, 3),
        "steps_per_second": round(per_epoch * setting.train_epochs / seconds, 3),
    }
    if device.type == "cuda":
        row["peak_memory_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    out = compressor.transform(embeddings[:unseen])
    for dim in (setting.dims[1], setting.dims[-1]):
        kept = neighbours_kept(embeddings[:unseen], out[:, :dim], device)
        row[f"neighbours_kept_{dim}"] = round(kept, 5)
    return row


def environment(device: torch.device) -> dict[str, Any]:
    """What the figures depend on besides the setting."""
    cuda = device.type == "cuda"
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "fusion": fusion.__version__,
        "commit": commit,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if cuda else cpu_name(),
        "threads": torch.get_num_threads(),
        "clock": "wall" if cuda else "CPU time of the process",
    }


def cpu_name() -> str:
    """As the system calls it, or the architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main(argv: Sequence[str] | None = None) -> int:
    """Time, train, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice by default")
    parser.add_argument("--skip-broadcast", action="store_true")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--output", type=Path, help="the JSON file")
    arguments = parser.parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    setting = Setting()
    if arguments.quick:
        setting = Setting(32, 48, (8, 16, 32), 3, 1, 600, 2)
    bench = Bench(setting, device)
    report = {
        "environment": environment(device),
        "setting": asdict(setting),
        "largest_difference_of_the_three_forms": agreement(bench),
        "steps": time_steps(bench, not arguments.skip_broadcast),
        "training": {p: train(setting, device, p) for p in ("32", "bf16-mixed")},
    }
    path = arguments.output or RESULTS / f"training_{arguments.device}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{path} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
