"""Float shards become shards of another width and precision, without embedding a text again.

Vectors of the model's full width are cut and coded by the very operations that encoding goes
through, so the new folder is, to the byte, what ``fusion.encode`` writes with the same flags.
"""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusion.bulk.finished import model_of
from fusion.bulk.searching.blocks import Shards
from fusion.bulk.writing.coders import FLOATS, Coder, coder_of, described
from fusion.bulk.writing.journal import Journal, open_output
from fusion.bulk.writing.manifest import MODEL_PATH, REJECTS, Manifest, find
from fusion.bulk.writing.precisions import kind_of
from fusion.bulk.writing.shards import Columns, Shard, write_shard
from fusion.errors import FusionError
from fusion.model.place import place_of, trained_dims

logger = logging.getLogger(__name__)

OF_JOB = ("shard_rows", "text_fields", "id_field", "keep")
"""Settings of a job, which its shards do not name."""


@dataclass(frozen=True)
class ConvertConfig:
    """What float shards become."""

    precision: str = "float32"
    """One of ``PRECISIONS``."""
    truncate_dim: int | None = None
    """Width; that of the shards when None."""
    codes: str = ""
    """``plain`` or ``fitted``; by default plain where the precision has plain codes."""
    model: str = ""
    """Where the model lies; by default where it was when the shards were written."""
    resume: bool = False
    """Go on with a folder."""
    overwrite: bool = False
    """Replace a folder's encoding."""

    def __post_init__(self) -> None:
        kind_of(self.precision, self.codes)
        if self.truncate_dim is not None and self.truncate_dim < 1:
            raise ValueError(f"truncate-dim must be at least 1, got {self.truncate_dim}")


def check_source(shards: Shards, folder: Path, config: ConvertConfig) -> Path:
    """Refuse, before any work, what shards cannot give; the folder of their model.

    Raises:
        FusionError: The shards hold codes, or their model cannot be had.
        ValueError: They are narrower, or less precise, than what is wanted.
    """
    settings = shards.manifest.settings
    stored, width = str(settings.get("precision")), int(settings["width"])
    if _is_within(folder, shards.folder):
        raise FusionError(f"--output {folder} is where --from reads; choose another folder")
    if stored not in FLOATS:
        raise FusionError(
            f"{shards.folder} holds {stored} codes, from which no others can be made: convert "
            "shards of float32, or encode again"
        )
    if stored == "float16" and config.precision == "float32":
        raise ValueError(f"{shards.folder} holds float16, which float32 cannot be made from")
    if config.truncate_dim is not None and config.truncate_dim > width:
        raise ValueError(
            f"truncate-dim is {config.truncate_dim}, but {shards.folder} is {width} wide"
        )
    model = model_of(shards, config.model)
    dim = config.truncate_dim or width
    trained = trained_dims(model)
    if kind_of(config.precision, config.codes) == "fitted" and dim not in trained:
        widths = ", ".join(str(known) for known in trained if known <= width)
        raise FusionError(f"{model} has no codes of width {dim}; choose among {widths}")
    return model


def convert(shards: Shards, folder: Path, config: ConvertConfig) -> Manifest:
    """Write shards anew in another width and precision.

    Raises:
        FusionError: The shards cannot give that or are damaged, or the folder is taken.
        ValueError: See ``check_source``.
    """
    model, source = check_source(shards, folder, config), shards.manifest
    dim = config.truncate_dim or int(source.settings["width"])
    kind = kind_of(config.precision, config.codes)
    if dim < int(source.settings["width"]) < trained_dims(model)[-1]:
        logger.warning(
            "%s is narrower than the model: cut again, vectors may differ in their last bits from "
            "those that are encoded at %d",
            shards.folder,
            dim,
        )
    coder = _coder(str(model), config, dim)
    settings = source.settings | {"width": dim, "precision": config.precision, "codes": kind}
    about = described(coder, dim)
    ways = {"resume": config.resume, "overwrite": config.overwrite}
    with open_output(folder, settings, source.input, **ways) as journal:
        of_shards = {key: settings[key] for key in settings if key not in OF_JOB} | about
        written = list(_written(shards, journal, coder, of_shards | {"ranges": None}))
        journal.check_all_known({journal.path(shard.file).name for shard in written})
        rejects = find(shards.folder, REJECTS)
        if rejects.is_file():
            shutil.copyfile(rejects, journal.folder / REJECTS)
        about[MODEL_PATH] = place_of(config.model) if config.model else source.about[MODEL_PATH]
        manifest = Manifest(settings, tuple(written), source.rejected, about, source.input)
        journal.finish(manifest, rejects.is_file())
    return manifest


def _is_within(folder: Path, other: Path) -> bool:
    return folder.resolve().is_relative_to(other.resolve())


def _written(
    shards: Shards, journal: Journal, coder: Coder, about: dict[str, Any]
) -> Iterator[Shard]:
    keep = tuple(shards.manifest.settings.get("keep", ()))
    dim = int(about["width"])
    for shard in shards.manifest.shards:
        known = journal.shards.get(shard.file)
        if (
            known is not None
            and known.input == shard.input
            and known.is_whole(journal.path(known.file))
        ):
            yield known
            continue
        if not shard.is_whole(shards.folder / shard.file):
            raise FusionError(
                f"{shards.folder / shard.file} is missing or damaged: encode again with --resume"
            )
        ids, *others = shards.columns(shard, ("id", *keep))
        beside = dict(zip(keep, others, strict=True))
        columns = Columns(shard.file, ids, beside, shard.input, shard.lost)
        codes = coder.encode(_cut(shards.codes(shard), dim))
        journal.begin()
        found = write_shard(journal.path(columns.file), columns, codes, about)
        journal.add(found)
        yield found


def _cut(vectors: np.ndarray, dim: int) -> np.ndarray:
    """Unit vectors float32 [n, dim]; as torch cuts and scales those that a model has just made."""
    rows = vectors.astype(np.float32)
    if dim == rows.shape[1]:
        return rows
    import torch

    return torch.nn.functional.normalize(torch.from_numpy(rows)[:, :dim], dim=1).numpy()


def _coder(model: str, config: ConvertConfig, dim: int) -> Coder:
    """The coder; the model itself is loaded only for the grids of plain codes of integers."""
    loaded = None
    if config.precision not in FLOATS and kind_of(config.precision, config.codes) == "plain":
        from fusion.model.folder import load

        loaded = load(model, device="cpu")
    return coder_of(loaded, model, config.precision, config.codes, dim)
