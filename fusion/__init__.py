"""Several small frozen text encoders, one nested vector space, measured at every width.

Public names are handed out lazily, so that ``import fusion`` loads no heavy library.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_ROOMS = {
    "Blocks": "fusion.space.blocks",
    "Codebook": "fusion.space.codes",
    "FusionHead": "fusion.space.head",
    "HeadCompressor": "fusion.space.compressors",
    "PCA": "fusion.space.compressors",
    "Ragged": "fusion.topk.ragged",
    "TrainConfig": "fusion.space.training.recipe",
    "choose_weights": "fusion.space.weights",
    "fit_head": "fusion.space.training.fit",
    "load": "fusion.model.folder",
    "load_codebook": "fusion.model.folder",
    "load_compressor": "fusion.space.compressors",
    "maxsim_topk": "fusion.topk.maxsim",
    "nested_topk": "fusion.topk.nested",
}

__all__ = ["__version__", *sorted(_ROOMS)]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute may be anything
    """Import the room of a public name on first use."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'fusion' has no attribute {name!r}")
    return getattr(import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
