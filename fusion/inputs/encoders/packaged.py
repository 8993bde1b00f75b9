"""Weights that Python packages carry: found without running the package, checked by SHA-256."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.errors import MissingExtraError
from fusion.inputs.encoders.catalogue import EncoderCard
from fusion.inputs.encoders.fingerprints import verify_sha256
from fusion.inputs.encoders.names import needs_package

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
    path = package_folder(card) / card.weights
    verify_sha256(path, card.sha256)
    return path


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
