"""The same chunks, encoded by Ray Data: on this machine, or on a cluster.

Shards are the same byte for byte where the processors are of one kind and have as many threads.

The driver reads the input and writes the shards; texts go out through an actor that a source of
Ray Data reads from, and come back as codes from a pool of actors that each hold the model. A few
chunks for each of them are under way at a time, so memory stays bounded, and a chunk is never
split, so the codes are those of the local engine.
"""

import asyncio
import logging
import math
import os
import pickle
import re
import socket
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from fusion.bulk.encoder import (
    BulkEncoder,
    CutCounts,
    EncodeConfig,
    ModelEncoder,
    add_cuts,
    take_cuts,
)
from fusion.bulk.engine import Encoded
from fusion.bulk.writing.shards import Chunk
from fusion.errors import FusionError, MissingExtraError
from fusion.inputs.reading.arrow import arrow

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would send a report over the network
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # our own errors say what is wrong

try:
    import ray
    import ray.data
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask
except ImportError as error:
    raise MissingExtraError("--engine ray is Ray Data", "ray") from error

AHEAD = 4  # chunks under way for each actor: one is encoded, the others travel
DEATHS = 3  # of processes over the same chunk: Ray itself would try for ever
CAUSE = re.compile(r"^(?!ray\.)([\w.]*(?:Error|Exception)): (.+)$", re.MULTILINE)
Answer = tuple[int, np.ndarray, np.ndarray, CutCounts]  # number, codes [n, width], bool [n]


@dataclass
class Feed:
    """An actor between the driver and Ray Data: chunks wait here until their codes are back."""

    texts: dict[int, list[str]] = field(default_factory=dict)
    """By number; empty once the codes are back."""
    total: float = math.inf
    tries: Counter[int] = field(default_factory=Counter)
    """How often chunks were begun whose codes are not back."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def put(self, number: int, texts: list[str]) -> None:
        """Take a chunk; calls of one caller may overtake each other, so it says which."""
        async with self.changed:
            self.texts[number] = texts
            self.changed.notify_all()

    async def close(self, total: int) -> None:
        """Say how many chunks there are."""
        async with self.changed:
            self.total = total
            self.changed.notify_all()

    async def get(self, number: int) -> list[str] | None:
        """Texts of a chunk, once they are there; none if its codes are back, None at the end.

        A source whose process died starts again from 0, and Ray takes its n-th answer for what
        the n-th had been, so that there has to be one.
        """
        async with self.changed:
            await self.changed.wait_for(lambda: number in self.texts or number >= self.total)
        return self.texts[number] if number < self.total else None

    async def drop(self, number: int) -> None:
        """Forget the texts of a chunk."""
        self.texts[number] = []
        self.tries.pop(number, None)

    async def begin(self, number: int) -> int:
        """Note that a chunk is begun; returns how often it was."""
        self.tries[number] += 1
        return self.tries[number]


class FedTexts(Datasource):
    """What a feed holds, as a source of Ray Data: one row a chunk."""

    def __init__(self, feed: Any) -> None:  # noqa: ANN401 - an actor's handle
        self._feed = feed

    def get_name(self) -> str:
        """For Ray's own log."""
        return "Texts"

    def estimate_inmemory_data_size(self) -> int | None:
        """Not known."""
        return None

    def get_read_tasks(self, *_: object, **__: object) -> list[ReadTask]:
        """One, however many are asked for."""
        feed = self._feed
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(lambda: _blocks(feed), unknown)]


def _blocks(feed: Any) -> Iterator[Any]:  # noqa: ANN401 - an actor's handle, and arrow tables
    kind = arrow.large_list(arrow.large_string())
    number = 0
    while (texts := ray.get(feed.get.remote(number))) is not None:
        yield arrow.table({"number": [number], "texts": arrow.array([texts], kind)})
        number += 1


@dataclass(frozen=True)
class Task:
    """What an actor has to know."""

    config: EncodeConfig
    settings: dict[str, Any]
    """Of the driver's model."""
    device: str | None
    feed: Any


class ModelActor:
    """A model in a process of its own, on a core or a GPU that Ray chose."""

    def __init__(self, task: Task) -> None:
        """Wait for the first chunk: what goes wrong in an actor's birth, Ray tells at length."""
        self._task = task
        self._encoder: ModelEncoder | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Codes [1, n, width] and bool [1, n] of the one chunk of a batch.

        Raises:
            FusionError: The model is another one than the driver's, or this chunk has ended
                process after process.
        """
        number, texts = int(batch["number"][0]), [str(text) for text in batch["texts"][0]]
        if not texts:  # its codes are back, and Ray asks for them again
            return {
                "number": batch["number"],
                "codes": np.zeros((1, 0, 1)),
                "kept": np.zeros((1, 0)),
                "cuts": np.array([pickle.dumps({})], dtype=object),
            }
        if ray.get(self._task.feed.begin.remote(number)) > DEATHS:
            raise FusionError(
                f"chunk number {number} has ended its process {DEATHS} times (out of "
                "memory?); go on with --resume, perhaps with a smaller --batch-size"
            )
        if self._encoder is None:
            self._encoder = self._load()
        codes, kept = self._encoder.encode(texts)
        cuts = np.array([pickle.dumps(take_cuts(self._encoder))], dtype=object)
        return {"number": batch["number"], "codes": codes[None], "kept": kept[None], "cuts": cuts}

    def _load(self) -> ModelEncoder:
        config, node = self._task.config, ray.util.get_node_ip_address()
        encoder = ModelEncoder(config, self._task.device)
        if encoder.settings != self._task.settings:  # another folder on another machine, say
            raise FusionError(f"{config.model} is another model on {node}")
        return encoder


@dataclass(frozen=True)
class RayDevices:
    """Encodes by Ray Data, with an actor for each GPU or core."""

    encoder: BulkEncoder
    config: EncodeConfig
    address: str = ""
    """Of a cluster, ``auto`` for the one that this machine belongs to; else this machine alone."""
    workers: int | None = None
    """Actors; one for each GPU, or for each core where there is none."""

    def run(self, chunks: Iterable[Chunk]) -> Iterator[Encoded]:
        """Chunks with their codes, in the order in which they are done.

        Raises:
            FusionError: The cluster cannot be reached, or an actor fails again and again.
        """
        ours = not ray.is_initialized()
        if ours:
            self._connect()
        try:
            yield from self._run(iter(chunks))
        except ray.exceptions.RayError as error:
            raise _plain(error) from error
        finally:
            if ours:
                ray.shutdown()

    def _connect(self) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if not self.address:
            # A core for each thread that encodes; what only waits takes none.
            cores = (self.workers or os.cpu_count() or 1) * (self.config.threads or 1)
            options |= {"num_cpus": cores, "include_dashboard": False}
        try:
            with _hushed():
                ray.init(address=self.address or "local", **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise _nothing_there(self.address, error) from error

    def _run(self, chunks: Iterator[Chunk]) -> Iterator[Encoded]:
        feed: Any = ray.remote(Feed).options(num_cpus=0).remote()
        workers = self._workers()
        waiting: dict[int, Chunk] = {}
        total = 0

        def send() -> None:
            nonlocal total
            while len(waiting) < AHEAD * workers:
                if (chunk := next(chunks, None)) is None:
                    feed.close.remote(total)  # so that the source ends
                    return
                waiting[total] = chunk
                feed.put.remote(total, [row.text for row in chunk.rows])
                total += 1

        send()
        if not waiting:
            return
        answers = self._codes(feed, workers)
        try:
            for number, codes, kept, counts in answers:
                if number not in waiting:  # it was sent again, and had come back already
                    continue
                add_cuts(self.encoder, counts)
                feed.drop.remote(number)
                yield waiting.pop(number), codes, kept
                send()
        finally:
            feed.close.remote(0)  # Ray would wait for the source
            answers.close()

    def _codes(self, feed: Any, workers: int) -> Generator[Answer, None, None]:  # noqa: ANN401
        """Number, codes [n, width], bool [n] and counts of cut texts of every chunk."""
        _set_up()
        texts = ray.data.read_datasource(FedTexts(feed), override_num_blocks=1, num_cpus=0)
        threads = self.config.threads or 1
        gpus = 1 if _gpus() else 0
        config = self.config if gpus else replace(self.config, threads=threads)
        device = None if gpus else "cpu"
        rows = texts.map_batches(
            ModelActor,
            fn_constructor_args=(Task(config, self.encoder.settings, device, feed),),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_gpus=gpus,
            num_cpus=0 if gpus else threads,
        )
        for batch in rows.iter_batches(batch_size=None, batch_format="numpy"):
            for row, number in enumerate(batch["number"]):
                codes, kept = np.asarray(batch["codes"][row]), np.asarray(batch["kept"][row])
                yield int(number), codes, kept, pickle.loads(batch["cuts"][row])

    def _workers(self) -> int:
        cores = int(ray.cluster_resources().get("CPU", 1)) // (self.config.threads or 1)
        return self.workers or _gpus() or max(1, cores)


def choose_ray(config: EncodeConfig, address: str, workers: int | None) -> RayDevices:
    """Actors on a cluster or on this machine; here the model only says what it is.

    Raises:
        FusionError: Nobody listens at the address, or the model cannot be had.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if address not in ("", "auto") and not ray.is_initialized():
        _check_open(address)
    return RayDevices(ModelEncoder(config, "cpu"), config, address, workers)


def _check_open(address: str) -> None:
    """Ray itself would ask an address where nobody is for minutes."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        if not (parts.hostname and parts.port):
            raise ValueError("write HOST:PORT, ray://HOST:PORT or auto")
        socket.create_connection((parts.hostname, parts.port), timeout=5).close()
    except (OSError, ValueError) as error:
        raise _nothing_there(address, error) from error


def _nothing_there(address: str, error: Exception) -> FusionError:
    words = " ".join(str(error).split())[:200]
    return FusionError(
        f"--ray-address {address or 'of this machine'}: no Ray there, or one that asks for a token "
        f"(RAY_AUTH_MODE=token): {words}"
    )


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep what Ray's libraries write at the start from the terminal; exceptions tell the rest."""
    if logging.getLogger("fusion").isEnabledFor(logging.DEBUG):
        yield
        return
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no file
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _gpus() -> int:
    return int(ray.cluster_resources().get("GPU", 0))


def _set_up() -> None:
    """Give codes back as soon as they are there, and leave the terminal to our own bar."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # each chunk a block of its own: none waits for the next
    context.execution_options.preserve_order = False
    quiet = not logging.getLogger("fusion").isEnabledFor(logging.DEBUG)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL if quiet else logging.INFO)


def _plain(error: BaseException) -> FusionError:
    """What is wrong, out of the tracebacks that Ray wraps it in."""
    causes = CAUSE.findall(str(error))
    kind, words = causes[-1] if causes else (type(error).__name__, str(error))
    words = " ".join(words.split())[:300]
    if kind.endswith("FusionError"):
        return FusionError(words)
    return FusionError(f"an actor of Ray failed: {kind}: {words}; go on with --resume")
