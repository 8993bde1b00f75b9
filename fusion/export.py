"""``python -m fusion.export``: write a run as one sentence-transformers model folder."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusion.terminal import build_parser, parse, run_door, say

DESCRIPTION = """Write one folder that SentenceTransformer(MODEL, trust_remote_code=True) loads: all
encoders with their prompts, the block weights, the compressor, its widths and quantisation ranges.
At the end the folder is loaded without fusion and its vectors are compared with the run's."""
EXAMPLES = """\
  python -m fusion.export runs/mine --output models/mine
  # with the table of an evaluation in the card
  python -m fusion.export runs/mine --output models/mine --results results/mine/results.json
  python -m fusion.export runs/mine --compressor pca --output models/pca --push-to-hub me/pca
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_door(export, parse(_parser(), arguments, required=["output"]))


def _parser() -> argparse.ArgumentParser:
    parser = build_parser("export", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="a run folder of fusion.train")
    add("--compressor", choices=["head", "pca"], help="which of the run's compressors (head)")
    add("--results", type=Path, metavar="FILE.json", help="results.json of fusion.evaluate, for "
        "the card")  # fmt: skip
    add("--output", type=Path, metavar="MODEL", help="the model folder (required)")
    add("--overwrite", action="store_true", help="replace an exported model")
    add("--push-to-hub", metavar="NAME", help="also send it to the model hub, as OWNER/NAME")
    return parser


def export(options: dict[str, Any]) -> None:
    """Write the folder, check it from outside, and send it if asked to."""
    from fusion.model.check import check_model
    from fusion.model.folder import export as export_run
    from fusion.model.folder import push
    from fusion.run import Run

    folder, name = options["output"], options.get("push_to_hub", "")
    compressor = options.get("compressor", "head")
    run = Run.load(options["run"])
    export_run(
        run,
        folder,
        compressor,
        results=options.get("results"),
        name=name,
        overwrite=options.get("overwrite", False),
    )
    off = check_model(run, folder, compressor)
    say(f"model: {folder} (loads without fusion; at most {off:.0e} from the run's vectors)")
    if name:
        say(f"hub:   {push(folder, name)}")


if __name__ == "__main__":
    sys.exit(main())
