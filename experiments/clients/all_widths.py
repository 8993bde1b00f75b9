"""Other people's evaluators, every width from one encoding.

    python experiments/clients/all_widths.py --data scifact --encoders minilm,wordllama

mteb and sentence-transformers encode a data set again for each width. ``NestedSearch`` gives mteb
one searcher a width that share one encoding and one nested search; ``score_functions`` gives
sentence-transformers' InformationRetrievalEvaluator all widths in its one pass. The check scores
real vectors both ways. To expect: every text is encoded once instead of once a width, and no number
differs by more than 1e-6, except where two cosines are so close that mteb's float32 products swap
them; there ours must be the number of the float64 order, which mteb's is not. Writes
experiments/results/all_widths.json, exits with 1 if not so.
"""

import argparse
import importlib.metadata
import json
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fusion import nested_topk

RESULTS = Path(__file__).parents[1] / "results" / "all_widths.json"
METRICS = ("ndcg_at_10", "recall_at_100")
TOLERANCE = 1e-6
PRINTED = 5.1e-6  # mteb rounds its numbers to five places
Hits = dict[str, dict[str, float]]
Foreign = Any  # what other people's libraries hand over, which have few public types


class NestedSearch:
    """An mteb encoder's retrieval at every width: one encoding, one search.

    ``at(dim)`` is what ``mteb.evaluate`` takes as a model. Widths may be evaluated in any order;
    the first one encodes and searches a subset, the others find it done.
    """

    def __init__(self, encoder: Foreign, dims: Sequence[int]) -> None:
        self.encoder = encoder
        self.dims = tuple(sorted(dims))
        self._found: dict[tuple[str, str, str, int], dict[int, Hits]] = {}

    def at(self, dim: int) -> "SearchAtWidth":
        """The searcher of one width."""
        if dim not in self.dims:
            raise ValueError(f"dim must be one of {self.dims}, got {dim}")
        return SearchAtWidth(self, dim)

    def search(
        self, corpus: Foreign, queries: Foreign, top_k: int, where: dict[str, Any]
    ) -> dict[int, Hits]:
        """Hits of every width: query id -> document id -> cosine."""
        key = where["task_metadata"].name, where["hf_subset"], where["hf_split"], top_k
        if key not in self._found:
            documents = self._encode(corpus, "document", where)
            scores, indices = nested_topk(
                self._encode(queries, "query", where), documents, self.dims, top_k
            )
            ids = np.asarray(corpus["id"], dtype=object)
            self._found[key] = {
                dim: {
                    query: dict(zip(ids[rows].tolist(), values.tolist(), strict=True))
                    for query, values, rows in zip(queries["id"], *of_dim, strict=True)
                }
                for dim, *of_dim in zip(self.dims, scores.numpy(), indices.numpy(), strict=True)
            }
        return self._found[key]

    def _encode(self, texts: Foreign, role: str, where: dict[str, Any]) -> np.ndarray:
        from mteb._create_dataloaders import create_dataloader
        from mteb.types import PromptType

        options = where["encode_kwargs"]
        prompt = PromptType(role)
        loader = create_dataloader(
            texts, task_metadata=where["task_metadata"], prompt_type=prompt, **options
        )
        names = ("task_metadata", "hf_split", "hf_subset")
        rows = self.encoder.encode(
            loader, prompt_type=prompt, **{name: where[name] for name in names}, **options
        )
        return np.asarray(rows, np.float32)


class SearchAtWidth:
    """What mteb asks of a searcher (its ``SearchProtocol``), for one width."""

    def __init__(self, whole: NestedSearch, dim: int) -> None:
        meta = whole.encoder.mteb_model_meta
        self.mteb_model_meta = meta.model_copy(update={"name": f"{meta.name}-{dim}"})
        self.whole, self.dim = whole, dim
        self.corpus: Foreign = None

    def index(self, corpus: Foreign, **_: object) -> None:
        """Remember the corpus."""
        self.corpus = corpus

    def search(self, queries: Foreign, *, top_k: int, **where: Foreign) -> Hits:
        """Hits of this width."""
        if where.get("top_ranked") is not None:
            raise ValueError("all widths at once search a whole corpus, they do not rerank")
        return self.whole.search(self.corpus, queries, top_k, where)[self.dim]


def score_functions(dims: Iterable[int]) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """For ``InformationRetrievalEvaluator(score_functions=...)``: the cosine of every width."""

    def cosine(dim: int) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda a, b: F.normalize(a[:, :dim]) @ F.normalize(b[:, :dim]).T

    return {f"cosine_{dim}": cosine(dim) for dim in dims}


def compare_mteb(task: Foreign, dims: Sequence[int]) -> dict[str, Any]:
    """Score each width by a run of mteb's own, and all from one encoding."""
    vectors, folder = _mteb_parts(task)
    apart = {dim: vectors(dim) for dim in dims}
    theirs = {dim: _run_mteb(model, folder) for dim, model in apart.items()}
    encoder = vectors(max(dims))
    together = NestedSearch(encoder, dims)
    ours = {dim: _run_mteb(together.at(dim), folder) for dim in dims}
    return _verdict(ours, theirs, encoder.encoded, sum(m.encoded for m in apart.values()))


def _run_mteb(model: Foreign, folder: Foreign) -> dict[str, float]:
    import mteb

    result = mteb.evaluate(model, folder(), cache=None, show_progress_bar=False)
    (scores,) = next(iter(result.task_results[0].scores.values()))
    return {name: float(scores[name]) for name in METRICS}


def _mteb_parts(task: Foreign) -> tuple[Any, Any]:
    """An encoder that counts its texts, whose texts are ids, and the data set as a task."""
    from metrics import mteb_parts

    vectors, folder = mteb_parts(task)

    class Counting(vectors):
        """The encoder at one width."""

        def __init__(self, dim: int) -> None:
            self.dim, self.encoded = dim, 0

        def encode(self, inputs: Foreign, **where: Foreign) -> np.ndarray:
            rows = super().encode(inputs, **where)
            self.encoded += len(rows)
            return rows[:, : self.dim]

    return Counting, folder


class CountingModel:
    """What sentence-transformers' evaluator asks of a model, over texts that are ids."""

    def __init__(self, task: Foreign, dim: int) -> None:
        data = task.data
        self.vectors = {
            "query": dict(zip(data.query_ids, task.queries, strict=True)),
            "document": dict(zip(data.doc_ids, task.documents, strict=True)),
        }
        self.dim, self.encoded = dim, 0

    def look_up(self, role: str, ids: Sequence[str]) -> Tensor:
        """The vectors [n, d] of these ids."""
        self.encoded += len(ids)
        return torch.from_numpy(np.stack([self.vectors[role][i][: self.dim] for i in ids]))


def compare_st(task: Foreign, dims: Sequence[int]) -> dict[str, Any]:
    """Score each width by a run of sentence-transformers' evaluator, and all in one run."""
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    class Evaluator(InformationRetrievalEvaluator):
        """The evaluator on vectors that we have already."""

        def embed_inputs(
            self, model: CountingModel, sentences: list[str], encode_fn_name: str, **_: object
        ) -> Tensor:
            return model.look_up(encode_fn_name, list(sentences))

    def run(model: CountingModel, widths: Sequence[int]) -> dict[int, dict[str, float]]:
        data = task.data
        relevant = {q: {d for d, grade in row.items() if grade} for q, row in data.qrels.items()}
        evaluator = Evaluator(
            {i: i for i in data.query_ids}, {i: i for i in data.doc_ids}, relevant,
            ndcg_at_k=[10], precision_recall_at_k=[100], score_functions=score_functions(widths),
        )  # fmt: skip
        scores = evaluator.compute_all_metrics(model)
        return {
            dim: {
                "ndcg_at_10": float(scores[f"cosine_{dim}"]["ndcg@k"][10]),
                "recall_at_100": float(scores[f"cosine_{dim}"]["recall@k"][100]),
            }
            for dim in widths
        }

    apart = {dim: CountingModel(task, dim) for dim in dims}
    theirs = {dim: run(model, [dim])[dim] for dim, model in apart.items()}
    together = CountingModel(task, max(dims))
    ours = run(together, dims)
    return _verdict(ours, theirs, together.encoded, sum(m.encoded for m in apart.values()))


def in_float64(task: Foreign, dims: Sequence[int]) -> dict[int, dict[str, float]]:
    """The numbers of the documents in the order of their float64 cosines."""
    from fusion.measure.retrieval.metrics import Judgements, ndcg_at_k, recall_at_k
    from fusion.topk.nested import nested_topk

    data = task.data
    _, found = nested_topk(task.queries, task.documents, dims, 100, exclude=data.exclude)
    judgements = Judgements.from_qrels(data.query_ids, data.doc_ids, data.qrels)
    return {
        dim: {
            "ndcg_at_10": float(np.mean(ndcg_at_k(indices, judgements))),
            "recall_at_100": float(np.mean(recall_at_k(indices, judgements))),
        }
        for dim, indices in zip(dims, found, strict=True)
    }


def unexplained(found: dict[str, Any], exact: dict[int, dict[str, float]]) -> list[str]:
    """Numbers that differ from the evaluator's own and are not those of the float64 order."""
    return [
        f"{metric} at {dim}"
        for dim, ours in found["all_widths"].items()
        for metric, value in ours.items()
        if abs(value - found["width_by_width"][dim][metric]) > TOLERANCE
        and abs(value - exact[dim][metric]) > PRINTED
    ]


def _verdict(
    ours: dict[int, dict[str, float]], theirs: dict[int, dict[str, float]], once: int, apart: int
) -> dict[str, Any]:
    difference = max(abs(ours[dim][m] - theirs[dim][m]) for dim in ours for m in METRICS)
    return {
        "all_widths": ours,
        "width_by_width": theirs,
        "largest_difference": difference,
        "texts_encoded": once,
        "texts_encoded_width_by_width": apart,
    }


def main() -> int:
    """Compare, write the JSON, print a line for each evaluator."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="scifact")
    parser.add_argument("--encoders", default="minilm,wordllama")
    parser.add_argument("--dims", default="64,128,256,384,512,640")
    arguments = parser.parse_args()
    from metrics import load_task

    from fusion.inputs.store.store import Store

    logging.disable(logging.INFO)  # mteb talks a lot
    dims = [int(dim) for dim in arguments.dims.split(",")]
    task = load_task(arguments.data, arguments.encoders.split(","), Store())
    texts = len(task.data.query_ids) + len(task.data.doc_ids)
    checks = {"mteb": compare_mteb(task, dims), "sentence-transformers": compare_st(task, dims)}
    exact = in_float64(task, dims)
    record = {
        "data": arguments.data,
        "encoders": arguments.encoders,
        "dims": dims,
        "texts": texts,
        "versions": {name: importlib.metadata.version(name) for name in checks},
        "checks": checks,
        "float64": exact,
        "unexplained": {name: unexplained(found, exact) for name, found in checks.items()},
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name, found in checks.items():
        print(
            f"{name}: largest difference {found['largest_difference']:.1e}, {texts} texts encoded "
            f"{found['texts_encoded']} times instead of {found['texts_encoded_width_by_width']}"
        )
    good = not any(record["unexplained"].values()) and all(
        found["texts_encoded"] == texts for found in checks.values()
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
