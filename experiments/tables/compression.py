"""Small vectors that keep their ranking: concat, PCA, the paper's recipe, ours, floats and codes.

Command:  FUSION_DATA=... python experiments/tables/compression.py --setting wikipedia|own
Hardware: any CPU. Once the texts are embedded, half an hour on two cores that are not shared.
Expected: mean test nDCG@10 of PCA of 16,000 paragraphs .2766 .4110 .4711 .4949 .4987 .5011 .5018
          and of own documents .3507 .4266 .4793 .4956 .5005 .5017 .5018; the concat .5018.

Encoders minilm and wordllama, each block unit-norm, squared weights 1 and 0.5. ``wikipedia`` fits
every compressor on the first 32,000 paragraphs (or ``--max-texts``), ``own`` on the documents of
each data set, without queries or labels. Which precision a byte budget is spent on is chosen on dev
and train splits (NFCorpus dev, SciFact train), and measured on test.

Writes experiments/results/compression_{setting}.json, or compression_wikipedia_{max_texts}.json.
"""

import argparse
import json
import logging
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fusion.environment import describe_environment
from fusion.inputs.data.judged import RetrievalData
from fusion.inputs.data.retrieval import load_data, load_documents
from fusion.inputs.data.texts import Texts as TextsToFit
from fusion.inputs.data.texts import load_texts
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.text import load_encoder
from fusion.inputs.store.store import Store
from fusion.measure.comparisons import comparisons_of
from fusion.measure.retrieval.sweep import Space, measure
from fusion.measure.rows import MEAN, Row, mean_rows
from fusion.runs.fusing import fuse, fuse_queries
from fusion.runs.training import CALIBRATION_ROWS
from fusion.samples import evenly_spaced
from fusion.space.blocks import Blocks
from fusion.space.codes import Codebook, Precision
from fusion.space.compressor import FittedCompressor
from fusion.space.compressors import PCA, FirstK, HeadCompressor, load_compressor
from fusion.space.training.batches import Queries
from fusion.space.training.fit import fit_head
from fusion.space.training.recipe import TrainConfig

log = logging.getLogger("compression")
RESULTS = Path(__file__).parents[1] / "results"
ENCODERS, WIDTHS, WEIGHTS = ("minilm", "wordllama"), (384, 256), (1.0, 0.5)
DATA = ("nfcorpus", "scifact", "arguana")
CHOICE_SPLITS = {"nfcorpus": "dev", "scifact": "train"}  # ArguAna has neither
TEXTS, MAX_TEXTS = "wikipedia-100k", 32_000
PAPER_EPOCHS = 20  # the paper trains for 50; its loss has long settled by then
# Bytes a vector, and the precisions that are tried for them; the width follows.
BUDGETS = {
    16: ("binary", "int2"),
    27: ("binary", "binary+", "int2"),
    32: ("binary", "binary+", "int2"),
    53: ("binary", "binary+", "int2", "int3"),
    64: ("binary+", "int2", "int2+", "int3", "int4"),
    128: ("int2", "int2+", "int3", "int4"),
}


@dataclass(frozen=True)
class Setting:
    """What is fitted on what."""

    name: str
    """``wikipedia`` or ``own``."""
    dims: tuple[int, ...]
    """Widths that heads are trained for and everything is measured at."""
    seeds: tuple[int, ...]
    """Of the heads and of the codes' rotation."""
    heads: Path | None
    """Folder in which trained heads are kept for another measurement; None keeps none."""
    max_texts: int = MAX_TEXTS
    """Paragraphs of Wikipedia."""

    @property
    def ours(self) -> str:
        """Our recipe: the default, or the one for the documents that will be searched."""
        return "corpus" if self.name == "own" else "fusion"

    def trained(self, recipe: str, seed: int) -> TrainConfig:
        """How a head is trained."""
        changes = {"epochs": PAPER_EPOCHS} if recipe == "paper" else {}
        return TrainConfig.of(recipe, seed=seed, **changes)


@dataclass(frozen=True, eq=False)
class Texts:
    """Fused embeddings of one data set, and what compressors are fitted on."""

    splits: dict[str, tuple[RetrievalData, np.ndarray]]
    """``test`` and perhaps the split of the choice: the data and its queries, float32 [q, D]."""
    documents: np.ndarray
    """float32 [c, D], the same for every split."""
    fitted_on: np.ndarray
    """float32 [n, D]."""
    source: str
    """Name of the texts that are fitted on."""
    queries: Queries | None
    """Titles or sentences of those texts, fused, that our head learns from too."""


@dataclass(frozen=True)
class Budget:
    """A way to spend a number of bytes on a vector."""

    limit: int
    precision: Precision
    dim: int


def budgets(width: int) -> list[Budget]:
    """Every way that is tried, as far as the vectors are wide enough."""
    tried = [
        Budget(limit, Precision(name), Precision(name).widest(limit))
        for limit, names in BUDGETS.items()
        for name in names
    ]
    return [budget for budget in tried if budget.dim <= width]


def embed_all(setting: Setting) -> Iterator[Texts]:
    """Embed and fuse, one data set at a time."""
    encoders, store = [load_encoder(name) for name in ENCODERS], Store()
    blocks = Blocks(ENCODERS, WIDTHS, weights=WEIGHTS)

    def fused(texts: Sequence[str], role: Role) -> np.ndarray:
        return fuse(blocks, encoders, texts, role, store)

    def query_like(texts: TextsToFit) -> Queries | None:
        return fuse_queries(blocks, encoders, texts, setting.trained(setting.ours, 0), store)

    outside = queries = None
    if setting.name == "wikipedia":
        paragraphs = load_texts(TEXTS, setting.max_texts)
        outside, queries = fused(paragraphs.texts, Role.DOCUMENT), query_like(paragraphs)
    for name in DATA:
        sets = [load_data(name, split) for split in ("test", *_choice_split(name))]
        documents = fused(sets[0].documents, Role.DOCUMENT)
        if outside is None:
            queries = query_like(_texts_of(sets[0]))
        yield Texts(
            {data.split: (data, fused(data.queries, Role.QUERY)) for data in sets},
            documents,
            documents if outside is None else outside,
            f"data:{name}" if outside is None else TEXTS,
            queries,
        )


def _texts_of(data: RetrievalData) -> TextsToFit:
    documents = load_documents(data.name)
    titles = [documents[i].title for i in data.doc_ids]
    return TextsToFit(f"data:{data.name}", data.doc_ids, data.documents, titles)


def _choice_split(name: str) -> list[str]:
    return [CHOICE_SPLITS[name]] if name in CHOICE_SPLITS else []


class Heads:
    """Trained heads, each trained once."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._kept: dict[str, FittedCompressor] = {}
        self.seconds: dict[str, float] = {}
        """How long each training took."""

    def get(self, recipe: str, texts: Texts, seed: int) -> FittedCompressor:
        """The head of a recipe, of these texts and this seed."""
        setting = self._setting
        key = f"{recipe}-{texts.source.replace(':', '-')}-{seed}"
        if key not in self._kept:
            path = setting.heads / f"{key}.safetensors" if setting.heads else None
            if path and path.exists():
                self._kept[key] = load_compressor(path)
            else:
                began = time.monotonic()
                config = setting.trained(recipe, seed)
                queries = texts.queries if config.sentences else None
                head = fit_head(texts.fitted_on, config, setting.dims, queries=queries)
                self._kept[key] = HeadCompressor(setting.dims, config, head)
                self.seconds[key] = round(time.monotonic() - began, 1)
                log.info("%s trained in %.0f s", key, self.seconds[key])
                if path:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._kept[key].save(path)
        return self._kept[key]


def float_spaces(setting: Setting, texts: Texts, heads: Heads) -> Iterator[Space]:
    """The spaces that are measured in float32 on test."""
    _, queries = texts.splits["test"]
    documents, start = texts.documents, 0
    for name, dim in zip(ENCODERS, WIDTHS, strict=True):
        block = slice(start, start + dim)  # a scaled block ranks as the encoder does
        yield Space(f"encoder:{name}", queries[:, block], documents[:, block], dims=(dim,))
        start += dim
    yield Space("concat", queries, documents, dims=(queries.shape[1],))
    for compressor in (FirstK(), PCA()):
        yield _space(compressor.name, compressor.fit(texts.fitted_on), queries, documents)
    for seed in setting.seeds:
        for recipe in ("paper", setting.ours):
            head = heads.get(recipe, texts, seed)
            yield replace(_space(f"head:{recipe}", head, queries, documents), seed=seed)


def _space(
    method: str, compressor: FittedCompressor, queries: np.ndarray, documents: np.ndarray
) -> Space:
    return Space(method, compressor.transform(queries), compressor.transform(documents))


def coded_rows(
    texts: Texts, split: str, compressor: FittedCompressor, ways: Sequence[Budget], seed: int
) -> list[Row]:
    """Score codes of documents, against float queries and against queries coded too."""
    data, fused = texts.splits[split]
    fitted_on = texts.fitted_on
    sample = evenly_spaced(len(fitted_on), CALIBRATION_ROWS)
    calibration = compressor.transform(fitted_on[sample])
    queries, documents = compressor.transform(fused), compressor.transform(texts.documents)
    rows: list[Row] = []
    for way in ways:
        book = Codebook.fit(calibration, way.precision, way.dim, seed=seed)
        decoded = book.decode(book.encode(documents))  # (c, d)
        both = book.decode(book.encode(queries))  # (q, d)
        spaces = [
            Space(f"head, {side}", asked, decoded, seed, dims=(way.dim,))
            for side, asked in (("documents coded", queries[:, : way.dim]), ("both coded", both))
        ]
        rows += [
            replace(row, precision=str(way.precision), bytes_per_vector=book.bytes_per_vector)
            for row in measure(data, spaces, (way.dim,))
        ]
    return rows


def choose(rows: Sequence[Row], width: int) -> list[Budget]:
    """For each budget, the way with the best mean on the splits of the choice (float queries)."""
    scores: dict[tuple[int, str], list[float]] = {}
    for row in rows:
        if row.method.endswith("documents coded"):
            scores.setdefault((row.dim, row.precision), []).append(row.ndcg_at_10)
    best: dict[int, Budget] = {}
    for way in budgets(width):
        mean = np.mean(scores[way.dim, way.precision])
        kept = best.get(way.limit)
        if kept is None or mean > np.mean(scores[kept.dim, kept.precision]):
            best[way.limit] = way
    return list(best.values())


def run(setting: Setting) -> dict[str, Any]:
    """All rows of one setting, and what stands beside them."""
    where = environment()  # now: the repository may move on while this runs
    every, heads = list(embed_all(setting)), Heads(setting)
    rows: list[Row] = []
    for texts in every:
        data, _ = texts.splits["test"]
        log.info("floats: %s", data.name)
        rows += measure(data, float_spaces(setting, texts, heads), setting.dims)
    width = setting.dims[-1]
    tried = [
        row
        for texts in every
        for split in texts.splits
        if split != "test"
        for seed in setting.seeds  # one rotation ranks half a point better than another
        for row in coded_rows(
            texts, split, heads.get(setting.ours, texts, seed), budgets(width), seed
        )
    ]
    chosen = choose(tried, width)
    log.info("codes: %s", chosen)
    for texts in every:
        for seed in setting.seeds:
            rows += coded_rows(texts, "test", heads.get(setting.ours, texts, seed), chosen, seed)
    rows += mean_rows(rows)
    return {
        "setting": setting.name,
        "ours": setting.ours,
        "encoders": list(ENCODERS),
        "weights": list(WEIGHTS),
        "seeds": list(setting.seeds),
        "max_texts": setting.max_texts,
        "recipes": {
            r: setting.trained(r, setting.seeds[0]).to_dict() for r in ("paper", setting.ours)
        },
        "training_seconds": heads.seconds,
        "environment": where,
        "budgets": [{"limit": w.limit, "dim": w.dim, "precision": w.precision} for w in chosen],
        "choice": [row.to_dict() for row in tried],
        "rows": [row.to_dict() for row in rows],
        "comparisons": [c for c in comparisons_of(rows) if c["against"]["method"] == "pca"],
    }


def environment() -> dict[str, Any]:
    """Versions, hardware, commit and date."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return describe_environment() | {"commit": commit.stdout.strip(), "date": when}


def main() -> None:
    """Read the arguments, run, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setting", choices=("wikipedia", "own"), required=True)
    parser.add_argument("--dims", default="32,64,128,256,384,512,640")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--heads", type=Path, help="folder that keeps trained heads")
    parser.add_argument("--max-texts", type=int, default=MAX_TEXTS, help="of wikipedia")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    dims, seeds = (tuple(map(int, given.split(","))) for given in (args.dims, args.seeds))
    name = args.setting if args.max_texts == MAX_TEXTS else f"{args.setting}_{args.max_texts}"
    heads = args.heads / name if args.heads else None
    report = run(Setting(args.setting, dims, seeds, heads, args.max_texts))
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / f"compression_{name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    log.info("wrote %s; mean rows %d", path, sum(r["data"] == MEAN for r in report["rows"]))


if __name__ == "__main__":
    main()
