"""Our nDCG@10 and recall@100 against pytrec_eval, beir and mteb, on the same real vectors.

    pip install mteb beir
    FUSION_DATA=... python experiments/clients/metrics.py

Hardware: any CPU; seconds once the embeddings are stored (minilm takes minutes the first time).
To expect: pytrec_eval within 1e-9 for every single query, beir and mteb (which search on their own
and round to five digits) within 1e-4 of the mean. Concat of minilm and wordllama, each block
unit-norm: NFCorpus .3092, SciFact .6591, ArguAna .5137.

Writes experiments/results/check_metrics.json and exits with 1 if anybody disagrees.
"""

import argparse
import json
import logging
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here needs the hub
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import pytrec_eval
import torch

from fusion.inputs.data.judged import RetrievalData
from fusion.inputs.data.retrieval import load_data
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.text import load_encoder
from fusion.inputs.store.store import Store
from fusion.measure.retrieval.metrics import Judgements, ndcg_at_k, recall_at_k
from fusion.space.blocks import Blocks
from fusion.topk.nested import nested_topk

RESULTS = Path(__file__).parents[1] / "results"
DEPTH = 1000
Batches = Iterable[dict[str, list[str]]]
EXACT, ROUNDED = 1e-9, 1e-4


@dataclass(frozen=True, eq=False)
class Task:
    """A data set and the vectors of its queries and documents."""

    data: RetrievalData
    queries: np.ndarray  # float32 (q, d)
    documents: np.ndarray  # float32 (c, d)

    @property
    def corpus(self) -> dict[str, dict[str, str]]:
        """The documents' ids as their texts: the encoders below look vectors up by them."""
        return {doc_id: {"title": "", "text": doc_id} for doc_id in self.data.doc_ids}


def foreign_ids(data: RetrievalData) -> dict[str, str]:
    """Names of the queries for programs that leave out every document of the query's own id.

    A query that shares its id with a document that it may find gets another one.
    """
    documents = set(data.doc_ids)
    return {
        key: f"query {key}" if own < 0 and key in documents else key
        for key, own in zip(data.query_ids, data.exclude.tolist(), strict=True)
    }


def load_task(name: str, encoders: list[str], store: Store) -> Task:
    """Fuse the encoders' embeddings of one data set, each block unit-norm."""
    data = load_data(name)
    models = [load_encoder(encoder) for encoder in encoders]
    queries = [store.embed(model, data.queries, Role.QUERY) for model in models]
    documents = [store.embed(model, data.documents, Role.DOCUMENT) for model in models]
    blocks = Blocks(tuple(m.name for m in models), tuple(m.dim for m in models))
    return Task(data, blocks.transform(queries), blocks.transform(documents))


def check(task: Task) -> dict[str, Any]:
    """Score one data set four times."""
    data = task.data
    scores, indices = nested_topk(
        task.queries, task.documents, [task.queries.shape[1]], DEPTH, exclude=data.exclude
    )
    judgements = Judgements.from_qrels(data.query_ids, data.doc_ids, data.qrels)
    ndcg = ndcg_at_k(indices[0].numpy(), judgements)
    recall = recall_at_k(indices[0].numpy(), judgements)
    exact = by_pytrec_eval(data, scores[0].numpy(), indices[0].numpy())
    ours = {"ndcg_at_10": float(np.nanmean(ndcg)), "recall_at_100": float(np.nanmean(recall))}
    beir, mteb = by_beir(task), by_mteb(task)
    return {
        "data": data.name,
        "queries": len(data.query_ids),
        "documents": len(data.doc_ids),
        "judged_documents_not_in_the_corpus": int((judgements.docs < 0).sum()),
        "self_matches_left_out": int((data.exclude >= 0).sum()),
        "ours": ours,
        "pytrec_eval": {name: float(np.mean(values)) for name, values in exact.items()},
        "beir": beir,
        "mteb": mteb,
        "largest_difference": {
            "pytrec_eval, any query": max(
                float(np.abs(ndcg - exact["ndcg_at_10"]).max()),
                float(np.abs(recall - exact["recall_at_100"]).max()),
            ),
            "beir": largest_difference(ours, beir),
            "mteb": largest_difference(ours, mteb),
        },
    }


def by_pytrec_eval(
    data: RetrievalData, scores: np.ndarray, indices: np.ndarray
) -> dict[str, np.ndarray]:
    """Score our search's run with trec_eval's own C code, query by query."""
    run = {
        query: {data.doc_ids[i]: float(s) for s, i in zip(*found, strict=True) if i >= 0}
        for query, found in zip(data.query_ids, zip(scores, indices, strict=True), strict=True)
    }
    evaluator = pytrec_eval.RelevanceEvaluator(data.qrels, {"ndcg_cut.10", "recall.100"})
    found = evaluator.evaluate(run)
    return {
        "ndcg_at_10": np.array([found[query]["ndcg_cut_10"] for query in data.query_ids]),
        "recall_at_100": np.array([found[query]["recall_100"] for query in data.query_ids]),
    }


def by_beir(task: Task) -> dict[str, float]:
    """Score with beir's own exact search and evaluation."""
    from beir.retrieval.evaluation import EvaluateRetrieval
    from beir.retrieval.search.dense import DenseRetrievalExactSearch

    queries = dict(zip(task.data.query_ids, task.queries, strict=True))
    documents = dict(zip(task.data.doc_ids, task.documents, strict=True))

    class Vectors:
        """An encoder as beir wants it, of texts that are ids."""

        def encode_queries(self, texts: list[str], **_: object) -> torch.Tensor:
            return torch.from_numpy(np.stack([queries[text] for text in texts]))

        def encode_corpus(self, corpus: list[dict[str, str]], **_: object) -> torch.Tensor:
            return torch.from_numpy(np.stack([documents[entry["text"]] for entry in corpus]))

    retriever = EvaluateRetrieval(DenseRetrievalExactSearch(Vectors()), score_function="cos_sim")
    names = foreign_ids(task.data)
    results = retriever.retrieve(task.corpus, {names[query]: query for query in queries})
    qrels = {names[query]: judged for query, judged in task.data.qrels.items()}
    ndcg, _, recall, _ = retriever.evaluate(qrels, results, [10, 100])
    return {"ndcg_at_10": ndcg["NDCG@10"], "recall_at_100": recall["Recall@100"]}


def by_mteb(task: Task) -> dict[str, float]:
    """Score with mteb's own search and evaluation, without its result cache."""
    import mteb

    vectors, folder = mteb_parts(task)
    result = mteb.evaluate(vectors(), folder(), cache=None, show_progress_bar=False)
    scores = result.task_results[0].scores[task.data.split][0]
    return {name: float(scores[name]) for name in ("ndcg_at_10", "recall_at_100")}


def mteb_parts(task: Task) -> tuple[type[Any], type[Any]]:
    """The vectors as an encoder class and the data set as a task class, as mteb wants them."""
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.model_meta import ModelMeta
    from mteb.types import PromptType

    data, names = task.data, foreign_ids(task.data)
    vectors = {
        PromptType.query: dict(zip(data.query_ids, task.queries, strict=True)),
        PromptType.document: dict(zip(data.doc_ids, task.documents, strict=True)),
    }

    class Vectors:
        """An encoder as mteb wants it, of texts that are ids."""

        mteb_model_meta = ModelMeta.create_empty({"name": "fusion/vectors", "revision": data.name})

        def encode(self, inputs: Batches, *, prompt_type: PromptType, **_: object) -> np.ndarray:
            texts = [text for batch in inputs for text in batch["text"]]
            return np.stack([vectors[prompt_type][text.strip()] for text in texts])

        def similarity(self, a: np.ndarray, b: np.ndarray) -> torch.Tensor:
            unit = [torch.nn.functional.normalize(torch.as_tensor(rows)) for rows in (a, b)]
            return unit[0] @ unit[1].T

        def similarity_pairwise(self, a: np.ndarray, b: np.ndarray) -> torch.Tensor:
            return torch.nn.functional.cosine_similarity(torch.as_tensor(a), torch.as_tensor(b))

    class Folder(AbsTaskRetrieval):
        """A data set that we have read already."""

        ignore_identical_ids = True
        metadata = TaskMetadata(
            name=f"Fusion{data.name.title()}",
            description=f"{data.name}, read from a folder",
            type="Retrieval",
            category="t2t",
            eval_splits=[data.split],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            dataset={"path": data.name, "revision": "1"},
        )

        def load_data(self, *_: object, **__: object) -> None:
            corpus = [{"id": doc_id, "title": "", "text": doc_id} for doc_id in data.doc_ids]
            queries = [{"id": names[key], "text": key} for key in data.query_ids]
            self.dataset = {
                "default": {
                    data.split: {
                        "corpus": Dataset.from_list(corpus),
                        "queries": Dataset.from_list(queries),
                        "relevant_docs": {names[key]: row for key, row in data.qrels.items()},
                        "top_ranked": None,
                    }
                }
            }
            self.data_loaded = True

    return Vectors, Folder


def largest_difference(ours: dict[str, float], theirs: dict[str, float]) -> float:
    """Over both metrics."""
    return max(abs(ours[name] - theirs[name]) for name in ours)


def agrees(result: dict[str, Any]) -> bool:
    """Whether all three confirm our scores."""
    exact, *rounded = result["largest_difference"].values()
    return exact <= EXACT and max(rounded) <= ROUNDED


def main() -> int:
    """Check each data set, write the JSON, and print one line a data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", default="minilm,wordllama")
    parser.add_argument("--data", default="nfcorpus,scifact,arguana")
    parser.add_argument("--output", type=Path, default=RESULTS / "check_metrics.json")
    options = parser.parse_args()
    logging.disable(logging.INFO)  # beir and mteb talk a lot
    encoders, store, results = options.encoders.split(","), Store(), []
    for name in options.data.split(","):
        result = check(load_task(name, encoders, store))
        results.append(result | {"agrees": agrees(result)})
        print(name, json.dumps(result["ours"]), json.dumps(result["largest_difference"]))
    packages = ("numpy", "torch", "pytrec_eval-terrier", "beir", "mteb")
    report = {
        "command": "python experiments/clients/metrics.py "
        f"--encoders {options.encoders} --data {options.data}",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
        "tolerance": {"pytrec_eval": EXACT, "beir": ROUNDED, "mteb": ROUNDED},
        "results": results,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if all(result["agrees"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
