"""``python -m fusion.export``: write a run as one sentence-transformers model folder."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from fusion.terminal import build_parser, command, path, run_door, say

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
    return run_door(export, _parser(), arguments, required=["output"])


def _parser() -> argparse.ArgumentParser:
    parser = build_parser("export", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("run", type=path, metavar="RUN", help="a run folder of fusion.train")
    add("--compressor", choices=["head", "pca"], help="which of the run's two maps "
        "to the nested space: the trained head, or PCA (default head)")  # fmt: skip
    add("--results", type=path, metavar="FILE.json", help="results.json of fusion.evaluate, whose "
        "table goes into the model's card (default: no table)")  # fmt: skip
    add("--output", type=path, metavar="MODEL", help="the model folder (required)")
    add("--overwrite", action="store_true", help="replace an exported model")
    add("--push-to-hub", metavar="NAME", help="also send it to the model hub, as OWNER/NAME "
        "(default: it stays here)")  # fmt: skip
    return parser


def export(options: dict[str, Any]) -> None:
    """Write the folder, check it from outside, and send it if asked to."""
    from fusion.model.card import read_results
    from fusion.model.place import check_free
    from fusion.runs.folder import Run, read_config

    folder, name = options["output"], options.get("push_to_hub", "")
    compressor = options.get("compressor", "head")
    config = read_config(options["run"])[0]
    if config.tokens:
        raise ValueError(
            f"{options['run']} is a run of token vectors, and a model gives one vector a text: "
            f"export another run, and use this one in fusion.evaluate RUN --rerank {options['run']}"
        )
    config.check_encoders()
    check_free(folder, options.get("overwrite", False))
    if "results" in options:
        read_results(options["results"], compressor)
    from fusion.model.check import check_model  # from here on there is torch
    from fusion.model.folder import exported, push

    run = Run.load(options["run"])
    with exported(
        run,
        folder,
        compressor,
        results=options.get("results"),
        name=name,
        overwrite=options.get("overwrite", False),
    ):
        off = check_model(run, folder, compressor)
    say(f"model: {folder} (loads without fusion; at most {off:.0e} from the run's vectors)")
    say(f"next:  {command('encode', folder, '--input', 'FILES', '--output', 'VECTORS')}")
    if name:
        say(f"hub:   {push(folder, name)}")


if __name__ == "__main__":
    sys.exit(main())
