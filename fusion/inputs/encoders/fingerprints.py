"""What an encoder is, told by its files and settings: to check weights, and to know it again."""

import hashlib
from pathlib import Path

from fusion.errors import FusionError
from fusion.inputs.encoders.catalogue import EncoderCard


def verify_sha256(path: Path, expected: str) -> None:
    """Refuse a weights file that is not the one that was examined.

    Raises:
        FusionError: The file's SHA-256 is another one, or there is no such file.
    """
    if not path.is_file():
        raise FusionError(f"the weights file {path.name} is missing; reinstall its package")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise FusionError(
            f"the weights file {path.name} has SHA-256 {found[:12]}…, expected {expected[:12]}…; "
            "reinstall its package"
        )


def fingerprint_of(
    folder: Path | None, card: EncoderCard, max_length: int | None, dtype: str, device: str
) -> dict[str, str]:
    """What embeddings depend on besides role and text; ``folder`` is None for a catalogue name."""
    weights = card.sha256
    if folder is not None:  # a folder may be trained further under the same path
        weights = _hash_weights(folder)
    return {
        "source": card.source if folder is None else "folder",
        "revision": card.revision,
        "weights": weights,
        "pooling": str(card.pooling),
        "max_length": str(max_length),
        "dtype": dtype,
        "device": device,
        "query_prompt": card.query_prompt,
        "document_prompt": card.document_prompt,
    }


def same_encoder(one: dict[str, str], other: dict[str, str]) -> bool:
    """Whether two fingerprints are of one encoder, wherever and how precisely it computes."""
    where = {"device": "", "dtype": ""}
    return one | where == other | where


def _hash_weights(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name.startswith(".") or path.suffix == ".md":
            continue
        digest.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
