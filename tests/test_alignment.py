import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from sklearn.cross_decomposition import CCA
from sklearn.linear_model import Ridge

from fusion.alignment.closed import canonical, procrustes, ridge
from fusion.alignment.fitting import Method, agreement, fit
from fusion.alignment.pairs import Moments, Pairs
from fusion.errors import FusionError
from fusion.space.affine import AffineMap
from fusion.space.compressors import load_compressor


def related(targets=300, each=2, dims=(12, 20), shared=5, noise=0.4, seed=0):
    """Two sides that see the same few causes, the source several times, each with its own mean."""
    rng = np.random.default_rng(seed)
    causes = rng.standard_normal((targets, shared)) * np.linspace(2, 0.5, shared)
    owner = np.repeat(np.arange(targets), each)
    mixing = [
        np.random.default_rng(99 + i).standard_normal((shared, d)) for i, d in enumerate(dims)
    ]
    source = causes[owner] @ mixing[0] + noise * rng.standard_normal((len(owner), dims[0])) + 3.0
    target = causes @ mixing[1] + noise * rng.standard_normal((targets, dims[1])) - 2.0
    return Pairs(source.astype(np.float32), target.astype(np.float32), owner)


def rows_of(pairs):
    return pairs.source.astype(np.float64), pairs.target[pairs.owner].astype(np.float64)


def test_moments_are_those_of_the_rows_written_out():
    pairs = related(each=3)
    x, y = rows_of(pairs)
    found = Moments.of(pairs)
    whole = np.cov(np.hstack([x, y]).T, bias=True)
    np.testing.assert_allclose(found.source_mean, x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.target_mean, y.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.source, whole[:12, :12], atol=1e-4)
    np.testing.assert_allclose(found.target, whole[12:, 12:], atol=1e-4)
    np.testing.assert_allclose(found.cross, whole[:12, 12:], atol=1e-4)


def test_a_target_with_more_pairs_counts_more():
    pairs = related()
    uneven = pairs.of(np.arange(100))
    rows = np.concatenate([np.arange(200), np.repeat(np.arange(20), 5)])
    uneven = Pairs(uneven.source[rows], uneven.target, uneven.owner[rows])
    x, y = rows_of(uneven)
    found = Moments.of(uneven)
    np.testing.assert_allclose(found.target_mean, y.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.cross, np.cov(x.T, y.T, bias=True)[:12, 12:], atol=1e-4)


def test_without_shrinkage_it_is_the_cca_of_scikit_learn():
    pairs = related(noise=1.0)
    x, y = rows_of(pairs)
    theirs = CCA(n_components=4, max_iter=20_000, tol=1e-12).fit(x, y)
    left, right = theirs.transform(x, y)
    expected = [np.corrcoef(left[:, i], right[:, i])[0, 1] for i in range(4)]
    found = canonical(Moments.of(pairs), 1e-9)
    np.testing.assert_allclose(found.correlations[:4], expected, atol=1e-4)
    ours = (x - x.mean(0)) @ found.source
    for i in range(3):
        assert abs(np.corrcoef(ours[:, i], left[:, i])[0, 1]) > 0.999


@pytest.mark.parametrize("shrinkage", [0.1, 0.7, 1.0])
def test_shrunk_it_is_the_eigenproblem_of_the_textbook(shrinkage):
    moments = Moments.of(related(noise=1.0))

    def shrunk(c):
        return (1 - shrinkage) * c + shrinkage * np.trace(c) / len(c) * np.eye(len(c))

    cx, cy = shrunk(moments.source), shrunk(moments.target)
    squares, _ = np.linalg.eig(
        np.linalg.solve(cx, moments.cross) @ np.linalg.solve(cy, moments.cross.T)
    )
    found = canonical(moments, shrinkage)
    expected = np.sqrt(np.clip(np.sort(squares.real)[::-1], 0, None))
    np.testing.assert_allclose(found.correlations[:5], expected[:5], rtol=1e-8)
    identity = np.eye(12)
    np.testing.assert_allclose(found.source.T @ cx @ found.source, identity, atol=1e-8)
    np.testing.assert_allclose(found.target.T @ cy @ found.target, identity, atol=1e-8)
    crossed = found.source.T @ moments.cross @ found.target
    np.testing.assert_allclose(crossed, np.diag(found.correlations), atol=1e-8)


def test_the_space_is_nested_and_its_columns_weighted_by_their_correlation():
    pairs = related(noise=1.0)
    moments = Moments.of(pairs)
    found = canonical(moments, 0.3)
    source, target = found.maps(moments, 6, power=1.5)
    narrow, _ = found.maps(moments, 3, power=1.5)
    np.testing.assert_array_equal(narrow.matrix, source.matrix[:, :3])
    x, _ = rows_of(pairs)
    expected = (x - x.mean(0)) @ found.source[:, :6] * found.correlations[:6] ** 1.5
    np.testing.assert_allclose(source.transform(pairs.source), expected, atol=1e-4)
    means = target.transform(pairs.target).mean(axis=0)
    np.testing.assert_allclose(means, 0, atol=1e-4)  # the target's mean is folded in as well
    assert (np.diff(found.correlations) <= 1e-12).all()


@pytest.mark.parametrize("dims", [(12, 12), (12, 20), (20, 12)])
def test_procrustes_is_scipys_on_the_centred_source(dims):
    pairs = related(dims=dims)
    x, y = rows_of(pairs)
    found = procrustes(Moments.of(pairs))
    q = found.matrix.astype(np.float64)
    small = min(dims)
    gram = q @ q.T if dims[0] <= dims[1] else q.T @ q
    np.testing.assert_allclose(gram, np.eye(small), atol=1e-5)
    if dims[0] == dims[1]:
        # Directions that share nothing may be turned at will: what counts is the sum of products.
        expected = orthogonal_procrustes(x - x.mean(0), y)[0]
        best = np.sum(((x - x.mean(0)) @ expected) * y)
        assert np.sum(((x - x.mean(0)) @ q) * y) == pytest.approx(best, rel=1e-6)
    np.testing.assert_allclose(found.transform(pairs.source).mean(0), 0, atol=1e-4)


def test_ridge_is_scikit_learns_without_the_targets_mean():
    pairs = related()
    x, y = rows_of(pairs)
    moments = Moments.of(pairs)
    level = np.trace(moments.source) / 12
    theirs = Ridge(alpha=0.3 * level * len(x)).fit(x, y)
    found = ridge(moments, 0.3).transform(pairs.source)
    np.testing.assert_allclose(found, theirs.predict(x) - y.mean(0), atol=1e-3)


def test_settings_are_chosen_on_pairs_held_back():
    pairs, held = related(targets=40, noise=2.0), related(targets=200, noise=2.0, seed=1)
    fitted = fit(Method.CCA, pairs, (2, 4), held)
    scores = [trial.reciprocal_rank for trial in fitted.trials]
    assert len(scores) == 15
    assert fitted.chosen.reciprocal_rank == max(scores)
    assert max(scores) - min(scores) > 0.01
    again = agreement(fitted.source, fitted.target, held, (2, 4))
    assert again == pytest.approx(fitted.chosen.reciprocal_rank)
    own = fit(Method.CCA, pairs, (2, 4), pairs)
    assert own.chosen.settings != fitted.chosen.settings  # on what was learned less is shrunk


def test_without_pairs_held_back_some_are_and_all_are_learned_from_then():
    pairs = related()
    fitted = fit(Method.RIDGE, pairs, (20,), seed=3)
    whole = ridge(Moments.of(pairs), fitted.chosen.settings["penalty"])
    np.testing.assert_array_equal(fitted.source.matrix, whole.matrix)
    learned, held = pairs.split(0.1, seed=3, most=1000)
    assert (len(learned.target), len(held.target)) == (270, 30)
    assert len(held.source) == 60
    np.testing.assert_array_equal(held.owner, np.repeat(np.arange(30), 2))
    together = {row.tobytes() for part in (learned, held) for row in part.target}
    assert together == {row.tobytes() for row in pairs.target}


@pytest.mark.parametrize("method", Method)
def test_what_belongs_together_is_found_in_new_pairs(method):
    pairs, new = related(), related(seed=1)
    dims = (20,) if method.keeps_target else (2, 5)
    fitted = fit(method, pairs, dims)
    chance = agreement(
        AffineMap(np.random.default_rng(0).standard_normal((12, 20))), None, new, (20,)
    )
    assert chance < 0.05
    # Where the target is kept its mean stays in it.
    assert agreement(fitted.source, fitted.target, new, dims[-1:]) > (0.3 if fitted.target else 0.1)


def test_agreement_is_the_reciprocal_rank_of_a_double_loop():
    rng = np.random.default_rng(0)
    owner = np.array([0, 0, 1, 3, 3, 3])
    pairs = Pairs(rng.standard_normal((6, 3)), rng.standard_normal((5, 3)), owner)
    forth, back = [], []
    cosine = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)  # noqa: E731
    for row, own in enumerate(owner):
        scores = [cosine(pairs.source[row], y) for y in pairs.target]
        forth.append(1 / (1 + sum(s > scores[own] for s in scores)))
    for row in set(owner.tolist()):
        scores = [cosine(x, pairs.target[row]) for x in pairs.source]
        best = max(s for s, own in zip(scores, owner, strict=True) if own == row)
        back.append(1 / (1 + sum(s > best for s in scores)))
    found = agreement(AffineMap(np.eye(3)), None, pairs, (3,))
    assert found == pytest.approx((np.mean(forth) + np.mean(back)) / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: Pairs(p.source * 0, p.target, p.owner), "all rows of the source side are equal"),
        (lambda p: Pairs(p.source, p.target * np.nan, p.owner), "target side holds NaN"),
        (lambda p: p.of(np.array([3])), "two pairs at least"),
    ],
)
def test_pairs_that_teach_nothing_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Moments.of(change(related()))


@pytest.mark.parametrize(
    ("method", "dims", "message"),
    [
        (Method.CCA, (4, 13), r"13 is more than 12, all that cca can give of 12 and 20 columns"),
        (Method.RIDGE, (21,), r"21 is more than 20, all that ridge"),
    ],
)
def test_a_width_that_pairs_cannot_give_is_refused(method, dims, message):
    with pytest.raises(ValueError, match=message):
        fit(method, related(), dims)
    with pytest.raises(ValueError, match=r"5 is more than 4, .* and 5 targets"):
        fit(Method.CCA, related(targets=5), (5,))


@pytest.mark.parametrize("value", [0.0, -0.1, 1.1, np.nan])
def test_settings_out_of_bounds_are_refused(value):
    moments = Moments.of(related())
    with pytest.raises(ValueError, match="shrinkage must be above 0 and at most 1"):
        canonical(moments, value)
    if not value > 0:
        with pytest.raises(ValueError, match="penalty must be above 0"):
            ridge(moments, value)


def test_owners_must_be_rows_of_the_target():
    with pytest.raises(ValueError, match="owners must name rows of the 2 target rows"):
        Pairs(np.ones((1, 2)), np.ones((2, 2)), np.array([2]))
    with pytest.raises(ValueError, match="pairs need"):
        Pairs(np.ones((2, 2)), np.ones((2, 2)), np.array([0]))


def test_an_affine_map_is_saved_like_any_compressor(tmp_path):
    rng = np.random.default_rng(0)
    matrix, mean, rows = (
        rng.standard_normal((6, 4)),
        rng.standard_normal(6),
        rng.standard_normal((9, 6)),
    )
    affine = AffineMap.centred(matrix, mean)
    affine.save(tmp_path / "map.safetensors")
    again = load_compressor(tmp_path / "map.safetensors")
    assert isinstance(again, AffineMap)
    np.testing.assert_array_equal(again.transform(rows), affine.transform(rows))
    np.testing.assert_allclose(affine.transform(rows), (rows - mean) @ matrix, atol=1e-5)
    with pytest.raises(FusionError, match="made by what is fitted on pairs"):
        affine.fit(rows)
    with pytest.raises(ValueError, match="NaN"):
        AffineMap(matrix * np.nan)
    with pytest.raises(ValueError, match=r"bias of shape \(3,\)"):
        AffineMap(matrix, np.zeros(3))
