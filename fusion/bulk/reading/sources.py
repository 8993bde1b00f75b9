"""The files of an input: one, all below a folder, or those of a glob."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fusion.errors import FusionError
from fusion.inputs.data.jsonl import KINDS

logger = logging.getLogger(__name__)

SUFFIXES = (*KINDS, ".parquet")


@dataclass(frozen=True)
class Source:
    """One input file."""

    path: Path
    name: str  # below the input folder, with forward slashes
    size: int


def find_sources(pattern: str, output: Path) -> list[Source]:
    """Files of an input: a file, a folder (all below it) or a glob, sorted by name.

    Files of other kinds are passed over, and told of.

    Raises:
        FusionError: There is none, it is of a kind that is not known, lies in the output, or cannot
            be looked at.
    """
    path = Path(pattern)
    if path.is_dir():
        root, there = path, list(_walk(path))
    elif path.exists():
        root, there = path.parent, [path]
        if not _is_known(path):
            raise FusionError(f"{path} is of no known kind; choose among {', '.join(SUFFIXES)}")
    else:
        root, there = _glob(path)
    _check_links(there)
    found = [file for file in there if _is_known(file)]
    if not found:
        raise FusionError(
            f"--input {pattern}: no such file, or no file of a known kind ({', '.join(SUFFIXES)})"
        )
    target = output.resolve()
    outside = [file for file in found if not file.resolve().is_relative_to(target)]
    _tell_passed_over(file for file in there if not file.resolve().is_relative_to(target))
    # What lies in an output below an input folder was written there, by the run that goes on.
    if not outside or (len(outside) < len(found) and not path.is_dir()):
        inside = next(file for file in found if file not in outside)
        raise FusionError(f"--output {output} holds an input ({inside}); choose another folder")
    named = sorted((_name(file.relative_to(root)), file) for file in outside)
    return [Source(file, name, file.stat().st_size) for name, file in named]


def _tell_passed_over(files: Iterable[Path]) -> None:
    """Say how many files are of kinds that nothing is read from."""
    kinds = Counter(
        file.suffix.lower() or file.name for file in sorted(files) if not _is_known(file)
    )
    if kinds:
        known = ", ".join(SUFFIXES)
        words = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
        words += ", …" if len(kinds) > 5 else ""
        logger.warning("passed over: %s; what is read is %s", words, known)


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder, through links, each folder once; what is hidden stays so."""
    seen = set()
    for place, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(place) / name for name in files if not name.startswith("."))


def _refuse(error: OSError) -> None:
    """Stop at a folder that cannot be looked into, which ``os.walk`` would pass over."""
    raise FusionError(f"{error.filename} cannot be read ({error.strerror}): repair or move it")


def _check_links(files: Iterable[Path]) -> None:
    """Refuse links to nothing: what they were to name would be missing from the output."""
    for file in sorted(files):
        if file.name.lower().endswith(SUFFIXES) and file.is_symlink() and not file.exists():
            raise FusionError(f"{file} is a link to nothing: repair or remove it")


def _name(path: Path) -> str:
    """A path as text, also where its bytes are no UTF-8."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _glob(path: Path) -> tuple[Path, list[Path]]:
    parts = path.parts
    wild = next((row for row, part in enumerate(parts) if set(part) & set("*?[")), None)
    if wild is None:
        return path, []
    root = Path(*parts[:wild]) if wild else Path()
    try:
        found = root.glob(str(Path(*parts[wild:])))
        return root, [file for file in found if file.is_file() or file.is_symlink()]
    except ValueError as error:  # ** inside a name
        raise FusionError(f"--input {path}: {error}") from None


def _is_known(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES) and path.is_file()
