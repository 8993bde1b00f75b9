"""How a vector is stored: codes that vector databases take, or those fitted to the model."""

from typing import Any, Protocol

import numpy as np

from fusion.bulk.writing.precisions import PLAIN, kind_of

FLOATS = ("float32", "float16")


class Coder(Protocol):
    """Turns unit vectors into what a shard holds."""

    list_of: str
    """Type of a stored vector's items."""
    ranges: list[list[float]] | None
    """Lowest and highest value of each column, where codes are levels between them."""

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Codes [n, items] of float32 [n, d]."""
        ...


class PlainCoder:
    """Each column by itself, on the grid that travels with the model."""

    def __init__(self, model: Any, precision: str, dim: int) -> None:  # noqa: ANN401 - a FusedModel
        """Take the model, whose ``quantize`` does the work; floats need none."""
        self.model, self.precision, self.list_of = model, precision, PLAIN[precision]
        self.ranges: list[list[float]] | None = None
        if precision in ("int8", "uint8", "int4"):
            self.ranges = model.quantization_ranges(precision, dim).tolist()

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Codes [n, items] of float32 [n, d]."""
        if self.precision in FLOATS:
            return vectors.astype(self.precision)
        codes = np.asarray(self.model.quantize(vectors.astype(np.float32), self.precision))
        return codes.astype(self.list_of, copy=False)


class FittedCoder:
    """The model's codebook: what ``fusion.evaluate`` measures; scored by ``Codebook.score``."""

    list_of = "uint8"
    ranges: list[list[float]] | None = None

    def __init__(self, model: str, precision: str, dim: int) -> None:
        """Read the codebook.

        Raises:
            FusionError: The model has no codes of that width.
        """
        from fusion.model.folder import load_codebook

        self.book = load_codebook(model, precision, dim)

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Codes [n, items] of float32 [n, d]."""
        return self.book.encode(vectors)


def coder_of(model: Any, place: str, precision: str, codes: str, dim: int) -> Coder:  # noqa: ANN401
    """What codes the vectors of a model.

    Args:
        model: The loaded one; plain codes of integers need its grids.
        place: Its folder or hub id.
        precision: One of ``PRECISIONS``.
        codes: ``plain``, ``fitted`` or empty, see ``kind_of``.
        dim: Width.

    Raises:
        FusionError: The model has no codes of that width.
    """
    if kind_of(precision, codes) == "fitted":
        return FittedCoder(place, precision, dim)
    return PlainCoder(model, precision, dim)


def described(coder: Coder, dim: int) -> dict[str, Any]:
    """What a reader of the codes needs."""
    empty = coder.encode(np.ones((1, dim), np.float32))
    return {
        "list_of": coder.list_of,
        "list_size": empty.shape[1],
        "bytes_per_vector": empty.nbytes,
        "ranges": coder.ranges,
    }
