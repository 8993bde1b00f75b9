"""Output folders: what may be written into, and files that appear whole or not at all."""

from pathlib import Path

from fusion.errors import FusionError

PARTIAL = ".partial"


def check_output(
    folder: Path,
    overwrite: bool = False,
    resume: bool = False,
    *,
    mark: str = "",
    kind: str = "",
) -> None:
    """Refuse a folder in which something stands; call it before hours of work.

    Args:
        folder: What the person named.
        overwrite: ``--overwrite`` was given.
        resume: ``--resume`` was given.
        mark: A file that such a folder holds. Without that file neither flag opens the folder: it
            is somebody's. Empty where nothing but files of the same name is ever replaced.
        kind: What a folder with that file is, for the message.

    Raises:
        FusionError: The folder is not empty and no flag allows that, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise FusionError(f"{folder} is a file; choose a folder for --output")
    if not folder.is_dir() or all(path.suffix == PARTIAL for path in folder.iterdir()):
        return
    if not overwrite and not resume:
        ways = "use --overwrite or --resume" if mark else "use --overwrite"
        raise FusionError(f"{folder} exists and is not empty; choose another or {ways}")
    if mark and not (folder / mark).is_file():
        flag = "--overwrite" if overwrite else "--resume"
        raise FusionError(f"{folder} is not {kind}, so {flag} leaves it alone")


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that a killed process leaves the old one or the new one, never half."""
    partial = path.with_name(path.name + PARTIAL)
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
