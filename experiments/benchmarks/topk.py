"""All nested levels in one pass against one search a level, as everybody else does it.

    python experiments/benchmarks/topk.py --workload small --threads 1
    python experiments/benchmarks/topk.py --workload small --memory
    python experiments/benchmarks/topk.py --workload arguana --encoders minilm,wordllama
    python experiments/benchmarks/topk.py --device cuda --workload large

All methods take turns in one process; each is timed by the CPU time of the process, which leaves
out what the neighbours on a shared machine take, and by the wall clock (on a GPU by the wall clock
only). Peak extra memory is measured in a fresh process for each method. To expect on one core:
4.5 times torch per level at 1,406 x 8,674 documents, 6 times at 300 x 200,000.

Needs faiss-cpu, mteb and usearch beside the package for the peers of these names; a peer that is
not installed is left out. Appends one record to experiments/results/benchmark_topk.json;
render_topk.py makes Markdown of it.
"""

import argparse
import heapq
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from records import LIBRARIES, append, environment, version
from torch import Tensor
from workloads import WORKLOADS, Workload

from fusion.topk.engines import cpu
from fusion.topk.nested import corpus_norms, nested_topk
from fusion.topk.problem import pose

RESULTS = Path(__file__).parents[1] / "results" / "benchmark_topk.json"
CLOCKS = ("cpu", "wall")
BLOCK = 2**25  # scores that the plain per-level search holds at a time


@dataclass
class Bench:
    """The data of a workload and what is prepared once for each method."""

    load: Workload
    queries: Tensor
    corpus: Tensor
    prepared: dict[str, Any] = field(default_factory=dict)

    @property
    def levels(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Unit vectors of each level, as a search a level must make them."""
        for dim in self.load.dims:
            yield F.normalize(self.queries[:, :dim]), F.normalize(self.corpus[:, :dim])


def nested(bench: Bench) -> Tensor:
    """This package."""
    return nested_topk(bench.queries, bench.corpus, bench.load.dims, bench.load.k)[1]


def nested_cached(bench: Bench) -> Tensor:
    """This package, with the corpus's norms kept from an earlier search."""
    if "norms" not in bench.prepared:
        bench.prepared["norms"] = corpus_norms(bench.corpus, bench.load.dims)
    norms = bench.prepared["norms"]
    return nested_topk(bench.queries, bench.corpus, bench.load.dims, bench.load.k, norms=norms)[1]


def unsettled(bench: Bench) -> Tensor:
    """The engine alone, whose float32 leaves near ties in any order: what settling them costs."""
    problem = pose(bench.queries, bench.corpus, bench.load.dims, bench.load.k, None, None)
    return cpu.search(problem)[1]


def torch_per_level(bench: Bench) -> Tensor:
    """A matrix product and torch.topk for each level, in blocks of queries."""
    found = []
    for queries, corpus in bench.levels:
        blocks = queries.split(max(1, BLOCK // len(corpus)))
        found.append(torch.cat([torch.topk(q @ corpus.T, bench.load.k).indices for q in blocks]))
    return torch.stack(found)


def torch_onednn(bench: Bench) -> Tensor:
    """The same on oneDNN's kernels."""
    with onednn():
        return torch_per_level(bench)


def faiss_per_level(bench: Bench) -> Tensor:
    """A faiss.IndexFlatIP for each level."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    found = []
    for queries, corpus in bench.levels:
        index = faiss.IndexFlatIP(queries.shape[1])
        index.add(corpus.numpy())
        found.append(torch.from_numpy(index.search(queries.numpy(), bench.load.k)[1]))
    return torch.stack(found)


def st_per_level(bench: Bench) -> Tensor:
    """sentence_transformers.util.semantic_search for each level."""
    from sentence_transformers.util import semantic_search

    found = []
    for dim in bench.load.dims:
        hits = semantic_search(bench.queries[:, :dim], bench.corpus[:, :dim], top_k=bench.load.k)
        found.append([[hit["corpus_id"] for hit in row] for row in hits])
    return torch.tensor(found)


def mteb_per_level(bench: Bench) -> Tensor:
    """The corpus search of mteb for each level: its chunks and heaps, without the encoding."""
    from mteb.similarity_functions import cos_sim

    found, k, chunk = [], bench.load.k, 50_000
    for dim in bench.load.dims:
        heaps: list[list[tuple[float, int]]] = [[] for _ in bench.queries]
        for start in range(0, len(bench.corpus), chunk):
            scores = cos_sim(bench.queries[:, :dim], bench.corpus[start : start + chunk, :dim])
            best = torch.topk(scores, min(k + 1, scores.shape[1]), dim=1)
            for heap, values, rows in zip(
                heaps, best.values.tolist(), best.indices.tolist(), strict=True
            ):
                for value, row in zip(values, rows, strict=True):
                    push = heapq.heappush if len(heap) < k else heapq.heappushpop
                    push(heap, (value, start + row))
        found.append([[row for _, row in sorted(heap, reverse=True)] for heap in heaps])
    return torch.tensor(found)


def usearch_subset(bench: Bench) -> None:
    """Exact search by usearch for each level, on 32 queries and 8,192 documents."""
    from usearch.index import MetricKind, search

    for dim in bench.load.dims:
        queries, corpus = bench.queries[:32, :dim].numpy(), bench.corpus[:8192, :dim].numpy()
        search(
            np.ascontiguousarray(corpus), np.ascontiguousarray(queries), bench.load.k,
            MetricKind.Cos, exact=True, threads=torch.get_num_threads(),
        )  # fmt: skip


def product(bench: Bench) -> None:
    """The floor: one full matrix product in tiles, nothing kept; the faster backend counts."""
    for block in bench.corpus.split(8192):
        bench.queries @ block[:, : bench.load.dims[-1]].T


def product_onednn(bench: Bench) -> None:
    """The same floor on oneDNN's kernels."""
    with onednn():
        product(bench)


METHODS: dict[str, Callable[[Bench], Tensor | None]] = {
    "nested": nested,
    "nested, norms kept": nested_cached,
    "nested, near ties left": unsettled,
    "torch per level": torch_per_level,
    "torch per level, oneDNN": torch_onednn,
    "faiss IndexFlatIP per level": faiss_per_level,
    "ST semantic_search per level": st_per_level,
    "mteb's loop per level": mteb_per_level,
    "usearch exact (subset)": usearch_subset,
    "one matrix product": product,
    "one matrix product, oneDNN": product_onednn,
}
NEEDS = {
    "faiss": "faiss-cpu",
    "ST": "sentence-transformers",
    "mteb's": "mteb",
    "usearch": "usearch",
}


@contextmanager
def onednn() -> Iterator[None]:
    """Products by oneDNN, as the fastest float32 kernels of some processors."""
    switch = torch.backends.mkldnn.matmul
    before, switch.fp32_precision = switch.fp32_precision, "bf16"
    try:
        yield
    finally:
        switch.fp32_precision = before


def make(name: str, encoders: str, seed: int) -> Bench:
    """The vectors of a workload: random unit vectors, or real embeddings of ArguAna."""
    load = WORKLOADS[name]
    if not name.startswith("arguana"):
        generator = torch.Generator().manual_seed(seed)
        rows = (load.queries, load.documents)
        return Bench(
            load, *(F.normalize(torch.randn(n, load.dims[-1], generator=generator)) for n in rows)
        )
    from fusion.inputs.data.retrieval import load_data
    from fusion.inputs.encoders.catalogue import Role
    from fusion.inputs.encoders.text import load_encoder
    from fusion.inputs.store.store import Store
    from fusion.space.blocks import Blocks

    data, store = load_data("arguana"), Store()
    models = [load_encoder(encoder) for encoder in encoders.split(",")]
    blocks = Blocks(tuple(m.name for m in models), tuple(m.dim for m in models))
    sides = (
        (data.queries, Role.QUERY, data.query_ids),
        (data.documents, Role.DOCUMENT, data.doc_ids),
    )
    queries, corpus = (
        torch.from_numpy(blocks.transform([store.embed(m, texts, role, ids) for m in models]))
        for texts, role, ids in sides
    )
    if name.endswith("shuffled"):
        corpus = corpus[torch.randperm(len(corpus), generator=torch.Generator().manual_seed(seed))]
    return Bench(load, queries, corpus)


def available(only: str | None) -> list[str]:
    """The methods whose libraries are installed, or those asked for."""
    installed = {name for name in LIBRARIES if version(name)}
    names = [n for n in METHODS if NEEDS.get(n.split()[0], "torch") in installed]
    return [n for n in names if only is None or any(part in n for part in only.split(","))]


def take_turns(bench: Bench, names: list[str], rounds: int) -> dict[str, dict[str, Any]]:
    """Time every method once a round, after one round on a slice that loads its libraries."""
    warm = Bench(bench.load, bench.queries[:64], bench.corpus[: max(2 * bench.load.k, 2000)])
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    first: dict[str, Tensor | None] = {}
    for name in names:
        METHODS[name](warm)
    for _ in range(rounds):
        for name in names:
            if name == "nested, norms kept":
                METHODS[name](bench) if "norms" not in bench.prepared else None
            wall, cpu = time.perf_counter(), time.process_time()
            found = METHODS[name](bench)
            times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
            first.setdefault(name, found)
    return {name: summary(times[name], first[name], first.get("nested")) for name in names}


def summary(
    times: list[tuple[float, float]], found: Tensor | None, ours: Tensor | None
) -> dict[str, Any]:
    """Median and range of both clocks, and how many results are ours (ties may differ)."""
    row: dict[str, Any] = {}
    for clock, seconds in zip(CLOCKS, zip(*times, strict=True), strict=True):
        row[clock] = {
            "median": statistics.median(seconds),
            "min": min(seconds),
            "max": max(seconds),
        }
    if found is not None and ours is not None:
        row["same_results"] = float((found == ours).double().mean())
    return row


def peak_memory(name: str, arguments: argparse.Namespace) -> float:
    """Megabytes that a method needs beyond its inputs, measured in a process of its own."""
    command = [sys.executable, __file__, "--workload", arguments.workload, "--memory-of", name]
    command += ["--threads", str(arguments.threads), "--encoders", arguments.encoders]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_memory(name: str, bench: Bench) -> None:
    """Print the growth of the peak of resident memory over one search."""
    small = Bench(bench.load, bench.queries[:64], bench.corpus[: max(2 * bench.load.k, 2000)])
    METHODS[name](small)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = resident("VmRSS")
    METHODS[name](bench)
    print((resident("VmHWM") - before) / 1024)


def resident(key: str) -> int:
    """Kilobytes of this process's memory, as Linux counts them."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split(f"{key}:")[1].split()[0])


def main() -> None:
    """Run one workload and append its record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--workload", choices=sorted(WORKLOADS), default="small")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, help="instead of the workload's own number")
    parser.add_argument("--methods", help="comma list of parts of names")
    parser.add_argument("--encoders", default="minilm,wordllama", help="for arguana")
    parser.add_argument("--memory", action="store_true", help="measure memory, not time")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.device == "cuda":
        import topk_cuda

        append(RESULTS, topk_cuda.measure(WORKLOADS[arguments.workload], environment(0)))
        return
    torch.set_num_threads(arguments.threads)
    bench = make(arguments.workload, arguments.encoders, seed=0)
    if arguments.memory_of:
        print_memory(arguments.memory_of, bench)
        return
    names = available(arguments.methods)
    rounds = arguments.rounds or bench.load.rounds
    if arguments.memory:
        rows = {n: {"extra_memory_mb": peak_memory(n, arguments)} for n in names}
    else:
        rows = take_turns(bench, names, rounds)
    sizes = asdict(bench.load) | {"rounds": rounds}
    append(
        RESULTS,
        {"workload": arguments.workload, "device": "cpu", "sizes": sizes, "methods": rows}
        | {"environment": environment(arguments.threads)},
    )
    for name, row in rows.items():
        print(f"{name:32s}", *(f"{k} {v['median']:.3f} s" for k, v in row.items() if k in CLOCKS))


if __name__ == "__main__":
    main()
