"""A new encoding beside an earlier one, whose place it takes once it is whole.

It lies in a folder of the output, under names that readers of parquet leave out even where they
look into every folder, so that the earlier one can be read, and is not lost, until then. Its
manifest is the last thing to move: what is cut short in moving is found and gone on with.
"""

import shutil
from pathlib import Path

from fusion.bulk.writing.manifest import MANIFEST, REJECTS, Manifest, earlier
from fusion.bulk.writing.shards import cannot_write

BESIDE = "_new"
SHARDS = "part-*.parquet"


def waiting(file: str) -> str:
    """What a shard is called until it takes its place."""
    return f"_{file}"


def is_whole(folder: Path) -> bool:
    """Whether an encoding that is whole waits to take its place."""
    return (folder / BESIDE / MANIFEST).is_file()


def take_place(folder: Path) -> None:
    """Move a whole encoding to where the earlier one stands, which goes.

    Raises:
        FusionError: The disk does not let it; it can be called again.
    """
    beside = folder / BESIDE
    try:
        manifest = Manifest.read(beside)
        named = {shard.file for shard in manifest.shards}
        gone = [folder / name for name in (MANIFEST, earlier(MANIFEST), earlier(REJECTS))]
        gone += [path for path in folder.glob(SHARDS) if path.name not in named]
        for path in gone:
            path.unlink(missing_ok=True)
        if not manifest.rejected:
            (folder / REJECTS).unlink(missing_ok=True)
        moves = {waiting(name): name for name in sorted(named)}
        for source, name in {**moves, REJECTS: REJECTS, MANIFEST: MANIFEST}.items():
            if (beside / source).is_file():  # else it has moved
                (beside / source).replace(folder / name)
        shutil.rmtree(beside)
    except OSError as error:
        raise cannot_write(folder, error) from error


def clear(folder: Path) -> None:
    """Remove what was begun beside an encoding.

    Raises:
        FusionError: The disk does not let it.
    """
    try:
        shutil.rmtree(folder / BESIDE)
    except OSError as error:
        raise cannot_write(folder, error) from error
