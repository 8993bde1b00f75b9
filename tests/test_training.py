import csv
import logging
import signal

import numpy as np
import pytest
import torch

from fusion.errors import FusionError
from fusion.space.compressors import PCA, HeadCompressor, load_compressor
from fusion.space.training.batches import Batches, HeldBack, Queries, Rows, split
from fusion.space.training.fit import TrainConfig, _Training, make_plan
from fusion.space.training.losses import GramMSE, NeighbourKL
from tests.fitted import fit_head

DIMS = (4, 8, 16)
SMALL = TrainConfig.of("paper", epochs=4, batch_size=32)


@pytest.fixture
def embeddings():
    rng = np.random.default_rng(0)
    signal_part = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 24))
    return (signal_part + 0.5 * rng.normal(size=(300, 24)) + 0.5).astype(np.float32)


def metrics(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def held_loss(compressor, embeddings, config, loss):
    """What the training itself calls val/loss, if the held-back texts fill one batch."""
    _, held = split(len(embeddings), config.validation, config.seed)
    rows = embeddings[held.numpy()]
    out = torch.from_numpy(compressor.transform(rows))
    return loss(out, torch.from_numpy(rows), DIMS).item()


@pytest.mark.parametrize("recipe", ["paper", "fusion"])
def test_one_seed_gives_bit_equal_heads(recipe, embeddings):
    config = {"epochs": 2, "batch_size": 64}
    heads = [
        fit_head(embeddings, TrainConfig.of(recipe, seed=seed, **config), DIMS).head.state_dict()
        for seed in (0, 0, 1)
    ]
    assert all(torch.equal(heads[0][key], heads[1][key]) for key in heads[0])
    assert not torch.equal(heads[0]["linear.weight"], heads[2]["linear.weight"])


def test_the_best_epoch_comes_back_not_the_last(embeddings, tmp_path):
    noise = np.random.default_rng(0).normal(size=(45, 24)).astype(np.float32)  # learnt by heart
    config = TrainConfig.of(
        "paper", epochs=30, lr=0.03, batch_size=30, schedule="constant", validation=1 / 3
    )
    compressor = fit_head(noise, config, DIMS, folder=tmp_path)
    losses = [float(row["val/loss"]) for row in metrics(tmp_path)]
    assert losses[-1] > 1.05 * min(losses)  # the disease: the last epoch is not the best
    ours = held_loss(compressor, noise, config, GramMSE())
    assert ours == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.parametrize("changes", [{}, {"schedule": "cosine", "epochs": None, "steps": 30}])
def test_resumed_training_equals_an_uninterrupted_one(changes, embeddings, tmp_path, monkeypatch):
    config = TrainConfig.of("paper", **{"epochs": 5, "batch_size": 32, **changes})
    whole = fit_head(embeddings, config, DIMS, folder=tmp_path / "whole")
    seen, real = [], GramMSE.__call__

    def stop_in_the_third_epoch(self, *arguments):
        seen.append(1)
        if len(seen) == 2 * (7 + 1) + 4:  # seven batches and one validation an epoch
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(GramMSE, "__call__", stop_in_the_third_epoch)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit_head(embeddings, config, DIMS, folder=tmp_path / "cut")
    assert signal.getsignal(signal.SIGINT) is before
    assert len(metrics(tmp_path / "cut")) == 2
    resumed = fit_head(embeddings, config, DIMS, folder=tmp_path / "cut", resume=True)
    assert len(seen) < 7 * 8  # it did not begin anew
    expected, state = whole.head.state_dict(), resumed.head.state_dict()
    assert all(torch.equal(expected[key], state[key]) for key in expected)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "cut")


def test_resume_refuses_another_training(embeddings, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("fusion.space.training.fit._Training.on_train_epoch_start", later(stop))
        with pytest.raises(KeyboardInterrupt):
            fit_head(embeddings, SMALL, DIMS, folder=tmp_path)
    other = TrainConfig.of("paper", epochs=4, batch_size=32, lr=0.5)
    with pytest.raises(FusionError, match=r"made with lr=0\.001, now it is 0\.5"):
        fit_head(embeddings, other, DIMS, folder=tmp_path, resume=True)
    with pytest.raises(FusionError, match="made with embeddings="):
        fit_head(embeddings + 1, SMALL, DIMS, folder=tmp_path, resume=True)
    with pytest.raises(ValueError, match="resume needs the folder"):
        fit_head(embeddings, SMALL, DIMS, resume=True)


def later(action):
    """A hook that acts in the second epoch."""

    def hook(self):
        if self.current_epoch == 1:
            action()

    return hook


def test_early_stopping(embeddings, tmp_path):
    config = TrainConfig.of("paper", epochs=40, lr=0.3, batch_size=16, patience=2, step_epochs=100)
    fit_head(embeddings[:60], config, DIMS, folder=tmp_path)
    losses = [float(row["val/loss"]) for row in metrics(tmp_path)]
    assert len(losses) < 40
    assert min(losses[-2:]) >= min(losses[:-2])


def test_the_linear_head_starts_as_pca_and_improves_on_it(embeddings, tmp_path):
    frozen = TrainConfig.of("fusion", steps=1, lr=1e-12)
    train, _ = split(len(embeddings), frozen.validation, frozen.seed)
    pca = PCA(16, power=frozen.start_power).fit(embeddings[train.numpy()])
    start = fit_head(embeddings, frozen, DIMS)
    np.testing.assert_allclose(
        start.transform(embeddings), pca.transform(embeddings), rtol=1e-4, atol=1e-5
    )
    # A large common direction tells no two texts apart, but it is PCA's first component.
    rng = np.random.default_rng(0)
    common = (rng.normal(size=(600, 24)) * np.linspace(1, 0.6, 24) + 1.5).astype(np.float32)
    settings = {"batch_size": 128, "validation": 0.3}
    losses = []
    for changes in ({"steps": 1, "lr": 1e-12}, {"steps": 60}):
        config = TrainConfig.of("fusion", **settings, **changes)
        fit_head(common, config, DIMS, folder=tmp_path)
        losses.append(min(float(r["val/loss"]) for r in metrics(tmp_path) if r["val/loss"]))
    assert losses[1] < 0.995 * losses[0]


def test_late_columns_go_a_shorter_way(embeddings, monkeypatch):
    monkeypatch.setattr("fusion.space.training.fit.SHARES", ())  # all the way, whatever it is worth
    step = {"epochs": 1, "batch_size": 512, "schedule": "constant", "lr": 0.01, "adam_eps": 1e-12}
    for pace in (0.0, 1.0):
        config = TrainConfig.of("fusion", pace=pace, keep_start=0.0, **step)
        start = _Training(make_plan(embeddings, config, DIMS)).head.linear.weight
        moved = (fit_head(embeddings, config, DIMS).head.linear.weight - start).abs()  # (d, D)
        # Adam's first step is as long as the learning rate, whatever the gradient.
        factors = torch.tensor([min(1, 4 / column) ** pace for column in range(1, 17)])
        torch.testing.assert_close(
            moved.detach(), 0.01 * factors[:, None].expand_as(moved), rtol=0.01, atol=1e-5
        )


def test_a_share_of_the_start_is_kept(embeddings, monkeypatch):
    monkeypatch.setattr("fusion.space.training.fit.SHARES", ())  # no more than is asked for
    settings = {"steps": 5, "batch_size": 64}
    kept, learned = (
        fit_head(embeddings, TrainConfig.of("fusion", keep_start=share, **settings), DIMS)
        for share in (0.25, 0.0)
    )
    train, _ = split(len(embeddings), kept.config.validation, kept.config.seed)
    start = PCA(16, power=kept.config.start_power).fit(embeddings[train.numpy()]).matrix
    expected = 0.25 * start.T + 0.75 * learned.head.linear.weight.detach().numpy()
    np.testing.assert_allclose(kept.head.linear.weight.detach(), expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"keep_start is 0\.1, but only a linear head"):
        TrainConfig(head="paper")


def test_the_scaled_teacher_is_the_full_pca_space(embeddings):
    config = TrainConfig.of("fusion", start_power=-0.3, teacher_power=-0.2)
    plan = make_plan(embeddings, config, DIMS)
    training = _Training(plan)
    training.on_fit_start()
    rows = embeddings[plan.train.numpy()]
    student = PCA(16, power=-0.3).fit(rows).transform(rows[:50])
    teacher = PCA(power=-0.2).fit(rows).transform(rows[:50])
    loss = NeighbourKL(config.temperature, config.student_temperature, config.spread)
    expected = loss(torch.from_numpy(student), torch.from_numpy(teacher), DIMS)
    torch.testing.assert_close(training._loss(plan.train[:50]), expected, rtol=1e-3, atol=1e-5)


def test_memory_mapped_embeddings_train_alike(embeddings, tmp_path, recwarn):
    np.save(tmp_path / "e.npy", embeddings)
    mapped = np.load(tmp_path / "e.npy", mmap_mode="r", allow_pickle=False)
    plain, other = (fit_head(e, SMALL, DIMS).transform(e) for e in (embeddings, mapped))
    np.testing.assert_array_equal(plain, other)
    assert not recwarn.list


def test_training_is_quiet_and_leaves_only_its_metrics(embeddings, tmp_path, capfd, recwarn):
    state = torch.get_rng_state()
    fit_head(embeddings, SMALL, DIMS, folder=tmp_path)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]
    assert torch.equal(torch.get_rng_state(), state)
    assert logging.getLogger("lightning.pytorch").level != logging.ERROR
    rows = metrics(tmp_path)
    assert [int(r["epoch"]) for r in rows] == [0, 1, 2, 3]
    assert [int(r["step"]) for r in rows] == [7, 14, 21, 28]
    assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])


def test_bfloat16_comes_close_to_float32(embeddings):
    exact, mixed = (
        fit_head(embeddings, TrainConfig.of("paper", epochs=4, batch_size=32, precision=p), DIMS)
        for p in ("32", "bf16-mixed")
    )
    assert mixed.head.linear.weight.dtype == torch.float32
    assert not torch.equal(exact.head.linear.weight, mixed.head.linear.weight)
    losses = [held_loss(c, embeddings, SMALL, GramMSE()) for c in (exact, mixed)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("recipe", ["paper", "fusion"])
def test_head_compressor_is_saved_whole(recipe, embeddings, tmp_path):
    config = TrainConfig.of(recipe, epochs=1, batch_size=64)
    compressor = HeadCompressor(DIMS, config).fit(embeddings)
    compressor.save(tmp_path / "head.safetensors")
    loaded = load_compressor(tmp_path / "head.safetensors")
    assert isinstance(loaded, HeadCompressor)
    assert (loaded.dims, loaded.config, loaded.in_dim) == (DIMS, config, 24)
    np.testing.assert_array_equal(loaded.transform(embeddings), compressor.transform(embeddings))
    direct = fit_head(embeddings, config, DIMS)
    np.testing.assert_array_equal(direct.transform(embeddings), compressor.transform(embeddings))


def test_steps_are_met_with_many_texts_and_with_few(embeddings, tmp_path):
    for n, batch, epochs, validated in ((300, 16, 2, 2), (60, 1024, 32, 16)):
        config = TrainConfig.of("fusion", steps=31, batch_size=batch)
        fit_head(embeddings[:n], config, DIMS, folder=tmp_path / str(n))
        rows = metrics(tmp_path / str(n))
        assert len(rows) == epochs
        assert int(rows[-1]["step"]) == pytest.approx(31, abs=6)
        assert sum(row["val/loss"] != "" for row in rows) == validated
        assert rows[-1]["val/loss"] != ""


def test_split_holds_texts_back():
    train, held = split(100, 0.2, seed=1)
    assert len(held) == 20
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(100))
    assert len(split(3, 0.01, seed=0)[1]) == 2
    assert [len(b) for b in HeldBack(held, 8)] == [8, 8]
    assert [b.tolist() for b in HeldBack(held, 64)] == [held.tolist()]


def test_processes_share_each_batch_out():
    def batches(epoch, rank, world):
        made = Batches(torch.arange(50, 100), 6, 8, 5, lambda: epoch, rank, world)
        assert len(made) == 8
        return [b.tolist() for b in made]

    alone = batches(0, 0, 1)
    for world in (2, 4):  # four processes: shares of two and of one
        shares = [batches(0, rank, world) for rank in range(world)]
        for batch, *parts in zip(alone, *shares, strict=True):
            assert parts == [batch[rank::world] for rank in range(world)]
    flat = [index for batch in alone for index in batch]
    assert len(set(flat)) == len(flat) == 48
    assert alone != batches(1, 0, 1)
    assert all(b == sorted(b) for b in alone)


@pytest.mark.gpu
def test_rows_are_resident_on_a_gpu(embeddings):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    rows = Rows(embeddings, torch.device("cuda"))
    assert rows._resident is not None
    picked = rows[torch.tensor([5, 2])]
    assert picked.is_cuda
    np.testing.assert_array_equal(picked.cpu().numpy(), embeddings[[5, 2]])


def test_recipes_and_what_ousts_what():
    paper = TrainConfig.of("paper")
    assert (paper.loss, paper.head, paper.start, paper.schedule) == (
        "mse",
        "paper",
        "kaiming",
        "step",
    )
    assert (paper.lr, paper.weight_decay, paper.batch_size, paper.epochs) == (1e-3, 1e-4, 128, 50)
    assert (paper.step_epochs, paper.step_gamma, paper.steps) == (10, 0.8, None)
    assert paper.teacher_power == 0  # it compares with the fused space itself
    assert TrainConfig.of("fusion") == TrainConfig()
    assert TrainConfig.of("fusion", epochs=3).steps is None
    assert TrainConfig.of("paper", steps=3).epochs is None
    assert TrainConfig(**paper.to_dict()) == paper


def test_few_texts_are_not_learned_by_heart(embeddings):
    few = make_plan(embeddings[:60], TrainConfig(steps=100), DIMS)
    assert (few.epoch_steps, few.epochs) == (1, 50)
    shorter = make_plan(embeddings, TrainConfig(steps=20, batch_size=64), DIMS)
    assert shorter.epochs * shorter.epoch_steps == 20
    asked = TrainConfig.of("fusion", epochs=80)
    assert make_plan(embeddings[:60], asked, DIMS).epochs == 80


def test_learning_rate_schedules(embeddings):
    def factors(**changes):
        config = TrainConfig.of("paper", epochs=4, batch_size=32, **changes)
        training = _Training(make_plan(embeddings, config, DIMS))
        return [training._lr_factor(step) for step in range(28)]  # seven batches an epoch

    assert factors(schedule="constant") == [1.0] * 28
    by_two_epochs = factors(schedule="step", step_epochs=2)
    assert by_two_epochs == [1.0] * 14 + [0.8] * 14
    cosine = factors(schedule="cosine")
    assert cosine[0] == 1.0
    assert cosine[14] == pytest.approx(0.5)
    assert 0 < cosine[-1] < 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "mae"}, "loss must be one of mse, kl, got 'mae'"),
        ({"recipe": "soup"}, "recipe must be one of fusion, corpus, paper, got 'soup'"),
        ({"precision": "8"}, "precision must be one of 32, bf16-mixed, got '8'"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"validation": 1.0}, r"validation must be above 0 and below 1, got 1\.0"),
        ({"epochs": 3}, "either epochs or steps, got epochs=3 and steps=900"),
        ({"devices": 0}, "devices must be positive, or -1 for all, got 0"),
    ],
)
def test_bad_configs_name_field_and_value(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)
    if "recipe" in changes:
        with pytest.raises(ValueError, match=message):
            TrainConfig.of(**changes)


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ((8, 4), "dims must increase, got 8,4"),
        ((4, 4), "dims must increase, got 4,4"),
        ((0, 4), "dims must be positive"),
        ((), "at least one"),
        ((8, 25), "dims go up to 25, but the fused embedding has 24 columns"),
    ],
)
def test_bad_dims_name_the_value(dims, message, embeddings, tmp_path):
    with pytest.raises(ValueError, match=message):
        fit_head(embeddings, SMALL, dims, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bad_embeddings_are_one_clear_line(embeddings):
    with pytest.raises(ValueError, match="3 texts are too few to train on: at least 4"):
        fit_head(embeddings[:3], SMALL, DIMS)
    embeddings[:] = np.nan
    with pytest.raises(FusionError, match="the loss is nan in epoch 0: lower lr"):
        fit_head(embeddings, SMALL, DIMS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_named(embeddings):
    with pytest.raises(FusionError, match="device cuda was asked for"):
        fit_head(embeddings, TrainConfig.of("paper", device="cuda"), DIMS)


def test_a_text_gives_one_of_its_queries_each_turn_and_none_where_it_has_none():
    queries = Queries(np.zeros((4, 2), np.float32), np.array([0, 2, 2, 2]))
    texts = torch.tensor([2, 0, 1, 3])
    turns = [queries.of(texts, turn).tolist() for turn in range(4)]
    assert turns == [[1, 0, -1, -1], [2, 0, -1, -1], [3, 0, -1, -1], [1, 0, -1, -1]]


@pytest.mark.parametrize("owners", [[0, 1], [1, 0, 2]])
def test_owners_ascend_and_fit_the_queries(owners):
    with pytest.raises(ValueError, match="owners must ascend, one for each of the 3 queries"):
        Queries(np.zeros((3, 2), np.float32), np.array(owners))


def test_queries_bring_their_own_neighbours_closer(embeddings):
    # Queries lie in two columns that the texts hardly use: PCA leaves them out.
    rng = np.random.default_rng(1)
    topics = rng.normal(size=(300, 2)).astype(np.float32)
    texts = np.hstack([embeddings, 0.3 * topics])
    asked = np.hstack([0 * embeddings, topics])
    config = TrainConfig.of("fusion", steps=60, batch_size=64, lr=0.02, keep_start=0.0)
    kept = []
    for queries in (None, Queries(asked, np.arange(300))):
        head = fit_head(texts, config, DIMS, queries=queries)
        given, corpus = head.transform(asked)[:, :4], head.transform(texts)[:, :4]
        found = torch.cosine_similarity(
            torch.from_numpy(given)[:, None], torch.from_numpy(corpus)[None], dim=-1
        )  # (q, c)
        wanted = torch.cosine_similarity(
            torch.from_numpy(asked)[:, None], torch.from_numpy(texts)[None], dim=-1
        )  # (q, c)
        pairs = zip(wanted.topk(10).indices.tolist(), found.topk(10).indices.tolist(), strict=True)
        kept.append(np.mean([len(set(a) & set(b)) for a, b in pairs]))
    assert kept[1] > 1.5 * kept[0]


def test_a_checkpoint_knows_its_queries(embeddings):
    plans = [
        make_plan(embeddings, TrainConfig(), DIMS, queries).identity
        for queries in (None, Queries(embeddings[:3], np.arange(3)))
    ]
    assert plans[0] != plans[1]


def test_sentences_need_the_loss_kl():
    assert TrainConfig().sentences > 0
    assert TrainConfig.of("fusion", loss="mse").sentences == 0
    with pytest.raises(ValueError, match="the loss mse compares texts only"):
        TrainConfig.of("paper", sentences=1)
