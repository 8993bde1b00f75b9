"""The files of a model folder: code that travels, names that load anywhere, checksums."""

import hashlib
import inspect
import json
import shutil
from pathlib import Path
from typing import Any

from .settings import CONFIG, PROMPTS, EncoderEntry, FusionSettings
from .shelf import FusionError, take_from_shelf

CODE = "modeling_fusion.py"
# What travels: the model's modules, and the codes with what they stand on.
OF_MODEL = (
    CODE, "files.py", "fused_encoder.py", "fused_head.py", "fused_model.py", "settings.py",
    "shared_tokens.py",
)  # fmt: skip
OF_CODES = (
    "codebook.py", "grids.py", "packing.py", "precision.py", "rotation.py", "shelf.py",
    "trellis.py",
)  # fmt: skip
ST_CONFIG, MODULES = "config_sentence_transformers.json", "modules.json"
NEEDS = {"sentence-transformers": ">=6.2"}
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}


def code_files() -> dict[str, Path]:
    """Every file that travels: side by side in an exported folder, in their rooms in ``fusion``."""
    codes = Path(inspect.getfile(take_from_shelf)).parent
    found = {name: Path(__file__).parent / name for name in OF_MODEL}
    found |= {name: codes / name for name in OF_CODES}
    return found | {"errors.py": Path(inspect.getfile(FusionError))}


def copy_code(folder: Path) -> None:
    """Put the files that travel into a model's folder."""
    for name, path in code_files().items():
        if path.resolve() != (folder / name).resolve():
            shutil.copyfile(path, folder / name)


def seal(folder: Path) -> None:
    """Make a saved folder whole: names that load anywhere, and the checksums of its files."""
    modules = json.loads((folder / MODULES).read_text(encoding="utf-8"))
    for module in modules:
        if not module["type"].startswith("sentence_transformers."):
            module["type"] = f"modeling_fusion.{module['type'].rpartition('.')[2]}"
            if module["path"]:  # the copy in the root is the one that is loaded
                for name in code_files():
                    (folder / module["path"] / name).unlink(missing_ok=True)
    (folder / MODULES).write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")
    config = json.loads((folder / ST_CONFIG).read_text(encoding="utf-8"))
    config |= {"prompts": PROMPTS, "requirements": NEEDS}
    (folder / ST_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    # Lengths, pooling and the like stand in JSON; those of the root are made anew at each save.
    below = [path for path in folder.rglob("*.json") if path.parent != folder]
    sealed = sorted([*folder.rglob("*.safetensors"), *below])
    mode = (folder / MODULES).stat().st_mode & 0o777  # as the umask has it
    for path in sealed:
        path.chmod(mode)  # safetensors lets only the owner read
    files = {path.relative_to(folder).as_posix(): _sha256(path) for path in sealed}
    settings = FusionSettings.read(folder / CONFIG)
    FusionSettings(settings.encoders, settings.normalize, settings.dims, files).write(folder)


def check_files(settings: FusionSettings, fetch: Any) -> None:  # noqa: ANN401 - name to path
    """Raise ValueError for a weights file or vocabulary that is missing or is another one."""
    for name, expected in settings.files.items():
        EncoderEntry(name, name, 0, 0.0)  # checks that the path stays inside
        if _sha256(Path(fetch(name))) != expected:
            raise ValueError(f"{name} is damaged or was edited: its SHA-256 is another one")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def refuse_pickles(folder: Path) -> Path:
    """The folder; a ValueError where a file in it may hold a pickle."""
    for path in folder.rglob("*"):
        if path.suffix in PICKLES:
            raise ValueError(f"{path.name} may hold a pickle; a fused model is safetensors only")
    return folder
