"""What stands in a finished output folder, besides its shards.

Readers of parquet take a folder as one table and leave out what begins with an underscore.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusion.bulk.writing.shards import Shard
from fusion.errors import FusionError

FORMAT = 1
MANIFEST, REJECTS = "_manifest.json", "_rejects.jsonl"
MODEL_PATH = "model_path"
"""Where the model was, in the manifest alone: shards are the same wherever it lies."""


def earlier(name: str) -> str:
    """What earlier versions called a file."""
    return name.removeprefix("_")


def find(folder: Path, name: str) -> Path:
    """Where a file lies, also one of an earlier version; under today's name where it does not."""
    old = folder / earlier(name)
    return old if old.is_file() and not (folder / name).is_file() else folder / name


@dataclass(frozen=True)
class Manifest:
    """A finished output."""

    settings: dict[str, Any]
    """All that embeddings depend on, besides the texts."""
    shards: tuple[Shard, ...]
    rejected: int = 0
    about: dict[str, Any] = field(default_factory=dict)
    """What a reader of the embeddings needs: type, ranges, …."""
    input: dict[str, Any] = field(default_factory=dict)
    """What was encoded, as ``Reader.identity`` has it; empty in those of earlier versions."""

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    def write(self, folder: Path) -> None:
        """Write the file, whole or not at all."""
        plain = {
            "format": FORMAT,
            **self.about,
            "settings": self.settings,
            "input": self.input,
            "rows": self.rows,
            "rejected": self.rejected,
            "bytes": sum(shard.bytes for shard in self.shards),
            "shards": [shard.to_dict() for shard in self.shards],
        }
        partial = folder / f"{MANIFEST}.partial"
        with partial.open("w", encoding="utf-8") as file:
            file.write(_laid_out(plain))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / MANIFEST)

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read what ``write`` wrote.

        Raises:
            FusionError: There is none, it is damaged, or of a newer format.
        """
        path = find(folder, MANIFEST)
        try:
            plain = json.loads(path.read_bytes().decode("utf-8"))
            if not isinstance(plain, dict):
                raise ValueError("it is not an object")
            if not isinstance(plain.get("format"), int) or plain["format"] > FORMAT:
                raise ValueError(f"format {plain.get('format')!r}, this version reads {FORMAT}")
            settings, source = plain["settings"], plain.get("input", {})
            _check_kinds(settings, source, plain["rejected"])
            if not isinstance(plain["shards"], list):
                raise ValueError("shards is not a list")
            shards = tuple(Shard.of(shard) for shard in plain["shards"])
            if plain["rows"] != sum(shard.rows for shard in shards):
                raise ValueError(f"rows is {plain['rows']!r}, but its shards have others")
        except FileNotFoundError:
            raise FusionError(f"{folder} has no {MANIFEST}: no finished encoding") from None
        except (OSError, ValueError, KeyError, RecursionError) as error:
            raise FusionError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from None
        own = {"format", "settings", "input", "rows", "rejected", "bytes", "shards"}
        about = {key: value for key, value in plain.items() if key not in own}
        return cls(settings, shards, plain["rejected"], about, source)


def _check_kinds(settings: object, source: object, rejected: object) -> None:
    if not isinstance(settings, dict) or not isinstance(source, dict):
        raise ValueError("settings or input is not what it should be")
    if not isinstance(rejected, int):
        raise ValueError("rejected is no number")


def _laid_out(plain: dict[str, Any]) -> str:
    """JSON with a line for each field and for each shard: short to read, easy to grep."""
    lines = {key: json.dumps(value) for key, value in plain.items()}
    shards = ",\n  ".join(json.dumps(shard) for shard in plain["shards"])
    lines["shards"] = f"[\n  {shards}\n]"
    return "{\n" + ",\n".join(f'"{key}": {line}' for key, line in lines.items()) + "\n}\n"
