from dataclasses import replace

import numpy as np
import pytest

from fusion.errors import FusionError
from fusion.measure.retrieval.budget import choose
from fusion.measure.retrieval.sets import sets_to_choose_on
from fusion.measure.rows import Row


def row(method, size, score, split="dev", seed=0):
    rng = np.random.default_rng(size)
    noise = rng.normal(0, 0.01, 50)
    precision = "float32" if method == "concat" else "int8"
    return Row("d", split, method, size, precision, size, seed, score, (score - 0.1, score + 0.1),
               0.9, 50, score + noise - noise.mean())  # fmt: skip


def rows(split, shift=0.0):
    scores = {("pca", 16): 0.3, ("head", 16): 0.4, ("pca", 64): 0.45, ("concat", 256): 0.5}
    return [row(m, d, s + shift, split) for (m, d), s in scores.items()]


def test_best_within_the_budget_is_chosen_on_one_split_and_confirmed_on_another():
    reported = [row("pca", 16, 0.6, "test"), *rows("test", -0.1)[1:]]  # pca is best on test only
    choice = choose(rows("dev"), reported, budget=63)
    assert (choice.confirmed.method, choice.confirmed.bytes_per_vector) == ("head", 16)
    assert choice.confirmed.split == "test"
    assert choice.distance.difference == pytest.approx(-0.1, abs=1e-6)
    assert "head, 16 dims, int8 (16 bytes, 16 times smaller), chosen on d dev" in str(choice)
    assert "75.0% of the full concat's 0.4000" in str(choice)


def test_the_full_concat_is_never_a_coded_one():
    coded = replace(row("concat", 8, 0.1, "test"), precision="binary")
    choice = choose([coded, *rows("dev")], [coded, *rows("test")], budget=63)
    assert choice.full.bytes_per_vector == 256
    with pytest.raises(FusionError, match="within 15 bytes a vector; the smallest has 16"):
        choose([coded, *rows("dev")], rows("test"), budget=15)
    with pytest.raises(FusionError, match="nothing but the concat was measured"):
        choose(rows("dev")[-1:], rows("test"), budget=999)


def test_a_concat_that_finds_nothing_has_no_share():
    nothing = [*rows("test")[:-1], row("concat", 256, 0.0, "test")]
    assert "nan% of the full concat's 0.0000" in str(choose(rows("dev"), nothing, budget=63))


def test_a_larger_budget_takes_the_larger_vector():
    assert choose(rows("dev"), rows("test"), budget=64).confirmed.method == "pca"
    # The concat is what a choice is compared with, not a choice.
    assert choose(rows("dev"), rows("test"), budget=1000).confirmed.method == "pca"


def test_budget_that_nothing_fits_names_the_smallest():
    with pytest.raises(FusionError, match="within 15 bytes a vector; the smallest has 16"):
        choose(rows("dev"), rows("test"), budget=15)


def test_data_without_another_split_cannot_fill_a_budget(tmp_path):
    with pytest.raises(FusionError, match="has a dev or train split to choose on"):
        sets_to_choose_on([str(tmp_path)], "test")


def test_a_damaged_split_is_not_passed_over(tmp_path):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "text": "a"}\n', encoding="utf-8")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "a"}\n', encoding="utf-8")
    (tmp_path / "qrels" / "train.tsv").write_text("q\td\t1\n", encoding="utf-8")
    assert [data.split for data in sets_to_choose_on([str(tmp_path)], "test")] == ["train"]
    (tmp_path / "qrels" / "dev.tsv").write_text("q\td\n", encoding="utf-8")
    with pytest.raises(FusionError, match=r"dev\.tsv:1 is not 'query-id"):
        sets_to_choose_on([str(tmp_path)], "test")
    (tmp_path / "qrels" / "dev.tsv").write_text("stranger\td\t1\n", encoding="utf-8")
    with pytest.raises(FusionError, match="no query is judged in the split 'dev'"):
        sets_to_choose_on([str(tmp_path)], "test")
    assert [data.split for data in sets_to_choose_on([str(tmp_path)], "dev")] == ["train"]
