"""Where chunks are encoded: in this process, or in one process for each device."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Protocol

import numpy as np

from fusion.bulk.encoder import (
    BulkEncoder,
    CutCounts,
    EncodeConfig,
    ModelEncoder,
    add_cuts,
    take_cuts,
)
from fusion.bulk.writing.shards import Chunk
from fusion.errors import FusionError

AHEAD = 2  # chunks that wait for each device, so that memory stays bounded
Encoded = tuple[Chunk, np.ndarray, np.ndarray]  # codes [n, width], bool [n]


class Engine(Protocol):
    """Encodes chunks."""

    @property
    def encoder(self) -> BulkEncoder:
        """Says what the codes depend on."""
        ...

    def run(self, chunks: Iterable[Chunk]) -> Iterator[Encoded]:
        """Chunks with their codes, in the order of the chunks."""
        ...


@dataclass(frozen=True)
class OneDevice:
    """Encodes in this process."""

    encoder: BulkEncoder

    def run(self, chunks: Iterable[Chunk]) -> Iterator[Encoded]:
        """Chunks with their codes."""
        for chunk in chunks:
            yield chunk, *self.encoder.encode([row.text for row in chunk.rows])


@dataclass(frozen=True)
class ManyDevices:
    """Encodes in one process for each device; a chunk is never split, so codes are the same.

    On devices of one kind: others round differently.
    """

    encoder: BulkEncoder
    config: EncodeConfig
    devices: tuple[str, ...]

    def run(self, chunks: Iterable[Chunk]) -> Iterator[Encoded]:
        """Chunks with their codes, in order; a few wait for each device.

        Raises:
            FusionError: A process died.
        """
        context = get_context("spawn")  # a forked process cannot use a GPU
        names: Any = context.Queue()
        for name in self.devices:
            names.put(name)
        pool = ProcessPoolExecutor(
            len(self.devices), context, _begin, (self.config, names, os.getpid())
        )
        waiting: deque[tuple[Chunk, Future]] = deque()
        try:
            for chunk in chunks:
                waiting.append((chunk, pool.submit(_work, [row.text for row in chunk.rows])))
                if len(waiting) >= AHEAD * len(self.devices):
                    yield self._next(waiting)
            while waiting:
                yield self._next(waiting)
        except BrokenProcessPool:
            raise FusionError(
                "a process that encodes died (out of memory?); go on with --resume, perhaps with "
                "a smaller --batch-size"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _next(self, waiting: deque[tuple[Chunk, Future]]) -> Encoded:
        chunk, future = waiting.popleft()
        codes, kept, counts = future.result()
        add_cuts(self.encoder, counts)
        return chunk, codes, kept


_encoder: BulkEncoder | None = None  # of a worker process, which loads its model once


def _begin(config: EncodeConfig, names: Any, parent: int) -> None:  # noqa: ANN401 - a Queue
    """Load the model in a new process; Ctrl-C is the parent's to handle."""
    global _encoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    _encoder = ModelEncoder(config, names.get())


def _die_with(parent: int) -> None:
    """End this process when its parent was killed and cannot say so."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _work(texts: list[str]) -> tuple[np.ndarray, np.ndarray, CutCounts]:
    assert _encoder is not None  # _begin ran
    codes, kept = _encoder.encode(texts)
    return codes, kept, take_cuts(_encoder)


def choose_engine(config: EncodeConfig, devices: Sequence[str]) -> Engine:
    """One process for one device, several for several; all GPUs of this machine by default."""
    import torch

    for name in devices:
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise FusionError(f"device {name} cannot be used: {reason}") from error
    if not devices and torch.cuda.device_count() > 1:
        devices = [f"cuda:{row}" for row in range(torch.cuda.device_count())]
    if len(devices) < 2:
        return OneDevice(ModelEncoder(config, *devices))
    # The workers load the model where it runs; here it only says what it is.
    return ManyDevices(ModelEncoder(config, "cpu"), config, tuple(devices))
