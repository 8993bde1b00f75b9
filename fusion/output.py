"""Output folders: what may be written into, and files that appear whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.errors import FusionError

if TYPE_CHECKING:
    import numpy as np

PARTIAL = ".partial"


def check_output(
    folder: Path,
    overwrite: bool = False,
    resume: bool | None = None,
    *,
    marks: tuple[str, ...] = (),
    kind: str = "",
) -> None:
    """Refuse a folder in which something stands; call it before hours of work.

    Args:
        folder: What the person named.
        overwrite: ``--overwrite`` was given.
        resume: ``--resume`` was given; None where there is no such flag.
        marks: Files of which such a folder holds at least one. Without any of them neither flag
            opens the folder: it is somebody's. Empty where nothing but files of the same name is
            ever replaced.
        kind: What a folder with such a file is, for the message.

    Raises:
        FusionError: The folder is not empty and no flag allows that, or it is a file.
        ValueError: Both flags.
    """
    if resume and overwrite:
        raise ValueError("--resume keeps what --overwrite would remove; use one of them")
    if folder.exists() and not folder.is_dir():
        raise FusionError(f"{folder} is a file; choose a folder for --output")
    above = next(path for path in folder.absolute().parents if path.exists())
    if not above.is_dir():
        raise FusionError(f"{above} is a file, so {folder} cannot lie in it")
    if not folder.is_dir() or all(_is_left_over(path, marks) for path in folder.iterdir()):
        return
    if not overwrite and not resume:
        ways = "use --overwrite" if resume is None else "use --overwrite or --resume"
        raise FusionError(f"{folder} exists and is not empty; choose another or {ways}")
    if marks and not any((folder / name).is_file() for name in marks):
        flag = "--overwrite" if overwrite else "--resume"
        raise FusionError(f"{folder} is not {kind}, so {flag} leaves it alone")


def _is_left_over(path: Path, marks: tuple[str, ...]) -> bool:
    """Whether it was left by a kill before the first whole file: of ours, not of somebody's."""
    return path.suffix == PARTIAL and (not marks or path.stem in marks)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a killed process leaves the old one or the new one, never half."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def in_place(written: Path, folder: Path) -> Iterator[None]:
    """Give a written folder its name; what has it goes once the block has passed, or comes back.

    Args:
        written: A whole folder, on the same disk.
        folder: The name; without anything there before, a block that fails leaves the new one.
    """
    earlier, taken = folder.with_name(f".{folder.name}.earlier"), folder.exists()
    if taken:
        shutil.rmtree(earlier, ignore_errors=True)  # of a process that was killed
        folder.replace(earlier)
    try:
        written.replace(folder)
        yield
    except BaseException:
        if taken:
            shutil.rmtree(folder, ignore_errors=True)
            earlier.replace(folder)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def write_tensors(
    path: Path, tensors: "dict[str, np.ndarray]", metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, whole, for all to read whom the umask lets.

    The library's own ``save_file`` lets only the owner read, whatever the umask.
    """
    from safetensors.numpy import save

    write_whole(path, save(tensors, metadata))
