"""The error of codes that cannot be had.

This file stays behind: in an exported folder ``errors.py`` is ``fusion/errors.py`` itself.
"""

from fusion.errors import FusionError

__all__ = ["FusionError"]
