"""Which epoch to keep, and how much of the start: criteria compared, on data for development.

Command:  FUSION_DATA=... python experiments/tables/keep_epoch.py
Hardware: any CPU; an hour on one core once the texts are embedded.
Expected: at 32 dims, from 400 documents on, "among all, with start" beats "among few" by up to
          .04 (docstrings) on five of six corpora; it loses .010 to .024 on MED, where the start
          itself is best, and .009 with 5,000 commands of nl2bash.

Encoders and weights are those of compression.py. Documents are drawn from a corpus, and a head is
trained on them alone (recipe corpus, and once paper); then queries that it never saw search either
the documents that were drawn or the whole corpus. Recipe fusion is trained on other texts. Each
training is watched once, and every criterion picks its point of that one path:

start                 no training at all
last epoch            no choice
among few             the least loss of held-back texts, each compared with the others held back
among all             the least loss of held-back texts, each compared with all texts
among all, with start the same, and that share of the start that has the least loss of them too
best point            whatever scores best on the test queries, which nobody can know before

Corpora: MED, CACM and nl2bash (all their queries), docstrings (train split), Python's help topics
with their headings as queries, Wikipedia paragraphs with their titles, which the recipe corpus
leaves out. None of them is among the test sets of compression.py. Writes
experiments/results/keep_epoch.json after each case, and goes on from there.
"""

import argparse
import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from compression import ENCODERS, WEIGHTS, WIDTHS, environment
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from fusion.inputs.data.judged import RetrievalData
from fusion.inputs.data.retrieval import load_data, load_documents
from fusion.inputs.data.texts import Texts, load_texts
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.text import load_encoder
from fusion.inputs.store.store import Store
from fusion.measure.retrieval.metrics import Judgements, ndcg_at_k
from fusion.output import write_whole
from fusion.runs.fusing import fuse, fuse_queries
from fusion.space.blocks import Blocks
from fusion.space.head import FusionHead
from fusion.space.training import fit as training
from fusion.space.training.batches import HeldBack, Queries
from fusion.space.training.held import SHARES
from fusion.space.training.plan import make_plan
from fusion.space.training.recipe import TrainConfig
from fusion.topk.nested import nested_topk

log = logging.getLogger("keep_epoch")
RESULTS = Path(__file__).parents[1] / "results" / "keep_epoch.json"
DIMS = (32, 64, 128, 256, 384, 512, 640)
SEEDS = (0, 1, 2)
COUNTS = (50, 100, 200, 400, 1000, 3000)
WIKIPEDIA = 4000
SPLITS = {"med": ("test",), "cacm": ("test",), "nl2bash": ("dev", "test"), "pydocs": ("train",)}
ELSEWHERE = {"pydocs": "dev"}  # texts that are not searched, and a split that is
RULE = re.compile(r"\n*^([^\n]+)\n(?:\*{3,}|={3,}|-{3,}|~{3,}|\^{3,})\n", re.MULTILINE)
PIECE = 60  # words, about, of a piece of a help topic


@dataclass(frozen=True, eq=False)
class Corpus:
    """Fused texts to train on, and what is searched."""

    name: str
    texts: np.ndarray
    """float32 [n, D], to draw from."""
    parts: Queries | None
    """Sentences of the texts."""
    sets: list[tuple[RetrievalData, np.ndarray]]
    """Queries, float32 [q, D], each of its data."""
    documents: np.ndarray
    """float32 [c, D], what all of them search."""
    own: bool
    """Whether the texts are the documents."""


class Embedder:
    """The encoders and weights of compression.py, through the store."""

    def __init__(self) -> None:
        self._encoders, self._store = [load_encoder(name) for name in ENCODERS], Store()
        self._blocks = Blocks(ENCODERS, WIDTHS, weights=WEIGHTS)

    def fused(self, texts: Sequence[str], role: Role) -> np.ndarray:
        """Float32 [n, D]."""
        return fuse(self._blocks, self._encoders, texts, role, self._store)

    def parts(self, texts: Texts, recipe: str) -> Queries | None:
        """What a recipe learns from beside the texts."""
        config = TrainConfig.of(recipe)
        return fuse_queries(self._blocks, self._encoders, texts, config, self._store)

    def own(self, texts: Texts, sets: Sequence[RetrievalData]) -> Corpus:
        """A corpus that is trained on its own documents."""
        documents = self.fused(texts.texts, Role.DOCUMENT)
        asked = [(data, self.fused(data.queries, Role.QUERY)) for data in sets]
        return Corpus(texts.name, documents, self.parts(texts, "corpus"), asked, documents, True)

    def other(self, texts: Texts, data: RetrievalData) -> Corpus:
        """A corpus that is trained on other texts."""
        return Corpus(
            f"{texts.name} ({data.split})",
            self.fused(texts.texts, Role.DOCUMENT),
            self.parts(texts, "fusion"),
            [(data, self.fused(data.queries, Role.QUERY))],
            self.fused(data.documents, Role.DOCUMENT),
            False,
        )


def corpora(embedder: Embedder) -> Iterator[Corpus]:
    """All of them, one at a time."""
    for name, splits in SPLITS.items():
        sets = [load_data(name, split) for split in splits]
        known = {} if name in ELSEWHERE else load_documents(name)
        titles = [known[i].title if known else "" for i in sets[0].doc_ids]
        yield embedder.own(Texts(name, sets[0].doc_ids, sets[0].documents, titles), sets)
    paragraphs = load_texts("wikipedia-100k", WIKIPEDIA)
    yield embedder.own(*titled("wikipedia", paragraphs.texts, paragraphs.titles))
    yield embedder.own(*titled("help topics", *help_topics()))
    for name, split in ELSEWHERE.items():
        yield embedder.other(load_texts(name, COUNTS[-1]), load_data(name, split))


def titled(
    name: str, texts: Sequence[str], titles: Sequence[str]
) -> tuple[Texts, list[RetrievalData]]:
    """Texts whose titles are the queries that have to find them."""
    ids = [f"{row:06d}" for row in reversed(range(len(texts)))]  # descending, as searches want them
    qrels: dict[str, dict[str, int]] = {}
    for key, title in zip(ids, titles, strict=True):
        qrels.setdefault(title, {})[key] = 1
    asked = [title for title in qrels if title]
    data = RetrievalData(name, "titles", asked, asked, ids, list(texts), qrels)
    return Texts(name, ids, list(texts), list(titles)), [data]


def help_topics() -> tuple[list[str], list[str]]:
    """Pieces of what ``help()`` knows by heart, and the heading over each."""
    from pydoc_data.topics import topics

    found: dict[str, str] = {}
    for topic in topics.values():
        _, *parts = RULE.split(topic)
        for heading, body in zip(parts[::2], parts[1::2], strict=True):
            for piece in _pieces(body):
                found.setdefault(piece, heading)
    return list(found), list(found.values())


def _pieces(body: str) -> Iterator[str]:
    held: list[str] = []
    for paragraph in re.split(r"\n\s*\n", body):
        held += paragraph.split()
        if len(held) >= PIECE:
            yield " ".join(held)
            held = []
    if len(held) >= PIECE // 4:
        yield " ".join(held)


class Watch(Callback):
    """Keeps the head of every validated epoch."""

    def __init__(self) -> None:
        self.epochs: dict[int, dict[str, Tensor]] = {}

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ANN401
        """Copy the weights."""
        weights = pl_module.head.state_dict()
        self.epochs[trainer.current_epoch] = {key: w.clone() for key, w in weights.items()}


def watched(
    texts: np.ndarray, config: TrainConfig, parts: Queries | None
) -> tuple[training._Training, dict[int, dict[str, Tensor]]]:
    """Train as ``fit_head`` does, and give back every validated epoch; -1 is the start."""
    plan, watch = make_plan(texts, config, DIMS, parts), Watch()
    module = training._Training(plan)
    start = {key: weight.clone() for key, weight in module.head.state_dict().items()}
    with training.quiet(), tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            default_root_dir=folder,
            accelerator="cpu",
            devices=1,
            max_epochs=plan.epochs,
            check_val_every_n_epoch=plan.validate_every,
            gradient_clip_val=config.clip_norm or None,
            callbacks=[watch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        trainer.fit(module)
    return module, {-1: start} | watch.epochs


@torch.no_grad()
def loss_among_few(module: training._Training, head: FusionHead) -> float:
    """The loss of held-back texts, each compared with a batch of others that are held back."""
    plan, losses = module.plan, []
    for batch in HeldBack(plan.held, plan.batch_size):
        kinds = [module.rows[batch]]
        if plan.queries:
            kinds.append(module._queries(kinds[0], plan.queries.of(batch, 0)))
        teacher = kinds if module.teacher is None else [rows @ module.teacher for rows in kinds]
        student = torch.cat([head(rows) for rows in kinds])
        losses.append(
            module.loss(student, torch.cat(teacher), plan.dims, len(student) - len(batch)).item()
        )
    return float(np.mean(losses))


@dataclass(frozen=True)
class Point:
    """A place on the path of one training."""

    epoch: int
    share: float


def picks(module: training._Training, epochs: dict[int, dict[str, Tensor]]) -> dict[str, Point]:
    """The point that each criterion takes."""
    held, least, shares = module.held, module.plan.config.keep_start, tried(module)
    trained = [epoch for epoch in epochs if epoch >= 0]

    def best(loss: Callable[[FusionHead], Any]) -> int:
        return min(trained, key=lambda epoch: loss(module.mixed(epochs[epoch], 0.0)))

    chosen = {
        "start": Point(-1, 0.0),
        "last epoch": Point(trained[-1], least),
        "among few": Point(best(lambda head: loss_among_few(module, head)), least),
    }
    if held is not None:
        epoch = best(held.loss)
        share = held.share_of_start(shares, lambda share: module.mixed(epochs[epoch], share))
        chosen["among all"] = Point(epoch, least)
        chosen["among all, with start"] = Point(epoch, share)
    return chosen


def tried(module: training._Training) -> list[float]:
    """Shares of the start, from the least one that may be kept."""
    least = module.plan.config.keep_start
    return [least, *(share for share in SHARES if share > least)] if module.may_return else [least]


def along(module: training._Training, epochs: dict[int, dict[str, Tensor]]) -> list[Point]:
    """Points all along the path: every third epoch, and the way from the last one to the start."""
    least, last = tried(module)[0], max(epochs)
    trained = [Point(epoch, least) for epoch in epochs if epoch >= 0]
    return [*trained[::3], *(Point(last, share) for share in tried(module))]


def scored(corpus: Corpus, rows: np.ndarray, head: FusionHead) -> dict[str, list[float]]:
    """nDCG@10 by width, searching all documents and those that were drawn."""
    with torch.inference_mode():
        documents = head(torch.from_numpy(corpus.documents)).numpy()  # (c, d)
        asked = [head(torch.from_numpy(queries)).numpy() for _, queries in corpus.sets]
    wholes = range(len(corpus.documents))
    searched = {"all": np.array(wholes)} | ({"drawn": rows} if corpus.own else {})
    return {
        name: np.mean(
            [
                _ndcg(data, queries, documents, chosen)
                for (data, _), queries in zip(corpus.sets, asked, strict=True)
            ],
            axis=0,
        ).tolist()
        for name, chosen in searched.items()
    }


def _ndcg(
    data: RetrievalData, queries: np.ndarray, documents: np.ndarray, rows: np.ndarray
) -> list[float]:
    """Of the queries that have something to find among these documents; 0 where none has."""
    ids = [data.doc_ids[row] for row in rows]
    known = set(ids)
    qrels = {
        key: {i: gain for i, gain in judged.items() if i in known}
        for key, judged in data.qrels.items()
    }
    kept = [n for n, key in enumerate(data.query_ids) if max(qrels[key].values(), default=0) > 0]
    if not kept:
        return [0.0] * len(DIMS)
    judgements = Judgements.from_qrels([data.query_ids[n] for n in kept], ids, qrels)
    _, found = nested_topk(queries[kept], documents[rows], DIMS, min(10, len(rows)))
    return [float(np.nanmean(ndcg_at_k(of_dim, judgements, 10))) for of_dim in found.numpy()]


def draw(corpus: Corpus, count: int, seed: int) -> tuple[np.ndarray, Queries | None]:
    """Int64 rows of so many texts, and the queries that come from them."""
    if count >= len(corpus.texts):
        return np.arange(len(corpus.texts)), corpus.parts
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(corpus.texts), count, replace=False))
    if corpus.parts is None or not (kept := np.isin(corpus.parts.owners, rows)).any():
        return rows, None
    owners = np.searchsorted(rows, corpus.parts.owners[kept])
    return rows, Queries(np.asarray(corpus.parts.embeddings)[kept], owners)


def compare(corpus: Corpus, recipe: str, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """One training, and what every criterion makes of it."""
    config = TrainConfig.of(recipe, seed=seed)
    rows, parts = draw(corpus, count, seed)
    module, epochs = watched(corpus.texts[rows], config, parts if config.sentences else None)
    chosen = picks(module, epochs)
    scores = {
        point: scored(corpus, rows, module.mixed(epochs[point.epoch], point.share))
        for point in dict.fromkeys([*chosen.values(), *along(module, epochs)])
    }
    chosen["best point"] = max(scores, key=lambda point: np.mean(scores[point]["all"]))
    for criterion, point in chosen.items():
        for searched, ndcg in scores[point].items():
            yield {
                "corpus": corpus.name,
                "recipe": recipe,
                "documents": len(rows),
                "asked": count,
                "seed": seed,
                "searched": searched,
                "criterion": criterion,
                **asdict(point),
                "epochs": module.plan.epochs,
                "ndcg_at_10": [round(score, 5) for score in ndcg],
            }


def cases(corpus: Corpus) -> Iterator[tuple[str, int]]:
    """Recipes and numbers of texts; the largest takes what there is."""
    whole = len(corpus.texts)
    counts = [n for n in COUNTS if n < whole] + ([whole] if whole > COUNTS[0] else [])
    if not corpus.own:
        yield from (("fusion", count) for count in counts if count >= 400)
        return
    yield from (("corpus", count) for count in counts)
    if corpus.name == "pydocs":
        yield from (("paper", count) for count in counts if count <= 1000)


def main() -> None:
    """Compare on everything; the JSON grows by a case, and what it has is not measured again."""
    report = {"environment": environment(), "dims": DIMS, "seeds": SEEDS, "rows": []}
    if RESULTS.is_file():
        report = json.loads(RESULTS.read_text(encoding="utf-8"))
    known = {(row["corpus"], row["recipe"], row["asked"]) for row in report["rows"]}
    for corpus in corpora(Embedder()):
        for recipe, count in cases(corpus):
            if (corpus.name, recipe, count) in known:
                continue
            for seed in SEEDS:
                report["rows"] += compare(corpus, recipe, count, seed)
            write_whole(RESULTS, json.dumps(report, indent=1) + "\n")
            log.info("%s, %s, %d texts: done", corpus.name, recipe, count)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    main()
