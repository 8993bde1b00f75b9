"""What a code keeps of the full vector's ranking at 16 to 128 bytes, ours beside FAISS's.

    FUSION_DATA=... python experiments/benchmarks/codes.py --fitted-on documents
    FUSION_DATA=... python experiments/benchmarks/codes.py --fitted-on wikipedia-100k --power 0
    FUSION_DATA=... python experiments/benchmarks/codes.py --fitted-on documents --methods pq,opq

Encoders minilm and wordllama (squared weights 1 : 0.5), uncentred PCA with each component scaled by
its eigenvalue to --power, then codes; both are fitted on --fitted-on: ``documents``, each data
set's own, or a text collection, its first 16,000. Splits are dev and train: settings are chosen
here, test is for results.md. The share is of nDCG@10 of all 640 columns, float, unscaled.

Hardware: 2 CPU cores, about 10 minutes a record on a busy machine once the texts are embedded.
A peer's centroids and axes, and our levels, are counted too: ``shared_bytes_per_vector``.

To expect: 1-bit trellis codes of a corpus's own documents keep 86 % at 16 bytes, 94 % at 27, 98 %
at 53 and 99 % at 64; fitted on Wikipedia 78 %, 88 %, 95 % and 96 %, which is 2 to 4 points more
than a scalar code of the same width and bytes.
Appends one record to experiments/results/benchmark_codes.json. Needs faiss-cpu for pq and opq.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from fusion.environment import describe_environment
from fusion.inputs.data.judged import RetrievalData
from fusion.inputs.data.retrieval import load_data
from fusion.inputs.data.texts import load_texts
from fusion.inputs.encoders.text import load_encoder
from fusion.inputs.store.store import Role, Store
from fusion.measure.retrieval.metrics import Judgements, ndcg_at_k
from fusion.space.blocks import Blocks
from fusion.space.codes import Codebook, Precision
from fusion.space.compressors import PCA

RESULTS = Path(__file__).parents[1] / "results" / "benchmark_codes.json"
ENCODERS, WEIGHTS = ("minilm", "wordllama"), (1.0, 0.5)
TEXTS = 16_000
K = 10
SHAPES = {  # bytes -> the (width, precision) pairs that fill them, to three quarters of a byte
    16: ((128, "binary"), (64, "int2")),
    27: ((216, "binary"), (192, "binary+"), (108, "int2")),
    32: ((256, "binary"), (128, "int2")),
    53: ((424, "binary"), (376, "binary+"), (212, "int2"), (141, "int3"), (106, "int4")),
    64: ((512, "binary"), (256, "int2"), (128, "int4")),
    128: ((512, "int2"), (481, "int2+"), (341, "int3"), (256, "int4"), (128, "int8")),
}
OURS = {
    "scalar": {"coding": "scalar"},
    "scalar-fitted": {"coding": "scalar", "rotation": "fitted"},
    "trellis": {"coding": "trellis"},
}
PEERS = ("pq", "opq")

Scorer = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Coded:
    """Coded documents, ready to be asked."""

    bytes_per_vector: int
    shared_bytes: int
    """What decoding needs besides the codes, once for all vectors: levels, centroids, axes."""
    asymmetric: Scorer
    """Scores of float queries."""
    symmetric: Scorer
    """Scores of queries that are coded too."""


@dataclass(frozen=True)
class Split:
    """Queries of a split and the nDCG@10 that all columns give them."""

    name: str
    queries: np.ndarray
    judgements: Judgements
    exclude: np.ndarray
    full: float


@dataclass(frozen=True)
class Corpus:
    """One data set in the scaled PCA space."""

    name: str
    fitted_on: np.ndarray
    documents: np.ndarray
    splits: tuple[Split, ...]


def embed(texts: list[str], role: Role) -> np.ndarray:
    """Blocks of both encoders, float32 [n, 640]."""
    encoders = [load_encoder(name) for name in ENCODERS]
    blocks = Blocks(ENCODERS, tuple(e.dim for e in encoders), weights=WEIGHTS)
    return blocks.transform([Store().embed(e, texts, role) for e in encoders])


def ndcg(scores: np.ndarray, split: Split | tuple[Judgements, np.ndarray]) -> float:
    """Mean nDCG@10 of scores float [q, c]; a query's own document does not count."""
    judgements, exclude = (split.judgements, split.exclude) if isinstance(split, Split) else split
    scores = scores.copy()
    own = np.flatnonzero(exclude >= 0)
    scores[own, exclude[own]] = -np.inf
    best = np.argpartition(-scores, K, axis=1)[:, :K]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    return float(np.nanmean(ndcg_at_k(best, judgements, K)))


def load_corpora(names: list[str], fitted_on: str, power: float) -> Iterator[Corpus]:
    """Each data set, its splits given as NAME:SPLIT+SPLIT."""
    for name, splits in (entry.split(":") for entry in names):
        loaded = [load_data(name, split) for split in splits.split("+")]
        documents = embed(loaded[0].documents, Role.DOCUMENT)
        training = documents
        if fitted_on != "documents":
            training = embed(load_texts(fitted_on, TEXTS).texts, Role.DOCUMENT)
        pca = PCA(power=power).fit(training)
        yield Corpus(
            name,
            pca.transform(training),
            pca.transform(documents),
            tuple(make_split(data, documents, pca) for data in loaded),
        )


def make_split(data: RetrievalData, documents: np.ndarray, pca: PCA) -> Split:
    """Embed the queries and take the reference score."""
    queries = embed(data.queries, Role.QUERY)
    judgements = Judgements.from_qrels(data.query_ids, data.doc_ids, data.qrels)
    unit = documents / np.linalg.norm(documents, axis=1, keepdims=True)
    full = ndcg(queries @ unit.T, (judgements, data.exclude))
    return Split(data.split, pca.transform(queries), judgements, data.exclude, full)


def our_codes(corpus: Corpus, width: int, precision: str, method: str, seed: int) -> Coded:
    """Codes of ours."""
    book = Codebook.fit(corpus.fitted_on, precision, width, seed=seed, **OURS[method])
    codes = book.encode(corpus.documents)
    # The axes of a random rotation come back from the seed.
    parts = (book.mean, book.scale, book.levels)
    axes = () if OURS[method].get("rotation") != "fitted" else (book.axes,)
    return Coded(
        book.bytes_per_vector,
        sum(part.nbytes for part in (*parts, *axes)),
        lambda queries: book.score(queries, codes),
        lambda queries: book.score(queries, codes, symmetric=True),
    )


def peer_codes(corpus: Corpus, width: int, parts: int, method: str) -> Coded:
    """FAISS's product quantiser, a byte a part, after its own rotation for opq."""
    import faiss

    def unit(x: np.ndarray) -> np.ndarray:
        kept = x[:, :width]
        return np.ascontiguousarray(kept / np.linalg.norm(kept, axis=1, keepdims=True))

    index = faiss.IndexPQ(width, parts, 8)
    if method == "opq":
        rotation = faiss.OPQMatrix(width, parts)
        rotation.niter = 10
        index = faiss.IndexPreTransform(rotation, index)
    index.train(unit(corpus.fitted_on))

    def coded(x: np.ndarray) -> np.ndarray:
        return unit(index.sa_decode(index.sa_encode(unit(x))))

    documents = coded(corpus.documents)
    centroids, axes = 256 * width, width * width if method == "opq" else 0
    return Coded(
        index.sa_code_size(),
        4 * (centroids + axes),
        lambda queries: unit(queries) @ documents.T,
        lambda queries: coded(queries) @ documents.T,
    )


def attempts(
    budgets: list[int], methods: list[str], seeds: list[int]
) -> Iterator[tuple[int, int, str, str, int]]:
    """Every (budget, width, precision, method, seed) that makes sense."""
    for budget in budgets:
        shapes = SHAPES[budget]
        for method in methods:
            if method in PEERS:
                yield budget, 8 * budget if budget < 80 else 640, "pq8", method, 0
                continue
            for width, precision in shapes:
                bits = max(bits for _, bits in Precision(precision).parts(width))
                if bits > {"scalar-fitted": 2, "trellis": 4}.get(method, 8):
                    continue
                for seed in seeds:
                    yield budget, width, precision, method, seed


def measure(
    corpus: Corpus, budgets: list[int], methods: list[str], seeds: list[int]
) -> Iterator[dict[str, Any]]:
    """One row a code and split."""
    for budget, width, precision, method, seed in attempts(budgets, methods, seeds):
        start = time.perf_counter()
        if method in PEERS:
            coded = peer_codes(corpus, width, budget, method)
        else:
            coded = our_codes(corpus, width, precision, method, seed)
        took = time.perf_counter() - start
        for split in corpus.splits:
            row = {"data": corpus.name, "split": split.name, "budget": budget}
            row |= {"bytes_per_vector": coded.bytes_per_vector, "method": method, "dim": width}
            row |= {"shared_bytes_per_vector": coded.shared_bytes / len(corpus.documents)}
            row |= {"precision": precision, "seed": seed, "full_ndcg_at_10": split.full}
            row["share"] = ndcg(coded.asymmetric(split.queries), split) / split.full
            row["share_both_coded"] = ndcg(coded.symmetric(split.queries), split) / split.full
            yield row | {"fit_and_encode_seconds": round(took, 2)}
        print(
            corpus.name, budget, method, f"{width} x {precision}", f"{row['share']:.3f}", flush=True
        )


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean share of each code over seeds and splits, then over data sets; the best first."""
    shares: dict[tuple, dict[str, list[tuple[float, float, float]]]] = {}
    for row in rows:
        key = (row["budget"], row["method"], row["dim"], row["precision"])
        measured = (row["share"], row["share_both_coded"], row["shared_bytes_per_vector"])
        shares.setdefault(key, {}).setdefault(row["data"], []).append(measured)
    table = []
    for (budget, method, dim, precision), of_data in shares.items():
        mean = np.mean([np.mean(pairs, axis=0) for pairs in of_data.values()], axis=0)
        entry = {"budget": budget, "method": method, "dim": dim, "precision": precision}
        entry |= {"share": float(mean[0]), "share_both_coded": float(mean[1])}
        table.append(entry | {"shared_bytes_per_vector": float(mean[2])})
    return sorted(table, key=lambda e: (e["budget"], -e["share"]))


def main() -> None:
    """Measure, print the summary, append the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="nfcorpus:dev,scifact:train")
    parser.add_argument("--fitted-on", default="documents")
    parser.add_argument("--power", type=float, default=-0.1)
    parser.add_argument("--methods", default=",".join(OURS))
    parser.add_argument("--budgets", default=",".join(map(str, SHAPES)), help="bytes a vector")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    budgets = [int(budget) for budget in args.budgets.split(",")]
    rows = [
        row
        for corpus in load_corpora(args.data.split(","), args.fitted_on, args.power)
        for row in measure(corpus, budgets, args.methods.split(","), seeds)
    ]
    config = {k: v for k, v in vars(args).items() if k != "output"}
    record = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "config": config}
    record |= {
        "environment": describe_environment() | {"faiss-cpu": version("faiss-cpu")},
        "summary": summarize(rows),
        "rows": rows,
    }
    records = json.loads(args.output.read_text()) if args.output.exists() else []
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps([*records, record], indent=1) + "\n")
    for entry in record["summary"]:
        print(entry)


if __name__ == "__main__":
    main()
