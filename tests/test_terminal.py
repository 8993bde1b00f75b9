import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fusion import encode, evaluate, export, train
from fusion.errors import FusionError
from fusion.terminal import beside, build_parser, command, run_door, say

WAY, KEPT = "-v shows the traceback", "what is whole on disk is kept, --resume goes on from it"
DOORS = {"train": train, "evaluate": evaluate, "export": export, "encode": encode}


def run(work, *arguments):
    parser = build_parser("train", "words", "words")
    return run_door(work, parser, arguments)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (FusionError("cannot be had"), 1, "error: cannot be had\n"),
        (ValueError("cannot be"), 2, "error: cannot be\n"),
        (OSError(28, "full"), 1, "error: [Errno 28] full\n"),
        (RuntimeError("of a\nlibrary"), 1, f"error: RuntimeError: of a library; {WAY}\n"),
        (KeyError("uid"), 1, f"error: KeyError: 'uid'; {WAY}\n"),
        (RecursionError(), 1, f"error: RecursionError: RecursionError; {WAY}\n"),
        (KeyboardInterrupt(), 130, f"interrupted; {KEPT}\n"),
    ],
)  # fmt: skip
def test_whatever_goes_wrong_is_one_line(capsys, error, code, line):
    def work(options):
        raise error

    assert run(work) == code
    assert capsys.readouterr().err == line


def test_no_work_is_lost_to_the_encoding_of_a_terminal(monkeypatch):
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", plain)
    assert run(lambda options: say("0.5 ± 0.1 → naïve")) == 0
    assert plain.buffer.getvalue() == b"0.5 ? 0.1 ? na?ve\n"


def test_help_and_errors_are_shown_by_a_terminal_that_knows_ascii_only(tmp_path):
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    for words, code in (["--help"], 0), (["é", "--output", str(tmp_path / "ö")], 1):
        done = subprocess.run(
            [sys.executable, "-m", "fusion.export", *words],
            capture_output=True, env=environment, check=False,
        )  # fmt: skip
        assert (done.returncode, b"Traceback" in done.stderr) == (code, False)


def test_work_goes_on_when_nobody_reads(monkeypatch, tmp_path):
    end, begin = os.pipe()
    os.close(end)
    with os.fdopen(begin, "w") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        say("unheard")
        say("unheard too")
    monkeypatch.setattr(sys, "stdout", None)
    say("there is no terminal at all")


@pytest.mark.parametrize("verb", DOORS)
def test_help_breaks_no_word_and_names_every_default(verb, monkeypatch):
    parser = DOORS[verb]._parser()
    for columns in range(60, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        words = set(parser.format_help().split())
        for action in parser._actions:
            assert set(action.help.split()) <= words, action.dest
    for action in parser._actions:
        is_flag = action.nargs == 0 or not action.option_strings or action.dest == "config"
        assert is_flag or "default" in action.help or "(required)" in action.help, action.dest


def test_defaults_in_the_help_are_those_of_the_recipes():
    shown = {action.dest: action.help for action in train._parser()._actions}
    assert shown["lr"].endswith("(default 0.004; corpus 0.006, paper 0.001)")
    assert shown["epochs"].endswith(
        "(default what 900 batches take; corpus what 300 batches take, paper 50)"
    )
    assert shown["seed"].endswith("(default 0)")


def test_a_home_folder_that_is_not_there_is_bad_usage(capsys):
    parser = build_parser("train", "words", "words")
    with pytest.raises(SystemExit) as stop:
        run_door(dict, parser, ["--config", "~nobody-of-that-name/x.yaml"])
    assert stop.value.code == 2
    assert "there is no such home folder; write the path out" in capsys.readouterr().err


def test_the_next_command_can_be_typed_from_any_folder(monkeypatch, tmp_path):
    assert beside(Path("runs/mine"), "model") == Path("runs/mine-model")
    (tmp_path / "it is" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "it is" / "below")
    assert beside(Path(), "model") == tmp_path / "it is" / "below-model"
    assert beside(Path(".."), "model") == tmp_path / "it is-model"
    assert command("export", Path("it is"), "--x") == "python -m fusion.export 'it is' --x"
