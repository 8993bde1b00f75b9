"""Products that are as far off as their bounds allow, and another way each time."""

import threading

import numpy as np
import torch

from fusion.topk import products
from fusion.topk.bounds import UNIT, error_bounds
from fusion.topk.engines import cpu, per_level, screening

SHARE = 0.9  # of a bound; the rest is for what products really round
SHARE_DOUBLE = 0.3  # where that is more


def noise(rng, sides, dims, bounds, share=SHARE):
    """What a level's dots, those at some places, may be moved by."""
    sizes = [side[:, : dims[-1]].double().square().cumsum(1).sqrt().numpy() for side in sides]

    def rounding(level, at, dots):
        constant, slope = (share * part[level] for part in bounds)
        left, right = (size[rows, dims[level] - 1] for size, rows in zip(sizes, at, strict=True))
        return rng.choice([-1, 1], dots.shape) * (constant * left * right + slope * np.abs(dots))

    return rounding


def noisy_pieces(rng, sides, at, found):
    """Dots of each level, whose every piece may be moved by its own size."""
    moved = 0.0
    for *parts, dots in zip(*sides, found, strict=True):
        for left, right in zip(*parts, strict=True):
            width = left.shape[1]
            moved = moved + noise(rng, (left, right), [width], ([width * UNIT], [0.0]))(0, at, dots)
        yield dots + moved


class Noise:
    """Noisy stand-ins for the products of engines and of what settles their results."""

    def __init__(self):
        self.rng = np.random.default_rng(0)
        self.reached = set()  # which products were noisy
        self.plain, self.sampled = products.accumulated, products.sampled_products
        self.asked, self.searched = threading.local(), cpu._search_block

    def install(self, monkeypatch):
        for room in (per_level, screening):
            monkeypatch.setattr(room, "accumulated", self.accumulated)
        monkeypatch.setattr(cpu, "_search_block", self.search_block)
        monkeypatch.setattr(cpu, "accumulated", self.accumulated_by_cpu)
        monkeypatch.setattr(screening, "sampled_products", self.pairs)
        settling = "fusion.topk.settling.exact.sampled_products"
        monkeypatch.setattr(settling, self.pairs_or_pieces)

    def accumulated(self, room, queries, documents, dims, double=False):
        places, true = np.indices(room.shape), room.copy()
        bounds = error_bounds(tuple(dims), double, False)
        share = SHARE_DOUBLE if double else SHARE
        rounding = noise(self.rng, (queries, documents), dims, bounds, share)
        for level in self.plain(true, queries, documents, dims, double):
            room[...] = true + rounding(level, places, true)
            yield level

    def accumulated_upwards(self, room, queries, documents, dims, double=False):
        """No more noise than levels that are added to one another can have."""
        true, drift, before = room.copy(), 0.0, 0.0
        noisy = self.accumulated(room, queries, documents, dims, double)
        levels = self.plain(true, queries, documents, dims, double)
        for level, _ in zip(levels, noisy, strict=True):
            a, b = (0, *dims)[level : level + 2]
            lengths = (side[:, a:b].double().norm(dim=1).numpy() for side in (queries, documents))
            drift += (b - a) * UNIT * (np.outer(*lengths) + np.abs(before) + np.abs(true)) / 2
            room[...] = true + np.clip(room - true, -SHARE * drift, SHARE * drift)
            before = true.copy()
            yield level

    def accumulated_by_cpu(self, room, queries, documents, dims, double=False):
        """Less noise only where the engine says how large the sums are: of a whole corpus."""
        problem = self.asked.problem
        told = problem.sizes is not None and len(documents) == len(problem.corpus)
        noisy = self.accumulated_upwards if told else self.accumulated
        self.reached.add(noisy.__name__)
        return noisy(room, queries, documents, dims, double)

    def search_block(self, problem, *rest):
        self.asked.problem = problem
        self.searched(problem, *rest)

    def pairs(self, queries, documents, *at):
        sides = [[torch.cat(list(level), dim=1) for level in side] for side in (queries, documents)]
        scale = 2.0**-29 if sides[0][0].dtype == torch.float64 else 1.0
        ends = np.cumsum([level.shape[1] for level in sides[0]]).tolist()
        whole = [torch.cat(side, dim=1) for side in sides]
        rounding = noise(self.rng, whole, ends, error_bounds(tuple(ends), False, False))
        found = self.sampled(*([[level] for level in side] for side in sides), *at)
        for level, dots in enumerate(found):
            yield dots + scale * rounding(level, at[:2], dots)

    def pairs_or_pieces(self, queries, documents, *at):
        pieces = queries[0][0].dtype == torch.float32
        self.reached.add("pieces" if pieces else "pairs")
        if not pieces:
            return self.pairs(queries, documents, *at)
        found = self.sampled(queries, documents, *at)
        return noisy_pieces(self.rng, (queries, documents), at[:2], found)
