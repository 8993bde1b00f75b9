"""A finished encoding, and the model that made it, found and compared without loading it."""

from pathlib import Path

from fusion.bulk.searching.blocks import Shards
from fusion.bulk.writing.journal import JOURNAL
from fusion.bulk.writing.manifest import MANIFEST, MODEL_PATH, Manifest, find
from fusion.errors import FusionError
from fusion.model.modules.settings import CONFIG, FusionSettings
from fusion.model.place import check_model, download, find_model, fingerprint


def open_shards(folder: Path) -> Shards:
    """A finished encoding, whatever model made it.

    Raises:
        FusionError: It is none; the message says what it is.
    """
    if not folder.is_dir():
        words = "is a file, not a folder of shards" if folder.exists() else "does not exist"
        raise FusionError(f"{folder} {words}; python -m fusion.encode makes one")
    if not find(folder, MANIFEST).is_file() and find(folder, JOURNAL).is_file():
        raise FusionError(
            f"{folder} is an unfinished encoding: go on with fusion.encode --resume, then search"
        )
    return Shards(folder, Manifest.read(folder))


def model_of(shards: Shards, place: str) -> Path:
    """The folder of the model that encoded shards, found and compared without loading it.

    Args:
        shards: Of the encoding.
        place: Where a person says that it is; by default where it was then.

    Raises:
        FusionError: It cannot be had, or is another one.
    """
    place = place or str(shards.manifest.about.get(MODEL_PATH, ""))
    if not place:
        raise FusionError(f"{shards.folder} does not say where its model is; name it with --model")
    try:
        check_model(place, int(shards.manifest.settings["width"]))
        folder = find_model(place) or download(place, {})
        found = fingerprint(FusionSettings.read(folder / CONFIG))
    except (FusionError, ValueError) as error:
        raise FusionError(
            f"the model of {shards.folder} cannot be had: {error}; name it with --model"
        ) from None
    if found != (made_by := shards.manifest.settings.get("model")):
        raise FusionError(
            f"{shards.folder} was encoded by another model than {place} ({str(made_by)[:12]}…, not "
            f"{found[:12]}…): name that model with --model, or encode again"
        )
    return folder
