"""The frame around the four doors: arguments, log, one-line errors and exit codes."""

import argparse
import io
import logging
import os
import shlex
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from fusion.errors import FusionError, one_line
from fusion.paths import as_path

NOISY = ("sentence_transformers", "transformers", "huggingface_hub", "httpx", "matplotlib")
DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
# What texts are read from is said in the same words by every door that reads some.
TEXT_FIELDS = (
    "fields of JSON lines and columns of tables that hold the text, joined by spaces (default text)"
)
ID_FIELD = (
    "field of the id (default: _id or id; a row that has neither is called FILE:NUMBER, and a "
    "document after its file)"
)
LINES = (
    "a .txt file of a folder or a glob has a text on each line, as one that is named itself has "
    "(default: it is one document)"
)
CHUNK = (
    "take texts of more than N tokens (of the encoder that reads least) apart into chunks, at "
    "sentences and headings, with the headings above as title; their ids are DOCUMENT#1 and so on; "
    "auto: into chunks of 200, only what an encoder would not read to its end; none: nothing, "
    "encoders cut what they do not read (default auto)"
)
OVERLAP = "tokens that a chunk repeats of the one before it, at most (default 0)"


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help in which no word is broken: names of flags and lists of choices can be copied."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        words = " ".join(text.split())
        return textwrap.wrap(words, width, break_long_words=False, break_on_hyphens=False)


def build_parser(verb: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A parser with what all doors share: ``--config`` and ``-v``."""
    parser = argparse.ArgumentParser(
        prog=f"python -m fusion.{verb}",
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=_Help,
        # Only flags that were typed appear, so that --config can fill in the others.
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--config",
        type=path,
        metavar="FILE.yaml",
        help="flags in a file, a line FLAG: VALUE each; what is typed goes over them",
    )
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


def path(text: str) -> Path:
    """A path; ``~`` is the home folder, also where the shell leaves it alone."""
    try:
        return as_path(text)
    except FusionError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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


def number_list(text: str) -> tuple[float, ...]:
    """``1,0.5`` as a tuple of numbers."""
    try:
        return tuple(float(part) for part in comma_list(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers") from None


def say(text: str) -> None:
    """Print a line of the result to standard output, if there is one."""
    try:
        if sys.stdout is not None:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
    except BrokenPipeError:  # nobody reads on; that is no reason to stop the work
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def command(verb: str, *arguments: object) -> str:
    """A command to type next."""
    return shlex.join(["python", "-m", f"fusion.{verb}", *map(str, arguments)])


def beside(folder: Path, ending: str) -> Path:
    """A folder for the next command to write to: beside another one, and called after it."""
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return named.with_name(f"{named.name}-{ending}")


def run_door(
    work: Callable[[dict[str, Any]], int | None],
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    required: Sequence[str] = (),
) -> int:
    """Parse, and do the work of a door; whatever goes wrong becomes one line and an exit code."""
    _print_what_can_be()
    options: dict[str, Any] = {}
    verbose = False
    try:
        options = parse(parser, arguments, required)
        verbose = options.pop("verbose", False)
        set_up_logging(verbose)
        return work(options) or DONE
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what is whole on disk is kept, --resume goes on from it\n")
        return INTERRUPTED
    except Exception as error:  # of whatever library: a person is not shown a traceback unasked
        if verbose:
            logging.getLogger(__name__).exception("failed")
        sys.stderr.write(f"error: {_words(error)}\n")
        return USAGE if isinstance(error, ValueError) else FAILED  # a value that cannot be


def _words(error: Exception) -> str:
    if isinstance(error, (FusionError, ValueError, OSError, ImportError, MemoryError)):
        return one_line(error)
    return f"{type(error).__name__}: {one_line(error)}; -v shows the traceback"


def _print_what_can_be() -> None:
    """A terminal that lacks a character shows ``?``: no work is lost to an encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def set_up_logging(verbose: bool) -> None:
    """Our own log to standard error; other libraries only when something is wrong."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("fusion").setLevel(logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        for noisy in NOISY:
            logging.getLogger(noisy).setLevel(logging.ERROR)
