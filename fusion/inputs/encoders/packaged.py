"""Weights that Python packages carry: found without running the package, checked by SHA-256."""

import shutil
import tempfile
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.errors import FusionError, MissingExtraError, one_line
from fusion.inputs.encoders.catalogue import EncoderCard
from fusion.inputs.encoders.fingerprints import verify_sha256
from fusion.inputs.encoders.names import needs_package
from fusion.paths import default_root

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

WORDLLAMA = "wordllama"
TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"


def package_folder(card: EncoderCard) -> Path:
    """Where the package that carries an encoder's weights lies; its code is not run.

    Raises:
        MissingExtraError: It is not installed.
    """
    spec = find_spec(card.package)
    if spec is None:
        raise MissingExtraError(needs_package(card), card.extra)
    return Path(str(spec.origin)).parent


def checked_weights(card: EncoderCard) -> Path:
    """The weights file of a card's package, after a look at its SHA-256.

    Raises:
        FusionError: It is missing, or another one than was examined.
    """
    path = (_assembled(card) if card.pieces else package_folder(card)) / card.weights
    verify_sha256(path, card.sha256)
    return path


def _assembled(card: EncoderCard) -> Path:
    """A model that is cut into pieces, put together once, in the cache.

    Raises:
        FusionError: A piece is missing, or the cache cannot be written.
    """
    folder = default_root() / "weights" / card.sha256[:24]
    if folder.is_dir():
        return folder
    pieces = [_piece(card, number) for number in range(1, card.pieces + 1)]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as draft:
            whole, unpacked = Path(draft) / "whole.zip", Path(draft) / "model"
            with whole.open("wb") as out:
                for piece in pieces:
                    with piece.open("rb") as file:
                        shutil.copyfileobj(file, out)
            zipfile.ZipFile(whole).extractall(unpacked)
            verify_sha256(unpacked / card.weights, card.sha256)
            _keep(unpacked, folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise FusionError(
            f"encoder {card.name!r} cannot be put together in {folder.parent} "
            f"({one_line(error)[:100]}); make room, set FUSION_CACHE, or reinstall its packages"
        ) from error
    return folder


def _piece(card: EncoderCard, number: int) -> Path:
    """The file in one of a card's packages, whose name ends in its number."""
    name = f"{card.package[:-3]}{number:03d}"
    spec = find_spec(name)
    found = sorted(Path(str(spec.origin)).parent.glob(f"input/*.{number:03d}")) if spec else []
    if not found:
        raise MissingExtraError(needs_package(replace(card, source=f"package:{name}")), card.extra)
    return found[0]


def _keep(unpacked: Path, folder: Path) -> None:
    try:
        unpacked.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process was quicker
            raise


def load_wordllama(
    card: EncoderCard, dtype: "torch.dtype", device: str | None
) -> "SentenceTransformer":
    """WordLlama as static embeddings: its own loader looks for its tokenizer on the hub."""
    from safetensors.torch import load_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    weights = checked_weights(card)
    tokenizer = Tokenizer.from_file(str(package_folder(card) / TOKENIZER))
    (table,) = load_file(weights).values()
    module = StaticEmbedding(tokenizer, embedding_weights=table.to(dtype))
    return SentenceTransformer(modules=[module], device=device)
