"""Codes are scored by tables as they are by decoding them."""

import numpy as np
import pytest

from fusion.space.codes import Codebook, Precision
from fusion.space.codes.tables import MOST_BITS, Leveled, Tables

FITTED = [precision for precision in Precision if not precision.is_float]


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    falling = np.linspace(2, 0.2, 200).astype(np.float32)
    return rng.standard_normal((400, 200)).astype(np.float32) * falling + np.float32(0.1)


def columns(codes):
    return np.ascontiguousarray(codes.T)


@pytest.mark.parametrize("precision", FITTED)
@pytest.mark.parametrize("dim", [1, 3, 8, 13, 40, 128, 200])
def test_looked_up_scores_are_those_of_decoded_vectors(vectors, precision, dim):
    book = Codebook.fit(vectors, precision, dim)
    codes, queries = book.encode(vectors[:150]), vectors[300:304, :dim]
    tables = Tables.of(book)
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    keys = tables.keys(columns(codes))
    norms = tables.norms(keys)
    found = [tables.dots(tables.asked(query), keys) / norms for query in unit @ book.axes]
    np.testing.assert_allclose(found, book.score(queries, codes), atol=2e-6)
    decoded = tables.decode(keys) / norms[:, None]
    np.testing.assert_allclose(decoded @ book.axes.T, book.decode(codes), atol=2e-6)
    assert all(len(group.named) <= 1 << MOST_BITS for group in tables.groups)
    assert sum(group.columns.stop - group.columns.start for group in tables.groups) == dim


def test_a_window_that_reaches_round_the_end():
    """Eight states of one bit each: a coordinate's level is named by its bit and two before it."""
    levels = np.arange(8, dtype=np.float32)
    tables = Tables([Leveled(8, 1, levels)], np.ones(8), np.zeros(8))
    stream = np.array([[1, 0, 1, 1, 0, 0, 1, 0]], np.uint8)
    bits = stream[0].tolist()
    wanted = [4 * bits[i - 2] + 2 * bits[i - 1] + bits[i] for i in range(8)]
    assert tables.decode(tables.keys(columns(np.packbits(stream, axis=1)))).tolist() == [wanted]
