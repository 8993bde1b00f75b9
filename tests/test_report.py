"""What an evaluation leaves on disk: contract, tables, pictures, and nothing half-written."""

import csv
import json

import numpy as np
import pytest

from fusion.errors import FusionError
from fusion.measure import archive, report
from fusion.measure.comparisons import compare_variants, comparisons_of
from fusion.measure.page import Made, markdown
from fusion.measure.rows import MEAN, Row, Variant, mean_rows, with_intervals
from fusion.measure.summary import three_sentences
from fusion.measure.tables import terminal_table

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


def test_the_page_begins_with_three_sentences_and_how_it_was_made():
    rows = evaluation()
    made = Made(
        "python -m fusion.evaluate runs/mine --output out", "Run `mine`: a + b", "2026-11-28"
    )
    text = markdown(rows, comparisons_of(rows), made)
    blocks = text.split("\n\n")
    sentences = three_sentences(rows, comparisons_of(rows))
    assert blocks[:2] == ["# Results", "\n".join(f"- {sentence}" for sentence in sentences)]
    assert len(sentences) == 3
    assert blocks[2] == "```\npython -m fusion.evaluate runs/mine --output out\n```"
    assert blocks[3] == "Run `mine`: a + b, 2026-11-28."
    assert blocks[4].startswith("![nDCG@10")
    assert markdown(rows, []).split("\n\n")[2] == blocks[4]  # by whom is not made up


def test_markdown_has_every_data_set_and_both_families_of_tests():
    rows = evaluation()
    text = markdown(rows, comparisons_of(rows))
    above, *folds = text.split("<details><summary>")
    assert [line for line in above.splitlines() if line.startswith("## ")] == [
        "## Mean of tiny, small (80 queries)"
    ]
    assert above.count("\n| float32 |") == above.count("\n| binary |") == 1
    assert [fold.split("</summary>\n\n")[0] for fold in folds] == [
        "Tiny (40 queries)", "Small (40 queries)", "Against the full concat (10 tests)",
        "Against pca, width by width (3 tests)",
    ]  # fmt: skip
    assert all(fold.rstrip().endswith("\n\n</details>") for fold in folds)
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
