"""Nested losses: every width of the student against the teacher, in one pass over the columns.

All of them read the student through its cosine matrices. The Gram matrix of a prefix is the running
sum of its segments' Gram matrices, so that all widths together cost one full Gram matrix and not
one for each; nothing of shape ``[n, n, d]`` is ever made. The gradient is nested alike: a segment
belongs to its own width and to all wider ones, so their pulls are added up first and the segment
sees one matrix product.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Level = Callable[[Tensor, float], tuple[Tensor, Tensor]]
"""Cosines ``[n, n]`` of one width, and its share of the widest, to the loss (a scalar) and
slope + slopeᵀ, where the slope is the loss's derivative by the cosines; the diagonal must carry no
slope. The cosines are only lent."""


class NestedLoss(ABC):
    """A loss on the cosine matrix of each width, summed over the widths."""

    def __call__(
        self, student: Tensor, teacher: Tensor, dims: Sequence[int], queries: int = 0
    ) -> Tensor:
        """The scalar loss; gradients reach the student only.

        Args:
            student: nested vectors ``[n, d]``, any norm.
            teacher: embeddings ``[n, D]`` of the same texts, any norm.
            dims: increasing widths of the student to compare, the last at most d.
            queries: so many rows at the end are queries: they are compared with the texts before
                them, and nothing is compared with them. Both kinds of rows weigh alike.
        """
        # Half-precision cosines would round away the differences that decide a ranking.
        with torch.autocast(student.device.type, enabled=False):
            with torch.no_grad():
                level = self.level(cosines(_at_least_float32(teacher)), len(teacher) - queries)
            return _NestedGram.apply(_at_least_float32(student), tuple(dims), level)

    @abstractmethod
    def level(self, target: Tensor, texts: int) -> Level:
        """The loss of one width against the teacher's cosines ``[n, n]``; queries follow texts."""


@dataclass(frozen=True)
class GramMSE(NestedLoss):
    """Mean squared difference of the off-diagonal cosines: the paper's loss."""

    def level(self, target: Tensor, texts: int) -> Level:
        """The loss of one width against the teacher's cosines ``[n, n]``; no queries."""
        if texts < len(target):
            raise ValueError("the loss mse compares texts only; queries need the loss kl")
        pairs = max(len(target) * (len(target) - 1), 1)

        def mse(cosines: Tensor, _: float) -> tuple[Tensor, Tensor]:
            difference = (cosines - target).fill_diagonal_(0)  # (n, n)
            flat = difference.view(-1)
            value = torch.dot(flat, flat) / pairs
            return value, difference.mul_(4 / pairs)  # symmetric: 2 / pairs, twice

        return mse


@dataclass(frozen=True)
class NeighbourKL(NestedLoss):
    """Divergence of each text's distribution over its neighbours in the batch.

    The neighbours of a text are all other texts of the batch, with softmax(cosine / temperature):
    near ones weigh, far ones hardly count, so what is kept is the ranking. Mean over the texts of
    KL(teacher || student).
    """

    temperature: float = 0.05
    """Of the teacher; lower looks at fewer neighbours."""
    student_temperature: float | None = None
    """Of the student at its widest, None for the teacher's. A higher one asks for wider gaps
    between near and far than the teacher's own."""
    spread: float = 0.0
    """A width w of D columns has the student's temperature times (D / w) ** spread: cosines of few
    columns spread wider, and what counts is their order."""

    def __post_init__(self) -> None:
        for name in ("temperature", "student_temperature"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.spread < 0:
            raise ValueError(f"spread must be 0 or more, got {self.spread}")

    def level(self, target: Tensor, texts: int) -> Level:
        """The loss of one width against the teacher's cosines ``[n, n]``; queries follow texts."""
        n, t, widest = len(target), texts, self.student_temperature or self.temperature
        log_wanted = _log_neighbours(target[:, :t], self.temperature)  # (n, t)
        wanted = log_wanted.exp()  # (n, t)
        row = target.new_full((n, 1), 1 / t)  # (n, 1), texts and queries: a mean of each
        row[t:] = 1 / max(n - t, 1)
        weighted = wanted * row  # (n, t)
        surprise = (weighted * log_wanted).sum()

        def kl(cosines: Tensor, share: float) -> tuple[Tensor, Tensor]:
            temperature = widest / share**self.spread
            log_given = _log_neighbours(cosines[:, :t], temperature)  # (n, t)
            value = surprise - torch.dot(weighted.view(-1), log_given.view(-1))
            slope = log_given.exp_().mul_(row).sub_(weighted).div_(temperature)  # (n, t)
            if t == n:
                return value, slope + slope.T
            both = target.new_zeros(n, n)  # (n, n)
            both[:, :t] = slope
            both[:t] += slope.T
            return value, both

        return kl


LOSSES: dict[str, type[NestedLoss]] = {"mse": GramMSE, "kl": NeighbourKL}


def cosines(vectors: Tensor) -> Tensor:
    """The cosine matrix ``[n, n]`` of ``[n, d]``; a zero vector is at cosine 0 to all."""
    gram = _gram(vectors)  # (n, n)
    inverse = _inverse_norms(gram)  # (n,)
    return gram.mul_(inverse[:, None]).mul_(inverse)


def _gram(vectors: Tensor) -> Tensor:
    """Dot products ``[n, n]``; on a CPU only those right of the diagonal, and mirrored."""
    if vectors.device.type != "cpu":
        return vectors @ vectors.T
    n = len(vectors)
    gram = vectors.new_empty(n, n)
    stripe = max(128, -(-n // 4))  # four stripes leave out 6 of 16 tiles
    for top in range(0, n, stripe):
        bottom = min(top + stripe, n)
        right = vectors[top:bottom] @ vectors[top:].T  # (stripe, n - top)
        gram[top:bottom, top:] = right
        gram[bottom:, top:bottom] = right[:, bottom - top :].T
    return gram


def _inverse_norms(gram: Tensor) -> Tensor:
    """One over the norm of each vector ``[n]``; 0 for a zero vector."""
    norms = gram.diagonal().sqrt()  # (n,)
    return torch.where(norms > 0, 1 / norms, 0)


def _log_neighbours(similarities: Tensor, temperature: float) -> Tensor:
    """Log-probabilities ``[n, n]`` over the other texts."""
    # Finite, because 0 * -inf is NaN; exp of it is 0 all the same.
    scaled = (similarities / temperature).fill_diagonal_(-1e9)  # (n, n)
    return torch.log_softmax(scaled, dim=1)


def _at_least_float32(vectors: Tensor) -> Tensor:
    return vectors.float() if vectors.dtype in (torch.bfloat16, torch.float16) else vectors


class _NestedGram(torch.autograd.Function):
    """Loss and gradient in one go, since the levels have all that the gradient needs."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, dims: tuple[int, ...], level: Level) -> Tensor:  # noqa: ANN401 - torch has no public type for it
        wanted = ctx.needs_input_grad[0]
        gram = student.new_zeros(len(student), len(student))  # (n, n)
        # Written anew at each level: fresh pages from the system would cost more than the sums.
        inverses, cosines = torch.empty_like(gram), torch.empty_like(gram)  # (n, n), (n, n)
        total, pulls, start = student.new_zeros(()), [], 0
        for stop in dims:
            segment = student[:, start:stop]  # (n, stop - start)
            gram.addmm_(segment, segment.T)
            inverse = _inverse_norms(gram)  # (n,)
            torch.outer(inverse, inverse, out=inverses)
            torch.mul(gram, inverses, out=cosines)
            value, slope = level(cosines, stop / dims[-1])
            total += value
            if wanted:
                pulls.append(_pull(slope, cosines, inverses))
            start = stop
        if wanted:
            ctx.save_for_backward(_gradient(student, dims, pulls))
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (gradient,) = ctx.saved_tensors
        return gradient * grad, None, None


def _pull(slope: Tensor, cosines: Tensor, inverses: Tensor) -> Tensor:
    """The matrix ``[n, n]`` that, times a width's vectors, is the gradient of its loss by them.

    With G the Gram matrix and cos = G / (|i| |j|), a vector is moved by every vector that it is
    compared with, and by itself, because its own norm stands in the denominator. Overwrites
    ``slope`` and ``cosines``.
    """
    own = cosines.mul_(slope).sum(dim=1)  # (n,)
    pull = slope.mul_(inverses)  # (n, n)
    pull.diagonal().sub_(own * inverses.diagonal())
    return pull


def _gradient(student: Tensor, dims: tuple[int, ...], pulls: list[Tensor]) -> Tensor:
    """Gradient ``[n, d]``: each segment feels its own width and all wider ones."""
    gradient = torch.zeros_like(student)  # (n, d)
    together = torch.zeros_like(pulls[0])  # (n, n)
    for level in range(len(dims) - 1, -1, -1):
        start = dims[level - 1] if level else 0
        together += pulls[level]
        gradient[:, start : dims[level]] = together @ student[:, start : dims[level]]
    return gradient
