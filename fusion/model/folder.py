"""A model folder: build it from a run, write it whole, load it, send it to the hub."""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fusion.errors import FusionError
from fusion.inputs.encoders.names import folder_of
from fusion.inputs.encoders.precomputed import SCHEME
from fusion.inputs.encoders.text import UNLOADABLE, FrozenEncoder, load_encoder
from fusion.model.card import read_results, render_card
from fusion.model.place import check_free, download, find_model
from fusion.model.ranges import fit_ranges
from fusion.output import in_place
from fusion.runs.folder import Run
from fusion.space.codes import Codebook, Precision, fit_shelf, load_from_shelf
from fusion.space.compressor import FittedCompressor
from fusion.space.compressors import PCA, HeadCompressor
from fusion.space.head import FusionHead

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from fusion.model.modules.settings import EncoderEntry

logger = logging.getLogger(__name__)

OF_HUB = ("revision", "token", "cache_folder", "local_files_only")
OF_MODEL = ("prompts", "default_prompt_name", "similarity_fn_name")
OF_ENCODERS = ("model_kwargs", "processor_kwargs", "config_kwargs", "backend")


def load(
    model: str | Path, *, truncate_dim: int | None = None, device: str | None = None,
    **options: Any,  # noqa: ANN401 - of SentenceTransformer: model_kwargs, revision, token, …
) -> "SentenceTransformer":  # fmt: skip
    """Load an exported model with fusion's own classes; no code from the folder is run.

    Args:
        model: The folder, or a hub id.
        truncate_dim: Width of the vectors, unit-norm; all of the model's columns by default.
        device: ``cpu``, ``cuda``, …; the best one by default.
        options: ``model_kwargs={"dtype": "bfloat16"}`` and the like go to the encoders;
            ``revision``, ``token``, ``cache_folder`` and ``local_files_only`` to the hub's client;
            ``prompts``, ``default_prompt_name`` and ``similarity_fn_name`` to the model.

    Raises:
        FusionError: It is no exported model, is damaged, or is of a newer format.
        ValueError: An option that there is not.
    """
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    from fusion.model.modules.files import MODULES, ST_CONFIG

    transformers_logging.disable_progress_bar()  # "Loading weights" bars say nothing to a person
    if unknown := options.keys() - {*OF_HUB, *OF_MODEL, *OF_ENCODERS}:
        raise ValueError(f"load takes no option {min(unknown)!r}")
    hub = {key: options[key] for key in OF_HUB if key in options}
    folder = find_model(model) or download(str(model), hub)
    try:
        own = {key: options[key] for key in OF_ENCODERS if key in options}
        modules = _load_modules(folder, _read_json(folder / MODULES), own)
        config = _read_json(folder / ST_CONFIG) | options
        loaded: Any = SentenceTransformer(
            modules=modules,
            device=device,
            truncate_dim=config.get("truncate_dim") if truncate_dim is None else truncate_dim,
            **{key: config.get(key) for key in OF_MODEL},
        )
    except (*UNLOADABLE, KeyError) as error:
        raise FusionError(f"{model} cannot be loaded: {error}") from error
    if (folder / "README.md").is_file():  # travels on when the model is saved
        loaded._model_card_text = (folder / "README.md").read_text(encoding="utf-8")
    return loaded


def load_codebook(model: str | Path, precision: Precision | str, dim: int) -> Codebook:
    """The codes of an exported model at one of its widths: those that ``fusion.evaluate`` measures.

    >>> book = load_codebook("models/mine", "int2", 128)    # doctest: +SKIP
    >>> codes = book.encode(model.encode_document(texts))   # doctest: +SKIP
    >>> scores = book.score(model.encode_query(["?"]), codes)  # doctest: +SKIP

    Args:
        model: The folder, or a hub id.
        precision: ``int8``, ``int4``, ``int3``, ``int2+``, ``int2``, ``binary+``, ``binary`` or
            a float one.
        dim: A trained width.

    Raises:
        FusionError: The model has no codes, or none of that width.
        ValueError: An unknown precision.
    """
    from fusion.model.modules.fused_model import CODEBOOKS

    folder = find_model(model) or download(str(model), {})
    return load_from_shelf(folder / CODEBOOKS, precision, dim)


def _load_modules(folder: Path, listed: list[dict[str, Any]], options: dict[str, Any]) -> list:
    from sentence_transformers.base.modules import Dense, Normalize

    from fusion.model.modules.modeling_fusion import FusedEncoder, FusedHead

    known: dict[str, Any] = {"FusedEncoder": FusedEncoder, "FusedHead": FusedHead}
    known |= {"Dense": Dense, "Normalize": Normalize}
    modules: list[Any] = []
    for entry in listed:
        kind = known.get(str(entry["type"]).rpartition(".")[2])
        path = Path(entry["path"])
        if kind is None or path.is_absolute() or ".." in path.parts:
            raise FusionError(f"{folder} names a module that fusion has not: {entry['type']}")
        own = options if kind is FusedEncoder else {}
        places = {"subfolder": entry["path"], "local_files_only": True}
        modules.append(kind.load(str(folder), **places, **own))
    return modules


def _read_json(path: Path) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FusionError(f"{path.parent} is no exported model: it has no {path.name}") from None


def export(
    run: Run,
    folder: Path,
    compressor: str = "head",
    *,
    results: Path | None = None,
    name: str = "",
    overwrite: bool = False,
) -> None:
    """Write a run as one model folder, whole or not at all.

    Args:
        run: A finished run.
        folder: Where the model goes.
        compressor: ``head`` or ``pca``.
        results: ``results.json`` of an evaluation of this run, for the card.
        name: Name that the card's snippets load; the folder's by default.
        overwrite: Replace an exported model that stands there.

    Raises:
        FusionError: The folder is taken, or an encoder cannot be had or exported.
    """
    with exported(run, folder, compressor, results=results, name=name, overwrite=overwrite):
        pass


@contextmanager
def exported(
    run: Run,
    folder: Path,
    compressor: str = "head",
    *,
    results: Path | None = None,
    name: str = "",
    overwrite: bool = False,
) -> Iterator[None]:
    """As ``export``; an earlier model goes for good once the block has passed, else comes back.

    Raises:
        FusionError: As ``export``, or what the block raises.
    """
    folder = check_free(folder, overwrite)
    measured = None if results is None else read_results(results, compressor)
    model: Any = build_model(run, compressor)
    model._model_card_text = render_card(
        name or folder.resolve().name, model[0].settings, run.config.texts, compressor, measured
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, taken = folder.with_name(f".{folder.name}.partial"), folder.exists()
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model.save_pretrained(str(partial))
        with in_place(partial, folder):
            yield
    except FusionError as error:
        if not taken:
            raise
        raise FusionError(f"{error}; the earlier model stays") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def build_model(run: Run, compressor: str = "head") -> "SentenceTransformer":
    """The run's encoders, blocks and compressor as one sentence-transformers model on the CPU.

    Raises:
        FusionError: The compressor is unknown, or an encoder cannot be had or exported.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize

    from fusion.model.modules.modeling_fusion import FusedEncoder
    from fusion.model.modules.settings import PROMPTS, FusionSettings

    if compressor not in run.compressors:
        known = ", ".join(sorted(run.compressors))
        raise FusionError(f"the run has no compressor {compressor!r}; choose among {known}")
    fitted = run.compressors[compressor]
    encoders = [_frozen(name) for name in run.config.encoders]
    run.check_encoders(encoders)
    dims = tuple(sorted({*(d for d in run.config.dims if d < fitted.out_dim), fitted.out_dim}))
    settings = FusionSettings(tuple(_entries(run, encoders)), str(run.blocks.normalize), dims)
    outputs = fitted.transform(run.calibration)  # (n, d)
    ranges, codebooks = fit_ranges(outputs, dims), fit_shelf(outputs, dims)
    first = FusedEncoder(settings, [encoder.model for encoder in encoders], ranges, codebooks)
    modules = [first, head_module(fitted), Normalize()]
    return SentenceTransformer(
        modules=modules, device="cpu", prompts=dict(PROMPTS), similarity_fn_name="cosine"
    ).eval()


def _frozen(name: str) -> FrozenEncoder:
    if name.startswith(SCHEME):
        raise FusionError(f"{name} holds embeddings, not an encoder: such a run has no model")
    encoder = load_encoder(name, "float32", "cpu")
    assert isinstance(encoder, FrozenEncoder)  # the other kind is file:
    return encoder


def _entries(run: Run, encoders: list[FrozenEncoder]) -> "list[EncoderEntry]":
    from fusion.model.modules.settings import EncoderEntry

    entries = []
    for row, encoder in enumerate(encoders):
        if encoder.dim != run.blocks.dims[row]:
            raise FusionError(
                f"encoder {encoder.name!r} is {encoder.dim} wide, the run's {run.blocks.dims[row]}"
            )
        local = folder_of(encoder.name)  # a path of this machine is nobody else's business
        name = local.resolve().name if local else encoder.name
        slug = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".")
        card = encoder.card
        entries.append(
            EncoderEntry(
                name=name,
                path=f"encoders/{row}-{slug}",
                dim=encoder.dim,
                weight=run.blocks.weights[row],
                query_prompt=card.query_prompt,
                document_prompt=card.document_prompt,
                source="" if local else card.source,
                revision=card.revision,
                licence=card.licence,
            )
        )
    return entries


def head_module(fitted: FittedCompressor) -> torch.nn.Module:
    """A fitted compressor as a module: stock ``Dense`` where that is exact, else ``FusedHead``."""
    from fusion.model.modules.modeling_fusion import FusedHead

    if isinstance(fitted, PCA):
        # (x - mean) @ matrix, with the mean moved behind the product.
        matrix = torch.from_numpy(np.array(fitted.matrix))  # (D, d)
        shift = -(fitted.mean.astype(np.float64) @ fitted.matrix.astype(np.float64))  # (d,)
        bias = torch.from_numpy(shift.astype(np.float32)) if fitted.mean.any() else None
        return _dense(matrix.T.contiguous(), bias)
    if not isinstance(fitted, HeadCompressor):
        raise FusionError(f"a {fitted.name} compressor cannot be exported; choose head or pca")
    head: FusionHead = fitted.head.fold()
    config = head.config
    if not (config.input_norm or config.output_norm or config.residual_width) and (
        config.negative_slope is None
    ):
        return _dense(head.linear.weight.detach(), head.linear.bias)
    keys = {key: getattr(config, key) for key in FusedHead.config_keys}
    module = FusedHead(**keys)
    module.load_state_dict(head.state_dict())
    return module.eval()


def _dense(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Module:
    from sentence_transformers.base.modules import Dense

    out_dim, in_dim = weight.shape
    return Dense(
        in_dim,
        out_dim,
        bias=bias is not None,
        activation_function=None,
        init_weight=weight.clone(),
        init_bias=None if bias is None else bias.detach().clone(),
    ).eval()


def push(folder: Path, name: str) -> str:
    """Send a written folder to the hub; returns its address.

    Raises:
        FusionError: The hub cannot be reached or says no.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(name, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder))
    except Exception as error:  # the client lets out errors of several libraries
        words = " ".join(str(error).split())[:200]
        raise FusionError(
            f"{folder} is written and checked, but the hub did not take it: {words}"
        ) from error
