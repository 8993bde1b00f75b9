"""Where a model lies and what it is, found out without loading it. Light to import."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fusion.errors import FusionError
from fusion.inputs.data.hub import hub_reachable, in_hub_cache
from fusion.inputs.encoders.names import HUB_ID
from fusion.model.modules.settings import FusionSettings
from fusion.output import check_output
from fusion.paths import as_path
from fusion.runs.folder import CONFIG as RUN_CONFIG

MARK = "fusion_config.json"  # modeling_fusion.CONFIG, which comes with torch
SHELF = "codebooks.safetensors"  # fused_model.CODEBOOKS, which does too

LIMITS = {
    "sentence_bert_config.json": "max_seq_length",
    "tokenizer_config.json": "model_max_length",
}
"""Where an encoder's limit stands."""


def find_model(model: str | Path) -> Path | None:
    """The folder of an exported model; None where it is no folder, so perhaps a hub id.

    Raises:
        FusionError: It is another kind of folder.
    """
    folder = as_path(model)
    if not folder.is_dir():
        return None
    if (folder / MARK).is_file():
        return folder
    if (folder / RUN_CONFIG).is_file():
        raise FusionError(
            f"{model} is a run, not a model: python -m fusion.export {model} makes one of it"
        )
    if (folder / "modules.json").is_file():
        raise FusionError(
            f"{model} is a sentence-transformers model that fusion.export did not write; to use it "
            f"as an encoder, train on it: python -m fusion.train --encoders {model}"
        )
    raise FusionError(f"{model} is no exported model: it has no {MARK}")


def check_model(model: str | Path, dim: int | None = None) -> None:
    """Refuse a model that cannot be had here, or has not the width, without loading it.

    Raises:
        FusionError: It is no exported model, or neither a folder nor a name that a hub gives.
        ValueError: It is narrower than ``dim``.
    """
    folder, name = find_model(model), str(model)
    if folder is not None:
        widest = trained_dims(folder)[-1]
        if dim is not None and not 1 <= dim <= widest:
            raise ValueError(f"truncate-dim must be from 1 to {widest}, its width, got {dim}")
    elif not (HUB_ID.fullmatch(name) and (in_hub_cache(name) or hub_reachable())):
        raise FusionError(f"{model} is neither a folder nor a model that the hub gives")


def check_chunk(model: str | Path, size: int | str) -> None:
    """Refuse chunks of more tokens than an encoder of a model's folder reads, without loading it.

    Raises:
        ValueError: They are longer.
    """
    folder = find_model(model)
    if folder is None or not isinstance(size, int):
        return
    for entry in _settings(folder).get("encoders", ()):
        limit = _limit(folder / str(entry["path"]))
        if limit is not None and size > limit:
            name = Path(str(entry["name"])).name
            raise ValueError(
                f"chunk {size} is above the limit of {name}, which reads {limit} tokens"
            )


def _limit(folder: Path) -> int | None:
    """Tokens that an encoder says it reads; None where that shows only once it is loaded."""
    for name, key in LIMITS.items():
        try:
            limit = json.loads((folder / name).read_text(encoding="utf-8")).get(key)
        except (OSError, ValueError, AttributeError):
            continue  # whoever loads it says what is wrong
        if isinstance(limit, int):
            return limit
    return None


def trained_dims(folder: Path) -> tuple[int, ...]:
    """The widths that an exported model was trained for, ascending.

    Raises:
        FusionError: Its settings are damaged.
    """
    try:
        dims = tuple(_settings(folder)["dims"])
        if not dims or not all(isinstance(dim, int) for dim in dims):
            raise ValueError(f"dims is {list(dims)}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FusionError(f"{folder / MARK} is damaged: {error}") from None
    return dims


def download(name: str, hub: dict[str, Any]) -> Path:
    """The folder of a model of the hub, out of its cache where it is there.

    Raises:
        FusionError: The hub does not give it.
    """
    from huggingface_hub import snapshot_download

    places = {{"cache_folder": "cache_dir"}.get(key, key): value for key, value in hub.items()}
    try:
        return Path(snapshot_download(name, **places))
    except (OSError, ValueError) as error:
        raise FusionError(f"{name} is neither a folder nor a model that the hub gives") from error


def place_of(model: str | Path) -> str:
    """Where a model is found again from any folder: its path, or its hub id."""
    folder = find_model(model)
    return str(model) if folder is None else str(folder.resolve())


def fingerprint(settings: FusionSettings) -> str:
    """SHA-256 of a model's settings, in which those of all its weights and vocabularies stand."""
    plain = json.dumps(asdict(settings), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()


def _settings(folder: Path) -> dict[str, Any]:
    """An exported model's settings, as they stand in its folder."""
    plain: dict[str, Any] = json.loads((folder / MARK).read_text(encoding="utf-8"))
    return plain


def check_free(folder: Path, overwrite: bool) -> Path:
    """Refuse an output folder that is taken, before any work; gives the folder behind a link.

    Raises:
        FusionError: Something else than an exported model stands there, or ``overwrite`` is not
            given.
        ValueError: The folder has no name.
    """
    if not folder.name:
        raise ValueError(f"output {folder} has no name: give the model a folder of its own")
    folder = folder.resolve() if folder.is_symlink() else folder
    check_output(folder, overwrite, marks=(MARK,), kind="an exported model")
    return folder
