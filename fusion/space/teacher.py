"""What a head learns from: the fused space with its blocks evened out.

An encoder's embeddings crowd into a few directions that say little about which text is near which.
Scaling each block's principal components by their eigenvalues to a small negative power evens them
out. Block by block, because how much a block counts beside the others has been decided already.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fusion.space.batches import Subset
from fusion.space.compressors import PCA


def evened_blocks(embeddings: Subset, power: float, widths: Sequence[int]) -> np.ndarray:
    """The map from the fused space to one with evened out blocks, float32 ``[D, D]``.

    Args:
        embeddings: ``[n, D]`` fused embeddings to fit on.
        power: of the eigenvalues of each block's second moment.
        widths: columns of each block, side by side; D in all.

    Returns:
        A matrix to multiply by from the right. A block's mean squared norm stays what it was; a
        block of weight 0 stays zero.
    """
    total = sum(widths)
    matrix = np.zeros((total, total), dtype=np.float32)
    for start, stop in pairwise(np.cumsum([0, *widths]).tolist()):
        block: Any = embeddings.mapped(np.eye(total, dtype=np.float32)[:, start:stop])  # (n, d_i)
        if not block[:1].any():  # only a weight of 0 makes zeros of a text's block
            continue
        fitted = PCA(power=power).fit(block)
        squares = (fitted.matrix**2).sum(axis=0)  # (d_i,) of the components' scales
        scale = (fitted.explained @ squares) ** -0.5
        matrix[start:stop, start:stop] = scale * fitted.matrix
    return matrix
