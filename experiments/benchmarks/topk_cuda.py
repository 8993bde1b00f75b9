"""The CUDA half of benchmark_topk.py: the fused kernel against torch per level on one GPU.

    python experiments/benchmarks/topk.py --device cuda --workload gpu

Needs a CUDA device with room for the corpus in bfloat16 (20 GB for the workload `gpu`; smaller
workloads run on smaller cards). Reports this run's own matrix-product rate and copy bandwidth, and
the workspace of each method beyond its inputs. To expect on an H200: 45 % of the bfloat16 product
rate, 8 times torch per level, half a gigabyte of workspace.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from workloads import Workload

from fusion.topk.nested import corpus_norms, nested_topk

BLOCK = 2**30  # scores that the per-level search holds at a time


def measure(load: Workload, environment: dict[str, Any]) -> dict[str, Any]:
    """One record: every method in turns, in float32 and bfloat16."""
    if not torch.cuda.is_available():
        raise SystemExit("--device cuda: this machine has no CUDA device")
    name = torch.cuda.get_device_name()
    record = {"workload": "gpu", "device": name, "sizes": asdict(load), "environment": environment}
    record["methods"] = {}
    for dtype in (torch.bfloat16, torch.float32):
        label = str(dtype).removeprefix("torch.")
        needed = load.documents * load.dims[-1] * dtype.itemsize * 1.3
        if needed > torch.cuda.mem_get_info()[0]:
            continue
        queries, corpus = vectors(load, dtype)
        norms = corpus_norms(corpus, load.dims)
        methods: dict[str, Callable[[], object]] = {
            "nested, norms kept": lambda q=queries, c=corpus, n=norms: nested_topk(
                q, c, load.dims, load.k, norms=n
            ),
            "torch per level": lambda q=queries, c=corpus: per_level(q, c, load),
            "one matrix product": lambda q=queries, c=corpus: product(q, c),
            "copy of the corpus": lambda c=corpus: copy(c),
        }
        for method, rows in take_turns(methods, load.rounds).items():
            record["methods"][f"{method} ({label})"] = rows
        del queries, corpus, norms, methods
    return record


def vectors(load: Workload, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Random unit vectors on the device, the corpus a piece at a time."""
    generator = torch.Generator("cuda").manual_seed(0)

    def draw(n: int) -> Tensor:
        rows = torch.randn(n, load.dims[-1], generator=generator, device="cuda")
        return torch.nn.functional.normalize(rows).to(dtype)

    corpus = torch.empty(load.documents, load.dims[-1], dtype=dtype, device="cuda")
    for start in range(0, load.documents, 2**18):
        corpus[start : start + 2**18] = draw(min(2**18, load.documents - start))
    return draw(load.queries), corpus


def per_level(queries: Tensor, corpus: Tensor, load: Workload) -> None:
    """A product and torch.topk for each level, over blocks of queries; unit vectors made once."""
    for dim in load.dims:
        scale = corpus[:, :dim].float().norm(dim=1).reciprocal().to(corpus.dtype)
        for block in queries[:, :dim].split(max(1, BLOCK // len(corpus))):
            torch.topk((block @ corpus[:, :dim].T).mul_(scale), load.k)


def product(queries: Tensor, corpus: Tensor) -> None:
    """One full matrix product in blocks, nothing kept."""
    for block in corpus.split(max(1, BLOCK // len(queries))):
        queries @ block.T


def copy(corpus: Tensor) -> None:
    """Read and write at most 4 GB of the corpus: the run's bandwidth."""
    corpus[: 2**32 // (corpus.shape[1] * corpus.element_size())].clone()


def take_turns(methods: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, Any]]:
    """Wall time of each method once a round, after one round that compiles and tunes."""
    times: dict[str, list[float]] = {name: [] for name in methods}
    workspace = {}
    for turn in range(rounds + 1):
        for name, method in methods.items():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before, start = torch.cuda.memory_allocated(), time.perf_counter()
            method()
            torch.cuda.synchronize()
            if turn:
                times[name].append(time.perf_counter() - start)
                workspace[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return {
        name: {
            "wall": {
                "median": statistics.median(seconds),
                "min": min(seconds),
                "max": max(seconds),
            },
            "extra_memory_mb": workspace[name],
        }
        for name, seconds in times.items()
    }
