"""Several small frozen text encoders, one nested vector space, measured at every width.

Public names are handed out lazily, so that ``import fusion`` loads no heavy library.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name -> its room; after a colon what it is called there. ``fusion.train`` and the like are
# the doors of the command line, so a function that does the same names what it works on.
_ROOMS = {
    "AlignConfig": "fusion.runs.align_config",
    "AlignedRun": "fusion.runs.aligned",
    "Blocks": "fusion.space.blocks",
    "Codebook": "fusion.space.codes",
    "EvaluationConfig": "fusion.measure.retrieval.config",
    "FusionHead": "fusion.space.head",
    "HeadCompressor": "fusion.space.compressors",
    "Index": "fusion.bulk.searching.index",
    "PCA": "fusion.space.compressors",
    "Ragged": "fusion.ragged",
    "Rescorer": "fusion.bulk.searching.rescoring",
    "Role": "fusion.inputs.encoders.catalogue",
    "Run": "fusion.runs.folder",
    "RunConfig": "fusion.runs.config",
    "Space": "fusion.measure.retrieval.sweep",
    "Store": "fusion.inputs.store.store",
    "TrainConfig": "fusion.space.training.recipe",
    "align_run": "fusion.runs.aligning:align",
    "check_model": "fusion.model.check",
    "choose_vector": "fusion.measure.retrieval.budget:choose",
    "choose_weights": "fusion.space.weights",
    "encode_items": "fusion.runs.aligning",
    "evaluate_pictures": "fusion.measure.crossmodal.evaluation",
    "evaluate_run": "fusion.measure.retrieval.evaluation:evaluate",
    "export_run": "fusion.model.folder:export",
    "fit_head": "fusion.space.training.fit",
    "load": "fusion.model.folder",
    "load_captions": "fusion.inputs.data.captions",
    "load_codebook": "fusion.model.folder",
    "load_compressor": "fusion.space.compressors",
    "load_data": "fusion.inputs.data.retrieval",
    "load_encoder": "fusion.inputs.encoders.text",
    "load_texts": "fusion.inputs.data.texts",
    "maxsim_topk": "fusion.topk.maxsim",
    "measure_spaces": "fusion.measure.retrieval.sweep:measure",
    "ndcg_figure": "fusion.measure.report",
    "nested_topk": "fusion.topk.nested",
    "rescore": "fusion.bulk.searching.rescoring",
    "terminal_table": "fusion.measure.tables",
    "train_run": "fusion.runs.training:train",
}

__all__ = ["__version__", *sorted(_ROOMS)]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute may be anything
    """Import the room of a public name on first use."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'fusion' has no attribute {name!r}")
    room, _, own_name = _ROOMS[name].partition(":")
    return getattr(import_module(room), own_name or name)


def __dir__() -> list[str]:
    return sorted(__all__)
