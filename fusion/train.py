"""``python -m fusion.train``: fit one nested space on the embeddings of several encoders."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusion.errors import check_installed
from fusion.inputs.encoders.tokens import KEPT, TokenKind
from fusion.inputs.reading.chunks import chunk_size
from fusion.inputs.reading.kinds import KNOWN
from fusion.runs.config import RunConfig
from fusion.space.training.recipe import RECIPES, WHERE, TrainConfig
from fusion.terminal import (
    CHUNK,
    ID_FIELD,
    LINES,
    OVERLAP,
    TEXT_FIELDS,
    beside,
    build_parser,
    comma_list,
    command,
    int_list,
    path,
    run_door,
    say,
    weight_list,
)

if TYPE_CHECKING:
    from fusion.runs.folder import Run

DESCRIPTION = """Embed texts with several frozen encoders, set the embeddings side by side, and fit
compressors (PCA and a head) that keep the ranking in fewer, nested dimensions. No labels needed."""
EXAMPLES = """\
  # your own documents, real encoders out of the package registry, no hub needed
  python -m fusion.train --encoders minilm,wordllama --texts docs/ --output runs/mine
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
    "seed": ("seed", int, "of the split, the start and the batches"),
    "precision": ("precision", str, "32 or bf16-mixed"),
    "device": ("device", str, "auto, cpu or cuda"),
    "devices": ("devices", int, "devices of a node, -1 for all"),
    "nodes": ("nodes", int, "machines that train together"),
    "strategy": ("strategy", str, "Lightning's name of a strategy, for several devices"),
}
METAVARS = {int: "N", float: "X", str: "NAME"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_door(train, _parser(), arguments, required=["output"])


def _parser() -> argparse.ArgumentParser:
    parser = build_parser("train", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("--encoders", type=comma_list, metavar="NAME,…", help="names of the catalogue, folders, "
        "hub ids or file:PATH; a name means the catalogue, ./NAME a folder (default: the paper's "
        f"{','.join(RunConfig().encoders)}, which need a hub)")  # fmt: skip
    add("--normalize", choices=["per-model", "none", "global"], help="per-model: each encoder's "
        "vectors have length 1; none; global: the whole ones have (default per-model)")  # fmt: skip
    add("--weights", type=weight_list, metavar="W,W,…|auto", help="squared weight of each encoder; "
        "auto finds them without labels (default: 1 each)")  # fmt: skip
    add("--texts", metavar="PATH|NAME", help=f"what to fit on: a file, a folder or a quoted "
        f"glob of {KNOWN}; data:NAME (the documents of retrieval data), pydocs, wikipedia; "
        "several with commas (default wikipedia, which needs a hub)")  # fmt: skip
    add("--text-fields", type=comma_list, metavar="NAME,…", help=TEXT_FIELDS)
    add("--id-field", metavar="NAME", help=ID_FIELD)
    add("--lines", action="store_true", help=LINES)
    add("--chunk", type=chunk_size, metavar="N|auto|none", help=f"{CHUNK}; retrieval data stay "
        "whole unless N is given")  # fmt: skip
    add("--chunk-overlap", type=int, metavar="N", help=OVERLAP)
    add("--max-texts", type=int, metavar="N", help="take at most the first N texts (default: all)")
    add("--dims", type=int_list, metavar="D,D,…", help="nested widths, increasing; the last is the "
        "full output (default: 32, 64, 128, 256, 384, 512, 768, 1024, as far as the encoders "
        "reach)")  # fmt: skip
    add("--recipe", choices=list(RECIPES), help="training settings; fusion: for any text; corpus: "
        "for the very documents that will be searched; paper: as published "
        "(default fusion)")  # fmt: skip
    add("--encoder-dtype", choices=["float32", "bfloat16"], help="what the encoders compute in; "
        "bfloat16 is about twice as fast (default float32)")  # fmt: skip
    add("--tokens", nargs="?", const=KEPT, type=comma_list, metavar="KIND,…", help="one vector a "
        "token instead of one a text, for fusion.evaluate --rerank; which tokens are kept: among "
        f"{','.join(TokenKind)} (default, if none are named: {','.join(KEPT)})")  # fmt: skip
    add("--token-rows", type=int, metavar="N", help="fit on at most so many tokens, evenly spaced "
        f"over those of at most a sixteenth as many texts (default {RunConfig().token_rows})",
    )  # fmt: skip
    for flag, (field, kind, words) in TRAINING.items():
        name = f"--{flag.replace('_', '-')}"
        add(name, type=kind, metavar=METAVARS[kind], help=f"{words} ({_default(field)})")
    add("--output", type=path, metavar="RUN", help="the run folder (required)")
    add("--resume", action="store_true", help="go on with an interrupted run")
    add("--overwrite", action="store_true", help="replace an existing run folder")
    return parser


def _default(field: str) -> str:
    """What a field is by default, in words: by the recipe where recipes differ."""
    values = {name: _value(TrainConfig.of(name), field) for name in RECIPES}
    others = [f"{name} {value}" for name, value in values.items() if value != values["fusion"]]
    return "; ".join([f"default {values['fusion']}", ", ".join(others)]).removesuffix("; ")


def _value(config: TrainConfig, field: str) -> str:
    if field == "epochs" and config.epochs is None:
        return f"what {config.steps} batches take"
    return str(getattr(config, field))


def train(options: dict[str, Any]) -> None:
    """Resolve the options, show what they change, train, and say how good it is."""
    from fusion.runs.training import train as train_run
    from fusion.space.training.ranks import is_first

    check_installed("lightning", "matplotlib")
    folder = options.pop("output")
    resume, overwrite = options.pop("resume", False), options.pop("overwrite", False)
    config = resolve(options)
    if not is_first(config.train):  # one process writes and talks for all
        logging.getLogger("fusion").setLevel(logging.ERROR)
        train_run(config, folder, resume=resume)
        return
    say(f"encoders: {', '.join(config.encoders)}")
    say(f"texts:    {config.texts}")
    say(f"recipe:   {', '.join([config.train.recipe, *changes(config)])}")
    _conclude(train_run(config, folder, overwrite=overwrite, resume=resume), folder)


def changes(config: RunConfig) -> list[str]:
    """What a configuration changes of its recipe and of the defaults, a few words each."""
    plain, usual = config.to_dict(), RunConfig(config.encoders, texts=config.texts).to_dict()
    recipe = TrainConfig.of(config.train.recipe).to_dict()
    found = {
        key: value for key, value in plain.items() if key != "train" and value != usual.get(key)
    }
    found |= {key: value for key, value in plain["train"].items() if value != recipe[key]}
    return [f"{key} {_words(value)}" for key, value in found.items() if value is not None]


def _words(value: object) -> str:
    if not isinstance(value, list):
        return str(value)
    return ",".join(v if isinstance(v, str) else f"{v:g}" for v in value)


def _conclude(run: "Run", folder: Path) -> None:
    """Say what came out: the weights, the quality, the place, and what to type next."""
    from fusion.measure.figures.run import run_figure
    from fusion.measure.neighbours import neighbours_kept

    # Runs of earlier versions do not know which texts were held back.
    kept = neighbours_kept(run) if "text_count" in run.environment else None
    run_figure(folder / "metrics.csv", folder / "curves.png", kept)
    blocks = zip(run.config.encoders, run.blocks.weights, strict=True)
    say(f"weights:  {', '.join(f'{name} {weight:g}' for name, weight in blocks)}")
    if kept:
        say(f"kept:     {kept}")
    say(f"run:      {folder} (settings: config.yaml, what is kept and the loss: curves.png)")
    data = next((t for t in run.config.texts.split(",") if t.startswith("data:")), run.config.texts)
    if run.config.tokens:
        both = ("RUN", "--rerank", folder, "--output", beside(folder, "results"))
        say(f"next:     {command('evaluate', *both)}")
    elif data.startswith("data:") or data == "pydocs":
        known = ("--data", data.removeprefix("data:"), "--output", beside(folder, "results"))
        say(f"next:     {command('evaluate', folder, *known)}")
    else:
        say(f"next:     {command('export', folder, '--output', beside(folder, 'model'))}")


def resolve(options: dict[str, Any]) -> RunConfig:
    """The configuration that options ask for; a value that cannot be is a ValueError."""
    options = dict(options)
    changed = {
        field: options.pop(flag) for flag, (field, _, _) in TRAINING.items() if flag in options
    }
    before = dict(options.pop("train", {}))  # of a run's config.yaml
    recipe = options.pop("recipe", before.get("recipe", "fusion"))
    if recipe != before.get("recipe", recipe):  # the settings of another one would stay under it
        before = {key: before[key] for key in ("seed", *WHERE) if key in before}
    if "epochs" in changed:
        before.pop("steps", None)  # they oust each other
    settings = {key: value for key, value in before.items() if key != "recipe"} | changed
    return RunConfig(**options, train=_train_config(recipe, settings))


def _train_config(recipe: str, settings: dict[str, Any]) -> TrainConfig:
    try:
        return TrainConfig.of(recipe, **settings)
    except TypeError as error:  # a field that this version does not know
        raise ValueError(f"the training settings do not fit this version: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
