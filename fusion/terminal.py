"""The frame around the four doors: arguments, log, one-line errors and exit codes."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from fusion.errors import FusionError, one_line

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def build_parser(verb: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A parser with what all doors share: ``--config`` and ``-v``."""
    parser = argparse.ArgumentParser(
        prog=f"python -m fusion.{verb}",
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # Only flags that were typed appear, so that --config can fill in the others.
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="flags in a file")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="say more, and show the traceback of an error"
    )
    return parser


def parse(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    required: Sequence[str] = (),
) -> dict[str, Any]:
    """Flags as typed, over those of ``--config``.

    Args:
        parser: From ``build_parser``.
        arguments: What was typed; None for ``sys.argv``.
        required: Options that must come from one of the two.

    Returns:
        Option name (with underscores) to value; options that nobody gave are absent.
    """
    typed = vars(parser.parse_args(arguments))
    path = typed.pop("config", None)
    options = typed if path is None else _from_yaml(parser, path) | typed
    missing = [f"--{name}" for name in required if name not in options]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    return options


def _from_yaml(parser: argparse.ArgumentParser, path: Path) -> dict[str, Any]:
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        parser.error(f"--config {path} cannot be read: {' '.join(str(error).split())}")
    if not isinstance(plain, dict):
        parser.error(f"--config {path} must map flags to values")
    # A run's own config.yaml is a config too: its part "train" holds more than there are flags
    # for, and "blocks" follows from the rest.
    plain.pop("blocks", None)
    nested = {"train": plain.pop("train")} if isinstance(plain.get("train"), dict) else {}
    flags: list[str] = []
    for key, value in plain.items():
        flag = f"--{str(key).replace('_', '-')}"
        if value is True:
            flags.append(flag)
        elif value is not False and value is not None and value != []:
            flags += [flag, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    # Only options: a positional that --config leaves out is still demanded of the person.
    options = argparse.ArgumentParser(
        prog=f"--config {path}", argument_default=argparse.SUPPRESS, add_help=False
    )
    for action in parser._actions:
        if action.option_strings and action.dest not in ("help", "config"):
            options._add_action(action)
    return vars(options.parse_args(flags)) | nested


def comma_list(text: str) -> tuple[str, ...]:
    """``a,b`` as a tuple; spaces around a comma are forgiven."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def int_list(text: str) -> tuple[int, ...]:
    """``32,64`` as a tuple of integers."""
    try:
        return tuple(int(part) for part in comma_list(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of integers") from None


def weight_list(text: str) -> tuple[float, ...] | str:
    """``1,0.5`` as a tuple of numbers, or ``auto``."""
    if text.strip() == "auto":
        return "auto"
    try:
        return tuple(float(part) for part in comma_list(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers, nor auto") from None


def say(text: str) -> None:
    """Print a line of the result to standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run_door(work: Callable[[dict[str, Any]], int | None], options: dict[str, Any]) -> int:
    """Do the work of a door; turn whatever goes wrong into one line and an exit code."""
    verbose = options.pop("verbose", False)
    set_up_logging(verbose)
    try:
        return work(options) or DONE
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what is whole on disk is kept, --resume goes on from it\n")
        return INTERRUPTED
    except (FusionError, ValueError, OSError, ImportError, MemoryError) as error:
        if verbose:
            logging.getLogger(__name__).exception("failed")
        sys.stderr.write(f"error: {one_line(error)}\n")
        return USAGE if isinstance(error, ValueError) else FAILED  # a value that cannot be


def set_up_logging(verbose: bool) -> None:
    """Our own log to standard error; other libraries only when something is wrong."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("fusion").setLevel(logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        for noisy in ("sentence_transformers", "transformers", "huggingface_hub", "httpx"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
