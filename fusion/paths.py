"""Paths as a person means them, wherever they stand: in a flag, a config, a variable or a call."""

import os
from pathlib import Path

from fusion.errors import FusionError


def as_path(text: str | os.PathLike[str]) -> Path:
    """The path of what was typed: ``~`` is a home folder, and nothing else is special.

    The shell expands ``~`` only where a word begins with it: not in ``--output=~/x``, in a list
    with commas, in a YAML file or behind ``file:``.

    Raises:
        FusionError: It begins with ``~``, and there is no such home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise FusionError(f"{text}: there is no such home folder; write the path out") from None


def root_of(variable: str) -> Path | None:
    """The folder that an environment variable names; None where it is not set or empty."""
    text = os.environ.get(variable)
    return as_path(text) if text else None


def default_root() -> Path:
    """``$FUSION_CACHE``, or a folder in the user's cache.

    Raises:
        FusionError: The variable is not set, and there is no home folder.
    """
    if root := root_of("FUSION_CACHE"):
        return root
    try:
        return (root_of("XDG_CACHE_HOME") or as_path("~/.cache")) / "fusion"
    except FusionError:
        raise FusionError(
            "there is no home folder to keep embeddings in: set FUSION_CACHE to a folder"
        ) from None
