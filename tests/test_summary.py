"""The three sentences of an evaluation say what its rows say, whatever was measured."""

from dataclasses import replace

import pytest
from test_report import row

from fusion.measure.comparisons import comparisons_of
from fusion.measure.rows import mean_rows
from fusion.measure.statistics import RESAMPLES
from fusion.measure.summary import three_sentences


def at(level, method, dim, precision="float32", bits=32, data="tiny", seed=0):
    """A row that scores exactly this."""
    made = row(data, method, dim, level, precision, seed, bits)
    shift = level - made.ndcg_at_10
    return replace(made, ndcg_at_10=level, per_query=made.per_query + shift)


def said(rows):
    return three_sentences(rows, comparisons_of(rows))


def test_every_number_of_a_whole_evaluation_by_hand():
    rows = [
        at(0.5, "concat", 64), at(0.48, "encoder:minilm", 32),
        at(0.3, "pca", 8), at(0.45, "pca", 16), at(0.5, "pca", 64),
        at(0.4, "head", 8), at(0.496, "head", 16), at(0.55, "head", 64),
    ]  # fmt: skip
    kept, beaten, cheapest = said(rows)
    assert kept == (
        "The full concat (64 dims) scores .5000 in 256 bytes; 32 bytes keep 80.0 % of it (head, 8 "
        "dims, float32) and 64 bytes keep 99.2 % of it (head, 16 dims, float32)."
    )
    assert beaten == (
        "Paired tests show beyond chance (p below .05 after Holm): head at 8, 16 and 64 dims "
        "better than pca; head at 64 dims better than the full concat; 5 of 7 vectors worse than "
        "the full concat."
    )
    assert cheapest == (
        "By these scores the cheapest vector within 1 % of full is head, 16 dims, float32: 64 "
        "bytes, 4 times smaller, 99.2 % of the score."
    )


def test_codes_are_vectors_too_also_the_concats_and_an_encoders():
    rows = [
        at(0.5, "concat", 64), at(0.497, "concat", 64, "int8", 8), at(0.2, "pca", 8),
        at(0.499, "encoder:minilm", 16), at(0.45, "pca", 64, "binary", 1),
    ]  # fmt: skip
    kept, beaten, cheapest = said(rows)
    assert "8 bytes keep 90.0 % of it (pca, 64 dims, binary)" in kept
    assert "64 bytes keep 99.8 % of it (minilm alone, 16 dims, float32)" in kept
    assert "pca, 8 dims" not in kept  # 32 bytes that keep less than 8 do
    assert "minilm alone, 16 dims, float32: 64 bytes, 4 times smaller" in cheapest
    assert "no difference" not in beaten
    assert beaten.endswith("nothing better than the full concat; 4 of 4 vectors worse than the "
                           "full concat.")  # fmt: skip


def test_no_significant_difference_is_said_to_be_none():
    rows = [
        made
        for dim in (8, 64)
        for made in (row("tiny", "pca", dim, 0.5), row("tiny", "head", dim, 0.5))
    ]
    rows.append(row("tiny", "concat", 64, 0.5))
    _, beaten, _ = said(rows)
    assert beaten.endswith(
        "after Holm): no difference from pca; no difference from the full concat."
    )


def test_losses_to_pca_are_named_and_codes_are_counted():
    rows = [
        at(0.5, "pca", 8), at(0.4, "head", 8), at(0.5, "pca", 16, "int8", 8),
        at(0.55, "head", 16, "int8", 8),
    ]  # fmt: skip
    _, beaten, _ = said(rows)
    assert "1 coded vector better than pca; head at 8 dims worse than pca." in beaten


def test_more_tests_than_swaps_can_tell_apart_are_said_to_show_nothing():
    line = {
        "method": "head", "dim": 8, "precision": "float32", "difference": 0.2, "p_holm": 0.051,
        "against": {"method": "pca", "dim": 8, "precision": "float32"},
    }  # fmt: skip
    many = [line] * (RESAMPLES // 20 + 1)
    _, beaten, _ = three_sentences([at(0.5, "pca", 8)], many)
    assert "nothing against pca, as 501 tests are too many for that." in beaten


@pytest.mark.parametrize("method", ["model", "pca"])
def test_one_method_alone_is_measured_by_its_full_width(method):
    rows = [at(0.5, method, 64), at(0.49, method, 16), at(0.496, method, 64, "int8", 8)]
    kept, beaten, cheapest = said(rows)
    assert kept.startswith(f"The full width of {method} (64 dims) scores .5000 in 256 bytes; 64 ")
    assert beaten.startswith("No two methods were compared")
    assert f"{method}, 64 dims, int8: 64 bytes, 4 times smaller, 99.2 %" in cheapest


def test_without_a_full_score_no_share_is_made_up():
    rows = [at(0.4, "pca", 8), at(0.45, "head", 8), at(0.44, "head", 8, "int8", 8)]
    kept, beaten, cheapest = said(rows)
    assert kept == (
        "The full concat was not measured in float32, so no share of it can be told: the best "
        "score is .4500 in 32 bytes (head, 8 dims, float32)."
    )
    assert "head at 8 dims better than pca" in beaten
    assert cheapest.startswith("Without a full score no vector can be called")
    zero = [at(0.0, "concat", 64), at(0.0, "pca", 8)]
    assert "The full concat (64 dims) scores 0, so no share" in said(zero)[0]


def test_full_alone_has_nothing_smaller():
    kept, beaten, cheapest = said([at(0.5, "concat", 64)])
    assert (
        kept == "The full concat (64 dims) scores .5000 in 256 bytes; nothing smaller was measured."
    )
    assert beaten.startswith("No two methods were compared")
    assert cheapest.startswith("Nothing smaller than full was measured")


def test_what_misses_one_per_cent_by_a_hair_is_not_rounded_into_it():
    _, _, cheapest = said([at(0.5, "concat", 64), at(0.49499, "pca", 16), at(0.4, "pca", 8)])
    assert cheapest == (
        "No smaller vector comes within 1 % of full; the best of them is pca, 16 dims, float32: "
        "64 bytes, 98.9 % of the score."
    )


def test_several_data_sets_and_seeds_are_averaged():
    rows = []
    for data, full, of_seeds in (("tiny", 0.6, (0.3, 0.5)), ("small", 0.4, (0.2, 0.4))):
        rows.append(at(full, "concat", 64, data=data))
        rows += [at(s, "head", 8, data=data, seed=seed) for seed, s in enumerate(of_seeds)]
    kept, _, _ = said(rows + mean_rows(rows))
    assert "scores .5000" in kept
    assert "32 bytes keep 70.0 % of it" in kept
