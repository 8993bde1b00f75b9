"""How float32 matrix products run: one thread each, on the fastest backend that keeps float32."""

import threading
import timeit
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

FEW = 32  # queries
SMALL = 2**18  # multiplications of a product that numpy's BLAS keeps on one thread
_lock = threading.Lock()
_users = 0
_before: tuple[int, str | None] = (1, None)


@contextmanager
def tuned_products() -> Iterator[None]:
    """Let every product inside run on one thread and on oneDNN where that keeps float32 accuracy.

    The settings are global in torch: the first of several concurrent users sets them, the last one
    puts back what was there. A pool of threads over blocks beats threads inside each product, since
    many small parallel regions wait for one another on a busy machine.
    """
    global _users, _before
    with _lock:
        if not _users:
            _before = torch.get_num_threads(), _precision()
            torch.set_num_threads(1)
            if onednn_is_better():
                _set_precision("bf16")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                torch.set_num_threads(_before[0])
                _set_precision(_before[1])


def accumulate(dots: Tensor, queries: Tensor, documents: Tensor, first: bool) -> None:
    """Add the products of one segment to ``dots`` [q, c], or begin with them."""
    if len(queries) > FEW:
        torch.addmm(dots, queries, documents.T, beta=float(not first), out=dots)
        return
    # numpy's BLAS is up to twice as fast on few queries, and runs products this small on the
    # calling thread.
    left, right = documents.numpy(), queries.numpy().T
    part = np.empty((len(left), len(queries)), np.float32)  # (c, q)
    step = max(1, SMALL // (len(queries) * max(1, left.shape[1])))
    for start in range(0, len(left), step):
        np.matmul(left[start : start + step], right, out=part[start : start + step])
    if first:
        dots.copy_(torch.from_numpy(part.T))
    else:
        dots += torch.from_numpy(part.T)


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
    a, b = (torch.randn(n, 512, generator=generator) for n in (256, 1024))
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
