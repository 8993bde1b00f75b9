"""What bfloat16 encoders cost in accuracy, and what they gain in speed.

Command:  FUSION_DATA=... python experiments/benchmarks/encoder_dtype.py [--data NAME,...]
Hardware: 2 CPU cores, about 25 minutes with an empty store.
Expected: cosines to float32 above .995, nDCG@10 within .003, about twice the texts a second.
Writes:   experiments/results/encoder_dtype.json
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np

from fusion.environment import describe_environment
from fusion.inputs.data.judged import RetrievalData
from fusion.inputs.data.retrieval import load_data
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.text import TextEncoder, load_encoder
from fusion.inputs.store.store import Store
from fusion.measure.retrieval.sweep import Space, measure
from fusion.space.blocks import Blocks

PAIR = ("minilm", "wordllama")
DTYPES = ("float32", "bfloat16")
ROUNDS, TIMED_TEXTS = 3, 128


def vectors(encoder: TextEncoder, data: RetrievalData) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of the queries [q, d] and documents [c, d], through the store."""
    store = Store()
    return (
        store.embed(encoder, data.queries, Role.QUERY),
        store.embed(encoder, data.documents, Role.DOCUMENT),
    )


def accuracy(name: str) -> dict:
    """nDCG@10 of minilm and of the concat in both dtypes, and the cosines between them."""
    data = load_data(name)
    other = vectors(load_encoder(PAIR[1]), data)
    found = {dtype: vectors(load_encoder(PAIR[0], dtype), data) for dtype in DTYPES}
    line: dict = {"data": name}
    for dtype, (queries, documents) in found.items():
        blocks = Blocks(PAIR, (queries.shape[1], other[0].shape[1]))
        fused = [blocks.transform(pair) for pair in zip((queries, documents), other, strict=True)]
        spaces = [
            Space("encoder:minilm", queries, documents, dims=(queries.shape[1],)),
            Space("concat", fused[0], fused[1], dims=(blocks.width,)),
        ]
        line[dtype] = {row.method: row.ndcg_at_10 for row in measure(data, spaces, ())}
    full, half = (np.concatenate(found[dtype]) for dtype in DTYPES)
    norms = np.linalg.norm(full, axis=1) * np.linalg.norm(half, axis=1)
    cosines = (full * half).sum(axis=1) / norms
    return line | {"cosine_min": float(cosines.min()), "cosine_mean": float(cosines.mean())}


def speed(name: str) -> dict[str, float]:
    """Texts a second of both dtypes, medians of interleaved rounds."""
    texts = load_data(name).documents[:TIMED_TEXTS]
    encoders = {dtype: load_encoder(PAIR[0], dtype) for dtype in DTYPES}
    seconds: dict[str, list[float]] = {dtype: [] for dtype in DTYPES}
    for encoder in encoders.values():
        encoder.encode(texts[:16], Role.DOCUMENT)
    for _ in range(ROUNDS):
        for dtype, encoder in encoders.items():
            start = time.perf_counter()
            encoder.encode(texts, Role.DOCUMENT)
            seconds[dtype].append(time.perf_counter() - start)
    return {dtype: len(texts) / median(times) for dtype, times in seconds.items()}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="nfcorpus,scifact,arguana")
    names = parser.parse_args().data.split(",")
    result = {
        "environment": describe_environment(),
        "texts_per_second": speed(names[0]),
        "accuracy": [accuracy(name) for name in names],
    }
    path = Path(__file__).parents[1] / "results" / "encoder_dtype.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
