import json
from pathlib import Path

import numpy as np
import pytest

from fusion.inputs.data.captions import Captions
from fusion.inputs.items import Picture
from fusion.measure.crossmodal.judging import Truth
from fusion.measure.crossmodal.report import markdown, terminal_page, write_crossmodal
from fusion.measure.crossmodal.rows import Direction, Protocol
from fusion.measure.crossmodal.sweep import CrossSpace, measure
from fusion.measure.statistics import bootstrap_means, bootstrap_ratios, intervals
from fusion.space.codes import Precision

CUTOFFS = (1, 5, 10)


def data_of(texts, owner, name="set"):
    pictures = max(owner) + 1
    ids = [f"{row}.png" for row in range(pictures)]
    return Captions(name, "test", [Picture(Path(i)) for i in ids], ids, texts, np.array(owner))


@pytest.fixture
def uneven():
    """30 pictures with two to five captions each; several captions belong to more than one."""
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(30), rng.integers(2, 6, 30))
    texts = [f"text {row}" for row in range(len(owner))]
    texts[10], texts[50], texts[51] = texts[0], texts[0] + " ", texts[3]
    return data_of(texts, owner.tolist())


def space_of(data, width=8, noise=1.2, seed=0):
    rng = np.random.default_rng(seed)
    pictures = rng.standard_normal((len(data.pictures), width)).astype(np.float32)
    texts = pictures[data.owner] + noise * rng.standard_normal((len(data.texts), width))
    return CrossSpace("cca", texts.astype(np.float32), pictures, texts[:20], pictures[:20])


def oracle(data, queries, gallery, right):
    """By a double loop: any hit and fraction at the cutoffs, and the first right ranks."""
    hits, fractions, ranks = [], [], []
    for row, query in enumerate(queries.astype(np.float64)):
        cosines = gallery.astype(np.float64) @ query / np.linalg.norm(gallery, axis=1)
        order = np.argsort(-cosines, kind="stable")
        good = [bool(right(row, int(found))) for found in order]
        hits.append([any(good[:k]) for k in CUTOFFS])
        fractions.append([sum(good[:k]) / sum(good) for k in CUTOFFS])
        ranks.append(good.index(True) + 1)
    return np.mean(hits, axis=0), np.mean(fractions, axis=0), float(np.median(ranks))


def check(row, found):
    recall, fraction, median = found
    np.testing.assert_allclose(row.recall, recall)
    np.testing.assert_allclose(row.fraction, fraction)
    assert row.median_rank == median


def test_both_directions_are_those_of_a_double_loop(uneven):
    space = space_of(uneven)
    forth, back, _ = measure(uneven, space, (3, 8), (Precision.FLOAT32,))[3:]
    texts = [text.strip() for text in uneven.texts]
    belongs = {(texts[row], int(own)) for row, own in enumerate(uneven.owner)}
    found = oracle(uneven, space.texts, space.pictures, lambda q, g: (texts[q], g) in belongs)
    assert 0.1 < found[0][0] < found[0][2] < 1
    check(forth, found)
    found = oracle(uneven, space.pictures, space.texts, lambda q, g: (texts[g], q) in belongs)
    assert found[1][0] < found[0][0]  # a fraction cannot reach what any hit does
    check(back, found)
    assert (forth.direction, back.direction) == tuple(Direction)
    assert (forth.queries, forth.gallery) == (len(texts), 30)
    assert (back.queries, back.gallery) == (30, len(texts))


def test_one_caption_a_picture_is_the_mean_over_which_one(uneven):
    space = space_of(uneven)
    row = measure(uneven, space, (8,), (Precision.FLOAT32,))[2]
    first = np.unique(uneven.owner, return_index=True)[1]
    texts = [text.strip() for text in uneven.texts]
    belongs = {(texts[i], int(own)) for i, own in enumerate(uneven.owner)}
    parts = []
    for number in range(2):  # the fewest that a picture has
        chosen = first + number
        right = lambda q, g, chosen=chosen: (texts[chosen[g]], q) in belongs  # noqa: E731
        parts.append(oracle(uneven, space.pictures, space.texts[chosen], right))
    check(row, [np.mean([part[i] for part in parts], axis=0) for i in range(3)])
    assert (row.protocol, row.gallery, row.rsum) == (Protocol.ONE_CAPTION, 30, None)


def test_equal_captions_count_as_right():
    data = data_of(["a dog", "a cat", "a dog"], [0, 0, 1])
    truth = Truth.of(data.texts, data.owner, 2)
    right = truth.right_pictures(np.array([[1, 0], [1, 0], [0, 1]]))
    np.testing.assert_array_equal(right.right, [[True, True], [False, True], [True, True]])
    np.testing.assert_array_equal(right.total, [2, 1, 2])
    back = truth.right_texts(np.array([[2, 1, 0], [1, 0, 2]]))
    np.testing.assert_array_equal(back.right, [[True, True, True], [False, True, True]])
    np.testing.assert_array_equal(back.total, [3, 2])


def test_widths_are_prefixes_and_codes_have_their_bytes(uneven):
    space = space_of(uneven, width=16)
    rows = measure(uneven, space, (8, 16), (Precision.FLOAT32, Precision.INT8, Precision.BINARY))
    assert [row.bytes_per_vector for row in rows[::3]] == [32, 64, 8, 16, 1, 2]
    calibrations = space.text_calibration, space.picture_calibration
    sides = (space.texts, space.pictures, *calibrations)
    narrow = CrossSpace("cca", *(side[:, :8] for side in sides))
    alone = measure(uneven, narrow, (8,), (Precision.FLOAT32, Precision.INT8))
    for ours, theirs in ((rows[0], alone[0]), (rows[1], alone[1]), (rows[6], alone[3])):
        assert ours.to_dict() == theirs.to_dict()
    float_, coded = rows[3].recall[2], rows[15].recall[2]
    assert coded < float_  # two bytes lose something


def test_whole_pictures_are_drawn():
    """Five captions that succeed and fail together are one observation, not five."""
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(200), 5)
    data = data_of([f"t{row}" for row in range(1000)], owner.tolist())
    pictures = rng.standard_normal((200, 4)).astype(np.float32)
    moved = pictures + 0.9 * rng.standard_normal((200, 4)).astype(np.float32)
    space = CrossSpace("cca", moved[owner], pictures, moved, pictures)
    row = measure(data, space, (4,), (Precision.FLOAT32,))[0]
    low, high = row.recall_ci95[0]
    share = row.recall[0]
    assert low < share < high
    expected = 2 * 1.96 * np.sqrt(share * (1 - share) / 200)
    assert high - low == pytest.approx(expected, rel=0.1)
    assert high - low > 1.8 * 2 * 1.96 * np.sqrt(share * (1 - share) / 1000)  # as if independent
    assert row.rsum == pytest.approx(100 * (sum(row.recall) + sum(
        measure(data, space, (4,), (Precision.FLOAT32,))[1].recall)))  # fmt: skip
    assert row.rsum_ci95[0] < row.rsum < row.rsum_ci95[1]


def test_clusters_of_one_are_the_plain_bootstrap():
    scores = np.random.default_rng(0).random((50, 2))
    plain = bootstrap_means(scores, 7, 500)
    np.testing.assert_array_equal(bootstrap_ratios(scores, np.ones((50, 2)), 7, 500), plain)
    uneven = np.arange(1.0, 51)[:, None]
    drawn = bootstrap_ratios(scores * uneven, np.broadcast_to(uneven, (50, 2)), 7, 2000)
    expected = (scores * uneven).sum(0) / uneven.sum()
    np.testing.assert_allclose(drawn.mean(0), expected, atol=0.01)
    assert (intervals(drawn)[:, 0] < expected).all()


def test_a_rank_beyond_what_was_ranked_is_not_told():
    rng = np.random.default_rng(0)
    data = data_of([f"t{row}" for row in range(300)], list(range(300)))
    texts, pictures = (rng.standard_normal((300, 4)).astype(np.float32) for _ in range(2))
    forth = measure(
        data, CrossSpace("cca", texts, pictures, texts, pictures), (4,), (Precision.FLOAT32,)
    )[0]
    assert forth.median_rank is None
    assert "beyond 100" in terminal_page([forth])
    assert forth.to_dict()["median_rank"] is None


def test_the_report_says_it_all(uneven, tmp_path):
    rows = measure(uneven, space_of(uneven), (4, 8), (Precision.FLOAT32, Precision.INT4))
    write_crossmodal(tmp_path / "out", rows, {"python": "3"})
    report = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert len(report["rows"]) == 12
    line = report["rows"][0]
    assert {"data", "split", "method", "dim", "precision", "bytes_per_vector", "seed"} <= set(line)
    assert line["direction"] == "text-to-image"
    assert line["protocol"] == "all-captions"
    assert line["recall_at_1_ci95"][0] <= line["recall_at_1"] <= line["recall_at_1_ci95"][1]
    assert "rsum" not in report["rows"][2]
    table = (tmp_path / "out" / "results.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 13
    assert "recall_at_10_ci95_low" in table[0]
    page = markdown(rows)
    recall = rows[0].recall
    assert f"| 4 | float32 | 16 B | {100 * recall[0]:.1f} ± " in page
    assert page.count("## Set test: ") == 3
    with pytest.raises(ValueError, match="nothing was measured"):
        write_crossmodal(tmp_path / "none", [], {})
