"""Other people's programs on an exported model: the same vectors and scores in each of them.

    pip install mteb beir faiss-cpu qdrant-client lancedb langchain-huggingface
    FUSION_DATA=... python experiments/clients/agreement.py --run RUN --model MODEL

Hardware: any CPU; minutes, since each client embeds the texts itself. RUN is a run of
``fusion.train``, MODEL what ``fusion.export`` made of it. To keep it short the data are the first
queries of a data set, their judged documents and some others, written as a folder in BEIR's layout.

To expect: mteb and beir give the nDCG@10 of ``python -m fusion.evaluate`` within 1e-4 at both
widths; LangChain the very vectors of the model; FAISS and Qdrant, which search int8 codes, within a
point of float32. LanceDB has no int8 vectors and searches one bit a dimension.

Writes experiments/results/clients.json and exits with 1 if mteb, beir or LangChain disagrees.
"""

import argparse
import json
import logging
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here needs the hub
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import numpy as np
from metrics import foreign_ids

import fusion
from fusion.evaluate import main as evaluate
from fusion.inputs.data.judged import RetrievalData
from fusion.inputs.data.retrieval import load_data
from fusion.measure.retrieval.metrics import Judgements, ndcg_at_k

RESULTS = Path(__file__).parents[1] / "results"
ROUNDED = 1e-4
PACKAGES = (
    "sentence-transformers", "torch", "mteb", "beir", "faiss-cpu", "qdrant-client", "lancedb",
    "langchain-huggingface",
)  # fmt: skip


def write_small(name: str, queries: int, documents: int, folder: Path) -> Path:
    """Write the head of a data set as a folder that every client can read."""
    data = load_data(name)
    kept = data.query_ids[:queries]
    judged = {doc for query in kept for doc in data.qrels[query]}
    others = [doc for doc in data.doc_ids if doc not in judged]
    wanted = judged | set(others[: max(0, documents - len(judged))])
    texts = zip(data.doc_ids, data.documents, strict=True)
    corpus = [{"_id": i, "title": "", "text": text} for i, text in texts if i in wanted]
    asked = zip(kept, data.queries, strict=False)
    _write_jsonl(folder / "corpus.jsonl", corpus)
    _write_jsonl(folder / "queries.jsonl", [{"_id": i, "text": text} for i, text in asked])
    (folder / "qrels").mkdir()
    lines = [f"{q}\t{d}\t{s}" for q in kept for d, s in data.qrels[q].items()]
    text = "\n".join(["query-id\tcorpus-id\tscore", *lines])
    (folder / "qrels" / "test.tsv").write_text(text + "\n", encoding="utf-8")
    return folder


def _write_jsonl(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def by_fusion(run: Path, folder: Path, dims: list[int], scratch: Path) -> dict[int, float]:
    """What ``python -m fusion.evaluate`` says."""
    output = scratch / "evaluation"
    code = evaluate(
        [str(run), "--data", str(folder), "--methods", "head", "--dims", ",".join(map(str, dims)),
         "--output", str(output)]
    )  # fmt: skip
    if code:
        raise SystemExit(code)
    rows = json.loads((output / "results.json").read_text(encoding="utf-8"))["rows"]
    return {row["dim"]: row["ndcg_at_10"] for row in rows}


def by_mteb(model: Path, data: RetrievalData, dim: int) -> float:
    """Mteb's own evaluation, without its result cache."""
    import mteb
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    names = foreign_ids(data)

    class Folder(AbsTaskRetrieval):
        """A data set that we have read already."""

        ignore_identical_ids = True
        metadata = TaskMetadata(
            name="FusionClients", description="a folder in BEIR's layout", type="Retrieval",
            category="t2t", eval_splits=["test"], eval_langs=["eng-Latn"],
            main_score="ndcg_at_10", dataset={"path": "local", "revision": "1"},
        )  # fmt: skip

        def load_data(self, *_: object, **__: object) -> None:
            documents = zip(data.doc_ids, data.documents, strict=True)
            queries = zip(names.values(), data.queries, strict=True)
            corpus = [{"id": i, "title": "", "text": text} for i, text in documents]
            asked = [{"id": i, "text": text} for i, text in queries]
            split = {"corpus": Dataset.from_list(corpus), "queries": Dataset.from_list(asked)}
            qrels = {names[key]: judged for key, judged in data.qrels.items()}
            split |= {"relevant_docs": qrels, "top_ranked": None}
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    stranger = _sentence_transformer(model, dim)
    result = mteb.evaluate(stranger, Folder(), cache=None, show_progress_bar=False)
    return float(result.task_results[0].scores["test"][0]["ndcg_at_10"])


def by_beir(model: Path, data: RetrievalData, dim: int) -> float:
    """Beir's own exact search and evaluation over its own wrapper of sentence-transformers."""
    from beir.retrieval.evaluation import EvaluateRetrieval
    from beir.retrieval.models import SentenceBERT
    from beir.retrieval.search.dense import DenseRetrievalExactSearch

    names = {"query": "query", "passage": "document"}
    options = {"trust_remote_code": True, "truncate_dim": dim, "device": "cpu"}
    retriever = EvaluateRetrieval(
        DenseRetrievalExactSearch(SentenceBERT(str(model), prompt_names=names, **options)),
        score_function="cos_sim",
    )
    documents = zip(data.doc_ids, data.documents, strict=True)
    corpus = {i: {"title": "", "text": text} for i, text in documents}
    names = foreign_ids(data)
    queries = dict(zip(names.values(), data.queries, strict=True))
    qrels = {names[key]: judged for key, judged in data.qrels.items()}
    ndcg, *_ = retriever.evaluate(qrels, retriever.retrieve(corpus, queries), [10])
    return float(ndcg["NDCG@10"])


def by_langchain(model: Path, data: RetrievalData, dim: int) -> float:
    """Largest difference between LangChain's vectors and those of ``fusion.load``."""
    from langchain_huggingface import HuggingFaceEmbeddings

    options = {"trust_remote_code": True, "truncate_dim": dim, "device": "cpu"}
    theirs = HuggingFaceEmbeddings(
        model_name=str(model), model_kwargs=options, query_encode_kwargs={"prompt_name": "query"}
    )
    ours = fusion.load(model, truncate_dim=dim, device="cpu")
    queries, documents = data.queries[:8], data.documents[:8]
    found = np.array([theirs.embed_query(query) for query in queries])
    right = ours.encode_query(queries, batch_size=1)
    off = np.abs(found - right).max()
    return float(max(off, np.abs(theirs.embed_documents(documents) - ours.encode(documents)).max()))


def by_faiss(queries: np.ndarray, documents: np.ndarray, k: int) -> np.ndarray:
    """Indices [q, k] of int8 codes, stored as one byte a dimension, by inner product."""
    import faiss

    index = faiss.IndexScalarQuantizer(
        documents.shape[1], faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT
    )
    index.train(documents.astype(np.float32))
    index.add(documents.astype(np.float32))
    return index.search(queries.astype(np.float32), k)[1]


def by_qdrant(queries: np.ndarray, documents: np.ndarray, k: int) -> np.ndarray:
    """Indices [q, k] of uint8 codes by Euclidean distance, which an offset does not change.

    Local mode takes the collection's ``uint8`` and computes in float; a server stores bytes.
    """
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    vectors = models.VectorParams(
        size=documents.shape[1], distance=models.Distance.EUCLID, datatype=models.Datatype.UINT8
    )
    client.create_collection("codes", vectors_config=vectors)
    points = [
        models.PointStruct(id=row, vector=code.tolist()) for row, code in enumerate(documents)
    ]
    client.upsert("codes", points)
    found = [client.query_points("codes", query=query.tolist(), limit=k) for query in queries]
    return np.array([[point.id for point in answer.points] for answer in found])


def by_lancedb(queries: np.ndarray, documents: np.ndarray, k: int) -> np.ndarray:
    """Indices [q, k] of packed bits by Hamming distance, on disk."""
    import lancedb
    import pyarrow

    flat = pyarrow.array(documents.reshape(-1), pyarrow.uint8())
    column = pyarrow.FixedSizeListArray.from_arrays(flat, documents.shape[1])
    rows = pyarrow.table({"id": pyarrow.array(range(len(documents))), "vector": column})
    with tempfile.TemporaryDirectory() as folder:
        table = lancedb.connect(folder).create_table("codes", rows)
        found = [table.search(q).distance_type("hamming").limit(k).to_arrow() for q in queries]
    return np.array([answer["id"].to_pylist() for answer in found])


DATABASES: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]]] = {
    "faiss": ("int8", by_faiss),
    "qdrant": ("uint8", by_qdrant),
    "lancedb": ("ubinary", by_lancedb),
}


def search_databases(model: Path, data: RetrievalData, dim: int) -> dict[str, dict[str, Any]]:
    """nDCG@10 of truncated, quantised vectors in real vector databases."""
    stranger = _sentence_transformer(model, dim)
    judgements = Judgements.from_qrels(data.query_ids, data.doc_ids, data.qrels)
    floats = [stranger.encode_query(data.queries), stranger.encode_document(data.documents)]
    answers = {}
    for name, (precision, search) in DATABASES.items():
        queries, documents = (stranger.quantize(rows, precision) for rows in floats)
        found = search(queries, documents, 11)
        # A query that is itself a document must not find itself.
        rows = [
            [i for i in row if i != own][:10]
            for row, own in zip(found.tolist(), data.exclude.tolist(), strict=True)
        ]
        ndcg = float(np.nanmean(ndcg_at_k(np.array(rows), judgements)))
        answers[name] = {
            "precision": precision,
            "bytes_per_vector": documents.nbytes // len(documents),
            "ndcg_at_10": ndcg,
        }
    return answers


def _sentence_transformer(model: Path, dim: int) -> Any:  # noqa: ANN401 - a SentenceTransformer
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(model), trust_remote_code=True, truncate_dim=dim, device="cpu")


def main() -> int:
    """Run all clients, write the JSON, say who disagrees."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="a run folder of fusion.train")
    parser.add_argument("--model", type=Path, required=True, help="what fusion.export made of it")
    parser.add_argument("--data", default="scifact")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--dims", default="64,256")
    parser.add_argument("--output", type=Path, default=RESULTS / "clients.json")
    options = parser.parse_args()
    logging.disable(logging.INFO)  # they all talk a lot
    dims = [int(dim) for dim in options.dims.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        small = Path(scratch) / "small"
        small.mkdir()
        folder = write_small(options.data, options.queries, options.documents, small)
        data = load_data(str(folder))
        ours = by_fusion(options.run, folder, dims, Path(scratch))
        scores = {
            str(dim): {
                "fusion.evaluate": ours[dim],
                "mteb": by_mteb(options.model, data, dim),
                "beir": by_beir(options.model, data, dim),
            }
            for dim in dims
        }
        langchain = by_langchain(options.model, data, dims[0])
        databases = search_databases(options.model, data, dims[-1])
    off = max(
        abs(row[name] - row["fusion.evaluate"])
        for row in scores.values()
        for name in ("mteb", "beir")
    )
    report = {
        "command": "python experiments/clients/agreement.py --run RUN --model MODEL "
        f"--data {options.data} --queries {options.queries} "
        f"--documents {options.documents} --dims {options.dims}",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "data": {
            "name": options.data,
            "queries": len(data.queries),
            "documents": len(data.doc_ids),
        },
        "tolerance": ROUNDED,
        "ndcg_at_10": scores,
        "largest_difference": off,
        "langchain_largest_difference_of_a_vector": langchain,
        "databases": {"dim": dims[-1], **databases},
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: report[key] for key in list(report)[6:]}, indent=1))
    return 0 if max(off, langchain) <= ROUNDED else 1


if __name__ == "__main__":
    sys.exit(main())
