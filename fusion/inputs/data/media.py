"""Files of pictures become arrays of pixels, or one line that says why not. Pillow stays here."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fusion.errors import FusionError, MissingExtraError, one_line
from fusion.inputs.data.records import Unfit

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""What is read; others are drawings or documents, for which Pillow starts other programs."""
MOST_PIXELS = 100_000_000  # 300 MB as they are computed with: a scan, or a bomb
LEAST_SIDE = 2  # a single pixel is a counter of visits, no picture
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
ORIENTED = 0x0112  # EXIF: which side is up


def read_picture(path: Path, side: int) -> np.ndarray:
    """The whole picture brought to a square: uint8 [side, side, 3], bicubic.

    It stands as its EXIF says; what is transparent lies on white; grey of 16 bits keeps the upper
    8; CMYK is converted without its colour profile.

    Raises:
        FusionError: It cannot be read, or is none to embed; the message names the file.
    """
    try:
        with _opened(path) as image:
            _check(image)
            upright = _upright(image)
            return np.asarray(_rgb(upright).resize((side, side), resample=3))  # 3: bicubic
    except Unfit as error:
        raise FusionError(f"the picture {path} {error}") from None


@contextmanager
def _opened(path: Path) -> "Iterator[Image]":
    """An image whose pixels are not decoded yet; whatever is wrong becomes ``Unfit``."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtraError("pictures are read by Pillow", "media") from error
    if not path.is_file():
        raise Unfit("is missing, or is no file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes and odd metadata: what counts is checked
            with Image.open(path, formats=FORMATS) as image:
                yield image
    except UnidentifiedImageError:
        raise Unfit(f"is none of {', '.join(FORMATS)}, whatever its name says") from None
    except Image.DecompressionBombError:
        raise Unfit(_too_large()) from None
    except Unfit:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, MemoryError) as error:
        raise Unfit(f"is damaged: {one_line(error)[:100]}") from None


def _check(image: "Image") -> None:
    """Refuse what the header alone tells is none to embed."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise Unfit(f"has {width:,} x {height:,} pixels: {_too_large()}")
    if min(width, height) < LEAST_SIDE:
        raise Unfit(f"has {width} x {height} pixels: there is nothing to see")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # phones add a second view behind the picture
        raise Unfit(f"holds {frames} pictures; save the one that is meant by itself")
    if image.mode in ("I", "F"):
        raise Unfit("has 32 bits a pixel and no known range; save it with 8 or 16")


def _too_large() -> str:
    return f"more than {MOST_PIXELS // 1_000_000} million; make it smaller"


def _upright(image: "Image") -> "Image":
    """As its EXIF says that it was held."""
    from PIL import ImageOps

    if image.getexif().get(ORIENTED, 1) == 1:
        image.load()
        return image
    return ImageOps.exif_transpose(image)


def _rgb(image: "Image") -> "Image":
    from PIL import Image

    if image.mode in SIXTEEN_BITS:  # Pillow's own conversion cuts off what is above 255
        upper = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return Image.fromarray(upper).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    return image.convert("RGB")
