"""Several frozen encoders as the first module of a sentence-transformers model."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from torch import Tensor, nn

from .files import check_files, copy_code, refuse_pickles
from .fused_model import CODEBOOKS, FusedModel
from .settings import CONFIG, PROMPTS, FusionSettings
from .shared_tokens import SharedTokens, token_counts

RANGES = "ranges.safetensors"
# Activations of more than this leave a CPU's caches, and freed memory of that size goes back to the
# system to be faulted in anew: measured, 15 % of the time at sentence-transformers' 32 rows.
CPU_ROWS, CPU_TOKENS = 8, 512


class FusedEncoder(InputModule):
    """All encoders side by side: texts become normalised, weighted blocks ``[n, D]``, float32."""

    save_in_root = True

    def __init__(
        self,
        settings: FusionSettings,
        encoders: Sequence[SentenceTransformer],
        ranges: dict[str, np.ndarray],
        codebooks: bytes = b"",
    ) -> None:
        """Take the encoders' models, and what ``FusedModel`` codes vectors with.

        ``ranges`` are the grids of plain codes; ``codebooks`` is a shelf of fitted ones.
        """
        super().__init__()
        self.settings = settings
        self.ranges = ranges
        self.codebooks = codebooks
        # The first parameter of the model, and float32 always: modules behind this one are cast
        # to its dtype on loading, so the head stays in float32 beside bfloat16 encoders.
        scales = [math.sqrt(entry.weight) for entry in settings.encoders]
        self.scales = nn.Parameter(torch.tensor(scales), requires_grad=False)
        self.encoders: Any = nn.ModuleList(encoders)
        self.shared = SharedTokens.find(encoders, settings)
        # Called with an encoder's place and how many tokens each text has, those cut off too.
        self.hear: Callable[[int, list[int]], None] | None = None

    @property
    def tokenizer(self) -> Any:  # type: ignore[override]  # noqa: ANN401 - any library's
        """The first encoder's."""
        return self.encoders[0].tokenizer

    @property
    def max_seq_length(self) -> int | None:
        """The shortest of the encoders' limits, in tokens; setting it sets them all."""
        limits = [e.max_seq_length for e in self.encoders if e.max_seq_length is not None]
        finite = [int(limit) for limit in limits if math.isfinite(limit)]
        return min(finite, default=None)

    @max_seq_length.setter
    def max_seq_length(self, limit: int) -> None:
        for encoder in self.encoders:
            if encoder.max_seq_length is not None and math.isfinite(encoder.max_seq_length):
                encoder.max_seq_length = limit

    def get_embedding_dimension(self) -> int:
        """Columns of all blocks together."""
        return sum(entry.dim for entry in self.settings.encoders)

    def get_config_dict(self) -> dict[str, Any]:
        """What is saved."""
        return asdict(self.settings)

    def __repr__(self) -> str:
        blocks = (f"{e.name} {e.dim} x {e.weight:g}" for e in self.settings.encoders)
        return f"FusedEncoder({', '.join(blocks)}; {self.settings.normalize})"

    def prompts_for(self, prompt: str | None, task: str | None = None) -> list[str]:
        """Each encoder's own prompt; a prompt that is not one of ours goes to all of them."""
        if prompt is not None and prompt not in PROMPTS.values():
            return [prompt] * len(self.encoders)
        query = prompt == PROMPTS["query"] or (prompt is None and task == "query")
        return [e.query_prompt if query else e.document_prompt for e in self.settings.encoders]

    def preprocess(  # type: ignore[override]  # texts only
        self,
        inputs: Sequence[str],
        prompt: str | None = None,
        task: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - passed on
    ) -> dict[str, Any]:
        """Tokenise for every encoder; features of the second carry ``.1``, and so on.

        Raises:
            ValueError: An input is not a string.
        """
        texts = list(inputs)
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise ValueError(f"only texts can be encoded, not {type(wrong[0]).__name__}")
        for name in PROMPTS.values():  # clients that glue a prompt's text to ours
            if prompt is None and texts and all(text.startswith(name) for text in texts):
                prompt, texts = name, [text.removeprefix(name) for text in texts]
        try:
            return self._features(texts, self.prompts_for(prompt, task), kwargs)
        except TypeError as error:
            # sentence-transformers would try again with our prompt's name glued to the text.
            raise RuntimeError(f"an encoder cannot take these texts: {error}") from error

    def _features(self, texts: list[str], prompts: list[str], options: dict) -> dict[str, Any]:
        found: dict[int, dict[str, Any]] = {}
        for group in () if options.get("processing_kwargs") else self.shared:
            found |= group.features(texts, prompts, self.hear)
        for row, encoder in enumerate(self.encoders):
            if row not in found:
                found[row] = encoder[0].preprocess(texts, prompt=prompts[row], **options)
                if self.hear and (lengths := token_counts(found[row], encoder.tokenizer)):
                    self.hear(row, lengths)
        return {
            f"{key}.{row}" if row else key: value
            for row in sorted(found)
            for key, value in found[row].items()
        }

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401
        """Run the encoders; ``sentence_embedding`` is ``[n, D]``."""
        blocks = []
        for row, encoder in enumerate(self.encoders):
            split = [(*key.partition("."), value) for key, value in features.items()]
            own = {key: value for key, _, index, value in split if int(index or 0) == row}
            width = self.settings.encoders[row].dim  # less than its own where truncate_dim was set
            blocks.append(_run(encoder, own)[:, :width])  # (n, d_i)
        features["sentence_embedding"] = self.fuse(blocks)
        return features

    def fuse(self, blocks: Sequence[Tensor]) -> Tensor:
        """The encoders' embeddings ``[n, d_i]``, normalised, weighted, side by side: ``[n, D]``."""
        weighted = []
        for scale, block in zip(self.scales, blocks, strict=True):
            wide = block.float()
            wide = unit_rows(wide) if self.settings.normalize == "per-model" else wide
            weighted.append(wide * scale.float())
        fused = torch.cat(weighted, dim=1)  # (n, D)
        if self.settings.normalize == "global":
            fused = unit_rows(fused)
        return fused.to(self.scales.dtype)

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Write the encoders, the settings, the grids, the codes and the code."""
        folder = Path(output_path)
        for entry, encoder in zip(self.settings.encoders, self.encoders, strict=True):
            encoder.save_pretrained(str(folder / entry.path), create_model_card=False)
        save_file(self.ranges, folder / RANGES)
        if self.codebooks:
            (folder / CODEBOOKS).write_bytes(self.codebooks)
        copy_code(folder)
        self.settings.write(folder)

    @classmethod
    def load(  # type: ignore[override]
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        trust_remote_code: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        backend: str = "torch",
        **hub: Any,  # noqa: ANN401 - token, cache_folder, revision, local_files_only
    ) -> "FusedEncoder":
        """Load from a folder or the hub; encoders are float32 unless ``dtype`` says otherwise.

        Raises:
            ValueError: A file is missing, damaged, or not what the settings say.
        """
        if backend != "torch":
            raise ValueError(f"backend {backend!r} cannot run a fused model; use torch")
        places: dict[str, Any] = {
            k: hub[k] for k in ("token", "cache_folder", "revision") if k in hub
        }
        places["local_files_only"] = hub.get("local_files_only", False)

        def fetch(name: str) -> str:
            path = cls.load_file_path(model_name_or_path, name, **places)
            if path is None:
                raise ValueError(f"{name} is missing from {model_name_or_path}")
            return path

        settings = FusionSettings.read(fetch(CONFIG))
        check_files(settings, fetch)
        options = dict(model_kwargs or {})
        dtype = options.pop("dtype", options.pop("torch_dtype", None))
        if dtype in (None, "auto"):  # "auto" would keep a float16 checkpoint in float16
            dtype = torch.float32
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        encoders = []
        for entry in settings.encoders:
            path = cls.load_dir_path(model_name_or_path, entry.path, **places)
            # Code and pickles of an encoder are never run, whatever the model as a whole may do.
            encoder = SentenceTransformer(
                str(refuse_pickles(Path(str(path)))),
                device="cpu",
                local_files_only=True,
                model_kwargs={**options, "dtype": dtype, "use_safetensors": True},
                processor_kwargs=processor_kwargs,
                config_kwargs=config_kwargs,
            )
            encoders.append(encoder.to(dtype).eval())
        codebooks = Path(fetch(CODEBOOKS)).read_bytes() if CODEBOOKS in settings.files else b""
        return cls(settings, encoders, _read_ranges(fetch(RANGES)), codebooks)

    def on_model_ready(self, model: Any) -> None:  # noqa: ANN401 - any family's
        """Give the model that holds this module what a plain one cannot do (``FusedModel``)."""
        if type(model) is SentenceTransformer:
            fused: Any = model
            fused.__class__ = FusedModel
            fused._check_width(fused.truncate_dim)


def _run(encoder: SentenceTransformer, features: dict[str, Any]) -> Tensor:
    """An encoder's embeddings ``[n, d]``; a CPU takes a batch in the bites that suit its caches."""
    mask = features.get("attention_mask")
    if mask is None or mask.device.type != "cpu" or encoder.tokenizer.padding_side != "right":
        return encoder(features)["sentence_embedding"]
    count, width = mask.shape
    bite = max(CPU_ROWS, CPU_TOKENS // width)
    bites = []
    for start in range(0, count, bite):
        rows = slice(start, start + bite)
        longest = int(mask[rows].sum(dim=1).max())
        part = {
            key: value[rows, :longest] if getattr(value, "shape", None) == mask.shape else value
            for key, value in features.items()
        }
        bites.append(encoder(part)["sentence_embedding"])
    return torch.cat(bites)


def unit_rows(rows: Tensor) -> Tensor:
    """Rows over their norms, float32 ``[n, d]``; a row of zeros stays one."""
    # Summed in float64 as ``fusion.space.blocks`` does, so that both agree to the last bit.
    wide = rows if rows.device.type == "mps" else rows.double()
    norms = wide.square().sum(dim=1, keepdim=True).sqrt().float()  # (n, 1)
    return rows / torch.where(norms > 0, norms, 1.0)


def _read_ranges(path: str) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{RANGES} cannot be read: {error}") from None
