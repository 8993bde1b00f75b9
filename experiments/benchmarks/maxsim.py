"""Late interaction of ragged token vectors against the padded ways of doing it.

    python experiments/benchmarks/maxsim.py
    python experiments/benchmarks/maxsim.py --workload corpus --dims 128

All methods take turns in one process on one thread, and each is timed by the CPU time of the
process; medians count. `candidates` ranks 100 documents of 60 to 256 tokens, which stand apart from
one another in a larger corpus, for a query of 30 tokens; `corpus` ranks 5,000 documents of 200
tokens for such a query. Tokens are noise and, by a share that differs from document to document,
a vector that the query has too, so that scores lie apart; those of mere noise agree to the fourth
digit, and a third of them has to be settled. All are unit-norm at the full width, as peers need.
Peers are given the documents as the tensors that they take, for nothing. All of them rank at one
width; "all widths" is this package at an eighth, a quarter, a half and all of the columns,
"norms measured" measures the norms anew, which the others keep or take for granted, and "int8" has
both sides in int8. Bare products are torch's, whole and in strips, and numpy's in parts so small
that its BLAS does not pack them, which is how this package multiplies.

To expect on one core of a crowded server, for candidates: less than torch's bare product at 384
columns and 1.5 times it at 128; sentence-transformers takes five times and twice as long as this.

Needs sentence-transformers with maxsim (6.2) for the peer of this name; it is left out elsewhere.
Appends a record a workload and width to experiments/results/benchmark_maxsim.json.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from records import append, environment
from torch import Tensor

from fusion import Ragged, maxsim_topk
from fusion.topk.nested import corpus_norms
from fusion.topk.products import tuned_products

RESULTS = Path(__file__).parents[1] / "results" / "benchmark_maxsim.json"
TOKENS = 30  # of a query
PARTS = 64  # small products that numpy is asked for at a time
PADDED = 2**24  # numbers that the padded loop holds at a time


@dataclass(frozen=True)
class Workload:
    """The sizes of a search."""

    queries: int
    ranked: int
    """Documents that each query is scored with."""
    documents: int
    fewest: int
    """Tokens of a document, at least."""
    most: int
    k: int
    rounds: int


WORKLOADS = {
    "candidates": Workload(1, 100, 1000, 60, 256, 100, 51),
    "corpus": Workload(1, 5000, 5000, 200, 200, 100, 5),
}


class Bench:
    """The vectors of a workload, and what each method is given of them."""

    def __init__(self, load: Workload, dim: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        counts = rng.integers(load.fewest, load.most + 1, load.documents)
        generator = torch.Generator().manual_seed(seed)
        common = torch.randn(dim, generator=generator)
        shares = torch.rand(load.documents, generator=generator)
        shares = shares.repeat_interleave(torch.from_numpy(counts))[:, None]
        rows = torch.randn(len(shares), dim, generator=generator).addcmul_(shares, common)
        rows = F.normalize(rows)
        asked = F.normalize(common + torch.randn(load.queries * TOKENS, dim, generator=generator))
        self.load, self.dim = load, dim
        self.documents = Ragged(rows, np.cumsum([0, *counts]))
        self.queries = Ragged(asked, np.arange(load.queries + 1) * TOKENS)
        self.nested = [dim // 8, dim // 4, dim // 2, dim]
        self.norms = {len(dims): corpus_norms(rows, dims) for dims in ([dim], self.nested)}
        self.codes = [
            Ragged(side.rows.div(side.rows.abs().max() / 127).round().to(torch.int8), side.offsets)
            for side in (self.queries, self.documents)
        ]
        self.code_norms = corpus_norms(self.codes[1].rows, [dim])
        self.ranked = np.sort(rng.permutation(load.documents)[: load.ranked])

    @cached_property
    def items(self) -> list[Tensor]:
        """The tokens of the documents that are ranked."""
        return [self.documents[i] for i in self.ranked.tolist()]

    @cached_property
    def joined(self) -> Tensor:
        """The same side by side."""
        return torch.cat(self.items) if self.whole is not None else self.documents.rows

    @property
    def whole(self) -> np.ndarray | None:
        """Candidates int64 [q, m], or None where all documents are ranked."""
        if self.load.ranked == self.load.documents:
            return None
        return np.tile(self.ranked, (self.load.queries, 1))

    @property
    def asked(self) -> list[Tensor]:
        """The tokens of each query."""
        return [self.queries[i] for i in range(len(self.queries))]


def ours(bench: Bench, nested: bool = False, kept: bool = True) -> Tensor:
    """This package."""
    dims = bench.nested if nested else [bench.dim]
    norms = bench.norms[len(dims)] if kept else None
    return maxsim_topk(
        bench.queries, bench.documents, dims, bench.load.k, bench.whole, norms=norms
    )[1][-1]


def coded(bench: Bench) -> Tensor:
    """This package with queries and documents in int8, all of one step."""
    return maxsim_topk(
        *bench.codes, [bench.dim], bench.load.k, bench.whole, norms=bench.code_norms
    )[1][-1]


def sentence_transformers(bench: Bench) -> Tensor:
    """Its maxsim, and the best of the scores."""
    from sentence_transformers.util import maxsim

    scores = maxsim(bench.asked, bench.items)
    return torch.from_numpy(bench.ranked)[torch.topk(scores, bench.load.k).indices]


def padded_loop(bench: Bench) -> Tensor:
    """Documents padded in batches, a product, a mask, a maximum, as one writes it at first."""
    width = max(len(item) for item in bench.items)
    batch = max(1, PADDED // (width * bench.dim))
    parts = []
    for first in range(0, len(bench.items), batch):
        items = bench.items[first : first + batch]
        padded = torch.nn.utils.rnn.pad_sequence(items, batch_first=True)  # (n, t, d)
        lengths = torch.tensor([len(item) for item in items])
        absent = torch.arange(padded.shape[1]) >= lengths[:, None]  # (n, t)
        cosines = torch.einsum("qd,ntd->qnt", bench.queries.rows, padded)
        best = cosines.masked_fill_(absent, -torch.inf).amax(dim=2)  # (queries' tokens, n)
        parts.append(best.view(len(bench.queries), TOKENS, -1).mean(dim=1))
    scores = torch.cat(parts, dim=1)
    return torch.from_numpy(bench.ranked)[torch.topk(scores, bench.load.k).indices]


def product(bench: Bench, strip: int) -> None:
    """The floor: the bare product of documents that stand side by side, nothing kept."""
    for rows in bench.joined.split(strip):
        bench.queries.rows @ rows.T


def product_tuned(bench: Bench, strip: int) -> None:
    """The same floor as this package's products run; the fastest counts."""
    with tuned_products():
        product(bench, strip)


def product_small(bench: Bench, most: int) -> None:
    """The same floor in products of so many multiplications, which numpy's BLAS does not pack."""
    left = np.zeros((bench.dim, 32 * -(-len(bench.queries.rows) // 32)), np.float32)
    left[:, : len(bench.queries.rows)] = bench.queries.rows.numpy().T
    height = most // left.size
    count = min(PARTS, len(bench.joined) // height)
    room = np.empty((count, height, left.shape[1]), np.float32)
    parts = bench.joined[: len(bench.joined) // (count * height) * (count * height)].numpy()
    for rows in parts.reshape(-1, count, height, bench.dim):
        np.matmul(rows, left, out=room)


METHODS: dict[str, Callable[[Bench], Tensor | None]] = {
    "maxsim_topk": ours,
    "maxsim_topk, all widths": partial(ours, nested=True),
    "maxsim_topk, norms measured": partial(ours, kept=False),
    "maxsim_topk, int8": coded,
    "sentence-transformers maxsim": sentence_transformers,
    "padded torch loop": padded_loop,
    "bare product": partial(product, strip=2**30),
    "bare product, strips": partial(product_tuned, strip=1024),
    "bare product, small": partial(product_small, most=2**19),
}


def available() -> list[str]:
    """The methods that can run here."""
    try:
        from sentence_transformers.util import maxsim  # noqa: F401
    except ImportError:
        return [name for name in METHODS if not name.startswith("sentence")]
    return list(METHODS)


def take_turns(bench: Bench, rounds: int) -> dict[str, dict[str, Any]]:
    """Time every method once a round, after one round that counts for nothing."""
    names = available()
    found = {name: METHODS[name](bench) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            start = time.process_time()
            METHODS[name](bench)
            seconds[name].append(time.process_time() - start)
    return {name: _row(seconds[name], found[name], found["maxsim_topk"]) for name in names}


def _row(seconds: list[float], found: Tensor | None, ours: Tensor | None) -> dict[str, Any]:
    """The median and range of CPU seconds, and how many results are ours."""
    row: dict[str, Any] = {
        "cpu": {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
    }
    if found is not None and ours is not None:
        row["same_results"] = float((found == ours).double().mean())
    return row


def main() -> None:
    """Time the workloads and append their records."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workload", choices=sorted(WORKLOADS), help="only this one")
    parser.add_argument("--dims", default="128,384", help="comma list of widths")
    parser.add_argument("--rounds", type=int, help="instead of the workload's own number")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in [arguments.workload] if arguments.workload else WORKLOADS:
        for dim in map(int, arguments.dims.split(",")):
            load = WORKLOADS[name]
            rounds = arguments.rounds or load.rounds
            rows = take_turns(Bench(load, dim, seed=0), rounds)
            sizes = vars(load) | {"dim": dim, "tokens": TOKENS, "rounds": rounds}
            record = {"workload": name, "sizes": sizes, "methods": rows}
            if not arguments.dry:
                append(RESULTS, record | {"environment": environment(1)})
            print(f"{name}, {dim} columns")
            for method, row in rows.items():
                print(f"  {method:30s} {1e3 * row['cpu']['median']:9.2f} ms")


if __name__ == "__main__":
    main()
