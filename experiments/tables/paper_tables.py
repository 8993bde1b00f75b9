"""The tables of "Compressed Concatenation of Small Embedding Models" (arXiv 2510.04626), run anew.

Command:  FUSION_DATA=... python experiments/tables/paper_tables.py --table NAME [--seeds 0,1,2]
              [--encoders minilm,wordllama] [--texts wikipedia-100k --max-texts 16000]
Tables:   encoders, concat, epochs, widths, truncation, quantisation, count
Hardware: the four encoders of the paper (the default) need a hub and a GPU; the embedded pair
          runs on two CPU cores in one to ten minutes a table.
Writes:   experiments/results/paper_NAME.json: every row of the evaluations, and the published
          figures with their source. Render with experiments/render/render_results.py.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fusion import evaluate, train
from fusion.environment import describe_environment
from fusion.inputs.encoders.catalogue import PAPER_QUARTET

DATA = ("nfcorpus", "scifact", "arguana")
CARDS = "model cards and mteb results"
SEED_RUN = "the paper's authors' research runs"
PUBLISHED = {  # nDCG@10 on DATA, and where it was published
    "encoder:bge-small": ((0.34264, 0.71273, 0.60348), CARDS),
    "encoder:e5-small": ((0.32449, 0.68854, 0.41668), CARDS),
    "encoder:gist": ((0.34691, 0.70858, 0.59120), CARDS),
    "encoder:arctic-m": ((0.36767, 0.73548, 0.56436), CARDS),
    "encoder:minilm": ((0.3159, 0.6451, 0.5017), CARDS),
    "concat of the four": ((0.37881, 0.74585, 0.62107), SEED_RUN),
    "head of the four, 768 of 1024 dims": ((0.36432, 0.73051, 0.60236), SEED_RUN),
}
PAPER = ["--recipe", "paper"]
ONE_EPOCH = ["--epochs", "1"]  # where no head is measured


@dataclass(frozen=True)
class Variant:
    """One run and its evaluation."""

    label: str
    train: list[str]
    evaluate: list[str]


def variants(table: str, encoders: list[str], seeds: list[str]) -> Iterator[Variant]:
    """The runs of a table."""
    if table == "encoders":
        yield Variant("single", ONE_EPOCH, ["--methods", "encoders"])
    elif table == "concat":
        for how in ("per-model", "none", "global"):
            yield Variant(how, ["--normalize", how, *ONE_EPOCH], ["--methods", "concat"])
    elif table == "count":
        for count in range(2, len(encoders) + 1):
            names = ["--encoders", ",".join(encoders[:count])]
            yield Variant(f"{count} encoders", [*names, *PAPER], ["--methods", "concat,pca,head"])
    else:
        yield from _head_variants(table, seeds)


def _head_variants(table: str, seeds: list[str]) -> Iterator[Variant]:
    methods = ["--methods", "concat,first-k,pca,head"]
    for seed in seeds:
        seeded = [*PAPER, "--seed", seed]
        if table == "epochs":
            for epochs in ("1", "5", "20", "50"):
                label = f"{epochs} epochs, seed {seed}"
                yield Variant(label, [*seeded, "--epochs", epochs], ["--methods", "head"])
        elif table == "widths":
            yield Variant(f"seed {seed}", seeded, methods)
        elif table == "truncation":
            yield Variant(f"seed {seed}", seeded, ["--methods", "concat,head", "--dims", "768"])
        else:
            codes = ["--precisions", "float32,int8,int4,binary", "--dims", "128"]
            yield Variant(f"seed {seed}", seeded, ["--methods", "concat,pca,head", *codes])


def run(variant: Variant, common: list[str], split: str) -> list[dict]:
    """Train and evaluate in a folder that is forgotten; the rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        # Flags that a variant names come last, and the last one counts.
        if train.main([*common, *variant.train, "--output", str(path / "run")]):
            sys.exit(f"training {variant.label} failed")
        flags = ["--data", ",".join(DATA), "--split", split, *variant.evaluate]
        if evaluate.main([str(path / "run"), *flags, "--output", str(path / "results")]):
            sys.exit(f"evaluating {variant.label} failed")
        return json.loads((path / "results" / "results.json").read_text(encoding="utf-8"))["rows"]


def main() -> None:
    """Run one table and write its JSON."""
    tables = ("encoders", "concat", "epochs", "widths", "truncation", "quantisation", "count")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", required=True, choices=tables)
    parser.add_argument("--encoders", default=",".join(PAPER_QUARTET))
    parser.add_argument("--texts", default="wikipedia")
    parser.add_argument("--max-texts", default="500000")
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    common = ["--encoders", options.encoders, "--texts", options.texts]
    common += ["--max-texts", options.max_texts]
    report = {
        "table": options.table,
        "command": "python experiments/tables/paper_tables.py " + " ".join(sys.argv[1:]),
        "environment": describe_environment(),
        "data": list(DATA),
        "published": [
            {"what": what, "ndcg_at_10": list(scores), "source": source}
            for what, (scores, source) in PUBLISHED.items()
        ],
        "rows": [
            {"variant": variant.label, **row}
            for variant in variants(
                options.table, options.encoders.split(","), options.seeds.split(",")
            )
            for row in run(variant, common, "test")
        ],
    }
    path = Path(__file__).parents[1] / "results" / f"paper_{options.table}.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
