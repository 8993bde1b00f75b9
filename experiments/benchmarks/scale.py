"""What bulk encoding and exact search cost as rows grow from a thousand to a million.

    FUSION_DATA=... python experiments/benchmarks/scale.py --model MODEL

Hardware: a Linux machine's CPU, otherwise idle; ten minutes and 4 GB of disk. MODEL is what
``fusion.export`` made of minilm and wordllama.

Encoding a million texts takes hours, so the encoder of the large sizes is a stand-in that gives
random vectors at once: reader, chunks, shards, checksums and manifest are the real ones, and what
they cost comes on top of the model. The model's own rate is measured on the first Wikipedia texts.
Each size runs in a fresh process, whose peak memory the kernel tells. Search is exact: over the
parquet as it streams by, in memory, and in LanceDB and Qdrant (local mode) without an index, where
they are installed.

To expect: time that grows with the rows, memory that does not, except where vectors are held.
Writes experiments/results/benchmark_scale.json, where other sizes than those of --sizes stay;
render_scale.py makes Markdown and a figure of it.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from fusion.bulk.encoder import EncodeConfig, ModelEncoder
from fusion.bulk.engine import OneDevice
from fusion.bulk.job import SHARD_ROWS, JobConfig, encode_rows
from fusion.bulk.writing.manifest import MANIFEST, Manifest
from fusion.bulk.writing.shards import Shard
from fusion.inputs.data.texts import load_texts
from fusion.inputs.reading.reader import Reader
from fusion.inputs.reading.sources import find_sources
from fusion.topk.nested import corpus_norms, nested_topk
from fusion.topk.streaming import NestedSearcher

RESULTS = Path(__file__).parents[1] / "results" / "benchmark_scale.json"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
WIDTH, DIMS, K = 256, (64, 128, 256), 10
BILLION = 1_000_000_000
WORDS = 60  # of a synthetic text
LIBRARIES = ("torch", "numpy", "pyarrow", "sentence-transformers", "lancedb", "qdrant-client")
QDRANT_ROWS = 10_000  # its local mode is meant for little: loading takes a millisecond a row


class StandIn:
    """An encoder that takes no time: random unit vectors, the same ones for the same texts."""

    def __init__(self) -> None:
        self.settings = {"model": "stand-in", "width": WIDTH, "precision": "float32"}
        self.about = {"list_of": "float32", "list_size": WIDTH, "bytes_per_vector": 4 * WIDTH}
        self.cuts: dict[str, Any] = {}

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Vectors [n, 256], all good."""
        chance = np.random.default_rng(list(texts[0].encode()))
        return unit(chance.standard_normal((len(texts), WIDTH), np.float32)), np.ones(
            len(texts), bool
        )


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows over their norms."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write_texts(path: Path, rows: int) -> None:
    """JSON lines of random words, as long as a passage."""
    chance = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(2_000)])
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, rows, 10_000):
            picked = words[chance.integers(len(words), size=(min(10_000, rows - start), WORDS))]
            for row, line in enumerate(picked, start):
                text = " ".join(line.tolist())
                file.write(f'{{"_id": "{row}", "text": "{text}"}}\n')


def peak_mib() -> float:
    """The most memory that this process ever held."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def encode(source: Path, vectors: Path) -> dict[str, Any]:
    """The whole job with the stand-in for a model."""
    held, start, used = peak_mib(), time.perf_counter(), time.process_time()
    reader = Reader(find_sources(str(source), vectors))
    done = encode_rows(reader, vectors, OneDevice(StandIn()), JobConfig())
    seconds = time.perf_counter() - start
    return {
        "rows": done.rows,
        "seconds": seconds,
        "cpu_seconds": time.process_time() - used,
        "rows_per_second": done.rows / seconds,
        "peak_mib": peak_mib(),
        "libraries_mib": held,
        "input_bytes": source.stat().st_size,
        "bytes_on_disk": size_of(vectors),
        "shards": len(done.shards),
        "manifest_bytes": (vectors / MANIFEST).stat().st_size,
    }


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def batches(vectors: Path) -> Iterator[np.ndarray]:
    """Embeddings [n, 256] of all shards, some thousands at a time."""
    for path in sorted(vectors.glob("part-*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(8192, columns=["embedding"]):
            yield batch.column(0).flatten().to_numpy().reshape(-1, WIDTH)


def stream(vectors: Path, queries: int) -> dict[str, float]:
    """Exact nested search while the shards stream by."""
    asked = unit(np.random.default_rng(1).standard_normal((queries, WIDTH), np.float32))
    held, start = peak_mib(), time.perf_counter()
    searcher = NestedSearcher(asked, DIMS, K)
    for batch in batches(vectors):
        searcher.add(batch)
    searcher.result()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_mib": peak_mib(), "libraries_mib": held}


def hold(vectors: Path, queries: int) -> dict[str, float]:
    """Exact nested search of vectors that stay in memory."""
    asked = unit(np.random.default_rng(1).standard_normal((queries, WIDTH), np.float32))
    corpus = np.concatenate(list(batches(vectors)))  # (c, d)
    norms = corpus_norms(corpus, DIMS)
    seconds = timed(lambda: nested_topk(asked, corpus, DIMS, K, norms=norms))
    return {"seconds": seconds, "peak_mib": peak_mib()}


def timed(search: Callable[[], object], rounds: int = 7) -> float:
    """Median seconds, the first call left out."""
    search()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        search()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def lancedb(vectors: Path, scratch: Path) -> dict[str, float]:
    """Load LanceDB as load_lancedb.py does, and ask it one query."""
    import lancedb
    import pyarrow.dataset as ds

    start = time.perf_counter()
    shards = ds.dataset([str(path) for path in sorted(vectors.glob("part-*.parquet"))])
    table = lancedb.connect(scratch).create_table("texts", shards.scanner().to_reader())
    loaded = time.perf_counter() - start
    query = unit(np.random.default_rng(1).standard_normal((1, WIDTH), np.float32))[0]

    def search() -> object:
        return table.search(query, "embedding").distance_type("cosine").limit(K).to_arrow()

    return {"load_seconds": loaded, "seconds": timed(search), "bytes_on_disk": size_of(scratch)}


def qdrant(vectors: Path, scratch: Path) -> dict[str, float]:
    """Load Qdrant's local mode as load_qdrant.py does, and ask it one query."""
    from qdrant_client import QdrantClient, models

    start = time.perf_counter()
    client = QdrantClient(path=str(scratch))
    kind = models.VectorParams(size=WIDTH, distance=models.Distance.COSINE)
    client.create_collection("texts", kind)
    rows = (row for batch in batches(vectors) for row in batch)
    client.upload_collection("texts", rows, ids=iter(range(QDRANT_ROWS)))
    loaded = time.perf_counter() - start
    query = unit(np.random.default_rng(1).standard_normal((1, WIDTH), np.float32))[0]
    seconds = timed(lambda: client.query_points("texts", query, limit=K))
    return {"load_seconds": loaded, "seconds": seconds, "bytes_on_disk": size_of(scratch)}


def real(model: str, count: int) -> dict[str, Any]:
    """A real model's rate on real texts."""
    texts = load_texts("wikipedia-100k", count + 32).texts
    encoder = ModelEncoder(EncodeConfig(model), "cpu")
    encoder.encode(texts[:32])  # the first batch allocates
    start = time.perf_counter()
    encoder.encode(texts[32:])
    seconds = time.perf_counter() - start
    words = statistics.mean(len(text.split()) for text in texts[32:])
    names = [entry.name for entry in encoder.model[0].settings.encoders]
    return {
        "encoders": names,
        "threads": torch.get_num_threads(),
        "texts": count,
        "words_a_text": round(words, 1),
        "seconds": seconds,
        "rows_per_second": count / seconds,
        "peak_mib": peak_mib(),
    }


def manifest(folder: Path) -> dict[str, Any]:
    """Memory that the shards' names and checksums take when there are a billion rows."""
    held = peak_mib()
    count = -(-BILLION // SHARD_ROWS)
    shards = tuple(
        Shard(
            f"part-{number:06}.parquet", SHARD_ROWS, 4_220_000, f"{number:064x}", f"{number:032x}"
        )
        for number in range(count)
    )
    known = {shard.file: shard for shard in shards}  # as the journal of a running job
    Manifest({}, shards).write(folder)
    size = (folder / MANIFEST).stat().st_size
    return {"shards": len(known), "bytes": size, "peak_mib": peak_mib() - held}


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    "encode": lambda source, vectors: encode(Path(source), Path(vectors)),
    "stream": lambda vectors, queries: stream(Path(vectors), int(queries)),
    "hold": lambda vectors, queries: hold(Path(vectors), int(queries)),
    "lancedb": lambda vectors, scratch: lancedb(Path(vectors), Path(scratch)),
    "qdrant": lambda vectors, scratch: qdrant(Path(vectors), Path(scratch)),
    "manifest": lambda folder: manifest(Path(folder)),
    "real": lambda model, count: real(model, int(count)),
}


def fresh(name: str, *arguments: object) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--measure", name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr[-2000:]}")
    print(name, *arguments[1:], done.stdout.splitlines()[-1], flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def installed(name: str) -> str | None:
    """Its version."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def measure_size(rows: int, scratch: Path) -> dict[str, Any]:
    """Everything at one number of rows."""
    source, vectors, database = scratch / "in.jsonl", scratch / "vectors", scratch / "database"
    write_texts(source, rows)
    case: dict[str, Any] = {"rows": rows, "encode": fresh("encode", source, vectors)}
    source.unlink()
    for queries in (1, 100):
        case[f"stream_{queries}"] = fresh("stream", vectors, queries)
        case[f"hold_{queries}"] = fresh("hold", vectors, queries)
    for name, package in (("lancedb", "lancedb"), ("qdrant", "qdrant-client")):
        if installed(package) and (name == "lancedb" or rows <= QDRANT_ROWS):
            case[name] = fresh(name, vectors, database)
            shutil.rmtree(database)
    shutil.rmtree(vectors)
    return case


def environment() -> dict[str, Any]:
    """Where and when."""
    run = {"capture_output": True, "text": True, "check": False, "cwd": Path(__file__).parent}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], **run).stdout.strip()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: found for name in LIBRARIES if (found := installed(name))},
        "load_average": os.getloadavg()[0],
        "commit": commit,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def main() -> int:
    """Measure all sizes, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="what fusion.export made of minilm and wordllama")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--texts", type=int, default=512, help="for the real model")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure[0]](*options.measure[1:])))
        return 0
    before = environment()
    earlier = json.loads(options.output.read_text("utf-8")) if options.output.is_file() else {}
    report: dict[str, Any] = {
        "command": "python experiments/benchmarks/scale.py --model MODEL",
        "environment": before,
        "width": WIDTH,
        "dims": DIMS,
        "k": K,
        "model": earlier.get("model"),
    }
    if options.model:
        report["model"] = fresh("real", options.model, options.texts)
    with tempfile.TemporaryDirectory() as scratch:
        report["manifest"] = fresh("manifest", scratch)
    cases = {case["rows"]: case for case in earlier.get("cases", [])}
    for rows in map(int, options.sizes.split(",")):
        with tempfile.TemporaryDirectory() as scratch:
            cases[rows] = measure_size(rows, Path(scratch))
    report["cases"] = [cases[rows] for rows in sorted(cases)]
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
