"""``python -m fusion.evaluate``: nDCG@10 of every method, width and precision of a run."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusion.terminal import build_parser, comma_list, int_list, parse, run_door, say

DESCRIPTION = """Measure a run on retrieval data with judgements: each encoder, their concat, and
every compressor at every width and precision, with 95 % intervals and paired tests."""
EXAMPLES = """\
  python -m fusion.evaluate runs/mine --data nfcorpus,scifact,arguana --output results/mine
  python -m fusion.evaluate runs/mine --data my-beir-folder --methods concat,pca,head \\
      --dims 64,128 --precisions float32,int8,int4,binary --output results/codes
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_door(evaluate, parse(_parser(), arguments, required=["output"]))


def _parser() -> argparse.ArgumentParser:
    parser = build_parser("evaluate", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="a run folder of fusion.train")
    add("--data", type=comma_list, help="names or folders in BEIR's layout "
        "(default nfcorpus,scifact,arguana; pydocs is embedded)")  # fmt: skip
    add("--split", help="test (default), dev or train")
    add("--methods", type=comma_list,
        help="among encoders,concat,first-k,random-k,gaussian,pca,head (default: all)")  # fmt: skip
    add("--dims", type=int_list, help="widths (default: those of the run)")
    add("--precisions", type=comma_list,
        help="among float32 (default),float16,int8,int4,int3,int2,binary")  # fmt: skip
    add("--seeds", type=int_list, help="for what is random (default 0)")
    add("--output", type=Path, metavar="DIR", help="folder of results (required)")
    add("--overwrite", action="store_true", help="replace earlier results")
    return parser


def evaluate(options: dict[str, Any]) -> None:
    """Load the run, measure it, write the report, print the table."""
    from fusion.measure.archive import check_output
    from fusion.measure.evaluation import EvaluationConfig
    from fusion.measure.evaluation import evaluate as evaluate_run
    from fusion.measure.report import write_report
    from fusion.measure.tables import terminal_table
    from fusion.run import Run, describe_environment

    folder, overwrite = options.pop("output"), options.pop("overwrite", False)
    check_output(folder, overwrite)
    run = Run.load(options.pop("run"))
    rows = evaluate_run(run, EvaluationConfig(**options))
    environment = describe_environment() | {"run": run.config.to_dict()}
    write_report(folder, rows, environment, overwrite=overwrite)
    say(terminal_table(rows))
    say(f"table:  {folder / 'results.md'}")
    say(f"figure: {folder / 'ndcg_vs_bytes.png'}")


if __name__ == "__main__":
    sys.exit(main())
