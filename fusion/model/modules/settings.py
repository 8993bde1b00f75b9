"""What ``fusion_config.json`` holds: the encoders of a model, its widths, its checksums."""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PureWindowsPath
from typing import Any

FORMAT = 1
CONFIG = "fusion_config.json"
NORMALIZATIONS = ("none", "per-model", "global")
# Names, not texts: each encoder has a prompt of its own for each of them. Empty prompts would not
# do, since encode(prompt_name="query") hands over a prompt and no task.
PROMPTS = {"query": "<fusion:query>", "document": "<fusion:document>"}


@dataclass(frozen=True)
class EncoderEntry:
    """One frozen encoder of the model."""

    name: str
    """As it was called in training."""
    path: str
    """Its folder inside the model's, with forward slashes."""
    dim: int
    """Width of its embeddings."""
    weight: float
    """Squared weight of its block under cosine."""
    query_prompt: str = ""
    """Put before each query."""
    document_prompt: str = ""
    """Put before each document."""
    source: str = ""
    """Where its weights come from."""
    revision: str = ""
    """Which version of them."""
    licence: str = "unknown"
    """SPDX id of the weights' licence."""

    def __post_init__(self) -> None:
        path = PureWindowsPath(self.path)  # splits at both kinds of slash
        if not self.path or path.anchor or ".." in path.parts or "\0" in self.path:
            raise ValueError(f"path {self.path!r} of encoder {self.name!r} leaves the model folder")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight of encoder {self.name!r} must be 0 or more: {self.weight}")


@dataclass(frozen=True)
class FusionSettings:
    """What ``fusion_config.json`` holds."""

    encoders: tuple[EncoderEntry, ...]
    """In the order of their blocks."""
    normalize: str
    """``none``, ``per-model`` or ``global``."""
    dims: tuple[int, ...]
    """Trained widths, ascending; the last is the output's."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of weights and vocabularies, by path."""
    format: int = FORMAT
    """Version of this layout."""

    @classmethod
    def read(cls, path: str | Path) -> "FusionSettings":
        """Read and check the file.

        Raises:
            ValueError: It is damaged, of a newer format, or has a field that is not known.
        """
        try:
            plain = json.loads(Path(path).read_text(encoding="utf-8"))
            if plain.get("format", 0) > FORMAT:
                raise ValueError(
                    f"format {plain['format']} is newer than {FORMAT}, which this version reads; "
                    "upgrade fusion-embeddings"
                )
            rows = [EncoderEntry(**_known(EncoderEntry, row)) for row in plain.pop("encoders")]
            dims = tuple(plain.pop("dims"))
            settings = cls(tuple(rows), dims=dims, **_known(cls, plain))
            if not rows or settings.normalize not in NORMALIZATIONS or list(dims) != sorted(dims):
                raise ValueError("encoders, normalize or dims hold a value that cannot be")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{CONFIG} cannot be used: {error}") from None
        return settings

    def write(self, folder: Path) -> None:
        """Write the file."""
        (folder / CONFIG).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def _known(kind: type, plain: dict[str, Any]) -> dict[str, Any]:
    if unknown := set(plain) - {f.name for f in fields(kind)}:
        raise ValueError(f"unknown field {', '.join(sorted(unknown))}")
    return plain
