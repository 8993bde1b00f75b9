"""One encoding for every width, in the hands of mteb and sentence-transformers."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("mteb")
PATH = Path(__file__).parents[1] / "experiments" / "clients" / "all_widths.py"
spec = importlib.util.spec_from_file_location("all_widths", PATH)
all_widths = importlib.util.module_from_spec(spec)
spec.loader.exec_module(all_widths)

QUERIES = np.array([[1, 0, 0, 5], [0, 1, 5, 0]], np.float32)
DOCUMENTS = np.array([[1, 0, 5, 0], [0, 1, 0, 0], [1, 1, 0, 9]], np.float32)


def searcher(monkeypatch):
    whole = all_widths.NestedSearch(SimpleNamespace(), [4, 2])
    encoded = []

    def encode(texts, role, where):
        encoded.append(role)
        return QUERIES if role == "query" else DOCUMENTS

    monkeypatch.setattr(whole, "_encode", encode)
    return whole, encoded


def test_every_width_comes_from_one_encoding(monkeypatch):
    whole, encoded = searcher(monkeypatch)
    corpus, queries = {"id": ["a", "b", "c"]}, {"id": ["p", "q"]}
    where = {"task_metadata": SimpleNamespace(name="t"), "hf_subset": "s", "hf_split": "test"}
    hits = {d: whole.search(corpus, queries, 3, where)[d] for d in whole.dims}
    assert sorted(encoded) == ["document", "query"]
    for dim, of_dim in hits.items():
        for query, row in zip(["p", "q"], QUERIES[:, :dim], strict=True):
            for name, document in zip("abc", DOCUMENTS[:, :dim], strict=True):
                cosine = row @ document / np.linalg.norm(row) / np.linalg.norm(document)
                assert of_dim[query][name] == pytest.approx(cosine, abs=1e-6)
    whole.search(corpus, queries, 3, where | {"hf_split": "dev"})
    assert len(encoded) == 4  # another split is another data set


def test_score_functions_are_the_cosines_of_the_prefixes():
    functions = all_widths.score_functions([2, 4])
    a, b = torch.from_numpy(QUERIES), torch.from_numpy(DOCUMENTS)
    for dim in (2, 4):
        expected = torch.cosine_similarity(a[:, None, :dim], b[None, :, :dim], dim=-1)
        torch.testing.assert_close(functions[f"cosine_{dim}"](a, b), expected)


def test_a_width_that_was_not_asked_for_is_refused():
    with pytest.raises(ValueError, match=r"dim must be one of \(2, 4\), got 3"):
        all_widths.NestedSearch(SimpleNamespace(), [2, 4]).at(3)


def test_only_the_float64_order_excuses_a_difference():
    found = {"all_widths": {2: {"m": 0.5}}, "width_by_width": {2: {"m": 0.6}}}
    assert all_widths.unexplained(found, {2: {"m": 0.5}}) == []
    assert all_widths.unexplained(found, {2: {"m": 0.6}}) == ["m at 2"]
