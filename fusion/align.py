"""``python -m fusion.align``: bring two sides of pairs into one nested space."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusion.runs.align_config import KEPT, METHODS, AlignConfig
from fusion.terminal import (
    beside,
    build_parser,
    comma_list,
    command,
    int_list,
    number_list,
    path,
    run_door,
    say,
)

if TYPE_CHECKING:
    from fusion.runs.aligned import AlignedRun

DESCRIPTION = """Embed both sides of pairs, captions and their pictures, with frozen encoders, one
or several a side, and fit two maps that bring what belongs together near to one another in one
nested space, whose first columns are its best narrow one. Or keep the target's space, and map
into it another encoder of texts, of other languages for example."""
EXAMPLES = """\
  # texts that find pictures and pictures that find texts; seconds, once all is embedded
  python -m fusion.align --source minilm,wordllama --source-weights 1,0.5 \\
      --target efficientnet-lite0,efficientnet-lite2 --pairs flickr8k --output runs/pictures
  # another encoder into that space, learned from the English sentences alone: German finds pictures
  python -m fusion.align --source use-multilingual --target runs/pictures --keep target \\
      --pairs texts:flickr8k --output runs/languages
  python -m fusion.evaluate runs/languages --data flickr8k:de --output results/german
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    required = ["source", "target", "pairs", "output"]
    return run_door(align, _parser(), arguments, required=required)


def _parser() -> argparse.ArgumentParser:
    parser = build_parser("align", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("--source", type=comma_list, metavar="NAME,…", help="encoders of the captions: names of "
        "the catalogue, folders, hub ids or file:PATH (required)")  # fmt: skip
    add("--target", type=comma_list, metavar="NAME,…|RUN", help="encoders of the pictures, or the "
        "folder of a run whose space is to be kept (required)")  # fmt: skip
    add("--pairs", metavar="NAME|texts:NAME", help="a folder with captions.jsonl (an image, a "
        "split and captions a line), or the name of one in $FUSION_DATA/multimodal; with :de "
        "behind it its German captions; with texts: before it each caption is embedded by both "
        "sides, and no picture is looked at. The split train is learned from, val chooses "
        "(required)")  # fmt: skip
    add("--keep", choices=["target"], help="leave the target's vectors as they are, and map the "
        "source into their space")  # fmt: skip
    add("--method", choices=METHODS, help="cca: canonical correlations, both sides are mapped; "
        f"with --keep target {' or '.join(KEPT)} (default cca, ridge with --keep "
        "target)")  # fmt: skip
    add("--source-weights", type=number_list, metavar="W,W,…", help="squared weight of each source "
        "encoder (default: 1 each)")  # fmt: skip
    add("--target-weights", type=number_list, metavar="W,W,…", help="likewise of the target's")
    add("--dims", type=int_list, metavar="D,D,…", help="nested widths, increasing (default: 32, "
        "64, 128, 256, … as far as the encoders and pairs reach; those of the run that is "
        "kept)")  # fmt: skip
    add("--max-pairs", type=int, metavar="N", help="learn from the first N pictures (or texts) and "
        "what belongs to them (default: all)")  # fmt: skip
    add("--seed", type=int, metavar="N", help="of the pairs held back where the data has no split "
        "to choose on (default 0)")  # fmt: skip
    add("--encoder-dtype", choices=["float32", "bfloat16"], help="what the encoders compute in "
        "(default float32)")  # fmt: skip
    add("--output", type=path, metavar="RUN", help="the run folder (required)")
    add("--overwrite", action="store_true", help="replace an existing run folder")
    return parser


def align(options: dict[str, Any]) -> None:
    """Resolve the options, fit, and say what came out and what to type next."""
    options = dict(options)
    folder, overwrite = options.pop("output"), options.pop("overwrite", False)
    try:
        config = AlignConfig(**options)
    except TypeError as error:  # a field of another kind of run's config.yaml
        raise ValueError(f"the settings do not fit this door: {error}") from error
    from fusion.runs.aligning import align as align_run

    say(f"source: {', '.join(config.source)}")
    say(f"target: {', '.join(config.target)}{' (kept)' if config.keep else ''}")
    say(f"pairs:  {config.pairs}")
    _conclude(align_run(config, folder, overwrite=overwrite), folder)


def _conclude(run: "AlignedRun", folder: Path) -> None:
    about = run.environment
    chosen = ", ".join(f"{name} {value:g}" for name, value in about["chosen"].items()) or "nothing"
    say(f"fitted: {run.config.method} on {about['pair_count']:,} pairs of "
        f"{about['target_count']:,} targets")  # fmt: skip
    say(f"chosen: {chosen}; mean reciprocal rank {about['reciprocal_rank']:.3f} on "
        f"{about['chosen_on']}, both ways, all widths")  # fmt: skip
    say(f"run:    {folder} (settings: config.yaml, what was tried: metrics.csv)")
    data = run.config.of_texts or run.config.pairs
    results = ("--data", data, "--output", beside(folder, "results"))
    say(f"next:   {command('evaluate', folder, *results)}")


if __name__ == "__main__":
    sys.exit(main())
