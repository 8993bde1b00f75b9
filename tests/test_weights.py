import numpy as np
import pytest
import torch

from fusion.space import weights as module
from fusion.space.blocks import Blocks, Normalization
from fusion.space.weights import Pairs, choose_weights


def views(n=600, noises=(0.9, 1.3), dim=24, seed=0):
    """Pairs that share a meaning, seen by encoders of which each blurs it in its own way."""
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(n, dim))
    queries, documents = [], []
    for noise in noises:
        turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
        for side in (queries, documents):
            side.append(((meaning + noise * rng.normal(size=(n, dim))) @ turn).astype(np.float32))
    return queries, documents


def mrr(queries, documents, weights, normalize):
    blocks = Blocks(tuple("abcdef"[: len(queries)]), (24,) * len(queries), normalize, weights)
    asked, given = (blocks.transform(side).astype(np.float64) for side in (queries, documents))
    given /= np.linalg.norm(given, axis=1, keepdims=True)
    scores = asked @ given.T
    return np.mean([1 / (1 + np.sum(row > row[i])) for i, row in enumerate(scores)])


@pytest.mark.parametrize("normalize", list(Normalization))
def test_ranks_are_those_of_the_fused_cosine(normalize):
    queries, documents = views(n=300)
    scales = np.random.default_rng(1).uniform(0.1, 5, size=(300, 1)).astype(np.float32)
    documents[1] *= scales
    for weights in ((1, 0), (0, 1), (1, 0.4)):
        found = Pairs.of(queries, documents, normalize).reciprocal_ranks(np.array(weights))
        assert found.mean() == pytest.approx(mrr(queries, documents, weights, normalize), abs=1e-4)


def test_two_good_encoders_both_count_and_the_better_one_more():
    queries, documents = views()
    weights = choose_weights(queries, documents)
    assert weights[0] == 1
    assert 0.2 <= weights[1] < 1
    assert choose_weights(queries[::-1], documents[::-1]) == weights[::-1]


@pytest.mark.parametrize("normalize", list(Normalization))
def test_what_many_pairs_choose_is_what_an_exhaustive_search_finds(normalize):
    queries, documents = views(n=1500)
    documents[1] *= np.linspace(0.5, 2, 1500, dtype=np.float32)[:, None]
    chosen = choose_weights(queries, documents, normalize)
    grid = np.arange(0, 1.01, 0.05)
    scores = [mrr(queries, documents, (1.0, w), normalize) for w in grid]
    assert mrr(queries, documents, chosen, normalize) >= max(scores) - 0.002


def test_few_pairs_cost_a_useful_encoder_no_place():
    dropped = 0
    for seed in range(12):
        queries, documents = views(50, (0.7, 1.1), seed=seed)
        _, weight = choose_weights(queries, documents)
        assert 0.15 < weight < 0.7
        pairs = Pairs.of(queries, documents)
        alone, *fused = (pairs.reciprocal_ranks(np.array([1, w])) for w in (0, 0.3, 0.5, 0.7, 1))
        gain = max(fused, key=np.mean) - alone
        dropped += gain.mean() < 2 * gain.std() / len(gain) ** 0.5
    assert dropped > 6  # the disease: what has to prove itself on so few goes


def test_few_pairs_lean_to_equal_weights():
    few, many = (
        np.mean([choose_weights(*views(n, (0.7, 1.1), seed=seed))[1] for seed in range(seeds)])
        for n, seeds in ((50, 12), (1200, 3))
    )
    assert many + 0.05 < few < 1


@pytest.mark.parametrize("seed", range(5))
def test_a_random_encoder_gets_nothing(seed):
    queries, documents = views(noises=(0.9, 1.0), seed=seed)
    rng = np.random.default_rng(seed + 100)
    for side in (queries, documents):
        side.insert(1, rng.normal(size=(600, 48)).astype(np.float32))
    weights = choose_weights(queries, documents)
    assert weights[1] == 0
    assert max(weights) == 1
    assert min(weights[0], weights[2]) > 0.3


@pytest.mark.parametrize("n", [50, 100, 400])
def test_luck_on_few_pairs_earns_no_place(n):
    lucky = 0
    for seed in range(12):
        queries, documents = views(n, noises=(1.2,), seed=seed)
        rng = np.random.default_rng(seed + 100)
        for side in (queries, documents):
            side.append(rng.normal(size=(n, 24)).astype(np.float32))
        scores = [mrr(queries, documents, (1.0, w), "per-model") for w in (0, 0.05, 0.1, 0.2, 0.3)]
        lucky += max(scores) > scores[0]
        assert choose_weights(queries, documents) == (1, 0)
    assert lucky > 4  # the disease: the best score alone would let noise in


def test_what_knows_a_little_and_helps_nobody_goes_once_pairs_can_tell():
    queries, documents = views(n=1500, noises=(0.5, 4))
    pairs = Pairs.of(queries, documents)
    assert pairs.reciprocal_ranks(np.array([0, 1])).mean() > 0.0088  # by chance 0.0053 ± 0.0009
    assert choose_weights(queries, documents) == (1, 0)


def test_where_nothing_tells_weights_are_equal():
    queries, documents = views(noises=(0.9,))
    assert choose_weights(queries * 2, documents * 2) == (1, 1)  # no ranking depends on them
    assert choose_weights(queries * 4, documents * 4) == (1, 1, 1, 1)
    rng = np.random.default_rng(0)
    noise = [[rng.normal(size=(100, 24)) for _ in range(3)] for _ in range(2)]
    assert choose_weights(*noise) == (1, 1, 1)


def test_norms_count_only_where_they_will_count():
    queries, documents = views()
    scales = np.random.default_rng(1).uniform(0.1, 5, size=(600, 1)).astype(np.float32)
    scaled = [documents[0] * scales, documents[1]]
    plain = choose_weights(queries, documents)
    assert choose_weights(queries, scaled) == plain
    together = choose_weights(queries, scaled, Normalization.GLOBAL)
    assert together == choose_weights(queries, scaled, Normalization.NONE)
    assert together != plain


def test_many_pairs_are_thinned_out_evenly(monkeypatch):
    queries, documents = views()
    thin = [[block[::2] for block in side] for side in (queries, documents)]
    thinned = choose_weights(*thin)
    monkeypatch.setattr(module, "_ROWS", 7)
    assert choose_weights(*thin) == thinned
    monkeypatch.setattr(module, "MAX_PAIRS", 200)
    rows = np.linspace(0, 599, 200).round().astype(int)
    expected = choose_weights(*[[block[rows] for block in side] for side in (queries, documents)])
    assert choose_weights(queries, documents) == expected


def close_calls(n=400, dim=24):
    """Pairs among which a third of the documents stands twice, and a third once more an ulp off."""
    queries, documents = views(n, dim=dim)
    for block in documents:
        block[1::3] = block[: n - 1 : 3][: len(block[1::3])]
        block[2::3] = block[: n - 2 : 3][: len(block[2::3])]
        block[2::3, 0] = np.nextafter(block[2::3, 0], np.float32(9))
    return queries, documents


def hostile(monkeypatch, seed):
    """Products that are wrong by nearly all that float32 allows, each in its own way."""
    plain, generator = torch.mm, torch.Generator().manual_seed(seed)

    def product(left, right, out):
        plain(left, right, out=out)
        length = left.norm(dim=1)[:, None] * right.norm(dim=0)[None]
        signs = torch.randint(0, 2, out.shape, generator=generator) * 2 - 1
        return out.add_(signs * length * left.shape[1] * 2.0**-24)

    monkeypatch.setattr(torch, "mm", product)


@pytest.mark.parametrize("normalize", list(Normalization))
def test_noise_in_the_products_moves_no_rank_and_no_weight(normalize, monkeypatch):
    queries, documents = close_calls()
    pairs = Pairs.of(queries, documents, normalize)
    weights = choose_weights(queries, documents, normalize)
    for row, (one, two) in enumerate(((1, 0), (0.3, 1), (1, 1))):
        ranks = pairs.reciprocal_ranks(np.array([one, two]))
        asked, given = ([b.astype(np.float64) for b in side] for side in (pairs.asked, pairs.given))
        norms = np.sqrt(sum(w * (b**2).sum(axis=1) for w, b in zip((one, two), given, strict=True)))
        if normalize is Normalization.PER_MODEL:
            norms = 1
        scores = sum(
            w * np.array([[(q * d).sum() for d in b] for q in a])
            for w, a, b in zip((one, two), asked, given, strict=True)
        )
        scores = scores / norms
        right = 1 / (1 + (scores > np.diagonal(scores)[:, None]).sum(axis=1))
        np.testing.assert_array_equal(ranks, right)
        with monkeypatch.context() as patched:
            hostile(patched, seed=row)
            noisy = Pairs.of(queries, documents, normalize)
        assert (noisy.similarities != pairs.similarities).float().mean() > 0.5
        own = noisy.similarities[0].diagonal()[:, None]
        naive = 1 / (1 + (noisy.similarities[0] > own).sum(dim=1).numpy())
        np.testing.assert_array_equal(noisy.reciprocal_ranks(np.array([one, two])), right)
        assert (naive != pairs.reciprocal_ranks(np.array([1, 0]))).any()  # the disease
        with monkeypatch.context() as patched:
            hostile(patched, seed=row)
            assert choose_weights(queries, documents, normalize) == weights


def test_a_corpus_of_copies_costs_no_settling(monkeypatch):
    queries, documents = views(300)
    for block in documents:
        block[:] = block[0]
    monkeypatch.setattr(module, "_dots", lambda left, right: np.ones(len(left)))
    pairs = Pairs.of(queries, documents)
    seen = []
    monkeypatch.setattr(module, "_dots", lambda left, _: seen.append(len(left)) or np.ones(300))
    assert (pairs.reciprocal_ranks(np.array([1, 0.5])) == 1).all()
    assert set(seen) == {300}  # the norms of the queries


def test_arrays_that_do_not_fit_are_refused():
    queries, documents = views(n=10)
    with pytest.raises(ValueError, match="needs pairs, got 10 queries and 9 documents"):
        choose_weights(queries, [block[:9] for block in documents])
    with pytest.raises(ValueError, match=r"of block 1 must be \[n, 24\]"):
        choose_weights([queries[0], queries[1][:, :3]], documents)
    documents[1][3] = 0
    with pytest.raises(ValueError, match="of block 1 in row 3 is a zero vector"):
        choose_weights(queries, documents)
