"""How float32 matrix products run: one thread each, on the fastest backend that keeps float32."""

import threading
import timeit
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion.topk.norms import FLOAT32

FEW = 32  # queries
SMALL = 2**19  # multiplications of a product that numpy's BLAS keeps on one thread
READ = 256  # documents that few queries read at a time
WORN = 3 / 4  # of the pairs: so few are still asked for that it pays to drop the others
_lock = threading.Lock()
_users = 0
_before: tuple[int, str | None] = (1, None)


@contextmanager
def tuned_products() -> Iterator[None]:
    """Let every product inside run on one thread and on oneDNN where that keeps float32 accuracy.

    Of several concurrent users the first one finds what the settings were. The precision is global
    in torch, so the last user puts it back. Each thread has a count of threads of its own, which a
    new one takes from whoever set it last, so every user puts that back. A pool of threads over
    blocks beats threads inside each product, since many small parallel regions wait for one another
    on a busy machine.
    """
    global _users, _before
    with _lock:
        if not _users:
            _before = torch.get_num_threads(), _precision()
        torch.set_num_threads(1)
        if not _users and onednn_is_better():
            _set_precision("bf16")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            torch.set_num_threads(_before[0])
            if not _users:
                _set_precision(_before[1])


def accumulated(
    room: np.ndarray, queries: Tensor, documents: Tensor, dims: Sequence[int], double: bool = False
) -> Iterator[int]:
    """Fill ``room`` [q, c] with the products of each level in turn, and say which level it is.

    They are summed in float32, or in float64 if ``double``, and float32 in the room.
    """
    dots = torch.from_numpy(room)
    segments = list(pairwise((0, *dims)))
    if double:
        total = torch.empty(dots.shape, dtype=torch.float64, device="cpu")
        for level, (a, b) in enumerate(segments):
            left, right = queries[:, a:b].double(), documents[:, a:b].double()
            torch.addmm(total, left, right.T, beta=float(level > 0), out=total)
            dots.copy_(total)
            yield level
        return
    few = _few(queries, documents, segments) if len(queries) <= FEW else None
    for level, (a, b) in enumerate(segments):
        if few is None:
            torch.addmm(dots, queries[:, a:b], documents[:, a:b].T, beta=float(level > 0), out=dots)
        elif level == 0:
            dots.copy_(few[level].T)
        else:
            dots += few[level].T
        yield level


def _few(queries: Tensor, documents: Tensor, segments: list[tuple[int, int]]) -> Tensor:
    """The products of every segment, [l, c, q], while a few documents are in cache.

    With few queries reading the documents is what takes time, so it must happen once. numpy's BLAS
    is up to twice as fast on few queries, and runs products this small on the calling thread.
    """
    left, right = documents.numpy(), np.ascontiguousarray(queries.numpy().T)  # (c, d) (d, q)
    parts = np.empty((len(segments), len(left), len(queries)), np.float32)
    widest = max(b - a for a, b in segments)
    step = max(1, min(READ, SMALL // (len(queries) * widest)))
    for start in range(0, len(left), step):
        rows = slice(start, start + step)
        for part, (a, b) in zip(parts, segments, strict=True):
            np.matmul(left[rows, a:b], right[a:b], out=part[rows])
    return torch.from_numpy(parts)


def segments(rows: Tensor, dims: Sequence[int], width: int | None = None) -> list[list[Tensor]]:
    """For each level those columns of rows [n, d] that the level before lacks; views.

    They come in parts of ``width`` columns, if given; the last one may be narrower.
    """
    return [list(rows[:, a:b].split(width or b - a, dim=1)) for a, b in pairwise((0, *dims))]


def sampled_products(
    queries: Iterable[Iterable[Tensor]],
    documents: Iterable[Iterable[Tensor]],
    rows: np.ndarray,
    columns: np.ndarray,
    last: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Dot products float64 [n] of pairs of queries and documents; each level's, in the same room.

    torch computes only these entries of the matrix product, in the dtype of queries and documents.
    The products of their parts are added up in float64.

    Args:
        queries: Of each level the columns that the level before lacks, in parts [q, any].
        documents: The same of documents, [c, any].
        rows: Ascending int64 [n].
        columns: int64 [n].
        last: The last level at which a pair is asked for, int64 [n]; wider ones mean nothing.
    """
    _hear_torch_out()
    found, pairs = np.empty(len(rows)), None
    total: np.ndarray = np.zeros(len(rows))
    places: np.ndarray = np.arange(len(rows))
    for level, (left, right) in enumerate(zip(queries, documents, strict=True)):
        if last is not None:
            going = np.flatnonzero(last >= level)
            if len(going) < WORN * len(last):
                parts = rows, columns, last, total, places
                rows, columns, last, total, places = (part.take(going) for part in parts)
                pairs = None
        for one, other in zip(left, right, strict=True):
            if pairs is None:
                pairs = _entries(rows, columns, len(one), other)
            torch.sparse.sampled_addmm(pairs, one, other.T, beta=0.0, out=pairs)
            total += pairs.values().numpy()
        found[places] = total
        yield found


def _entries(rows: np.ndarray, columns: np.ndarray, queries: int, documents: Tensor) -> Tensor:
    """Entries of a product of so many queries with documents [c, any], which are to be filled."""
    begin = np.concatenate([[0], np.bincount(rows, minlength=queries).cumsum()])
    return torch.sparse_csr_tensor(
        torch.from_numpy(begin),
        torch.from_numpy(columns),
        torch.zeros(len(columns), dtype=documents.dtype, device="cpu"),
        (queries, len(documents)),
        dtype=documents.dtype,
        device="cpu",
        check_invariants=False,
    )


@cache
def _hear_torch_out() -> None:
    """Let torch say for the only time, and unheard, that its sparse matrices are young."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.eye(1, device="cpu").to_sparse_csr()


@cache
def onednn_is_better() -> bool:
    """Whether allowing bf16, which selects oneDNN, still computes in float32, and faster.

    On AMD's processors oneDNN's own float32 kernels then replace MKL's: twice as fast on some, no
    faster on others. A processor with matrix registers really multiplies in bf16, and is refused.
    """
    before = _precision()
    if before is None:
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 512, generator=generator, **FLOAT32) for n in (256, 1024))
    seconds = {}
    try:
        for value in (before, "bf16"):
            _set_precision(value)
            error = float((a @ b.T - (a.double() @ b.double().T)).abs().max())
            seconds[value] = min(
                timeit.repeat(lambda: a[:, :128] @ b[:, :128].T, number=1, repeat=9)
            )
    except RuntimeError:
        return False
    finally:
        _set_precision(before)
    # float32 leaves 1e-4 of these products of size 20, bf16 leaves 1e-1
    return error < 2e-3 and seconds["bf16"] < 0.9 * seconds[before]


def _switch() -> Any:  # noqa: ANN401 - torch has no public type for it
    return getattr(torch.backends.mkldnn, "matmul", None)


def _precision() -> str | None:
    return getattr(_switch(), "fp32_precision", None)


def _set_precision(value: str | None) -> None:
    if value is not None:
        _switch().fp32_precision = value
