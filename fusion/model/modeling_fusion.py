"""Several frozen text encoders and one nested space, as a sentence-transformers model.

This one file travels in the root of every exported model folder, where it is loaded with
``trust_remote_code=True``; it is also what ``fusion`` itself runs. So it imports nothing but torch,
numpy, safetensors, transformers, sentence-transformers and the standard library.
"""

import hashlib
import inspect
import json
import math
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule, Module, Transformer
from sentence_transformers.util import quantize_embeddings
from torch import Tensor, nn

FORMAT = 1
CODE, CONFIG, RANGES = "modeling_fusion.py", "fusion_config.json", "ranges.safetensors"
CODEBOOKS = "codebooks.safetensors"
ST_CONFIG, MODULES = "config_sentence_transformers.json", "modules.json"
NEEDS = {"sentence-transformers": ">=6.2"}
# Names, not texts: each encoder has a prompt of its own for each of them. Empty prompts would not
# do, since encode(prompt_name="query") hands over a prompt and no task.
PROMPTS = {"query": "<fusion:query>", "document": "<fusion:document>"}
NORMALIZATIONS = ("none", "per-model", "global")
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
# Activations of more than this leave a CPU's caches, and freed memory of that size goes back to the
# system to be faulted in anew: measured, 15 % of the time at sentence-transformers' 32 rows.
CPU_ROWS, CPU_TOKENS = 8, 512
PROBES = ["", "A", "Query: naïve Text, e\u0301tude\n(2nd)", "the cat and the dog " * 200]


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
        """Take the encoders' models and the grids of quantised output (see ``FusedModel``).

        ``codebooks`` is a file that only ``fusion`` reads; here it just travels along.
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
            found |= group.features(texts, prompts)
        for row, encoder in enumerate(self.encoders):
            if row not in found:
                found[row] = encoder[0].preprocess(texts, prompt=prompts[row], **options)
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
            block = _run(encoder, own).float()[:, :width]  # (n, d_i)
            if self.settings.normalize == "per-model":
                block = unit_rows(block)
            blocks.append(block * self.scales[row].float())
        fused = torch.cat(blocks, dim=1)  # (n, D)
        if self.settings.normalize == "global":
            fused = unit_rows(fused)
        features["sentence_embedding"] = fused.to(self.scales.dtype)
        return features

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Write the encoders, the settings, the grids and this file."""
        folder = Path(output_path)
        for entry, encoder in zip(self.settings.encoders, self.encoders, strict=True):
            encoder.save_pretrained(str(folder / entry.path), create_model_card=False)
        save_file(self.ranges, folder / RANGES)
        if self.codebooks:
            (folder / CODEBOOKS).write_bytes(self.codebooks)
        if Path(__file__).resolve() != (folder / CODE).resolve():
            shutil.copyfile(__file__, folder / CODE)
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
                str(_without_pickles(Path(str(path)))),
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


class FusedHead(Module):
    """A trained head that no stock module can be: norms, a leaky activation, a residual branch."""

    config_keys = [  # noqa: RUF012 - the base class has a plain list too
        "in_dim", "out_dim", "input_norm", "bias", "negative_slope", "output_norm",
        "residual_width",
    ]  # fmt: skip

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        input_norm: bool = True,
        bias: bool = True,
        negative_slope: float | None = 0.2,
        output_norm: bool = False,
        residual_width: int = 0,
    ) -> None:
        """Build it with its BatchNorm folded; fields as in ``fusion.space.head.HeadConfig``."""
        super().__init__()
        self.in_dim, self.out_dim, self.residual_width = in_dim, out_dim, residual_width
        self.bias, self.negative_slope = bias, negative_slope
        self.linear = nn.Linear(in_dim, out_dim, bias=bias)
        self.input_norm = nn.LayerNorm(in_dim) if input_norm else nn.Identity()
        self.activation = nn.LeakyReLU(negative_slope) if negative_slope is not None else None
        self.output_norm = nn.LayerNorm(out_dim) if output_norm else nn.Identity()
        if residual_width:
            self.residual = nn.Sequential()
            self.residual.add_module("hidden", nn.Linear(in_dim, residual_width))
            self.residual.add_module("activation", nn.GELU())
            self.residual.add_module("out", nn.Linear(residual_width, out_dim, bias=False))

    def get_config_dict(self) -> dict[str, Any]:
        """What is saved."""
        config = {key: getattr(self, key) for key in self.config_keys}
        for key in ("input_norm", "output_norm"):
            config[key] = isinstance(config[key], nn.LayerNorm)
        return config

    def get_embedding_dimension(self) -> int:
        """Columns of the output."""
        return self.out_dim

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401
        """``[n, in_dim]`` to nested ``[n, out_dim]``."""
        fused = features["sentence_embedding"]  # (n, D)
        mapped = self.linear(self.input_norm(fused))  # (n, d)
        if self.activation is not None:
            mapped = self.activation(mapped)
        mapped = self.output_norm(mapped)
        if self.residual_width:
            mapped = mapped + self.residual(fused)
        features["sentence_embedding"] = mapped
        return features

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Write configuration and weights."""
        self.save_config(output_path)
        self.save_torch_weights(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **hub: Any) -> "FusedHead":  # type: ignore[override] # noqa: ANN401
        """Read what ``save`` wrote."""
        names = ("token", "cache_folder", "revision", "local_files_only")
        places = {k: hub[k] for k in names if k in hub} | {"subfolder": subfolder}
        config = cls.load_config(model_name_or_path, **places)
        if set(config) != set(cls.config_keys):
            raise ValueError(f"{subfolder}/config.json has other fields than {cls.config_keys}")
        return cls.load_torch_weights(model_name_or_path, model=cls(**config), **places)


class FusedModel(SentenceTransformer):
    """What a fused model does beyond a plain ``SentenceTransformer``, whose place it takes.

    Truncated vectors are unit-norm; widths are checked; quantised output uses the grids that travel
    with the model, so that queries, documents and single texts land on the same one.
    """

    def encode(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as its base class
        """As ``SentenceTransformer.encode``; ``precision`` may also be ``int4``."""
        call = inspect.signature(SentenceTransformer.encode).bind_partial(self, *args, **kwargs)
        options = {k: v for k, v in call.arguments.items() if k not in ("self", "kwargs")}
        options |= call.arguments.get("kwargs", {})
        if options.get("output_value", "sentence_embedding") == "token_embeddings":
            raise ValueError("a fused model has no token embeddings: its encoders' tokens differ")
        precision = options.pop("precision", None) or "float32"
        dim = options.get("truncate_dim")
        dim = self._check_width(self.truncate_dim if dim is None else dim)
        # Slicing comes after the last module, so its Normalize cannot do it.
        options["normalize_embeddings"] = options.get("normalize_embeddings") or dim is not None
        if precision == "float32":
            return super().encode(**options)
        as_tensor = options.pop("convert_to_tensor", False)
        codes = self.quantize(super().encode(**options | {"convert_to_numpy": True}), precision)
        return torch.from_numpy(codes) if as_tensor else codes

    def quantize(self, vectors: np.ndarray, precision: str) -> np.ndarray:
        """Code unit vectors ``[n, d]`` or ``[d]`` on the model's own grid for their width.

        ``int8`` is one step for all columns, so integer dot products rank like float ones; ``int4``
        packs two columns a byte (the first one high); ``binary`` and ``ubinary`` are signs.
        """
        if not vectors.size:
            return vectors.astype(np.uint8)
        rows = np.atleast_2d(np.asarray(vectors, dtype=np.float32))  # (n, d)
        ranges = self.quantization_ranges(precision, rows.shape[1])
        kind: Any = precision
        if precision == "int4":
            codes = _pack_int4((rows - ranges[0]) / (ranges[1] - ranges[0]) * 16)
        else:
            codes = np.asarray(quantize_embeddings(rows, kind, ranges=ranges))
        return codes[0] if vectors.ndim == 1 else codes

    def dequantize(self, codes: np.ndarray, precision: str, dim: int) -> np.ndarray:
        """Unit vectors float32 ``[n, dim]`` of codes ``[n, bytes]`` from ``quantize``."""
        low, high = self.quantization_ranges(precision, dim)
        if precision == "int4":
            values = _unpack_int4(codes, dim) * ((high - low) / 16) + low
        elif precision in ("int8", "uint8"):
            levels = codes.astype(np.float32) + (128.5 if precision == "int8" else 0.5)
            values = levels * ((high - low) / 255) + low
        else:
            offset = 128 if precision == "binary" else 0
            signs = codes.astype(np.int16) + offset
            values = np.unpackbits(signs.astype(np.uint8), axis=-1)[:, :dim] * 2.0 - 1.0
        return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)

    def save(self, path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:  # noqa: ANN401
        """Write a folder like the exported one, with its own card and never a pickle."""
        if not safe_serialization:
            raise ValueError("a fused model is saved as safetensors only")
        super().save(path, create_model_card=False)
        seal(Path(path))
        if self._model_card_text:
            (Path(path) / "README.md").write_text(self._model_card_text, encoding="utf-8")

    @property
    def _first(self) -> Any:  # noqa: ANN401 - a FusedEncoder, of whichever copy of this file
        return self[0]

    def _check_width(self, dim: int | None) -> int | None:
        trained = self._first.settings.dims
        if dim is None or dim in trained:
            return dim
        if not 1 <= dim <= trained[-1]:
            raise ValueError(f"truncate_dim must be from 1 to {trained[-1]}, got {dim}")
        nearest = min(trained, key=lambda width: (abs(width - dim), width))
        warned = self.__dict__.setdefault("_warned", set())
        if dim not in warned:
            warned.add(dim)
            warnings.warn(
                f"width {dim} was not trained; the nearest trained one is {nearest}", stacklevel=3
            )
        return dim

    def quantization_ranges(self, precision: str, dim: int) -> np.ndarray:
        """Lowest and highest value of each column, float32 ``[2, dim]``; zeros for signs."""
        if precision == "uint8":  # the grid of int8, counted from its lowest level
            precision = "int8"
        if precision in ("binary", "ubinary"):
            return np.zeros((2, dim), np.float32)
        if precision not in ("int8", "int4"):
            raise ValueError(
                f"precision {precision!r} is unknown; choose among float32, int8, uint8, int4, "
                "binary, ubinary"
            )
        trained = next((width for width in self._first.settings.dims if width >= dim), None)
        if trained is None:
            raise ValueError(
                f"vectors have {dim} columns, the model's {self._first.settings.dims[-1]}"
            )
        # A vector cut between two trained widths is scaled up less or more than at the wider one.
        norms = self._first.ranges["norms"]
        ratio = norms[trained - 1] / norms[dim - 1]
        return self._first.ranges[f"{precision}.{trained}"][:, :dim] * ratio  # (2, dim)


@dataclass(frozen=True)
class SharedTokens:
    """Encoders with one vocabulary: texts are tokenised once, each one's prompt is spliced in."""

    members: dict[int, SentenceTransformer]
    """By their place in the model."""

    @classmethod
    def find(
        cls, encoders: Sequence[SentenceTransformer], settings: FusionSettings
    ) -> "list[SharedTokens]":
        """Groups of two or more whose spliced tokens were found equal to their own."""
        alike: dict[str, dict[int, SentenceTransformer]] = {}
        for row, encoder in enumerate(encoders):
            if rules := _token_rules(encoder):
                alike.setdefault(rules, {})[row] = encoder
        groups = [cls(members) for members in alike.values() if len(members) > 1]
        prompts = [
            [getattr(entry, f"{role}_prompt") for entry in settings.encoders] for role in PROMPTS
        ]
        return [group for group in groups if all(group.agrees(side) for side in prompts)]

    def agrees(self, prompts: Sequence[str]) -> bool:
        """Whether splicing gives what each encoder's own tokeniser gives, on awkward texts."""
        spliced = self.features(PROBES, prompts)
        for row, encoder in self.members.items():
            tokenise: Any = encoder[0].preprocess
            own = tokenise(PROBES, prompt=prompts[row])
            own.pop("prompt_length", None)
            if own.keys() != spliced[row].keys():
                return False
            tensors = [key for key in own if isinstance(own[key], Tensor)]
            if not all(torch.equal(own[key], spliced[row][key]) for key in tensors):
                return False
        return True

    def features(self, texts: Sequence[str], prompts: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Features by the encoder's place; encoders with equal prompts share their tensors."""
        tokenizer = next(iter(self.members.values())).tokenizer
        limits = {row: int(encoder.max_seq_length or 0) for row, encoder in self.members.items()}
        plain = {"add_special_tokens": False, "return_attention_mask": False}
        bodies = tokenizer(list(texts), truncation=True, max_length=max(limits.values()), **plain)
        first, last = tokenizer("")["input_ids"]
        made: dict[tuple[str, int], dict[str, Any]] = {}
        for row, limit in limits.items():
            key = (prompts[row], limit)
            if key in made:
                continue
            lead = tokenizer(prompts[row], **plain)["input_ids"] if prompts[row] else []
            rows = [[first, *(lead + ids)[: limit - 2], last] for ids in bodies["input_ids"]]
            width = max(map(len, rows))
            filled = [ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids in rows]
            lengths = torch.tensor([len(ids) for ids in rows])
            tensors = {
                "input_ids": torch.tensor(filled),  # (n, t)
                "attention_mask": (torch.arange(width) < lengths[:, None]).long(),  # (n, t)
            }
            tensors["token_type_ids"] = torch.zeros_like(tensors["input_ids"])
            names = [name for name in tokenizer.model_input_names if name in tensors]
            made[key] = {name: tensors[name] for name in names} | {"modality": "text"}
        return {row: made[prompts[row], limit] for row, limit in limits.items()}


def _token_rules(encoder: SentenceTransformer) -> str | None:
    """What decides an encoder's tokens; None where splicing is out of the question."""
    first: Any = encoder[0]
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if type(first) is not Transformer or backend is None or first.max_seq_length is None:
        return None
    if getattr(first, "can_flatten_inputs", False) or encoder.tokenizer.padding_side != "right":
        return None
    if not all(getattr(module, "include_prompt", True) for module in encoder):
        return None  # pooling must then know where a prompt ends
    if len(encoder.tokenizer("")["input_ids"]) != 2:
        return None
    rules = json.loads(backend.to_str())
    rules |= {"truncation": None, "padding": None}  # of the last call, not of the vocabulary
    return json.dumps([rules, encoder.tokenizer.model_input_names], sort_keys=True)


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


def seal(folder: Path) -> None:
    """Make a saved folder whole: names that load anywhere, and the checksums of its files."""
    modules = json.loads((folder / MODULES).read_text(encoding="utf-8"))
    for module in modules:
        if not module["type"].startswith("sentence_transformers."):
            module["type"] = f"modeling_fusion.{module['type'].rpartition('.')[2]}"
            if module["path"]:  # the copy in the root is the one that is loaded
                (folder / module["path"] / CODE).unlink(missing_ok=True)
    (folder / MODULES).write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")
    config = json.loads((folder / ST_CONFIG).read_text(encoding="utf-8"))
    config |= {"prompts": PROMPTS, "requirements": NEEDS}
    (folder / ST_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    # Lengths, pooling and the like stand in JSON; those of the root are made anew at each save.
    below = [name for name in folder.rglob("*.json") if name.parent != folder]
    names = [*folder.rglob("*.safetensors"), *below]
    mode = (folder / MODULES).stat().st_mode & 0o777  # as the umask has it
    for name in names:
        name.chmod(mode)  # safetensors lets only the owner read
    files = {str(name.relative_to(folder).as_posix()): _sha256(name) for name in sorted(names)}
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


def _without_pickles(folder: Path) -> Path:
    for path in folder.rglob("*"):
        if path.suffix in PICKLES:
            raise ValueError(f"{path.name} may hold a pickle; a fused model is safetensors only")
    return folder


def _read_ranges(path: str) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{RANGES} cannot be read: {error}") from None


def _pack_int4(levels: np.ndarray) -> np.ndarray:
    """Levels float ``[n, d]`` to uint8 ``[n, ceil(d / 2)]``."""
    codes = np.clip(np.floor(levels), 0, 15).astype(np.uint8)
    codes = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    return codes[:, ::2] << 4 | codes[:, 1::2]


def _unpack_int4(codes: np.ndarray, dim: int) -> np.ndarray:
    """The middles of the levels of ``_pack_int4``, float32 ``[n, d]``."""
    levels = np.stack([codes >> 4, codes & 15], axis=-1).reshape(len(codes), -1)  # (n, 2 bytes)
    return levels[:, :dim].astype(np.float32) + 0.5
