"""What an evaluation leaves on disk: contract, tables, pictures, and nothing half-written."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from fusion.errors import FusionError
from fusion.measure import archive, report
from fusion.measure.comparisons import compare_variants, comparisons_of
from fusion.measure.curves import best_coded, height_at, spread
from fusion.measure.rows import MEAN, Row, Variant, mean_rows, with_intervals
from fusion.measure.tables import markdown, terminal_table

ENVIRONMENT = {"python": "3.11", "cpu": "a fast one", "threads": 2}
FILES = {"results.json", "results.csv", "results.md", "ndcg_vs_bytes.png", "per_query.safetensors"}


def row(data, method, dim, level, precision="float32", seed=0, bits=32) -> Row:
    """A row whose queries score around ``level``; the same noise for all methods of a data set."""
    rng = np.random.default_rng([len(data), seed])
    scores = np.clip(level + 0.1 * rng.standard_normal(40), 0, 1)
    return Row(
        data, "test", method, dim, precision, -(-dim * bits // 8), seed,
        float(scores.mean()), (0.0, 1.0), 0.5, 40, scores,
    )  # fmt: skip


def evaluation(codes: bool = True) -> list[Row]:
    """Two data sets, an encoder, the concat, PCA, and a head of two seeds that beats PCA at 8."""
    rows = []
    for data in ("tiny", "small"):
        of_data = [row(data, "encoder:minilm", 32, 0.55), row(data, "concat", 64, 0.6)]
        for dim, pca, head in ((8, 0.3, 0.4), (16, 0.45, 0.45), (64, 0.6, 0.55)):
            of_data.append(row(data, "pca", dim, pca))
            of_data += [row(data, "head", dim, head, seed=seed) for seed in (0, 1)]
            if codes:
                of_data.append(row(data, "pca", dim, pca - 0.1, "binary", bits=1))
        rows += with_intervals(of_data)
    return rows + mean_rows(rows)


def test_everything_is_written_and_read_back(tmp_path):
    rows = evaluation()
    folder = report.write_report(tmp_path / "deep" / "out", rows, ENVIRONMENT)
    assert {file.name for file in folder.iterdir()} == FILES
    assert not list((tmp_path / "deep").glob(".*")), "no draft is left behind"
    environment, again = report.read_report(folder)
    assert environment == ENVIRONMENT
    assert again == rows
    for before, after in zip(rows, again, strict=True):
        if before.per_query is None:
            assert after.per_query is None
        else:
            np.testing.assert_array_equal(before.per_query, after.per_query)


def test_json_is_the_contract(tmp_path):
    folder = report.write_report(tmp_path / "out", evaluation(), ENVIRONMENT)
    written = json.loads((folder / "results.json").read_text())
    assert written["environment"] == ENVIRONMENT
    line = written["rows"][0]
    assert line["method"] == "encoder:minilm"
    assert set(line) == {
        "data", "split", "method", "dim", "precision", "bytes_per_vector", "seed",
        "ndcg_at_10", "ndcg_at_10_ci95", "recall_at_100", "queries",
    }  # fmt: skip
    assert len(line["ndcg_at_10_ci95"]) == 2


def test_csv_holds_every_row_and_one_number_a_cell(tmp_path):
    rows = evaluation()
    folder = report.write_report(tmp_path / "out", rows, ENVIRONMENT)
    with (folder / "results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["ndcg_at_10"]) for line in lines] == [r.ndcg_at_10 for r in rows]
    assert [float(line["ndcg_at_10_ci95_high"]) for line in lines] == [
        r.ndcg_at_10_ci95[1] for r in rows
    ]
    assert lines[0]["bytes_per_vector"] == "128"


def test_any_two_methods_can_be_paired_from_the_folder(tmp_path):
    rows = evaluation()
    folder = report.write_report(tmp_path / "out", rows, ENVIRONMENT)
    _, again = report.read_report(folder)
    pair = Variant("head", 8, "float32"), Variant("pca", 8, "float32")
    assert compare_variants(again, *pair) == compare_variants(rows, *pair)


def test_an_existing_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FusionError, match="not empty; choose another or use --overwrite"):
        report.write_report(tmp_path, evaluation(), ENVIRONMENT)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
    report.write_report(tmp_path, evaluation(), ENVIRONMENT, overwrite=True)
    assert {file.name for file in tmp_path.iterdir()} == FILES | {"mine.txt"}
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_an_empty_folder_is_welcome_and_a_file_is_not(tmp_path):
    (tmp_path / "empty").mkdir()
    rows = evaluation(codes=False)
    report.write_report(tmp_path / "empty", rows, ENVIRONMENT)
    (tmp_path / "file").touch()
    with pytest.raises(FusionError, match="file is a file; choose a folder"):
        report.write_report(tmp_path / "file", rows, ENVIRONMENT, overwrite=True)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(report, "ndcg_figure", fail)
    with pytest.raises((FusionError, KeyboardInterrupt), match=r"No space left|^$"):
        report.write_report(tmp_path / "out", evaluation(), ENVIRONMENT)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_evaluation_is_named(tmp_path):
    with pytest.raises(FusionError, match=r"holds no results.json; name an evaluation's folder"):
        report.read_report(tmp_path)
    (tmp_path / "results.json").write_text('{"environment": {}, "rows": [{"data": "x"}]}')
    with pytest.raises(FusionError, match="not an intact evaluation"):
        report.read_report(tmp_path)
    (tmp_path / "results.json").write_text('{"environment": {}, "rows": []}')
    (tmp_path / "per_query.safetensors").write_bytes(b"torn")
    with pytest.raises(FusionError, match="not an intact evaluation"):
        report.read_report(tmp_path)


def test_two_rows_of_one_name_are_refused(tmp_path):
    rows = [row("tiny", "pca", 8, 0.3), row("tiny", "pca", 8, 0.4)]
    with pytest.raises(ValueError, match="two rows measure tiny/test/pca/8/float32/0"):
        archive.write_records(tmp_path, rows, ENVIRONMENT)
    with pytest.raises(ValueError, match="nothing was measured"):
        report.write_report(tmp_path / "out", [], ENVIRONMENT)


def test_terminal_table_by_hand():
    rows = [
        row("tiny", method, dim, level)
        for method, dim, level in (
            ("concat", 64, 0.6), ("pca", 8, 0.3), ("pca", 64, 0.6),
            ("head", 8, 0.4), ("head", 64, 0.6),
        )
    ]  # fmt: skip
    scores = {(r.method, r.dim): f"{r.ndcg_at_10:.4f}"[1:] for r in rows}
    assert terminal_table(rows).splitlines() == [
        "nDCG@10, tiny",
        "",
        "float32, dims      8     64",
        "bytes a vector    32    256",
        "───────────────────────────",
        f"concat                {scores['concat', 64]}",
        f"pca            {scores['pca', 8]}  {scores['pca', 64]}",
        f"head           {scores['head', 8]}* {scores['head', 64]}",
        "",
        "* the best nested method of its width",
    ]


def test_the_table_shows_the_mean_of_several_data_sets_and_seeds():
    rows = evaluation()
    table = terminal_table(rows)
    assert table.startswith("nDCG@10, mean of tiny, small\n")
    assert "head (2 seeds)" in table
    means = [r.ndcg_at_10 for r in rows if (r.data, r.method, r.dim) == (MEAN, "head", 8)]
    assert f"{np.mean(means):.4f}*".removeprefix("0") in table
    assert table.count("binary, dims") == 1


def test_markdown_has_every_data_set_and_both_families_of_tests():
    rows = evaluation()
    text = markdown(rows, comparisons_of(rows))
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Mean of tiny, small (80 queries)", "## Tiny (40 queries)", "## Small (40 queries)",
        "## Against the full concat", "## Against pca, width by width",
    ]  # fmt: skip
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    for table in tables:
        assert len({line.count("|") for line in table}) == 1, "every line has all its cells"
    assert len(tables) == 3 * 2 + 2


def test_comparisons_are_the_paired_tests():
    rows = evaluation()
    lines = comparisons_of(rows)
    to_pca = [line for line in lines if line["against"]["method"] == "pca"]
    assert [(line["method"], line["dim"]) for line in to_pca] == [
        ("head", 8), ("head", 16), ("head", 64),
    ]  # fmt: skip
    alone = compare_variants(rows, Variant("head", 8, "float32"), Variant("pca", 8, "float32"))
    assert to_pca[0]["difference"] == alone.difference > 0.05
    assert to_pca[0]["p_value"] == alone.p_value < to_pca[0]["p_holm"] < 0.05
    to_concat = [line for line in lines if line["against"]["method"] == "concat"]
    assert len(to_concat) == len({r.variant for r in rows}) - 1
    assert all(line["against"]["dim"] == 64 for line in to_concat)
    json.dumps(lines, allow_nan=False)


@pytest.mark.parametrize("codes", [False, True])
def test_the_figure_is_a_picture_with_every_methods_colour(tmp_path, codes):
    report.ndcg_figure(evaluation(codes), tmp_path / "figure.png")
    pixels = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB")).reshape(-1, 3)
    for method in ("pca", "head"):
        colour = report.STYLES[method][0]
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == wanted).all(axis=1).sum() > 500


def test_a_figure_of_one_data_set_or_without_concat_or_float32(tmp_path):
    rows = [row("tiny", "new", dim, 0.3, "int8", bits=8) for dim in (8, 16)]
    report.ndcg_figure(rows, tmp_path / "codes-only.png")
    report.ndcg_figure([row("tiny", "encoder:minilm", 32, 0.5)], tmp_path / "encoder-only.png")
    assert (tmp_path / "codes-only.png").stat().st_size > 5000


def test_a_figure_of_many_data_sets_has_several_lines_of_small_ones(tmp_path):
    rows = [row(f"set{i}", "pca", dim, 0.5) for i in range(6) for dim in (8, 16)]
    report.ndcg_figure(rows + mean_rows(rows), tmp_path / "six.png")
    report.ndcg_figure(rows[:2], tmp_path / "one.png")
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


def test_the_loss_figure_marks_the_best_epoch(tmp_path):
    logged = tmp_path / "metrics.csv"
    logged.write_text(
        "epoch,step,train/loss,val/loss\n"
        "0,10,4.0,\n0,20,2.0,\n0,20,,2.5\n1,40,1.0,\n1,40,,1.5\n2,60,0.5,\n2,60,,1.8\n"
    )
    assert report._losses(logged, "train/loss") == {0: 3.0, 1: 1.0, 2: 0.5}
    assert report._losses(logged, "val/loss") == {0: 2.5, 1: 1.5, 2: 1.8}
    assert report.best_epoch(report._losses(logged, "val/loss")) == 1
    report.loss_figure(logged, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size[0] > 800


def test_a_log_without_losses_is_refused(tmp_path):
    with pytest.raises(FusionError, match="does not exist; train first"):
        report.loss_figure(tmp_path / "none.csv", tmp_path / "curves.png")
    (tmp_path / "metrics.csv").write_text("epoch,lr\n0,0.1\n")
    with pytest.raises(FusionError, match="holds no train/loss or val/loss"):
        report.loss_figure(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_the_height_of_a_line_is_straight_in_the_logarithm_of_bytes():
    line = [row("tiny", "pca", 8, 0.3), row("tiny", "pca", 32, 0.5)]
    middle = (line[0].ndcg_at_10 + line[1].ndcg_at_10) / 2
    assert height_at(line, 64) == pytest.approx(middle)
    assert height_at(line, 31) == height_at(line, 129) == np.inf
