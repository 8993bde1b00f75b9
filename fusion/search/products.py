"""How float32 matrix products run: one thread each, on the fastest backend that keeps float32."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

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
    onednn = onednn_keeps_float32()
    with _lock:
        if not _users:
            _before = torch.get_num_threads(), _precision()
            torch.set_num_threads(1)
            if onednn:
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


@cache
def onednn_keeps_float32() -> bool:
    """Whether allowing bf16, which selects oneDNN, still computes in float32 on this processor.

    It does on AMD's, where oneDNN's own float32 kernels then replace MKL's. A processor with
    matrix registers really multiplies in bf16 there, and so is refused.
    """
    before = _precision()
    if before is None:
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 512, generator=generator) for n in (256, 512))
    try:
        _set_precision("bf16")
        error = (a @ b.T - (a.double() @ b.double().T)).abs().max()
    except RuntimeError:
        return False
    finally:
        _set_precision(before)
    return float(error) < 2e-3  # float32 leaves 1e-4 of these products of size 20, bf16 1e-1


def _switch() -> Any:  # noqa: ANN401 - torch has no public type for it
    return getattr(torch.backends.mkldnn, "matmul", None)


def _precision() -> str | None:
    return getattr(_switch(), "fp32_precision", None)


def _set_precision(value: str | None) -> None:
    if value is not None:
        _switch().fp32_precision = value
