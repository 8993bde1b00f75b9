"""A shelf: the codebooks of many widths and precisions in one safetensors file.

Books of one width share their mean, rotation and scale, so equal tensors stand there once.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from .codebook import TENSORS, Codebook
from .errors import FusionError
from .precision import Precision

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
    try:
        shelf = b"" if precision.is_float else Path(path).read_bytes()
    except OSError as error:
        raise _damaged(path, error) from error
    return take_from_shelf(shelf, precision, dim, name=path)


def take_from_shelf(
    shelf: bytes, precision: Precision | str, dim: int, *, name: str | Path
) -> Codebook:
    """As ``load_from_shelf``, of what ``fit_shelf`` gave; errors call it by ``name``."""
    precision = Precision(precision)
    if precision.is_float:
        return Codebook.fit(np.ones((1, dim), np.float32), precision)
    try:
        tensors = load(shelf)  # checks all that stands before the metadata is taken out
        header = json.loads(shelf[8 : 8 + int.from_bytes(shelf[:8], "little")])
        books = json.loads(header["__metadata__"]["codebooks"])
        entry = books.get(_title(precision, dim))
        if entry is not None:
            own = {name: tensors[entry["tensors"][name]] for name in TENSORS}
            return Codebook.restore(entry["about"], own)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(name, error) from error
    widths = sorted({int(title.split(".")[0]) for title in books})
    raise FusionError(
        f"{name}: no codes of width {dim}; choose among {', '.join(map(str, widths))}"
    )


def _damaged(name: str | Path, error: Exception) -> FusionError:
    return FusionError(f"{name}: no intact codebooks ({error}); export again")


def _title(precision: Precision, dim: int) -> str:
    return f"{dim}.{precision}"
