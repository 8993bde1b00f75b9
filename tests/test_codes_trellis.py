"""Trellis codes: the best path against every path, and the gain that they are for."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from fusion.space.codes import Codebook, trellis
from fusion.space.codes.grids import gaussian_error, gaussian_levels
from fusion.space.codes.trellis import trellis_encode, trellis_levels, trellis_states


def gaussian(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def squared_error(values, symbols, levels, bits):
    states = trellis_states(symbols, bits, len(levels))
    return np.sum((levels[states] - values) ** 2, axis=1)


@pytest.mark.parametrize("length", [8, 10])
@pytest.mark.parametrize(("bits", "steps"), [(1, 10), (1, 11), (2, 5), (3, 4), (4, 3)])
def test_states_are_the_last_bits_round_the_end(bits, steps, length):
    symbols = np.random.default_rng(0).integers(0, 2**bits, (6, steps)).astype(np.uint8)
    states = trellis_states(symbols, bits, 1 << length)
    for row, state in zip(symbols, states, strict=True):
        stream = "".join(f"{v:0{bits}b}" for v in row)
        for step in range(steps):
            upto = (stream * 3)[: len(stream) * 2 + (step + 1) * bits]
            assert state[step] == int(upto[-length:], 2)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_path_is_the_nearest_of_all_paths(bits):
    """Against brute force over every stream; without the seam, from and to a given state."""
    steps, levels, crossing = 8 // bits + 1, trellis_levels(bits, 256), 77
    values = gaussian(5, steps, seed=bits)
    path = trellis._nearest_path(values.T, levels, bits, np.full(5, crossing))
    found = np.sum((levels[path] - values.T) ** 2, axis=0)
    least = np.full(5, np.inf)
    for symbols in itertools.product(range(2**bits), repeat=steps):
        state, error = crossing, np.zeros(5)
        for step, symbol in enumerate(symbols):
            state = (state << bits | symbol) % 256
            error += (levels[state] - values[:, step]) ** 2
        if state == crossing:
            least = np.minimum(least, error)
    np.testing.assert_allclose(found, least, rtol=1e-5)


# Rate-distortion limits of a unit Gaussian are 4**-bits; the scalar errors are Max's.
@pytest.mark.parametrize(
    ("state", "bits", "most"),
    [
        *((8, 1, 0.294), (8, 2, 0.082), (8, 3, 0.0235), (8, 4, 0.0070)),
        *((10, 1, 0.285), (10, 2, 0.0775), (10, 3, 0.0215), (10, 4, 0.0060)),
    ],
)
def test_error_lies_between_the_limit_and_the_scalar_code(state, bits, most):
    values, levels = gaussian(200, 96), trellis_levels(bits, 1 << state)
    error = np.mean(squared_error(values, trellis_encode(values, levels, bits), levels, bits)) / 96
    assert 4.0**-bits < error < most < 0.84 * gaussian_error(gaussian_levels(bits))


def test_the_search_beats_a_walk_that_takes_the_nearest_next_level():
    values, levels = gaussian(20, 64), trellis_levels(1, 1024)
    greedy = np.zeros((20, 64), np.uint8)
    state = np.zeros(20, np.int64)
    for step in range(64):
        ways = (state[:, None] << 1 | np.arange(2)) % 1024
        greedy[:, step] = np.abs(levels[ways] - values[:, step, None]).argmin(axis=1)
        state = ways[np.arange(20), greedy[:, step]]
    searched = trellis_encode(values, levels, 1)
    assert np.mean(squared_error(values, searched, levels, 1)) < 0.8 * np.mean(
        squared_error(values, greedy, levels, 1)
    )


def test_rows_are_coded_alone_whatever_block_they_fall_into():
    values, levels = gaussian(300, 40), trellis_levels(2, 1024)
    together = trellis_encode(values, levels, 2)
    one_by_one = np.concatenate([trellis_encode(row[None], levels, 2) for row in values])
    np.testing.assert_array_equal(together, one_by_one)


def test_paths_do_not_turn_on_how_a_product_is_summed(monkeypatch):
    """Term by term with two roundings or fused with one, forwards or backwards."""
    values = np.repeat(gaussian(1000, 1), 40, axis=1)  # of one number many paths nearly tie
    matmul, found = np.matmul, []

    def fused(left, right, out):
        out[:] = left.astype(np.float64) @ right.astype(np.float64)

    def apart(left, right, out):
        out[:] = left[:, :1] * right[:1]
        out += left[:, 1:] * right[1:]

    for product in (matmul, fused, apart):
        trellis_levels.cache_clear()
        monkeypatch.setattr(np, "matmul", product)
        levels = trellis_levels(2, 256)
        found.append((levels, trellis_encode(values, levels, 2)))
    trellis_levels.cache_clear()
    for levels, symbols in found[1:]:
        np.testing.assert_array_equal(levels, found[0][0])
        np.testing.assert_array_equal(symbols, found[0][1])


def test_levels_are_always_the_same_and_cannot_be_changed():
    first = trellis_levels(3, 256)
    trellis_levels.cache_clear()
    np.testing.assert_array_equal(first, trellis_levels(3, 256))
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0


@pytest.mark.parametrize(("precision", "dim"), [("binary", 32), ("int2", 37), ("int3", 142)])
def test_a_codebook_on_a_trellis_takes_the_same_bytes_and_errs_less(tmp_path, precision, dim):
    vectors = gaussian(300, dim)
    scalar = Codebook.fit(vectors, precision, coding="scalar")
    book = Codebook.fit(vectors, precision, coding="trellis")
    codes = book.encode(vectors)
    assert book.bytes_per_vector == scalar.bytes_per_vector == codes.shape[1]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = np.mean(np.sum(book.decode(codes) * unit, axis=1))
    assert cosine > np.mean(np.sum(scalar.decode(scalar.encode(vectors)) * unit, axis=1))
    np.testing.assert_allclose(book.score(unit, codes).diagonal().mean(), cosine, atol=1e-5)
    book.save(tmp_path / "codes.safetensors")
    again = Codebook.load(tmp_path / "codes.safetensors")
    np.testing.assert_array_equal(again.encode(vectors), codes)
    np.testing.assert_array_equal(again.decode(codes), book.decode(codes))


@pytest.mark.parametrize(("precision", "dim"), [("int8", 9), ("binary", 31), ("int3", 10)])
def test_a_trellis_that_does_not_fit_says_so(precision, dim):
    with pytest.raises(ValueError, match="take coding='scalar'"):
        Codebook.fit(gaussian(10, dim), precision, coding="trellis")
    with pytest.raises(ValueError, match="'tree' is not a valid Coding"):
        Codebook.fit(gaussian(10, 8), precision, coding="tree")


@pytest.mark.parametrize(("precision", "dim"), [("binary", 96), ("int2+", 96)])
def test_a_codebook_from_before_states_of_ten_bits_is_read_as_it_was(tmp_path, precision, dim):
    vectors = gaussian(50, dim)
    book = Codebook.fit(vectors, precision, coding="trellis")
    parts = book.precision.parts(dim)
    levels = np.concatenate([trellis_levels(part.bits, 256) for part in parts])
    replace(book, levels=levels).save(tmp_path / "old.safetensors")
    old = Codebook.load(tmp_path / "old.safetensors")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = [np.mean(np.sum(b.decode(b.encode(vectors)) * unit, axis=1)) for b in (old, book)]
    assert 0.8 < cosines[0] < cosines[1]


def test_a_longer_stream_has_more_states():
    assert len(Codebook.fit(gaussian(9, 55), "binary").levels) == 256
    assert len(Codebook.fit(gaussian(9, 56), "binary").levels) == 1024


def test_no_rows_and_one_row():
    book = Codebook.fit(gaussian(10, 16), "int2", coding="trellis")
    assert book.encode(np.empty((0, 16), np.float32)).shape == (0, 4)
    assert book.encode(gaussian(1, 16)).shape == (1, 4)
