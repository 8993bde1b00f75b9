"""``python -m fusion.evaluate``: nDCG@10 of every method, width and precision of a run."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusion.terminal import build_parser, comma_list, int_list, parse, run_door, say

if TYPE_CHECKING:
    from fusion.measure.evaluation import EvaluationConfig
    from fusion.measure.rows import Row
    from fusion.run import Run

DESCRIPTION = """Measure a run on retrieval data with judgements: each encoder, their concat, and
every compressor at every width and precision, with 95 % intervals and paired tests."""
EXAMPLES = """\
  python -m fusion.evaluate runs/mine --data nfcorpus,scifact,arguana --output results/mine
  python -m fusion.evaluate runs/mine --data my-beir-folder --methods concat,pca,head \\
      --dims 64,128 --precisions float32,int8,int4,binary --output results/codes
  # what to store in 64 bytes: chosen on dev or train splits, confirmed on test
  python -m fusion.evaluate runs/mine --data nfcorpus,scifact --budget 64 --output results/64
"""
BUDGETED = ("concat", "pca", "head")  # the full concat, and what is worth choosing


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_door(evaluate, parse(_parser(), arguments, required=["output"]))


def _parser() -> argparse.ArgumentParser:
    parser = build_parser("evaluate", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN_OR_MODEL", help="a run folder of fusion.train, or a model "
        "folder of fusion.export, whose vectors are then measured as they come")  # fmt: skip
    add("--data", type=comma_list, help="names or folders in BEIR's layout "
        "(default nfcorpus,scifact,arguana; pydocs is embedded)")  # fmt: skip
    add("--split", help="test (default), dev or train")
    add("--methods", type=comma_list,
        help="among encoders,concat,first-k,random-k,gaussian,pca,head (default: all)")  # fmt: skip
    add("--dims", type=int_list, help="widths (default: those of the run)")
    add("--precisions", type=comma_list,
        help="among float32 (default),float16,int8,int4,int3,int2+,int2,binary+,binary; with a + "
        "the leading eighth of the columns has one bit more")  # fmt: skip
    add("--budget", type=int, metavar="BYTES", help="also choose the best vector of at most so "
        "many bytes, on a dev or train split; --precisions then defaults to all, --methods to "
        "concat,pca,head, and --dims to the run's and those that fill the budget")  # fmt: skip
    add("--seeds", type=int_list, help="for what is random (default 0)")
    add("--output", type=Path, metavar="DIR", help="folder of results (required)")
    add("--overwrite", action="store_true", help="replace earlier results")
    return parser


def evaluate(options: dict[str, Any]) -> None:
    """Load the run (or the model), measure it, write the report, print the table."""
    from fusion.environment import describe_environment
    from fusion.measure.evaluation import EvaluationConfig, evaluate_sets, load_sets
    from fusion.measure.report import write_report
    from fusion.measure.tables import terminal_table
    from fusion.output import check_output
    from fusion.run import Run
    from fusion.space.codes import Precision

    folder, overwrite = options.pop("output"), options.pop("overwrite", False)
    check_output(folder, overwrite)
    if _is_model(options["run"]):
        return _evaluate_model(options.pop("run"), options, folder, overwrite)
    run = Run.load(options.pop("run"))
    if options.get("budget") is not None:
        options = {"precisions": tuple(Precision), "methods": BUDGETED} | options
    config = EvaluationConfig(**options)
    splits = _splits(config)
    sets = load_sets(config)
    rows = evaluate_sets(run, sets, config)
    data = [of_one.summary() for of_one in sets]
    environment = describe_environment() | {"data": data, "run": run.config.to_dict()}
    write_report(folder, rows, environment, overwrite=overwrite)
    say(terminal_table(rows))
    _say_what_was_left_out(data)
    if config.budget is not None:
        say(_fill(run, config, splits, rows, config.budget))
    say(f"table:  {folder / 'results.md'}")
    say(f"figure: {folder / 'ndcg_vs_bytes.png'}")


def _is_model(path: Path) -> bool:
    """Whether it is a folder of fusion.export; of a run, that is known without heavy imports."""
    from fusion.run import CONFIG

    if not path.is_dir() or (path / CONFIG).is_file():
        return False
    from fusion.model.settings import CONFIG as MODEL_CONFIG

    return (path / MODEL_CONFIG).is_file()


def _evaluate_model(path: Path, options: dict[str, Any], folder: Path, overwrite: bool) -> None:
    from fusion.environment import describe_environment
    from fusion.measure.evaluation import EvaluationConfig, load_sets
    from fusion.measure.exported import evaluate_model_on
    from fusion.measure.report import write_report
    from fusion.measure.tables import terminal_table
    from fusion.model.folder import load, load_codebook

    if given := {"methods", "seeds", "budget"} & options.keys():
        raise ValueError(f"--{min(given)} is for a run; a model has one method and no chance")
    model: Any = load(path)
    config = EvaluationConfig(**options)
    codebook = partial(load_codebook, path)
    sets = load_sets(config)
    rows = evaluate_model_on(model, model[0].settings.dims, sets, config, codebook)
    data = [of_one.summary() for of_one in sets]
    environment = describe_environment() | {"data": data, "model": path.name}
    write_report(folder, rows, environment, overwrite=overwrite)
    say(terminal_table(rows))
    _say_what_was_left_out(data)
    say(f"table:  {folder / 'results.md'}")


def _say_what_was_left_out(data: list[dict[str, Any]]) -> None:
    for found in data:
        if count := found["self_matches_left_out"]:
            say(f"{found['name']}: {count:,} queries are documents too, and do not find themselves")


def _splits(config: "EvaluationConfig") -> dict[str, str]:
    """Where to choose, found out before hours of work; nothing without a budget."""
    from fusion.measure.budget import splits_to_choose_on

    if config.budget is None:
        return {}
    if "concat" not in config.methods:
        raise ValueError("a budget is compared with the full concat: name concat in --methods")
    if "float32" not in config.precisions:
        raise ValueError("a budget is compared with float32: name it in --precisions too")
    return splits_to_choose_on(config.data, config.split)


def _fill(
    run: "Run",
    config: "EvaluationConfig",
    splits: dict[str, str],
    rows: "list[Row]",
    budget: int,
) -> str:
    """Choose the best variant within the budget, and say what it keeps."""
    from fusion.inputs.corpora import load_data
    from fusion.measure.budget import choose
    from fusion.measure.evaluation import evaluate_sets

    sets = [load_data(name, split) for name, split in splits.items()]
    choice = choose(evaluate_sets(run, sets, config), rows, budget)
    dim = choice.confirmed.dim
    if dim in run.config.dims:
        return str(choice)
    dims = ",".join(map(str, sorted({*run.config.dims, dim})))
    return f"{choice}\nto export its code train with {dim} among the widths: --dims {dims}"


if __name__ == "__main__":
    sys.exit(main())
