"""A shelf: the codebooks of many widths and precisions in one safetensors file.

Books of one width share their mean, rotation and scale, so equal tensors stand there once.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fusion.errors import FusionError
from fusion.space.codes.codebook import TENSORS, Codebook
from fusion.space.codes.precision import Precision

INTEGERS = tuple(precision for precision in Precision if not precision.is_float)


def fit_shelf(vectors: np.ndarray, dims: Sequence[int], seed: int = 0) -> bytes:
    """Fit a codebook for every width and every precision of integers.

    Args:
        vectors: float [n, d], training vectors.
        dims: widths, at most d.
        seed: of the rotations.

    Returns:
        What a safetensors file for ``load_from_shelf`` holds.
    """
    tensors: dict[str, np.ndarray] = {}
    books: dict[str, dict] = {}
    for dim in dims:
        for precision in INTEGERS:
            book = Codebook.fit(vectors, precision, dim, seed=seed)
            keys = {}
            for name in TENSORS:
                tensor = np.ascontiguousarray(getattr(book, name))
                keys[name] = hashlib.sha256(tensor.tobytes()).hexdigest()[:16]
                tensors[keys[name]] = tensor
            books[_title(precision, dim)] = {"about": book.about, "tensors": keys}
    return save(tensors, metadata={"codebooks": json.dumps(books)})


def load_from_shelf(path: str | Path, precision: Precision | str, dim: int) -> Codebook:
    """One codebook of the file; a float precision needs none and is made on the spot.

    Raises:
        ValueError: an unknown precision.
        FusionError: the file cannot be read, or has no such book.
    """
    precision = Precision(precision)
    if precision.is_float:
        return Codebook.fit(np.ones((1, dim), np.float32), precision)
    try:
        with safe_open(path, framework="np") as file:
            books = json.loads((file.metadata() or {})["codebooks"])
            entry = books.get(_title(precision, dim))
            if entry is not None:
                tensors = {name: file.get_tensor(entry["tensors"][name]) for name in TENSORS}
                return Codebook.restore(entry["about"], tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise FusionError(f"{path}: no intact codebooks ({error}); export again") from None
    widths = sorted({int(title.split(".")[0]) for title in books})
    raise FusionError(
        f"{path}: no codes of width {dim}; choose among {', '.join(map(str, widths))}"
    )


def _title(precision: Precision, dim: int) -> str:
    return f"{dim}.{precision}"
