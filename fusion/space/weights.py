"""Weights of the blocks without labels: how well a text's query-like part finds the rest of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fusion.samples import evenly_spaced
from fusion.space.blocks import Normalization, check_shapes, row_norms

MAX_PAIRS = 9_000
"""More pairs than these, evenly spaced, do not move the weights."""
SHARES = np.linspace(0, 1, 21)
"""What is tried as the squared weight of a block beside the mean of the others, in parts of 1."""
_MAX_SIMILARITIES = 400_000_000  # of all blocks together: 1.6 GB in float32
_UNIT = 2.0**-24  # half of what a float32 just above 1 may be off
_ROWS = 512  # queries ranked at a time, so that one tile of scores stays in cache
_SETTLED_AT_ONCE = 4096  # pairs whose products are summed in float64 at a time
_ROUNDS = 3
_SETTLED = 0.01  # of the heaviest weight: the pairs tell no smaller steps apart
_CHANCE = 4.0  # standard deviations above chance that a block alone has to reach; its tail is long
_ODDS = 20.0  # how much likelier than its presence a block's absence is when it goes


def choose_weights(
    queries: Sequence[np.ndarray],
    documents: Sequence[np.ndarray],
    normalize: Normalization = Normalization.PER_MODEL,
) -> tuple[float, ...]:
    """Squared weights of the blocks, relative to the heaviest one, from unlabelled text.

    Row i of the queries is a pseudo-query for row i of the documents, for example a paragraph's
    first sentence for the rest of the paragraph. Each block's share is the mean of all shares that
    it might have, each counted by how well the reciprocal ranks of the right documents bear it
    out: with thousands of pairs the share that ranks best, with few of them something between that
    and equal weights. A block gets 0 only where the pairs say so: alone it finds no more than
    chance would, or any share of it ranks worse than none.

    The weights are a function of the arrays alone, the same on every machine: what products in
    float32 leave open about a rank is settled in float64.

    Args:
        queries: one ``[n, d_i]`` array for each encoder, any norm.
        documents: one ``[n, d_i]`` array for each encoder, row by row.
        normalize: how the blocks will be fused.

    Returns:
        One weight for each block; the heaviest has 1.

    Raises:
        ValueError: arrays that do not fit together, or a zero, NaN or infinite row.
    """
    pairs = Pairs.of(queries, documents, normalize)
    blocks = len(documents)
    alone = [pairs.reciprocal_ranks(one) for one in np.eye(blocks)]
    order = sorted(range(blocks), key=lambda i: -alone[i].mean())
    live = [i for i in order if _beats_chance(alone[i])]
    weights = np.isin(range(blocks), live or order).astype(np.float64)  # where nothing tells: equal
    for _ in range(_ROUNDS if len(live) > 2 else 1):  # a line needs no second round
        before = weights
        for block in live[1:]:
            weights = _weigh(pairs, weights, block)
        weights = weights / weights.max()
        if np.abs(weights - before).max() < _SETTLED:
            break
    return tuple(weights.round(3).tolist())


def _beats_chance(ranks: np.ndarray) -> bool:
    """Whether reciprocal ranks ``[n]`` add up to more than those of ranks drawn from 1 to n."""
    each = 1 / np.arange(1, len(ranks) + 1)  # (n,)
    spread = ((each**2).sum() - each.sum() ** 2 / len(each)) ** 0.5  # of the sum of n such draws
    return bool(ranks.sum() > each.sum() + _CHANCE * spread)


def _weigh(pairs: "Pairs", weights: np.ndarray, block: int) -> np.ndarray:
    """Weights ``[blocks]`` with that of one block weighed anew, the others in proportion."""
    one = np.eye(len(weights))[block]
    others = weights * (1 - one)
    others /= others[others > 0].mean()
    lines = [(1 - share) * others + share * one for share in SHARES]
    tried = np.stack([pairs.reciprocal_ranks(line) for line in lines])  # (s, n)
    share = likely_share(tried, SHARES)
    return (1 - share) * others + share * one


def likely_share(tried: np.ndarray, shares: np.ndarray) -> float:
    """The mean of shares, each counted by how likely reciprocal ranks make it.

    A share is as likely as exp(-z²/2), with z the mean by which the best one's reciprocal ranks
    exceed its own, in standard errors of these paired differences. Before any pair is seen all
    shares are equally likely, and the mean of shares from 0 to 1 is a half: equal weights.

    Args:
        tried: ``[s, n]`` reciprocal ranks of n pairs, a row for each share.
        shares: ``[s]``, the first of them 0.

    Returns:
        That mean, or 0 where the absence is much likelier than any presence.
    """
    behind = tried[tried.mean(axis=1).argmax()] - tried  # (s, n)
    errors = behind.std(axis=1) / behind.shape[1] ** 0.5  # (s,)
    z = behind.mean(axis=1) / np.where(errors > 0, errors, 1.0)  # without an error no difference
    likely = np.exp(-(z**2) / 2)  # (s,)
    if likely[0] > _ODDS * likely[1:].mean():
        return 0.0
    return float((likely * shares).sum() / likely.sum())


@dataclass(frozen=True)
class Pairs:
    """Pseudo-queries and their documents, as similarities under each block."""

    similarities: Tensor
    """float32 [blocks, n, n], queries by documents; of unit-norm blocks under ``per-model``."""
    lengths: Tensor
    """float64 [blocks, n], documents' squared norms."""
    asked: tuple[np.ndarray, ...]
    """One float32 [n, d_i] a block: the queries that were compared."""
    given: tuple[np.ndarray, ...]
    """One float32 [n, d_i] a block: the documents."""

    @classmethod
    def of(
        cls,
        queries: Sequence[np.ndarray],
        documents: Sequence[np.ndarray],
        normalize: Normalization = Normalization.PER_MODEL,
    ) -> "Pairs":
        """Compare all queries with all documents, at most ``MAX_PAIRS`` of each, evenly spaced.

        Raises:
            ValueError: arrays that do not fit together, or a zero, NaN or infinite row.
        """
        names = [f"block {i}" for i in range(len(documents))]
        dims = [block.shape[-1] for block in documents]
        for side in (documents, queries):
            check_shapes(side, names, dims)
        if len(queries[0]) != len(documents[0]) or len(queries[0]) < 2:
            raise ValueError(
                f"choosing weights needs pairs, got {len(queries[0])} queries "
                f"and {len(documents[0])} documents"
            )
        most = min(MAX_PAIRS, int((_MAX_SIMILARITIES / len(documents)) ** 0.5), len(queries[0]))
        rows = evenly_spaced(len(queries[0]), most)  # (n,)
        products = torch.empty(len(documents), most, most)  # (blocks, n, n)
        lengths = torch.ones(len(documents), most, dtype=torch.float64)  # (blocks, n)
        sides: tuple[list[np.ndarray], list[np.ndarray]] = [], []
        for i, (name, asked, given) in enumerate(zip(names, queries, documents, strict=True)):
            asked, given = (np.asarray(side, dtype=np.float32) for side in (asked, given))
            asked_norms, given_norms = (
                row_norms(side, name)[rows] for side in (asked, given)
            )  # (n, 1)
            asked, given = asked[rows], given[rows]  # (n, d_i)
            if Normalization(normalize) is Normalization.PER_MODEL:
                asked, given = asked / asked_norms, given / given_norms
            else:
                lengths[i] = torch.from_numpy(_dots(given, given))
            torch.mm(torch.from_numpy(asked), torch.from_numpy(given).T, out=products[i])
            for side, rows_of in zip(sides, (asked, given), strict=True):
                side.append(rows_of)
        return cls(products, lengths, tuple(sides[0]), tuple(sides[1]))

    def reciprocal_ranks(self, weights: np.ndarray) -> np.ndarray:
        """1 / rank ``[n]`` of each query's own document under the cosine of the weighted blocks.

        Args:
            weights: ``[blocks]`` squared weights, not all 0; their scale changes nothing.
        """
        used = [(i, float(weight)) for i, weight in enumerate(weights) if weight]
        (first, weight), *more = used
        # A query's norm changes no ranking; a document's does, unless all blocks are unit-norm.
        norms = torch.stack([w * self.lengths[i] for i, w in used]).sum(dim=0).sqrt()  # (n,)
        noise = torch.from_numpy(self._noise(used)).float()[:, None]  # (n, 1)
        found = []
        for start in range(0, self.count, _ROWS):
            rows = slice(start, start + _ROWS)
            scores = self.similarities[first, rows] * weight  # (rows, n)
            for i, w in more:
                scores.add_(self.similarities[i, rows], alpha=w)
            scores.div_(norms.float())
            own = scores.diagonal(offset=start)[:, None]  # (rows, 1)
            above = _counted(scores > own + noise[rows])  # (rows,)
            maybe = _counted(scores >= own - noise[rows])  # (rows,) its own document always
            left = np.flatnonzero(maybe - above > 1)
            open_, mine, around = scores[left], own[left], noise[rows][left]
            near = (open_ >= mine - around) & (open_ <= mine + around)  # (left, n)
            at, documents = near.numpy().nonzero()
            really = self._above(start + left[at], documents, used, norms.numpy())
            above += np.bincount(left[at][really], minlength=len(above))
            found.append(1.0 / (1 + above))
        return np.concatenate(found)

    def _noise(self, used: Sequence[tuple[int, float]]) -> np.ndarray:
        """Float64 [n]: more than two scores of a query can be wrong by together."""
        width = max(self.asked[i].shape[1] for i, _ in used)
        lengths = sum(w * _dots(self.asked[i], self.asked[i]) for i, w in used)  # (n,)
        return 2 * (width + 4 * len(used) + 8) * _UNIT * np.sqrt(lengths)

    def _above(
        self,
        queries: np.ndarray,
        documents: np.ndarray,
        used: Sequence[tuple[int, float]],
        norms: np.ndarray,
    ) -> np.ndarray:
        """Bool [m]: whether a document scores above the query's own, summed in float64."""
        found = self.copies[documents] != self.copies[queries]  # copies tie, and may be many
        (asking,) = found.nonzero()
        for start in range(0, len(asking), _SETTLED_AT_ONCE):
            at = asking[start : start + _SETTLED_AT_ONCE]
            theirs, own = (
                sum(w * _dots(self.asked[i][queries[at]], self.given[i][rows]) for i, w in used)
                / norms[rows]
                for rows in (documents[at], queries[at])
            )
            found[at] = theirs > own
        return found

    @cached_property
    def copies(self) -> np.ndarray:
        """int64 [n], the first document that each one equals in every block."""
        firsts: dict[bytes, int] = {}
        rows = (b"".join(block[row].tobytes() for block in self.given) for row in range(self.count))
        return np.array([firsts.setdefault(key, row) for row, key in enumerate(rows)])

    @property
    def count(self) -> int:
        """How many pairs, n."""
        return self.similarities.shape[1]


def _counted(found: Tensor) -> np.ndarray:
    """How many of each row are true, int64; torch takes four times as long."""
    return np.count_nonzero(found.numpy(), axis=1)


def _dots(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Products of rows float [n, d] with rows, float64 [n], one sum at a time.

    The order of the sum depends on d alone, so that equal rows have equal products anywhere.
    """
    return np.multiply(left, right, dtype=np.float64).sum(axis=1)
