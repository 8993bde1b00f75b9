import csv
import logging

import numpy as np
import pytest
import torch

from fusion.errors import FusionError
from fusion.space.compressors import PCA
from fusion.space.training import fit as training
from fusion.space.training import held
from fusion.space.training.batches import Queries
from fusion.space.training.held import HeldBackTexts
from fusion.space.training.losses import NeighbourKL
from fusion.space.training.plan import make_plan
from fusion.space.training.recipe import TrainConfig
from tests.fitted import fit_head

DIMS = (4, 8, 32)


def corpus(n):
    """Texts in groups of eight, one noisy part of each to learn from, and one never learned from.

    Fifty groups lie in as many directions as there are columns: few of them find no room for all,
    and of twenty held-back texts hardly two are neighbours. Real small corpora are like that.
    """
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(n // 8, 32)) * np.linspace(1.2, 0.6, 32)
    texts = centres[np.arange(n) % (n // 8)] + 0.4 * rng.normal(size=(n, 32)) + 1
    learned, unseen = (texts + 0.5 * rng.normal(size=texts.shape) for _ in range(2))
    parts = Queries(learned.astype(np.float32), np.arange(n))
    return texts.astype(np.float32), parts, unseen.astype(np.float32)


def kept(compressor, texts, asked, dim):
    """Of the seven texts nearest to a query, the share that stays in the first columns."""

    def nearest(queries, documents):
        sides = [
            side / np.linalg.norm(side, axis=1, keepdims=True) for side in (queries, documents)
        ]
        return np.argsort(-(sides[0] @ sides[1].T), axis=1)[:, :7]

    found = nearest(compressor.transform(asked)[:, :dim], compressor.transform(texts)[:, :dim])
    wanted = nearest(asked, texts)
    return float((wanted[:, :, None] == found[:, None]).any(axis=2).mean())


def start_of(texts, config):
    plan = make_plan(texts, config, DIMS)
    return PCA(DIMS[-1], power=config.start_power).fit(texts[plan.train.numpy()])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_choice_is_right_where_few_texts_are_held_back(seed, tmp_path):
    texts, parts, asked = corpus(400)
    config = TrainConfig.of("corpus", seed=seed, batch_size=128)
    head, start = (
        fit_head(texts, config, DIMS, queries=parts, folder=tmp_path),
        start_of(texts, config),
    )
    for dim, gain in ((4, 1.05), (8, 1.03)):  # the first epoch, as a few others judge it: 1.01
        assert kept(head, texts, asked, dim) > gain * kept(start, texts, asked, dim)
    losses = [float(row["val/loss"] or "inf") for row in _metrics(tmp_path)]
    assert np.argmin(losses) > len(losses) / 2


@pytest.mark.parametrize("n", [50, 64, 100, 200, 1000])
def test_a_head_is_no_worse_than_its_start_from_fifty_texts_on(n):
    texts, parts, asked = corpus(n)
    config = TrainConfig.of("corpus", batch_size=128)
    head, start = fit_head(texts, config, DIMS, queries=parts), start_of(texts, config)
    gains = [kept(head, texts, asked, dim) / kept(start, texts, asked, dim) for dim in DIMS]
    assert min(gains) > 0.98
    assert gains[0] > (1.03 if n >= 100 else 0.99)


def _metrics(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def small():
    """A plan whose texts have two queries, one or none, and a loss that judges it."""
    rng = np.random.default_rng(3)
    texts = rng.normal(size=(40, 12)).astype(np.float32)
    owners = np.repeat(np.arange(40), np.arange(40) % 3)
    queries = Queries(rng.normal(size=(len(owners), 12)).astype(np.float32), owners)
    plan = make_plan(texts, TrainConfig(validation=0.3), (3, 7, 12), queries)
    return plan, NeighbourKL(0.3, 0.4, 0.15)


def slow_loss(plan, head, teacher):
    """The definition: one held-back text or query after the other, in float64."""
    texts = torch.from_numpy(plan.embeddings).double()
    asked = torch.from_numpy(plan.queries.embeddings).double()
    rows = [(texts[i], i) for i in plan.held.tolist()]
    theirs = np.flatnonzero(np.isin(plan.queries.owners, plan.held.numpy()))
    total = 0.0
    for kind in (rows, [(asked[i], None) for i in theirs]):
        for dim in plan.dims:
            for vector, own in kind:
                others = [i for i in range(len(texts)) if i != own]
                wanted = cosines(vector @ teacher, texts[others] @ teacher) / 0.3
                given = cosines(head(vector)[:dim], head(texts[others])[:, :dim])
                given = given / (0.4 * (plan.dims[-1] / dim) ** 0.15)
                log_wanted = torch.log_softmax(wanted, 0)
                divergence = log_wanted.exp() @ (log_wanted - torch.log_softmax(given, 0))
                total += divergence.item() / len(kind)
    return total


def cosines(vector, rows):
    return torch.cosine_similarity(vector[None], rows, dim=1)


def linear_head(plan, seed=0):
    torch.manual_seed(seed)
    return training._Training(plan).mixed(
        {"linear.weight": torch.randn(plan.dims[-1], plan.embeddings.shape[1])}, 0.0
    )


def test_the_loss_is_that_of_each_held_back_text_among_all_others(small):
    plan, loss = small
    head, teacher = (
        linear_head(plan),
        torch.randn(12, 12, generator=torch.Generator().manual_seed(1)),
    )
    judge = HeldBackTexts(plan, loss, teacher, torch.device("cpu"))
    assert (judge.judged, judge.candidates) == (12, 40)
    weight = head.linear.weight.detach().double()
    expected = slow_loss(plan, lambda rows: rows @ weight.T, teacher.double())
    assert judge.loss(head).item() == pytest.approx(expected, rel=1e-5)
    assert str(judge) == "12 held-back texts among 40"


def test_many_texts_are_judged_by_some(small, monkeypatch):
    plan, loss = small
    monkeypatch.setattr(held, "MOST_JUDGED", 5)
    monkeypatch.setattr(held, "MOST_CANDIDATES", 20)
    judge = HeldBackTexts(plan, loss, None, torch.device("cpu"))
    assert (judge.judged, judge.candidates) == (5, 20)
    assert 0 < judge.queries <= 5
    assert torch.isfinite(judge.loss(linear_head(plan)))


@pytest.mark.parametrize(
    ("losses", "share"),
    [
        ((1.0, 1.1, 1.3, 1.6, 2.0), 0.0),
        ((1.0, 0.99, 1.3, 1.6, 2.0), 0.0),  # saves less than it has to
        ((1.0, 0.9, 0.89, 1.6, 2.0), 0.25),
        ((3.0, 2.8, 2.5, 2.2, 2.0), 1.0),
    ],
)
def test_the_least_share_of_the_start_that_no_other_betters(losses, share, small, monkeypatch):
    shares = (0.0, *held.SHARES)
    judge = HeldBackTexts(*small, None, torch.device("cpu"))
    monkeypatch.setattr(judge, "loss", lambda of: torch.tensor(losses[shares.index(of)]))
    assert judge.share_of_start(shares, lambda of: of) == share


def test_a_step_too_far_is_taken_back(monkeypatch):
    texts, parts, _ = corpus(64)
    config = TrainConfig.of("corpus", epochs=1, lr=0.3)
    learned = _fit_without_return(texts, config, parts, monkeypatch)
    head = fit_head(texts, config, DIMS, queries=parts).head.linear.weight
    module = training._Training(make_plan(texts, config, DIMS, parts))
    start, whole = module.start, learned.head.linear.weight
    share = ((head - whole).norm() / (start - whole).norm()).item()
    assert min(abs(share - tried) for tried in held.SHARES) < 1e-4
    torch.testing.assert_close(head, torch.lerp(whole, start, share), rtol=1e-4, atol=1e-5)
    assert module.held.loss(module.mixed({"linear.weight": head}, 0.0)) < module.held.loss(
        learned.head
    )


def _fit_without_return(texts, config, parts, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(training, "SHARES", ())
        return fit_head(texts, config, DIMS, queries=parts)


def test_what_is_held_back_never_leaks(tmp_path):
    texts, parts, _ = corpus(200)
    config = TrainConfig.of("corpus", batch_size=64)
    held_back = make_plan(texts, config, DIMS).held.numpy()
    seen = []
    for noise in (0.0, 1.0):
        other, asked = texts.copy(), parts.embeddings.copy()
        other[held_back] += noise
        asked[np.isin(parts.owners, held_back)] -= noise
        folder = tmp_path / str(noise)
        fit_head(other, config, DIMS, queries=Queries(asked, parts.owners), folder=folder)
        seen.append(_metrics(folder))
    learned = [[row["train/loss"] for row in rows] for rows in seen]
    judged = [[row["val/loss"] for row in rows] for rows in seen]
    assert learned[0] == learned[1]
    assert judged[0] != judged[1]


@pytest.mark.parametrize(
    "where",
    ["fusion.space.training.fit._Training.on_train_epoch_end", "fusion.space.training.fit._keep"],
)
def test_a_resumed_training_makes_the_same_choice(where, tmp_path, monkeypatch):
    texts, parts, _ = corpus(64)
    config = TrainConfig.of("corpus", steps=12)
    whole = fit_head(texts, config, DIMS, queries=parts)

    def stop(*arguments):
        if len(arguments) > 1 or arguments[0].current_epoch == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(where, stop)
        with pytest.raises(KeyboardInterrupt):
            fit_head(texts, config, DIMS, queries=parts, folder=tmp_path)
    resumed = fit_head(texts, config, DIMS, queries=parts, folder=tmp_path, resume=True)
    assert torch.equal(whole.head.linear.weight, resumed.head.linear.weight)


def test_a_best_loss_of_another_kind_is_not_gone_on_with(tmp_path, monkeypatch):
    texts, parts, _ = corpus(64)
    config = TrainConfig.of("corpus", steps=12)
    with monkeypatch.context() as patched:
        patched.setattr("fusion.space.training.plan.JUDGED", "among those held back")
        patched.setattr("fusion.space.training.fit._keep", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit_head(texts, config, DIMS, queries=parts, folder=tmp_path)
    with pytest.raises(FusionError, match="made with judged=among those held back, now it is"):
        fit_head(texts, config, DIMS, queries=parts, folder=tmp_path, resume=True)


def _interrupt(*_):
    raise KeyboardInterrupt


def test_a_head_with_batch_norm_is_judged_as_it_will_be_used(tmp_path, monkeypatch):
    texts, parts, _ = corpus(200)
    config = TrainConfig.of("corpus", head="paper", start="kaiming", epochs=3, batch_size=64)
    seen = []
    real = HeldBackTexts.loss
    monkeypatch.setattr(
        HeldBackTexts, "loss", lambda self, head: seen.append(self) or real(self, head)
    )
    head = fit_head(texts, config, DIMS, queries=parts, folder=tmp_path)
    least = min(float(row["val/loss"]) for row in _metrics(tmp_path))
    assert real(seen[0], head.head).item() == pytest.approx(least, rel=1e-5)
    assert len(seen) == 3  # there is no way back to such a start


def test_what_was_kept_is_said_in_words(caplog):
    texts, parts, _ = corpus(64)
    with caplog.at_level(logging.INFO, logger="fusion"):
        fit_head(texts, TrainConfig.of("corpus", steps=4), DIMS, queries=parts)
        fit_head(texts, TrainConfig.of("paper", epochs=2, batch_size=16), DIMS)
    first, paper = (record.getMessage() for record in caplog.records)
    assert first.startswith("kept epoch ")
    assert " % of the start: the least loss of 3 held-back texts among 64" in first
    assert paper.endswith(" of 2 (from 0): the least loss of 13 held-back texts")
