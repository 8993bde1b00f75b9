import numpy as np
import pytest
from safetensors.numpy import save_file

from fusion.errors import FusionError
from fusion.space.compressors import (
    PCA,
    Compressor,
    FirstK,
    Gaussian,
    RandomK,
    load_compressor,
)

MAKERS = [
    FirstK,
    lambda d=None: RandomK(d, seed=3),
    lambda d=None: Gaussian(d, seed=3),
    PCA,
    lambda d=None: PCA(d, centred=True, power=-0.1),
]


@pytest.fixture
def embeddings():
    rng = np.random.default_rng(0)
    scales = np.linspace(3, 0.5, 12)
    return (rng.normal(size=(101, 12)) * scales + 0.7).astype(np.float32)


@pytest.mark.parametrize("make", MAKERS)
def test_saved_compressor_transforms_bit_for_bit_alike(make, embeddings, tmp_path):
    compressor = make(7).fit(embeddings)
    assert isinstance(compressor, Compressor)
    compressor.save(tmp_path / "c.safetensors")
    loaded = load_compressor(tmp_path / "c.safetensors")
    assert type(loaded) is type(compressor)
    assert (loaded.in_dim, loaded.out_dim) == (12, 7)
    out = compressor.transform(embeddings)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(loaded.transform(embeddings), out)
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


@pytest.mark.parametrize("make", MAKERS)
def test_a_narrow_fit_is_the_prefix_of_a_wide_one(make, embeddings):
    wide, narrow = make().fit(embeddings), make(5).fit(embeddings)
    np.testing.assert_allclose(
        narrow.transform(embeddings), wide.transform(embeddings)[:, :5], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("make", MAKERS)
def test_rows_are_transformed_one_by_one(make, embeddings, monkeypatch):
    compressor = make().fit(embeddings)
    whole = compressor.transform(embeddings)
    monkeypatch.setattr("fusion.space.compressor._ROWS", 10)
    np.testing.assert_allclose(compressor.transform(embeddings), whole, rtol=1e-5, atol=1e-6)
    assert compressor.transform(embeddings[:0]).shape == (0, 12)


def test_first_and_random_columns(embeddings):
    np.testing.assert_array_equal(
        FirstK(4).fit(embeddings).transform(embeddings), embeddings[:, :4]
    )
    columns = [RandomK(seed=s).fit(embeddings).transform(embeddings) for s in (0, 0, 1)]
    np.testing.assert_array_equal(columns[0], columns[1])
    assert not np.array_equal(columns[0], columns[2])
    np.testing.assert_array_equal(np.sort(columns[0], axis=1), np.sort(embeddings, axis=1))


def test_gaussian_keeps_lengths_on_average(embeddings):
    wide = Gaussian(4000, seed=1).fit(embeddings).transform(embeddings)
    ratio = (wide**2).sum(axis=1) / (embeddings**2).sum(axis=1) * 12 / 4000
    np.testing.assert_allclose(ratio, 1.0, atol=0.15)


def test_uncentred_pca_is_the_truncated_svd(embeddings):
    left, singular, _ = np.linalg.svd(embeddings.astype(np.float64), full_matrices=False)
    out = PCA(5).fit(embeddings).transform(embeddings)
    best = (left[:, :5] * singular[:5] ** 2) @ left[:, :5].T  # Eckart-Young on the Gram matrix
    np.testing.assert_allclose(out @ out.T, best, atol=1e-3)


def test_centred_pca_equals_scikit_learn(embeddings):
    from sklearn.decomposition import PCA as Peer

    peer = Peer(5).fit(embeddings)
    ours = PCA(5, centred=True).fit(embeddings)
    expected = peer.transform(embeddings)
    np.testing.assert_allclose(np.abs(ours.transform(embeddings)), np.abs(expected), atol=1e-4)
    np.testing.assert_allclose(ours.explained, peer.explained_variance_ratio_, rtol=1e-4)


def test_power_scales_each_component_by_its_relative_eigenvalue(embeddings):
    plain, scaled = PCA().fit(embeddings), PCA(power=-0.1).fit(embeddings)
    ratio = scaled.transform(embeddings) / plain.transform(embeddings)
    expected = (plain.explained / plain.explained[0]) ** -0.1
    np.testing.assert_allclose(np.median(ratio, axis=0), expected, rtol=1e-3)
    white = PCA(centred=True, power=-0.5).fit(embeddings).transform(embeddings)
    np.testing.assert_allclose(np.cov(white.T), np.eye(12) * np.cov(white.T)[0, 0], atol=0.05)


def test_fewer_texts_than_dims_still_fit(embeddings):
    out = PCA(power=-0.5).fit(embeddings[:3]).transform(embeddings)
    assert np.isfinite(out).all()


def test_components_beyond_the_texts_do_not_turn_with_their_last_bits(embeddings):
    few = embeddings[:5]
    moved = few * (1 + 2e-7 * np.random.default_rng(1).standard_normal(few.shape))
    before, after = (PCA().fit(rows.astype(np.float32)).matrix for rows in (few, moved))
    np.testing.assert_allclose(after, before, atol=1e-5)
    np.testing.assert_allclose(before.T @ before, np.eye(before.shape[1]), atol=1e-6)


def test_components_that_few_texts_cannot_tell_are_not_blown_up(embeddings):
    few = embeddings[:12]
    plain, scaled = PCA().fit(few).explained, PCA(power=-0.25).fit(few).matrix
    scales = np.linalg.norm(scaled, axis=0)  # (d,)
    np.testing.assert_allclose(scales[:6], (plain[:6] / plain[0]) ** -0.25, rtol=1e-3)
    np.testing.assert_allclose(scales[6:], scales[5], rtol=1e-3)
    assert scales[5] < 0.9 * (plain[10] / plain[0]) ** -0.25


def test_misuse_is_one_clear_line(embeddings, tmp_path):
    with pytest.raises(FusionError, match="pca is not fitted yet"):
        PCA().transform(embeddings)
    with pytest.raises(ValueError, match="out_dim 13 is more than the input's 12"):
        PCA(13).fit(embeddings)
    with pytest.raises(ValueError, match="out_dim must be positive, got 0"):
        FirstK(0)
    with pytest.raises(ValueError, match=r"fitted on \[n, 12\] embeddings, got \[101, 4\]"):
        FirstK().fit(embeddings).transform(embeddings[:, :4])
    with pytest.raises(ValueError, match=r"n > 0, got \[0, 12\]"):
        PCA().fit(embeddings[:0])
    with pytest.raises(ValueError, match="NaN"):
        PCA().fit(np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="nothing to keep"):
        PCA(centred=True).fit(np.ones((3, 2)))


def test_files_that_hold_no_compressor_are_refused(tmp_path):
    with pytest.raises(FusionError, match="cannot read a compressor from"):
        load_compressor(tmp_path / "missing.safetensors")
    (tmp_path / "text").write_text("not tensors")
    with pytest.raises(FusionError, match="cannot read a compressor from"):
        load_compressor(tmp_path / "text")
    save_file({"x": np.zeros(2)}, tmp_path / "bare.safetensors")
    with pytest.raises(FusionError, match="holds tensors but no compressor"):
        load_compressor(tmp_path / "bare.safetensors")
    header = {"fusion.compressor": '{"name": "magic", "in_dim": 1, "out_dim": 1}'}
    save_file({"x": np.zeros(2)}, tmp_path / "other.safetensors", metadata=header)
    with pytest.raises(FusionError, match="unknown compressor 'magic'"):
        load_compressor(tmp_path / "other.safetensors")
