"""What the pictures show, and that no name covers anything."""

import numpy as np
import pytest
from PIL import Image
from test_report import evaluation, row

from fusion.errors import FusionError
from fusion.measure.figures import labels, ndcg, run
from fusion.measure.figures.lines import best_coded, spread
from fusion.measure.neighbours import Kept
from fusion.measure.rows import mean_rows, with_intervals

LOGGED = (
    "epoch,step,train/loss,val/loss\n"
    "0,10,4.0,\n0,20,2.0,\n0,20,,2.5\n1,40,1.0,\n1,40,,1.5\n2,60,0.5,\n2,60,,1.8\n"
)


def crowded():
    """Six methods side by side, their codes, four encoders of alike scores, and the concat."""
    rows = [row("scifact", "concat", 640, 0.5)]
    levels = {"first-k": 0.3, "random-k": 0.29, "gaussian": 0.285, "pca": 0.4, "head": 0.405}
    for method, level in (levels | {"head:corpus": 0.41}).items():
        for dim in (32, 64, 128, 256, 640):
            score = level + 0.1 * np.log2(dim / 32) / 4.3
            rows.append(row("scifact", method, dim, score))
            for precision, bits in (("int8", 8), ("int2", 2), ("binary", 1)):
                worse = score - 0.04 / bits
                rows.append(row("scifact", method, dim, worse, precision, bits=bits))
    for name, dim, score in (
        ("minilm", 384, 0.49),
        ("a-longer-name", 384, 0.488),
        ("e5", 384, 0.485),
    ):
        rows.append(row("scifact", f"encoder:{name}", dim, score))
    return with_intervals([*rows, row("scifact", "encoder:wordllama", 256, 0.46)])


def all_alike():
    """Three lines on one another, and on the concat's level."""
    methods = ("pca", "head", "first-k")
    rows = [row("tiny", method, dim, 0.5) for method in methods for dim in (32, 64, 128)]
    return with_intervals([*rows, row("tiny", "concat", 128, 0.5)])


CASES = {
    "two data sets, codes": evaluation(),
    "two data sets": evaluation(codes=False),
    "crowded": crowded(),
    "all alike": all_alike(),
    "one method": with_intervals([row("tiny", "model", dim, 0.5) for dim in (32, 64)]),
    "one encoder": with_intervals([row("tiny", "encoder:minilm", 32, 0.5)]),
}


@pytest.mark.parametrize("rows", CASES.values(), ids=CASES)
def test_names_cover_nothing(rows):
    figure, names = ndcg.draw_ndcg(rows)
    assert names.covered() == 0
    axes = figure.axes[0]
    nested = {r.method for r in rows if ndcg.is_nested(r.method)}
    alone = {f"{r.method[8:]} alone" for r in rows if r.method.startswith("encoder:")}
    written = {text.get_text() for text in axes.texts}
    assert nested | alone <= written
    area = axes.get_window_extent()
    for text in axes.texts:
        if text.get_text() in nested | alone:
            box = labels.Text.get_window_extent(text)
            assert area.x0 <= box.x0, f"{text.get_text()} stands on the scale"
            assert box.x1 <= area.x1


def test_what_is_covered_is_counted():
    _, names = ndcg.draw_ndcg(all_alike())
    at = (256, next(r.ndcg_at_10 for r in all_alike()))
    names.put("on the line", [labels.Place(at, (0, 0))])
    assert 0 < names.covered() < labels.AWAY
    names.put("on the name", [labels.Place(at, (0, 0))])
    assert names.covered() > labels.AWAY


@pytest.mark.parametrize("dims", [(8,), (32, 64), (32, 64, 128, 256, 384, 512, 768, 896, 1024)])
def test_a_runs_figure_shows_the_share_kept_at_each_width(tmp_path, dims):
    (tmp_path / "metrics.csv").write_text(LOGGED)
    shares = dict(zip(dims, np.linspace(0.3, 1, len(dims)).tolist(), strict=True))
    figure, names = run.draw_run(tmp_path / "metrics.csv", Kept(shares, 60, 1200))
    assert [panel.covered() for panel in names] == [0, 0]
    kept, loss = figure.axes
    (line,) = kept.lines
    assert dict(zip(*line.get_data(), strict=True)) == pytest.approx(shares)
    words = [text.get_text() for text in kept.texts]
    assert f"{100 * shares[dims[-1]]:.0f} %" in words
    assert any("of the 10 nearest by the full concat; 60 held-back of 1,200" in w for w in words)
    assert {"training", "held back", "kept: epoch 1"} <= {text.get_text() for text in loss.texts}


def test_losses_that_end_in_one_place_and_a_single_epoch_are_named_apart(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,train/loss,val/loss\n0,1.0,1.0\n")
    _, (names,) = run.draw_run(tmp_path / "metrics.csv")
    assert names.covered() == 0
    (tmp_path / "metrics.csv").write_text("epoch,train/loss,val/loss\n0,2.0,2.1\n1,1.0,1.001\n")
    _, (names,) = run.draw_run(tmp_path / "metrics.csv")
    assert names.covered() == 0


@pytest.mark.parametrize("codes", [False, True])
def test_the_figure_is_a_picture_with_every_methods_colour(tmp_path, codes):
    ndcg.ndcg_figure(evaluation(codes), tmp_path / "figure.png")
    pixels = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB")).reshape(-1, 3)
    for method in ("pca", "head"):
        colour = ndcg.STYLES[method][0]
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == wanted).all(axis=1).sum() > 500


def test_a_figure_of_one_data_set_or_without_concat_or_float32(tmp_path):
    rows = [row("tiny", "new", dim, 0.3, "int8", bits=8) for dim in (8, 16)]
    ndcg.ndcg_figure(rows, tmp_path / "codes-only.png")
    ndcg.ndcg_figure([row("tiny", "encoder:minilm", 32, 0.5)], tmp_path / "encoder-only.png")
    assert (tmp_path / "codes-only.png").stat().st_size > 5000


def test_a_figure_of_many_data_sets_has_several_lines_of_small_ones(tmp_path):
    rows = [row(f"set{i}", "pca", dim, 0.5) for i in range(6) for dim in (8, 16)]
    ndcg.ndcg_figure(rows + mean_rows(rows), tmp_path / "six.png")
    ndcg.ndcg_figure(rows[:2], tmp_path / "one.png")
    heights = [Image.open(tmp_path / f"{name}.png").size[1] for name in ("one", "six")]
    assert heights[1] > heights[0] + 2 * 400


def test_the_coded_line_is_a_frontier():
    """8 bytes of 8 bits score less than 2 bytes of 1 bit: not worth their bytes."""
    rows = [
        row("tiny", "pca", 16, 0.5, "binary", bits=1),
        row("tiny", "pca", 8, 0.3, "int8", bits=8),
        row("tiny", "pca", 16, 0.6, "int8", bits=8),
        row("tiny", "first-k", 16, 0.2, "int8", bits=8),
        row("tiny", "concat", 64, 0.9, "int8", bits=8),
    ]
    best = best_coded(rows)
    assert [(r.method, r.bytes_per_vector) for r in best] == [("pca", 2), ("pca", 16)]
    assert best_coded([row("tiny", "pca", 8, 0.5)]) == []


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([0, 1, 1.5], [0.8333 - 2, 0.8333, 0.8333 + 2]),
        ([0, 10], [0, 10]),
        ([0, 0, 10, 10.5], [-1, 1, 9.25, 11.25]),
        ([0, 0.1, 1.9, 2], [-2, 0, 2, 4]),
        ([], []),
    ],
)
def test_labels_move_apart_no_further_than_they_must(heights, expected):
    assert spread(heights, 2.0) == pytest.approx(expected, abs=1e-3)


def test_the_log_is_read_and_its_best_epoch_found(tmp_path):
    logged = tmp_path / "metrics.csv"
    logged.write_text(LOGGED)
    assert run.logged_losses(logged, "train/loss") == {0: 3.0, 1: 1.0, 2: 0.5}
    assert run.logged_losses(logged, "val/loss") == {0: 2.5, 1: 1.5, 2: 1.8}
    assert run.best_epoch(run.logged_losses(logged, "val/loss")) == 1
    run.run_figure(logged, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size[0] > 800


def test_a_log_without_losses_is_refused(tmp_path):
    with pytest.raises(FusionError, match="does not exist; train first"):
        run.run_figure(tmp_path / "none.csv", tmp_path / "curves.png")
    (tmp_path / "metrics.csv").write_text("epoch,lr\n0,0.1\n")
    with pytest.raises(FusionError, match="holds no train/loss or val/loss"):
        run.run_figure(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
