"""The model as its user holds it: widths, plain codes and fitted ones."""

import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import quantize_embeddings

from .files import seal
from .shelf import Codebook, take_from_shelf

CODEBOOKS = "codebooks.safetensors"
FLOATS = ("float32", "float16")
PLAIN = (*FLOATS, "int8", "uint8", "int4", "binary", "ubinary")


class FusedModel(SentenceTransformer):
    """What a fused model does beyond a plain ``SentenceTransformer``, whose place it takes.

    Truncated vectors are unit-norm; widths are checked; quantised output uses the grids that travel
    with the model, so that queries, documents and single texts land on the same one.
    """

    def encode(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as its base class
        """As ``SentenceTransformer.encode``; ``precision`` may also be ``int4`` or ``float16``."""
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
        packs two columns a byte (the first one high); ``binary`` and ``ubinary`` are signs. These
        are what vector databases take; those of ``codes`` rank better.
        """
        if precision in FLOATS:
            return vectors.astype(precision)
        if not vectors.size:
            return vectors.astype(np.int8 if precision in ("int8", "binary") else np.uint8)
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
        if precision in FLOATS:
            values = codes[:, :dim].astype(np.float32)
        elif precision == "int4":
            values = _unpack_int4(codes, dim) * ((high - low) / 16) + low
        elif precision in ("int8", "uint8"):
            levels = codes.astype(np.float32) + (128.5 if precision == "int8" else 0.5)
            values = levels * ((high - low) / 255) + low
        else:
            offset = 128 if precision == "binary" else 0
            signs = codes.astype(np.int16) + offset
            values = np.unpackbits(signs.astype(np.uint8), axis=-1)[:, :dim] * 2.0 - 1.0
        return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)

    def codes(self, precision: str, dim: int | None = None) -> Codebook:
        """The codes fitted to this model: ``encode`` documents, ``score`` float queries.

        >>> book = model.codes("int2", 128)                        # doctest: +SKIP
        >>> codes = book.encode(model.encode_document(texts))      # doctest: +SKIP
        >>> scores = book.score(model.encode_query(["?"]), codes)  # doctest: +SKIP

        Args:
            precision: ``int8``, ``int4``, ``int3``, ``int2+``, ``int2``, ``binary+``, ``binary`` or
                a float one.
            dim: A trained width; by default that of the model's vectors.

        Returns:
            What codes vectors float ``[n, dim or more]`` into uint8 ``[n, bytes_per_vector]``, and
            gives cosines float32 ``[q, n]``.

        Raises:
            ValueError: An unknown precision, or a width that was not trained.
        """
        trained = self._first.settings.dims
        dim = (self.truncate_dim or trained[-1]) if dim is None else dim
        if dim not in trained:
            widths = ", ".join(map(str, trained))
            raise ValueError(f"the model has no codes of width {dim}; choose among {widths}")
        return take_from_shelf(self._first.codebooks, precision, dim, name=CODEBOOKS)

    def fuse(self, blocks: Sequence[np.ndarray], truncate_dim: int | None = None) -> np.ndarray:
        """Unit vectors ``[n, d]`` of embeddings that the encoders gave elsewhere.

        Args:
            blocks: Float ``[n, d_i]`` of each encoder, in the model's order, of texts with the
                prompts that ``model[0].prompts_for(model.prompts["query"])`` names.
            truncate_dim: Width; by default that of the model's vectors.

        Raises:
            ValueError: The blocks are not those of the model's encoders.
        """
        dim = self._check_width(self.truncate_dim if truncate_dim is None else truncate_dim)
        entries = self._first.settings.encoders
        if len(blocks) != len(entries):
            raise ValueError(f"{len(blocks)} embeddings for the model's {len(entries)} encoders")
        for entry, block in zip(entries, blocks, strict=True):
            shape = (len(blocks[0]), entry.dim)
            if np.shape(block) != shape:
                raise ValueError(
                    f"embeddings of {entry.name} must be {[*shape]}, not {[*np.shape(block)]}"
                )
        with torch.inference_mode():
            tensors = [torch.as_tensor(block, device=self.device) for block in blocks]
            features = {"sentence_embedding": self._first.fuse(tensors)}
            for module in list(self)[1:]:
                features = module(features)
            cut = features["sentence_embedding"][:, :dim]  # (n, d)
            return torch.nn.functional.normalize(cut, dim=1).cpu().numpy()

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
        """Lowest and highest value of a column, float32 ``[2, dim]``; zeros for signs, floats."""
        if precision == "uint8":  # the grid of int8, counted from its lowest level
            precision = "int8"
        if precision in (*FLOATS, "binary", "ubinary"):
            return np.zeros((2, dim), np.float32)
        if precision not in ("int8", "int4"):
            raise ValueError(
                f"precision {precision!r} is unknown; choose among {', '.join(PLAIN)}; "
                "model.codes has int3, int2+, int2 and binary+"
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


def _pack_int4(levels: np.ndarray) -> np.ndarray:
    """Levels float ``[n, d]`` to uint8 ``[n, ceil(d / 2)]``."""
    codes = np.clip(np.floor(levels), 0, 15).astype(np.uint8)
    codes = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    return codes[:, ::2] << 4 | codes[:, 1::2]


def _unpack_int4(codes: np.ndarray, dim: int) -> np.ndarray:
    """The middles of the levels of ``_pack_int4``, float32 ``[n, d]``."""
    levels = np.stack([codes >> 4, codes & 15], axis=-1).reshape(len(codes), -1)  # (n, 2 bytes)
    return levels[:, :dim].astype(np.float32) + 0.5
