"""The one error that a person at the terminal is meant to read."""


class FusionError(Exception):
    """A failure with a one-line message that names the value and the way out.

    The doors (``python -m fusion.VERB``) print it without a traceback; ``-v`` shows the traceback.
    """


class MissingExtraError(FusionError, ImportError):
    """A library is not installed that one of the extras in ``pyproject.toml`` brings."""

    def __init__(self, purpose: str, extra: str) -> None:
        """``purpose`` says what cannot be done without it."""
        super().__init__(f"{purpose}: pip install -e '.[{extra}]'")


def one_line(error: BaseException) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
