"""Evening out the blocks must change directions within a block, and nothing between blocks."""

import numpy as np
import pytest

from fusion.space.batches import Subset
from fusion.space.teacher import evened_blocks

WIDTHS = (6, 3)


def crowded(rows=400, seed=0):
    """Two blocks with strong and weak directions, rotated."""
    rng = np.random.default_rng(seed)
    blocks = [
        rng.normal(size=(rows, d))
        * np.geomspace(1, 0.01, d)
        @ np.linalg.qr(rng.normal(size=(d, d)))[0]
        for d in WIDTHS
    ]
    return np.hstack(blocks).astype(np.float32)


def subset(embeddings):
    return Subset(embeddings, np.arange(len(embeddings)))


def moments(embeddings):
    """Eigenvalues of each block's second moment, ascending."""
    return [np.linalg.eigvalsh(b.T @ b / len(b)) for b in np.split(embeddings, [WIDTHS[0]], 1)]


def test_eigenvalues_get_the_power_and_blocks_keep_their_mean_square():
    embeddings = crowded()
    evened = embeddings @ evened_blocks(subset(embeddings), -0.2, WIDTHS)
    for before, after in zip(moments(embeddings), moments(evened), strict=True):
        expected = before ** (1 - 0.4)
        np.testing.assert_allclose(after / after[-1], expected / expected[-1], rtol=0.01)
        assert after.sum() == pytest.approx(before.sum(), rel=1e-4)


def test_power_zero_keeps_every_cosine():
    embeddings = crowded()
    evened = embeddings @ evened_blocks(subset(embeddings), 0.0, WIDTHS)
    np.testing.assert_allclose(evened @ evened.T, embeddings @ embeddings.T, rtol=1e-3, atol=1e-5)


def test_blocks_do_not_mix_and_a_block_without_weight_stays_zero():
    embeddings = crowded()
    matrix = evened_blocks(subset(embeddings), -0.2, WIDTHS)
    assert not matrix[:6, 6:].any()
    assert not matrix[6:, :6].any()
    embeddings[:, 6:] = 0
    without = evened_blocks(subset(embeddings), -0.2, WIDTHS)
    np.testing.assert_array_equal(without[:6, :6], matrix[:6, :6])
    assert not without[6:].any()


def test_only_the_rows_of_the_subset_count():
    embeddings = crowded()
    half = evened_blocks(Subset(embeddings, np.arange(0, 400, 2)), -0.2, WIDTHS)
    np.testing.assert_array_equal(half, evened_blocks(subset(embeddings[::2]), -0.2, WIDTHS))
    assert np.abs(half - evened_blocks(subset(embeddings), -0.2, WIDTHS)).max() > 1e-3
