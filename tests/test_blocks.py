import numpy as np
import pytest

from fusion.space.blocks import Blocks, Normalization


@pytest.fixture
def embeddings():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(7, 5)).astype(np.float32) * 3, rng.normal(size=(7, 3))]


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_cosine_of_per_model_blocks_is_the_weighted_mean_of_cosines(embeddings):
    fused = Blocks(("a", "b"), (5, 3), weights=(1.0, 0.5)).transform(embeddings)
    assert fused.dtype == np.float32
    cosines = [unit(x) @ unit(x).T for x in embeddings]
    expected = (cosines[0] + 0.5 * cosines[1]) / 1.5
    np.testing.assert_allclose(unit(fused) @ unit(fused).T, expected, atol=1e-6)


def test_none_keeps_norms_and_global_scores_like_none(embeddings):
    none = Blocks(("a", "b"), (5, 3), Normalization.NONE, (4.0, 1.0)).transform(embeddings)
    np.testing.assert_allclose(none, np.hstack([2 * embeddings[0], embeddings[1]]), rtol=1e-6)
    together = Blocks(("a", "b"), (5, 3), "global", (4.0, 1.0)).transform(embeddings)
    np.testing.assert_allclose(together, unit(none), rtol=1e-6)


def test_many_rows_are_fused_like_few(embeddings, monkeypatch):
    whole = Blocks(("a", "b"), (5, 3)).transform(embeddings)
    monkeypatch.setattr("fusion.space.blocks._ROWS", 2)
    np.testing.assert_array_equal(Blocks(("a", "b"), (5, 3)).transform(embeddings), whole)


def test_dict_round_trip_survives_json(embeddings):
    import json

    blocks = Blocks(("a", "b"), (5, 3), Normalization.GLOBAL, (1.0, 0.25))
    assert Blocks.from_dict(json.loads(json.dumps(blocks.to_dict()))) == blocks
    assert blocks.width == 8


@pytest.mark.parametrize("normalize", list(Normalization))
@pytest.mark.parametrize(("value", "kind"), [(0.0, "a zero vector"), (np.nan, "not finite")])
def test_bad_row_is_named(embeddings, normalize, value, kind, monkeypatch):
    monkeypatch.setattr("fusion.space.blocks._ROWS", 4)
    embeddings[1][5] = value
    with pytest.raises(ValueError, match=f"of b in row 5 is {kind}"):
        Blocks(("a", "b"), (5, 3), normalize).transform(embeddings)


@pytest.mark.parametrize(
    ("weights", "message"),
    [((1.0,), "1 entries for 2"), ((1.0, -1.0), "0 or more"), ((0.0, 0.0), "not all 0")],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        Blocks(("a", "b"), (5, 3), weights=weights)


def test_arrays_that_do_not_fit_are_refused(embeddings):
    with pytest.raises(ValueError, match=r"of b must be \[n, 4\], got \[7, 3\]"):
        Blocks(("a", "b"), (5, 4)).transform(embeddings)
    with pytest.raises(ValueError, match="of b have 6 rows, those of a 7"):
        Blocks(("a", "b"), (5, 3)).transform([embeddings[0], embeddings[1][:6]])
    with pytest.raises(ValueError, match="1 arrays given for the encoders a, b"):
        Blocks(("a", "b"), (5, 3)).transform(embeddings[:1])
    with pytest.raises(ValueError, match="'sideways' is not a valid Normalization"):
        Blocks(("a",), (5,), "sideways")
