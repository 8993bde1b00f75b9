"""The model's codes, which live in ``fusion.space.codes``.

This file stays behind: in an exported folder ``shelf.py`` is that room's own file.
"""

from fusion.space.codes.shelf import Codebook, FusionError, take_from_shelf

__all__ = ["Codebook", "FusionError", "take_from_shelf"]
