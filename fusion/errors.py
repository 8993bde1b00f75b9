"""The one error that a person at the terminal is meant to read."""

from importlib.util import find_spec


class FusionError(Exception):
    """A failure with a one-line message that names the value and the way out.

    The doors (``python -m fusion.VERB``) print it without a traceback; ``-v`` shows the traceback.
    """


class MissingExtraError(FusionError, ImportError):
    """A library is not installed that one of the extras in ``pyproject.toml`` brings."""

    def __init__(self, purpose: str, extra: str) -> None:
        """``purpose`` says what cannot be done without it."""
        super().__init__(f"{purpose}: pip install -e '.[{extra}]'")


LIBRARIES = {
    "lightning": ("training runs on Lightning", "train"),
    "matplotlib": ("figures are drawn by matplotlib", "train"),
}


def check_installed(*names: str) -> None:
    """Find out before any work, and without importing them, whether libraries are there.

    Raises:
        MissingExtraError: One is not.
    """
    for name in names:
        try:
            there = find_spec(name) is not None
        except (ImportError, ValueError):
            there = False
        if not there:
            raise MissingExtraError(*LIBRARIES[name])


def one_line(error: BaseException) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
