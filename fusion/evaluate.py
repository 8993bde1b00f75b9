"""``python -m fusion.evaluate``: nDCG@10 of every method, width and precision of a run."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusion.errors import check_installed
from fusion.terminal import beside, build_parser, comma_list, command, int_list, path, run_door, say

if TYPE_CHECKING:
    from fusion.inputs.data.judged import RetrievalData
    from fusion.measure.retrieval.config import EvaluationConfig
    from fusion.measure.rows import Row
    from fusion.runs.folder import Run

DESCRIPTION = """Measure a run on retrieval data with judgements: each encoder, their concat, and
every compressor at every width and precision, with 95 % intervals and paired tests. A run of
fusion.align is measured on pictures with captions, both ways."""
EXAMPLES = """\
  python -m fusion.evaluate runs/mine --data nfcorpus,scifact,arguana --output results/mine
  python -m fusion.evaluate runs/mine --data my-beir-folder --methods concat,pca,head \\
      --dims 64,128 --precisions float32,int8,int4,binary --output results/codes
  # pictures and captions that find each other; German ones find the same pictures
  python -m fusion.evaluate runs/pictures --data flickr8k,flickr8k:de --output results/pictures
  # what to store in 64 bytes: chosen on dev or train splits, confirmed on test
  python -m fusion.evaluate runs/mine --data nfcorpus,scifact --budget 64 --output results/64
  # the best 100 of one vector a text, ordered anew by 128 bits a token
  python -m fusion.evaluate runs/mine --rerank runs/tokens --rerank-dims 128 \\
      --rerank-precisions binary --output results/two-stages
"""
RERANK = "rerank"
RERANKED = ("concat", "head")
BUDGETED = ("concat", "pca", "head")  # the full concat, and what is worth choosing


@dataclass(frozen=True)
class _Target:
    """Where the results go, and what was typed to get them."""

    folder: Path
    overwrite: bool
    typed: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    typed = command("evaluate", *(sys.argv[1:] if arguments is None else arguments))
    work = partial(evaluate, typed=typed)
    return run_door(work, _parser(), arguments, required=["output"])


def _parser() -> argparse.ArgumentParser:
    parser = build_parser("evaluate", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("run", type=path, metavar="RUN_OR_MODEL", help="a run folder of fusion.train or "
        "fusion.align, or a model folder of fusion.export, whose vectors are then measured as they "
        "come")  # fmt: skip
    add("--data", type=comma_list, metavar="NAME,…", help="folders in BEIR's layout, or names: "
        "of folders in $FUSION_DATA/beir, or pydocs, which every machine has "
        "(default nfcorpus,scifact,arguana); for a run of fusion.align folders with "
        "captions.jsonl, or names of them in $FUSION_DATA/multimodal (default: what it was fitted "
        "on)")  # fmt: skip
    add("--split", metavar="NAME", help="test, dev or train (default test)")
    add("--methods", type=comma_list, metavar="NAME,…", help="among encoders, concat, first-k, "
        "random-k, gaussian, pca, head (default: all of them)")  # fmt: skip
    add("--dims", type=int_list, metavar="D,D,…", help="widths (default: those of the run)")
    add("--precisions", type=comma_list, metavar="NAME,…", help="how documents are stored: among "
        "float32, float16, int8, int4, int3, int2+, int2, binary+, binary; with a + the leading "
        "eighth of the columns has one bit more (default float32)")  # fmt: skip
    add("--budget", type=int, metavar="BYTES", help="also choose the best vector of at most so "
        "many bytes, on a dev or train split; --precisions is then by default all, --methods "
        "concat,pca,head, and --dims the run's and those that fill the budget")  # fmt: skip
    add("--rerank", type=path, metavar="TOKEN_RUN", help="also order the first results anew by the "
        "token vectors of a run of fusion.train --tokens: cosine + weight * MaxSim, the weight "
        "found without labels; --methods is then by default concat,head")  # fmt: skip
    add("--rerank-method", metavar="NAME", help="what maps the token vectors: concat, pca or head "
        "(default pca)")  # fmt: skip
    add("--rerank-dims", type=int_list, metavar="D,D,…", help="widths of the token vectors "
        "(default: the widest of the token run)")  # fmt: skip
    add("--rerank-precisions", type=comma_list, metavar="NAME,…", help="how the documents' token "
        "vectors are stored, as in --precisions without float32 (default float16)")  # fmt: skip
    add("--rerank-vectors", type=int_list, metavar="N,N,…", help="vectors a document, at most, the "
        "best first: groups of its tokens (default: all tokens)")  # fmt: skip
    add("--rerank-top", type=int, metavar="N", help="results that are ordered anew (default 100)")
    add("--seeds", type=int_list, metavar="N,N,…", help="for what is random (default 0)")
    add("--output", type=path, metavar="DIR", help="folder of results (required)")
    add("--overwrite", action="store_true", help="replace earlier results")
    return parser


def evaluate(options: dict[str, Any], typed: str) -> None:
    """Check what can be checked in no time, load the run (or the model), measure, report."""
    from fusion.output import check_output
    from fusion.runs.aligned import is_aligned
    from fusion.runs.folder import CONFIG

    check_installed("matplotlib")
    target = _Target(options.pop("output"), options.pop("overwrite", False), typed)
    check_output(target.folder, target.overwrite)
    source = options.pop("run")
    if is_aligned(source):
        _evaluate_aligned(source, options, target)
        return
    is_model = not (source / CONFIG).is_file() and (source / "modules.json").is_file()
    (_evaluate_model if is_model else _evaluate_run)(source, options, target)


def _evaluate_run(source: Path, options: dict[str, Any], target: _Target) -> None:
    from fusion.measure.retrieval.config import EvaluationConfig
    from fusion.measure.retrieval.sets import check_widths, load_sets, sets_to_choose_on
    from fusion.runs.folder import Run, read_config

    made, blocks, _ = read_config(source)
    if made.tokens:
        raise ValueError(
            f"{source} is a run of token vectors, which order anew what another run found: "
            f"fusion.evaluate RUN --rerank {source}"
        )
    second = _second_stage(options)
    if options.get("budget") is not None:
        options = _budgeted(options)
    config = EvaluationConfig(**options)
    check_widths(made.dims, blocks.width, config)
    made.check_encoders()
    sets, chosen_on = load_sets(config), []
    if config.budget is not None:  # where to choose is found out before hours of work
        chosen_on = sets_to_choose_on(config.data, config.split)
    from fusion.measure.retrieval.evaluation import evaluate_sets  # from here on there is torch

    run = Run.load(source)
    rows = second(run, sets, config) if second else evaluate_sets(run, sets, config)
    about = run.config.described()
    subject = (
        f"Run `{source.resolve().name}`: {' + '.join(about['encoders'])}, recipe "
        f"{run.config.train.recipe}, fitted on {about['texts']}"
    )
    _report(rows, sets, {"run": about}, subject, target)
    if config.budget is not None:
        say(_fill(run, config, chosen_on, rows, config.budget))
    results = ("--results", target.folder / "results.json", "--output", beside(source, "model"))
    say(f"next:   {command('export', source, *results)}")


def _second_stage(options: dict[str, Any]) -> "Callable[..., list[Row]] | None":
    """What measures both stages, if a second one is asked for; its options are taken out.

    Raises:
        FusionError: The token run or one of its encoders cannot be had.
        ValueError: It is no token run, or cannot give a width.
    """
    from fusion.measure.retrieval.config import RerankConfig
    from fusion.measure.retrieval.sets import check_token_widths
    from fusion.runs.folder import Run, read_config

    folder = options.pop(RERANK, None)
    names = [name for name in options if name.startswith(f"{RERANK}_")]
    given = {name.removeprefix(f"{RERANK}_"): options.pop(name) for name in names}
    if folder is None:
        if given:
            raise ValueError(f"--{names[0].replace('_', '-')} needs --rerank TOKEN_RUN")
        return None
    if "budget" in options:
        raise ValueError("--budget and --rerank exclude each other: a budget is of one vector")
    made, blocks, _ = read_config(folder)
    if not made.tokens:
        raise ValueError(
            f"--rerank {folder} is a run of one vector a text: make one with fusion.train --tokens"
        )
    how = RerankConfig(**given)
    check_token_widths(made.dims, blocks.width, how)
    made.check_encoders()
    options.setdefault("methods", RERANKED)

    def measure(run: "Run", sets: "Sequence[RetrievalData]", config: Any) -> "list[Row]":  # noqa: ANN401
        from fusion.measure.retrieval.rerank import rerank_sets

        return rerank_sets(run, Run.load(folder), sets, config, how, folder.resolve().name)

    return measure


def _budgeted(options: dict[str, Any]) -> dict[str, Any]:
    """The options with what a budget changes of the defaults, if they can fill one."""
    from fusion.space.codes.precision import Precision

    options = {"precisions": tuple(Precision), "methods": BUDGETED} | options
    if "concat" not in options["methods"]:
        raise ValueError("a budget is compared with the full concat: name concat in --methods")
    if "float32" not in options["precisions"]:
        raise ValueError("a budget is compared with float32: name it in --precisions too")
    return options


def _evaluate_model(source: Path, options: dict[str, Any], target: _Target) -> None:
    from fusion.measure.retrieval.config import EvaluationConfig
    from fusion.measure.retrieval.sets import check_widths, load_sets
    from fusion.model.place import check_model, trained_dims

    if given := {"methods", "seeds", "budget"} & options.keys():
        raise ValueError(
            f"--{min(given)} is for a run folder of fusion.train; {source} is a model, which gives "
            "one kind of vector: leave it out, or name the run that the model was exported from"
        )
    check_model(source)
    config, dims = EvaluationConfig(**options), trained_dims(source)
    check_widths(dims, dims[-1], config)
    sets = load_sets(config)
    from fusion.measure.retrieval.exported import evaluate_model_on  # from here on there is torch
    from fusion.model.folder import load, load_codebook

    model: Any = load(source)
    rows = evaluate_model_on(model, dims, sets, config, partial(load_codebook, source))
    _report(rows, sets, {"model": source.name}, f"Model `{source.resolve().name}`", target)


def _evaluate_aligned(source: Path, options: dict[str, Any], target: _Target) -> None:
    from fusion.measure.crossmodal.config import CrossConfig
    from fusion.runs.aligned import read_aligned
    from fusion.space.training.recipe import check_dims

    if given := {"methods", "budget"} & options.keys():
        raise ValueError(
            f"--{min(given)} is for a run folder of fusion.train; {source} is an alignment, whose "
            "one method it was fitted by: leave it out"
        )
    made = read_aligned(source)[0]
    config = CrossConfig(**{"data": (made.of_texts or made.pairs,)} | options)
    check_dims(config.dims or made.dims, made.dims[-1])
    from fusion.measure.crossmodal.evaluation import evaluate_pictures, load_captions_sets

    sets = load_captions_sets(config)
    from fusion.environment import describe_environment  # from here on there is torch
    from fusion.measure.crossmodal.report import terminal_page, write_crossmodal
    from fusion.measure.page import Made
    from fusion.runs.aligned import AlignedRun

    rows = evaluate_pictures(AlignedRun.load(source), sets, config)
    about = made.described()
    sides = " with ".join(" + ".join(about[side]) for side in ("source", "target"))
    subject = f"Run `{source.resolve().name}`: {sides}, {made.method} on {about['pairs']}"
    environment = describe_environment() | {"data": [s.summary() for s in sets], "run": about}
    today = datetime.now(UTC).date().isoformat()
    page = Made(target.typed, subject, today)
    write_crossmodal(target.folder, rows, environment, target.overwrite, page)
    say(terminal_page(rows))
    say(f"table:  {target.folder / 'results.md'}")


def _report(
    rows: "list[Row]",
    sets: "Sequence[RetrievalData]",
    about: dict[str, Any],
    subject: str,
    target: _Target,
) -> None:
    """Write everything down, then show the table."""
    from fusion.environment import describe_environment
    from fusion.measure.report import Made, terminal_table, write_report
    from fusion.measure.stages import stage_sentences

    folder, today = target.folder, datetime.now(UTC).date().isoformat()
    data = [of_one.summary() for of_one in sets]
    about = describe_environment() | {"data": data} | about
    made = Made(target.typed, subject, today)
    write_report(folder, rows, about, overwrite=target.overwrite, made=made)
    say(terminal_table([row for row in rows if row.rerank is None]))
    for sentence in stage_sentences(rows):
        say(sentence)
    _say_what_was_left_out(data)
    say(f"table:  {folder / 'results.md'}")
    say(f"figure: {folder / 'ndcg_vs_bytes.png'}")


def _say_what_was_left_out(data: list[dict[str, Any]]) -> None:
    for found in data:
        if count := found["self_matches_left_out"]:
            say(f"{found['name']}: {count:,} queries are documents too, and do not find themselves")


def _fill(
    run: "Run",
    config: "EvaluationConfig",
    sets: "list[RetrievalData]",
    rows: "list[Row]",
    budget: int,
) -> str:
    """Choose the best variant within the budget, and say what it keeps."""
    from fusion.measure.retrieval.budget import choose
    from fusion.measure.retrieval.evaluation import evaluate_sets

    choice = choose(evaluate_sets(run, sets, config), rows, budget)
    dim = choice.confirmed.dim
    if dim in run.config.dims:
        return str(choice)
    dims = ",".join(map(str, sorted({*run.config.dims, dim})))
    return f"{choice}\nto export its code train with {dim} among the widths: --dims {dims}"


if __name__ == "__main__":
    sys.exit(main())
