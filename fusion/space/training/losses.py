"""Nested losses: every width of the student against the teacher, in one pass over the columns.

All of them read the student through its cosines with the texts of the batch. The Gram matrix of a
prefix is the running sum of its segments' Gram matrices, so that all widths together cost one full
Gram matrix and not one for each; nothing of shape ``[n, t, d]`` is ever made. The gradient is
nested alike: a segment belongs to its own width and to all wider ones, so their pulls are added up
first and the segment sees one matrix product.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Level = Callable[[Tensor, float], tuple[Tensor, Tensor]]
"""Cosines ``[n, t]`` of one width, and its share of the widest, to the loss (a scalar) and its
derivative by the cosines, which must be 0 for a text and itself. The cosines are only lent."""


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
                texts = len(teacher) - queries
                level = self.level(cosines(_at_least_float32(teacher), texts), queries)
            return _NestedGram.apply(_at_least_float32(student), texts, tuple(dims), level)

    @abstractmethod
    def level(self, target: Tensor, queries: int) -> Level:
        """The loss of one width against the teacher's cosines ``[n, t]``.

        The last rows are queries; of those before them row i is text i, one of the t.
        """


@dataclass(frozen=True)
class GramMSE(NestedLoss):
    """Mean squared difference of the off-diagonal cosines: the paper's loss."""

    def level(self, target: Tensor, queries: int) -> Level:
        """The loss of one width against the teacher's cosines ``[n, n]``; no queries."""
        if queries:
            raise ValueError("the loss mse compares texts only; queries need the loss kl")
        pairs = max(len(target) * (len(target) - 1), 1)

        def mse(cosines: Tensor, _: float) -> tuple[Tensor, Tensor]:
            difference = (cosines - target).fill_diagonal_(0)  # (n, n)
            flat = difference.view(-1)
            value = torch.dot(flat, flat) / pairs
            return value, difference.mul_(2 / pairs)

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

    def level(self, target: Tensor, queries: int) -> Level:
        """The loss of one width against the teacher's cosines ``[n, t]``; queries follow texts."""
        texts, widest = len(target) - queries, self.student_temperature or self.temperature
        log_wanted = _log_neighbours(target, self.temperature, texts)  # (n, t)
        wanted = log_wanted.exp()  # (n, t)
        row = target.new_full((len(target), 1), 1 / texts)  # (n, 1), a mean of texts, of queries
        row[texts:] = 1 / max(queries, 1)
        weighted = wanted * row  # (n, t)
        surprise = (weighted * log_wanted).sum()

        def kl(cosines: Tensor, share: float) -> tuple[Tensor, Tensor]:
            temperature = widest / share**self.spread
            log_given = _log_neighbours(cosines, temperature, texts)  # (n, t)
            value = surprise - torch.dot(weighted.view(-1), log_given.view(-1))
            return value, log_given.exp_().mul_(row).sub_(weighted).div_(temperature)

        return kl


LOSSES: dict[str, type[NestedLoss]] = {"mse": GramMSE, "kl": NeighbourKL}


def cosines(vectors: Tensor, texts: int) -> Tensor:
    """Cosines ``[n, t]`` of ``[n, d]`` with its first rows; a zero vector is at 0 to all."""
    gram = _gram(vectors, texts)  # (n, t)
    inverse = _inverse_norms(vectors.square().sum(dim=1))  # (n,)
    return gram.mul_(inverse[:, None]).mul_(inverse[:texts])


def _gram(vectors: Tensor, texts: int) -> Tensor:
    """Dot products ``[n, t]``; on a CPU those of texts only right of the diagonal, and mirrored."""
    if vectors.device.type != "cpu":
        return vectors @ vectors[:texts].T
    gram = vectors.new_empty(len(vectors), texts)
    stripe = max(128, -(-texts // 4))  # four stripes leave out 6 of 16 tiles
    for top in range(0, texts, stripe):
        bottom = min(top + stripe, texts)
        right = vectors[top:bottom] @ vectors[top:texts].T  # (stripe, t - top)
        gram[top:bottom, top:] = right
        gram[bottom:texts, top:bottom] = right[:, bottom - top :].T
    torch.mm(vectors[texts:], vectors[:texts].T, out=gram[texts:])
    return gram


def _inverse_norms(squares: Tensor) -> Tensor:
    """One over the norm of each vector ``[n]``, from its square; 0 for a zero vector."""
    return torch.where(squares > 0, squares.rsqrt(), 0)


def nested_cosines(rows: Tensor, texts: Tensor, dims: Sequence[int]) -> Iterator[Tensor]:
    """Cosines ``[n, t]`` of rows ``[n, d]`` with texts ``[t, d]``, width by width; no gradient.

    Each is lent until the next is asked for.
    """
    gram, cosines = rows.new_zeros(len(rows), len(texts)), rows.new_empty(len(rows), len(texts))
    squares, start = [rows.new_zeros(len(side)) for side in (rows, texts)], 0
    for stop in dims:
        for total, side in zip(squares, (rows, texts), strict=True):
            total += side[:, start:stop].square().sum(dim=1)
        gram.addmm_(rows[:, start:stop], texts[:, start:stop].T)
        inverses = [_inverse_norms(total) for total in squares]  # (n,), (t,)
        yield torch.mul(gram, inverses[0][:, None], out=cosines).mul_(inverses[1])
        start = stop


def _log_neighbours(similarities: Tensor, temperature: float, texts: int) -> Tensor:
    """Log-probabilities ``[n, t]`` over the texts, of which row i of so many is text i itself."""
    scaled = similarities / temperature  # (n, t)
    # Finite, because 0 * -inf is NaN; exp of it is 0 all the same.
    scaled[:texts].fill_diagonal_(-1e9)
    return torch.log_softmax(scaled, dim=1)


def _at_least_float32(vectors: Tensor) -> Tensor:
    return vectors.float() if vectors.dtype in (torch.bfloat16, torch.float16) else vectors


class _NestedGram(torch.autograd.Function):
    """Loss and gradient in one go, since the levels have all that the gradient needs."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch has no public type for it
        student: Tensor,
        texts: int,
        dims: tuple[int, ...],
        level: Level,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        gram, squares = student.new_zeros(len(student), texts), student.new_zeros(len(student))
        # Written anew at each level: fresh pages from the system would cost more than the sums.
        inverses, cosines = torch.empty_like(gram), torch.empty_like(gram)  # (n, t), (n, t)
        total, pulls, start = student.new_zeros(()), [], 0
        for stop in dims:
            segment = student[:, start:stop]  # (n, stop - start)
            gram.addmm_(segment, segment[:texts].T)
            squares += segment.square().sum(dim=1)
            inverse = _inverse_norms(squares)  # (n,)
            torch.outer(inverse, inverse[:texts], out=inverses)
            torch.mul(gram, inverses, out=cosines)
            value, slope = level(cosines, stop / dims[-1])
            total += value
            if wanted:
                pulls.append(_pull(slope, cosines, inverses, inverse))
            start = stop
        if wanted:
            ctx.save_for_backward(_gradient(student, dims, pulls))
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        (gradient,) = ctx.saved_tensors
        return gradient * grad, None, None, None


Pull = tuple[Tensor, Tensor]
"""What the vectors ``[n, d]`` of a width are moved by: ``[n, t]`` times the texts, of which the
square of the texts is symmetric and the rest also moves the texts; and ``[n]`` times themselves."""


def _pull(slope: Tensor, cosines: Tensor, inverses: Tensor, inverse: Tensor) -> Pull:
    """What, times a width's vectors, is the gradient of its loss by them.

    With G the Gram matrix and cos = G / (|i| |j|), a vector is moved by every vector that it is
    compared with, and by itself, because its own norm stands in the denominator. Overwrites
    ``slope`` and ``cosines``.
    """
    texts = slope.shape[1]
    felt = cosines.mul_(slope)  # (n, t)
    own = felt.sum(dim=1)  # (n,)
    own[:texts] += felt.sum(dim=0)
    pull = slope.mul_(inverses)  # (n, t)
    pull[:texts] += pull[:texts].T.clone()
    return pull, own.mul_(inverse).mul_(inverse)


def _gradient(student: Tensor, dims: tuple[int, ...], pulls: list[Pull]) -> Tensor:
    """Gradient ``[n, d]``: each segment feels its own width and all wider ones."""
    gradient = torch.zeros_like(student)  # (n, d)
    together, own = (torch.zeros_like(part) for part in pulls[0])  # (n, t), (n,)
    texts = together.shape[1]
    for level in range(len(dims) - 1, -1, -1):
        start, stop = dims[level - 1] if level else 0, dims[level]
        for total, part in zip((together, own), pulls[level], strict=True):
            total += part
        segment, moved = student[:, start:stop], gradient[:, start:stop]
        torch.mm(together, segment[:texts], out=moved)
        moved[:texts].addmm_(together[texts:].T, segment[texts:])
        moved -= own[:, None] * segment
    return gradient
