"""How a vector is stored: codes that vector databases take, or those fitted to the model."""

from typing import Any, Protocol

import numpy as np

PLAIN = {  # what a list of an embedding column holds
    "float32": "float32",
    "float16": "float16",
    "int8": "int8",
    "uint8": "uint8",
    "int4": "uint8",  # two columns a byte, the first one high
    "binary": "int8",  # eight signs a byte, minus 128, as sentence-transformers packs them
    "ubinary": "uint8",
}
FITTED = ("int8", "int4", "int3", "int2", "binary")
PRECISIONS = tuple(dict.fromkeys([*PLAIN, *FITTED]))
KINDS = ("plain", "fitted")


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
        """Take the model, whose ``quantize`` does the work."""
        self.model, self.precision, self.list_of = model, precision, PLAIN[precision]
        self.ranges: list[list[float]] | None = None
        if precision in ("int8", "uint8", "int4"):
            self.ranges = model.quantization_ranges(precision, dim).tolist()

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Codes [n, items] of float32 [n, d]."""
        if self.precision in ("float32", "float16"):
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


def kind_of(precision: str, codes: str) -> str:
    """``plain`` or ``fitted``; the latter by default where there are no plain codes.

    Raises:
        ValueError: There are no such codes.
    """
    kind = codes or ("plain" if precision in PLAIN else "fitted")
    if precision not in {"plain": PLAIN, "fitted": FITTED}.get(kind, ()):
        known = ", ".join(PLAIN if kind == "plain" else FITTED)
        raise ValueError(f"there are no {kind} codes of precision {precision!r}; {kind}: {known}")
    return kind
