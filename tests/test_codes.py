"""Codes: levels against published constants, bytes to the bit, and rankings that survive."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fusion.errors import FusionError
from fusion.space.codes import Codebook, Coding, Precision, rotation
from fusion.space.codes.grids import gaussian_error, gaussian_levels, nearest_level
from fusion.space.codes.packing import pack, packed_bytes, unpack
from fusion.space.codes.rotation import fitted_rotation, random_rotation
from fusion.space.codes.trellis import trellis_encode, trellis_levels


@pytest.fixture(autouse=True)
def _no_silent_division():
    """A division by zero or an invalid value is a failure here, not a warning."""
    with np.errstate(divide="raise", invalid="raise"):
        yield


CODED = ["int8", "int4", "int3", "int2+", "int2", "binary+", "binary"]


def embeddings(n=400, d=48, seed=0):
    """Vectors with a common mean and falling spread, as real encoders give; norms are not 1."""
    rng = np.random.default_rng(seed)
    spread = np.arange(1, d + 1) ** -0.5
    return (rng.standard_normal((n, d)) * spread + 0.1).astype(np.float32) * 3


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


# Max (1960), table I: outermost constants of the Lloyd-Max quantiser of a unit Gaussian, and its
# mean squared error.
@pytest.mark.parametrize(
    ("bits", "positive", "error"),
    [
        (1, [0.7979], 0.3634),
        (2, [0.4528, 1.510], 0.1175),
        (3, [0.2451, 0.7560, 1.344, 2.152], 0.03454),
        (4, [0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733], 0.009497),
    ],
)
def test_levels_are_the_published_ones(bits, positive, error):
    levels = gaussian_levels(bits)
    np.testing.assert_allclose(levels[len(levels) // 2 :], positive, atol=6e-4)
    np.testing.assert_array_equal(levels, -levels[::-1])
    assert gaussian_error(levels) == pytest.approx(error, abs=2e-5)


def test_eight_bits_are_evenly_spaced_and_the_best_such():
    steps = np.diff(gaussian_levels(8))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)
    z = np.random.default_rng(0).standard_normal(200_000)
    errors = {}
    for stretch in (0.9, 1.0, 1.1):
        levels = gaussian_levels(8) * stretch
        errors[stretch] = np.mean((levels[nearest_level(z, levels)] - z) ** 2)
    assert min(errors, key=errors.get) == 1.0
    assert gaussian_error(gaussian_levels(8)) == pytest.approx(errors[1.0], rel=0.05)


def test_levels_cannot_be_changed_by_a_caller():
    with pytest.raises(ValueError, match="read-only"):
        gaussian_levels(2)[0] = 0


def test_values_beyond_the_grid_saturate():
    levels = gaussian_levels(2)
    beyond = np.array([-1e30, -5.0, 0.1, 5.0, 1e30])
    assert nearest_level(beyond, levels).tolist() == [0, 0, 2, 3, 3]


@pytest.mark.parametrize("widths", [[1], [3, 1, 4], [8, 8], [7] * 13, [1] * 213, [4, 4, 2, 1, 8]])
def test_packing_round_trip_against_a_string_of_bits(widths):
    rng = np.random.default_rng(len(widths))
    numbers = rng.integers(0, 2 ** np.array(widths), (5, len(widths))).astype(np.uint8)
    packed = pack(numbers, np.array(widths))
    for row, code in zip(numbers, packed, strict=True):
        bits = "".join(f"{v:0{w}b}" for v, w in zip(row, widths, strict=True))
        assert "".join(f"{b:08b}" for b in code)[: len(bits)] == bits
        assert set("".join(f"{b:08b}" for b in code)[len(bits) :]) <= {"0"}
    assert packed.shape[1] == packed_bytes(np.array(widths))
    np.testing.assert_array_equal(unpack(packed, np.array(widths)), numbers)


def test_packing_crosses_its_row_blocks():
    numbers = np.random.default_rng(0).integers(0, 8, (4097, 3)).astype(np.uint8)
    widths = np.array([3, 3, 3])
    np.testing.assert_array_equal(unpack(pack(numbers, widths), widths), numbers)


@pytest.mark.parametrize(
    ("precision", "dim", "expected"),
    [
        ("float32", 3, 12),
        ("float16", 3, 6),
        ("int8", 53, 53),
        ("int4", 5, 3),  # 20 bits
        ("int3", 142, 54),  # 426 bits are 53.25 bytes, and a vector ends on a whole byte
        ("int2", 5, 2),
        ("binary", 213, 27),
        ("binary", 1, 1),
        ("binary+", 376, 53),  # 47 coordinates of 2 bits, 329 of 1: 423 bits
        ("int2+", 481, 128),
        ("int2+", 7, 2),  # no eighth of it to favour
    ],
)
def test_bytes_are_exact_and_are_what_encode_gives(precision, dim, expected):
    vectors = embeddings(20, dim)
    book = Codebook.fit(vectors, precision, dim)
    codes = book.encode(vectors)
    assert book.bytes_per_vector == expected
    assert codes.shape == (20, expected)
    assert codes.dtype == np.uint8


def test_rotation_is_orthogonal_seeded_and_not_the_identity():
    rotation = random_rotation(33, seed=1)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(33), atol=1e-5)
    np.testing.assert_array_equal(rotation, random_rotation(33, seed=1))
    assert np.abs(rotation - random_rotation(33, seed=2)).max() > 0.1


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_fitted_rotation_is_orthogonal_and_codes_its_vectors_better(bits):
    vectors = unit(embeddings(600, 32))
    residuals = vectors - vectors.mean(axis=0)

    def error(axes):
        """Least squares error of the best common scale, by the normal equation."""
        rotated = residuals @ axes
        levels = gaussian_levels(bits)
        coded = levels[nearest_level(rotated / np.sqrt(np.mean(residuals**2)), levels)]
        return np.sum((rotated - coded * (np.sum(rotated * coded) / np.sum(coded**2))) ** 2)

    fitted, start = fitted_rotation(residuals, bits, seed=0), random_rotation(32, seed=0)
    np.testing.assert_allclose(fitted @ fitted.T, np.eye(32), atol=1e-5)
    assert error(fitted) < 0.97 * error(start)
    np.testing.assert_array_equal(fitted, fitted_rotation(residuals, bits, seed=0))


@pytest.mark.parametrize(("rows", "value"), [(3, 1.0), (1, 0.0), (9000, 1.0)])
def test_fitted_rotation_of_few_empty_or_many_rows_is_orthogonal(rows, value):
    residuals = value * np.random.default_rng(0).standard_normal((rows, 8)).astype(np.float32)
    axes = fitted_rotation(residuals, 1, seed=0)
    np.testing.assert_allclose(axes @ axes.T, np.eye(8), atol=1e-5)


def test_fitted_rotation_of_a_large_corpus_looks_at_a_sample(monkeypatch):
    seen = []
    monkeypatch.setattr(
        rotation, "nearest_level", lambda x, levels: seen.append(len(x)) or nearest_level(x, levels)
    )
    fitted_rotation(np.random.default_rng(0).standard_normal((9000, 4)).astype(np.float32), 1, 0)
    assert set(seen) == {rotation.FITTING_ROWS}


def test_rotation_is_random_unless_it_is_named():
    vectors = embeddings(200, 16)
    axes = {r: Codebook.fit(vectors, "int2", rotation=r).axes for r in ("random", "fitted", "none")}
    np.testing.assert_array_equal(Codebook.fit(vectors, "int2").axes, axes["random"])
    np.testing.assert_array_equal(axes["random"], random_rotation(16, seed=0))
    np.testing.assert_array_equal(axes["none"], np.eye(16))
    residuals = unit(vectors) - unit(vectors).mean(axis=0)
    np.testing.assert_allclose(axes["fitted"], fitted_rotation(residuals, 2, seed=0), atol=1e-4)


@pytest.mark.parametrize(
    ("precision", "dim", "coding"),
    [
        ("binary", 31, "scalar"),  # too short a stream
        ("binary", 32, "trellis"),
        ("int2", 32, "trellis"),
        ("int3", 32, "trellis"),
        ("int4", 32, "scalar"),
        ("int8", 32, "scalar"),
        ("binary+", 127, "scalar"),  # its leading part is too short
        ("binary+", 128, "trellis"),
        ("int2+", 88, "trellis"),
    ],
)
def test_few_bits_go_on_a_trellis_unless_it_is_named(precision, dim, coding):
    vectors = embeddings(20, dim)
    assert Codebook.fit(vectors, precision).coding == coding
    assert Codebook.fit(vectors, precision, coding="scalar").coding == "scalar"


@pytest.mark.parametrize("rotation", ["none", "random", "fitted"])
@pytest.mark.parametrize("coding", ["scalar", "trellis"])
def test_each_part_has_its_own_rotation_levels_and_stream(coding, rotation):
    vectors = embeddings(300, 256)
    book = Codebook.fit(vectors, "binary+", coding=coding, rotation=rotation)
    numbers = unpack(book.encode(vectors), book.widths)  # (n, d)
    standard = (unit(vectors) - book.mean) @ book.axes / book.scale
    for columns, bits in ((slice(0, 32), 2), (slice(32, 256), 1)):
        if coding == "trellis":
            expected = trellis_encode(standard[:, columns], trellis_levels(bits, 1024), bits)
        else:
            expected = nearest_level(standard[:, columns], gaussian_levels(bits))
        np.testing.assert_array_equal(numbers[:, columns], expected)
    assert not book.axes[:32, 32:].any()
    assert not book.axes[32:, :32].any()
    np.testing.assert_allclose(book.axes @ book.axes.T, np.eye(256), atol=1e-5)


def test_one_more_bit_where_vectors_vary_most_beats_more_columns():
    """At equal bytes: 376 columns with it, 424 without, of a spectrum that falls as embeddings'."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1500, 640)) * np.arange(4, 644) ** -0.5
    queries = vectors[:100] + 0.5 * rng.standard_normal((100, 640)) * np.arange(4, 644) ** -0.5
    truth, kept = unit(queries) @ unit(vectors).T, {}
    for precision, dim in (("binary", 424), ("binary+", 376)):
        book = Codebook.fit(vectors, precision, dim)
        assert book.bytes_per_vector == 53
        scores = book.score(queries, book.encode(vectors))
        kept[precision] = np.corrcoef(truth.ravel(), scores.ravel())[0, 1]
    assert kept["binary+"] > kept["binary"] + 0.003


def test_what_all_vectors_share_takes_no_bits():
    """Farther from the origin the same scatter is a smaller angle: its error falls with it."""
    errors = []
    for common in (0.5, 50.0):
        vectors = embeddings(1000) + common
        book = Codebook.fit(vectors, "binary")
        errors.append(np.mean((book.decode(book.encode(vectors)) - unit(vectors)) ** 2))
    assert errors[1] < 0.01 * errors[0]


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-6), ("float16", 5e-4), ("int8", 0.01)]
)
def test_wide_codes_give_the_direction_back(precision, tolerance):
    vectors = embeddings()
    book = Codebook.fit(vectors, precision, 32)
    np.testing.assert_allclose(
        book.decode(book.encode(vectors)), unit(vectors[:, :32]), atol=tolerance
    )


def test_error_falls_with_every_bit():
    vectors = embeddings(2000)
    errors = []
    for precision in ("binary", "int2", "int3", "int4", "int8"):
        book = Codebook.fit(vectors, precision)
        errors.append(np.mean((book.decode(book.encode(vectors)) - unit(vectors)) ** 2))
    # the Gaussian's own errors: .363, .117, .035, .0095, and next to nothing at 8 bits
    assert all(b < 0.5 * a for a, b in itertools.pairwise(errors))


@pytest.mark.parametrize("precision", ["float32", *CODED])
def test_decoded_vectors_are_unit(precision):
    vectors = embeddings(50, 16)
    book = Codebook.fit(vectors, precision, coding="scalar", rotation="none")
    codes = book.encode(vectors)
    np.testing.assert_allclose(np.linalg.norm(book.decode(codes), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("precision", list(Precision))
def test_scores_are_cosines_with_the_decoded_vectors(precision):
    vectors, queries = embeddings(30, 20), embeddings(4, 20, seed=1)
    book = Codebook.fit(vectors, precision, 17)
    codes = book.encode(vectors)
    decoded, cut = book.decode(codes).astype(np.float64), unit(queries[:, :17])
    np.testing.assert_allclose(book.score(queries, codes), cut @ decoded.T, atol=1e-5)
    both = book.decode(book.encode(queries)).astype(np.float64) @ decoded.T
    np.testing.assert_allclose(book.score(queries, codes, symmetric=True), both, atol=1e-5)


def test_float_queries_are_nearer_the_truth_than_coded_ones():
    vectors, queries = embeddings(500), embeddings(50, seed=1)
    book = Codebook.fit(vectors, "binary")
    codes = book.encode(vectors)
    truth = unit(queries) @ unit(vectors).T
    r_float = np.corrcoef(truth.ravel(), book.score(queries, codes).ravel())[0, 1]
    r_both = np.corrcoef(truth.ravel(), book.score(queries, codes, symmetric=True).ravel())[0, 1]
    assert r_float > r_both + 0.02


def test_random_rotations_make_one_bit_scores_unbiased_up_to_one_factor():
    """Over rotations, E<q, decode(x)> = f <q, x> with sqrt(2/pi), the 1-bit cosine, as f."""
    rng = np.random.default_rng(0)
    x, q = unit(rng.standard_normal((1, 64))), unit(rng.standard_normal((3, 64)))
    q[0] = x[0]
    scores = []
    for seed in range(300):
        book = Codebook(
            Precision.BINARY,
            64,
            np.zeros(64, np.float32),
            random_rotation(64, seed),
            np.full(64, 1 / 8, np.float32),
            gaussian_levels(1),
            Coding.SCALAR,
        )
        scores.append(book.score(q, book.encode(x))[:, 0])
    mean, error = np.mean(scores, axis=0), np.std(scores, axis=0) / np.sqrt(len(scores))
    expected = (q @ x.T)[:, 0] * np.sqrt(2 / np.pi)
    assert (np.abs(mean - expected) < 4 * error + 0.004).all()


def test_codes_do_not_depend_on_norm_or_dtype_or_memory_order():
    vectors = embeddings(40, 24)
    book = Codebook.fit(vectors, "int4")
    codes = book.encode(vectors)
    np.testing.assert_array_equal(book.encode(vectors * 1024), codes)
    np.testing.assert_array_equal(book.encode(vectors.astype(np.float64)), codes)
    np.testing.assert_array_equal(book.encode(np.asfortranarray(vectors)), codes)
    np.testing.assert_allclose(
        Codebook.fit(vectors * np.float32(1e-30), "int4").decode(codes),
        book.decode(codes),
        atol=1e-5,
    )


def test_one_vector_is_enough_to_encode_and_to_fit():
    vectors = embeddings(100, 24)
    book = Codebook.fit(vectors, "int2")
    np.testing.assert_array_equal(book.encode(vectors[7:8]), book.encode(vectors)[7:8])
    alone = Codebook.fit(vectors[:1], "int8")
    np.testing.assert_allclose(
        alone.decode(alone.encode(vectors[:1])), unit(vectors[:1]), atol=0.05
    )
    assert len(np.unique(alone.encode(vectors), axis=0)) == 100  # and others stay apart


def test_no_vectors_give_no_codes():
    book = Codebook.fit(embeddings(10, 8), "int3")
    codes = book.encode(np.empty((0, 8), np.float32))
    assert codes.shape == (0, 3)
    assert book.decode(codes).shape == (0, 8)
    assert book.score(embeddings(2, 8), codes).shape == (2, 0)


def test_training_vectors_that_are_all_alike_decode_to_themselves():
    alike = np.repeat(embeddings(1, 12), 5, axis=0)
    book = Codebook.fit(alike, "binary")
    np.testing.assert_allclose(book.decode(book.encode(alike)), unit(alike), atol=1e-5)


def test_zero_rows_decode_to_something_finite():
    book = Codebook.fit(embeddings(10, 8), "binary")
    decoded = book.decode(book.encode(np.zeros((1, 8), np.float32)))
    assert np.isfinite(decoded).all()
    assert not Codebook.fit(embeddings(10, 8), "float16").encode(np.zeros((1, 8))).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named(bad):
    vectors = embeddings(10, 8)
    book = Codebook.fit(vectors, "int4")
    vectors[3, 7] = bad
    with pytest.raises(ValueError, match="vectors: row 3 holds NaN or infinity"):
        book.encode(vectors)
    with pytest.raises(ValueError, match="queries: row 3 "):
        book.score(vectors, book.encode(embeddings(1, 8)))
    with pytest.raises(ValueError, match="training vectors: row 3 "):
        Codebook.fit(vectors, "int4")


def test_bad_arguments_are_named():
    vectors = embeddings(10, 8)
    with pytest.raises(ValueError, match="int5"):
        Codebook.fit(vectors, "int5")
    with pytest.raises(ValueError, match="'pca' is not a valid Rotation"):
        Codebook.fit(vectors, "int4", rotation="pca")
    with pytest.raises(ValueError, match="dim: 9, but the training vectors have 8 columns"):
        Codebook.fit(vectors, "int4", 9)
    with pytest.raises(ValueError, match="none given"):
        Codebook.fit(vectors[:0], "int4")
    with pytest.raises(ValueError, match=r"\[n, D\]"):
        Codebook.fit(vectors[0], "int4")
    book = Codebook.fit(vectors, "int4")
    with pytest.raises(ValueError, match=r"expected \[n, 8\] or wider"):
        book.encode(vectors[:, :7])
    with pytest.raises(ValueError, match=r"uint8 \[n, 4\]; decode with the codebook"):
        book.decode(np.zeros((3, 5), np.uint8))
    with pytest.raises(ValueError, match="codes: float32"):
        book.decode(np.zeros((3, 4), np.float32))


@pytest.mark.parametrize("precision", list(Precision))
def test_a_saved_codebook_comes_back_the_same(tmp_path, precision):
    vectors = embeddings(60, 20)
    book = Codebook.fit(vectors, precision, 19)
    book.save(tmp_path / "deep" / "codes.safetensors")
    again = Codebook.load(tmp_path / "deep" / "codes.safetensors")
    np.testing.assert_array_equal(again.encode(vectors), book.encode(vectors))
    np.testing.assert_array_equal(
        again.decode(book.encode(vectors)), book.decode(book.encode(vectors))
    )
    assert again.precision is book.precision
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["codes.safetensors"]


def test_damaged_files_are_one_clear_error(tmp_path):
    path = tmp_path / "codes.safetensors"
    with pytest.raises(FusionError, match="no such file"):
        Codebook.load(path)
    Codebook.fit(embeddings(10, 8), "int4").save(path)
    whole, tensors = path.read_bytes(), load_file(path)
    about = {"format": "fusion-codebook-1", "precision": "int4", "coding": "scalar", "dim": 8}
    path.write_bytes(whole[:-10])
    with pytest.raises(FusionError, match="not an intact codebook"):
        Codebook.load(path)
    path.write_bytes(b"not a safetensors file at all")
    with pytest.raises(FusionError, match="not an intact codebook"):
        Codebook.load(path)
    for change, message in [
        ({"precision": "int5"}, "int5"),
        ({"precision": "int3"}, "levels is float32 .* expected"),
        ({"coding": "huffman"}, "huffman"),
        ({"format": "else"}, "format 'else'"),
        ({"dim": 7}, "expected"),
    ]:
        save_file(tensors, path, metadata={"codebook": json.dumps(about | change)})
        with pytest.raises(FusionError, match=message):
            Codebook.load(path)
    tensors["scale"][2] = np.nan
    save_file(tensors, path, metadata={"codebook": json.dumps(about)})
    with pytest.raises(FusionError, match="scale holds values that are not finite"):
        Codebook.load(path)


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("size", [1, 2, 13, 64])
def test_the_widest_vector_fills_its_bytes(precision, size):
    dim = precision.widest(size)
    assert dim == 0 or precision.bytes_of(dim) <= size
    assert precision.bytes_of(dim + 1) > size


def test_an_unknown_precision_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'int5' is unknown; choose among float32,float16,int8"):
        Precision("int5")


@pytest.mark.parametrize("coding", ["trellis", "scalar"])
def test_a_column_that_never_varied_in_training_does_not_spoil_the_others(coding):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((500, 64)).astype(np.float32)
    training = vectors.copy()
    training[:, 10] = 0
    book = Codebook.fit(training, "int2", rotation="none", coding=coding)
    decoded = book.decode(book.encode(vectors))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (decoded * unit).sum(axis=1).mean() > 0.9


class Noisy(np.ndarray):
    """The right side of products whose last bits are wrong, at each place in another way."""

    def __rmatmul__(self, left):
        plain = np.asarray(left) @ np.asarray(self)
        size = np.abs(left) @ np.abs(np.asarray(self))  # what rounding is measured by
        signs = np.random.default_rng(len(plain)).choice([-1, 1], plain.shape)
        return (plain + signs * 4 * size * np.finfo(plain.dtype).eps).astype(plain.dtype)


def noisy(book):
    return replace(book, axes=book.axes.view(Noisy))


@pytest.mark.parametrize("precision", ["int8", "int4", "int3", "int2+", "binary"])
def test_noise_in_products_moves_no_code(precision):
    vectors = embeddings(3000)
    book = Codebook.fit(vectors, precision, 40)
    codes = book.encode(vectors)
    np.testing.assert_array_equal(noisy(book).encode(vectors), codes)
    alone = np.concatenate([book.encode(row[None]) for row in vectors[:50]])
    np.testing.assert_array_equal(alone, codes[:50])


def test_in_float32_noise_would_move_codes():
    """The control: what encode does, in float32."""
    vectors = embeddings(3000)
    book = Codebook.fit(vectors, "int8", 40)
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True))[:, :40]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    plain, other = (
        nearest_level((unit - book.mean) @ axes / book.scale, book.levels)
        for axes in (book.axes, book.axes.view(Noisy))
    )
    assert (plain != other).sum() > 3


@pytest.mark.parametrize("precision", list(Precision))
def test_equal_codes_decode_to_equal_vectors(precision):
    vectors = np.tile(embeddings(7), (50, 1))
    book = Codebook.fit(embeddings(300), precision, 40)
    codes = book.encode(vectors)
    assert len(np.unique(noisy(book).decode(codes), axis=0)) == 7
    order = np.random.default_rng(0).permutation(len(codes))
    np.testing.assert_array_equal(book.decode(codes[order]), book.decode(codes)[order])
    assert book.decode(codes[:0]).shape == (0, 40)
