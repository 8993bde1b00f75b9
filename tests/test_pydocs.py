import pytest

from fusion.errors import FusionError
from fusion.inputs.data import pydocs

DOCSTRING = '''"""Count the words of a text quickly.

A word is whatever stands between two spaces, so that punctuation belongs to the word before it
and an empty text has none at all, which is what most people would expect.
"""
'''


@pytest.fixture(autouse=True)
def docstrings(monkeypatch):
    words = ["alpha", "beta", "gamma", "delta", "omega", "sigma", "kappa", "lambda", "theta"]
    found = []
    for row in range(300):
        body = " ".join(f"{words[(row * 7 + at * at) % 9]}{row * at % 31}" for at in range(30))
        found.append(f"Summary line of number {row} here.\n\n{body}")
    monkeypatch.setattr(pydocs, "_docstrings", lambda: tuple(found))
    monkeypatch.setattr(pydocs, "_is_prose", lambda text: True)


def test_summary_is_the_query_and_the_rest_its_document():
    data = pydocs.retrieval_data("test")
    assert len(data.queries) > 20
    for query_id, query in zip(data.query_ids, data.queries, strict=True):
        assert query.startswith("Summary line")
        (doc_id,) = data.qrels[query_id]
        assert "Summary" not in data.documents[data.doc_ids.index(doc_id)]
    assert data.doc_ids == sorted(data.doc_ids, reverse=True)


def test_splits_and_texts_share_nothing():
    seen = [set(pydocs.retrieval_data(split).documents) for split in pydocs.SPLITS]
    seen.append({text for text in pydocs.paragraphs()})
    for row, some in enumerate(seen):
        assert some
        for other in seen[row + 1 :]:
            assert not some & other


def test_near_duplicates_are_dropped():
    body = " ".join(f"word{at}" for at in range(30))
    pairs = [("first", body), ("second", body + " more"), ("third", body[::-1])]
    assert [query for query, _ in pydocs._without_near_duplicates(pairs)] == ["first", "third"]


def test_docstrings_are_parsed_not_imported(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(DOCSTRING + "raise SystemExit\n", encoding="utf-8")
    (found,) = pydocs._docstrings_in(path)
    assert pydocs._pair(found)[0] == "Count the words of a text quickly."
    path.write_text("def broken(:\n", encoding="utf-8")
    assert pydocs._docstrings_in(path) == []


def test_unknown_split_is_refused():
    with pytest.raises(FusionError, match="no split 'validation'; choose one of test, dev, train"):
        pydocs.retrieval_data("validation")
