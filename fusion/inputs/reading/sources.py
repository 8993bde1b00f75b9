"""The files of an input: one, all below a folder, or those of a glob."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fusion.errors import FusionError
from fusion.inputs.reading.kinds import KNOWN, Kind, kind_of

logger = logging.getLogger(__name__)

WILD = set("*?[")


@dataclass(frozen=True)
class Source:
    """One input file."""

    path: Path
    name: str  # below the input folder, with forward slashes
    size: int
    kind: Kind = Kind.LINES


def find_sources(pattern: str, output: Path | None = None, lines: bool = False) -> list[Source]:
    """Files of an input: a file, a folder (all below it) or a glob, sorted by name.

    Files of other kinds are passed over, and told of. A .txt file that is named itself has a text
    on each line; in a folder or a glob it is one document, unless ``lines`` says otherwise.

    Raises:
        FusionError: There is none, it is of a kind that is not known, lies in the output, or cannot
            be looked at.
    """
    path = Path(pattern)
    if path.is_dir():
        root, there = path, list(_walk(path))
    elif path.exists():
        root, there, lines = path.parent, [path], True
        if not _is_known(path):
            raise FusionError(f"{path} is of no known kind; choose among {KNOWN}")
    else:
        root, there = _glob(path)
    _check_links(there)
    found = [file for file in there if _is_known(file)]
    if not found:
        raise FusionError(_nothing(path, there))
    outside = _outside(found, output, path) if output else found
    _tell_passed_over(file for file in there if not (output and _is_below(file, output)))
    named = sorted((_name(file.relative_to(root)), file) for file in outside)
    return [
        Source(file, name, file.stat().st_size, kind_of(name, lines) or Kind.LINES)
        for name, file in named
    ]


def _nothing(path: Path, there: list[Path]) -> str:
    """What to say of an input without a file that could be read."""
    if path.is_dir() and not there:
        return f"--input {path}: the folder is empty"
    kinds = f"; what it holds: {_counted(there)}" if there else ""
    return f"--input {path}: no such file, or no file of a known kind ({KNOWN}){kinds}"


def _outside(found: list[Path], output: Path, path: Path) -> list[Path]:
    """Inputs that do not lie in the output: what does was written there, by the run that goes on.

    Raises:
        FusionError: They all do, or one does that was asked for.
    """
    outside = [file for file in found if not _is_below(file, output)]
    if not outside or (len(outside) < len(found) and not path.is_dir()):
        inside = next(file for file in found if file not in outside)
        raise FusionError(f"--output {output} holds an input ({inside}); choose another folder")
    return outside


def _is_below(file: Path, folder: Path) -> bool:
    return file.resolve().is_relative_to(folder.resolve())


def is_input(pattern: str) -> bool:
    """Whether a file, a folder or a glob stands there, of whatever kinds."""
    path = Path(pattern)
    return path.exists() or (bool(set(pattern) & WILD) and bool(_glob(path)[1]))


def _tell_passed_over(files: Iterable[Path]) -> None:
    """Say how many files are of kinds that nothing is read from."""
    strange = [file for file in files if not _is_known(file)]
    if strange:
        logger.warning("passed over: %s; what is read is %s", _counted(strange), KNOWN)


def _counted(files: Iterable[Path]) -> str:
    """How many files there are of which kinds."""
    kinds = Counter(file.suffix.lower() or file.name for file in sorted(files))
    words = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
    return words + (", …" if len(kinds) > 5 else "")


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
        if kind_of(file.name) and file.is_symlink() and not file.exists():
            raise FusionError(f"{file} is a link to nothing: repair or remove it")


def _name(path: Path) -> str:
    """A path as text, also where its bytes are no UTF-8."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _glob(path: Path) -> tuple[Path, list[Path]]:
    parts = path.parts
    wild = next((row for row, part in enumerate(parts) if set(part) & WILD), None)
    if wild is None:
        return path, []
    root = Path(*parts[:wild]) if wild else Path()
    try:
        found = root.glob(str(Path(*parts[wild:])))
        return root, [file for file in found if file.is_file() or file.is_symlink()]
    except ValueError as error:  # ** inside a name
        raise FusionError(f"--input {path}: {error}") from None


def _is_known(path: Path) -> bool:
    return kind_of(path.name) is not None and path.is_file()
