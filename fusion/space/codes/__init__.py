"""Codes of embeddings: float16 down to 1 bit a coordinate, fitted once, packed to the bit."""

from fusion.space.codes.codebook import Codebook, Coding, Rotation
from fusion.space.codes.precision import Precision
from fusion.space.codes.shelf import fit_shelf, load_from_shelf

__all__ = ["Codebook", "Coding", "Precision", "Rotation", "fit_shelf", "load_from_shelf"]
