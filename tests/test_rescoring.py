"""Candidates of a database are put in the order of finer codes."""

import json

import numpy as np
import pytest
from tiny_runs import DIMS, many

import fusion
from fusion import encode
from fusion.bulk.searching.index import Index
from fusion.errors import FusionError

QUERY = "does the dog run"


@pytest.fixture(scope="module")
def shards(model, tmp_path_factory):
    root = tmp_path_factory.mktemp("rescored")
    rows = [{"_id": f"d{row}", "text": text} for row, text in enumerate(many(60))]
    rows.append({"_id": "d7", "text": "the same id again"})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "docs.jsonl").write_text(lines, encoding="utf-8")
    flags = [str(model), "--input", str(root / "docs.jsonl"), "--output", str(root / "int4")]
    flags += ["--precision", "int4", "--codes", "fitted", "--truncate-dim", str(DIMS[2])]
    flags += ["--devices", "cpu", "--shard-rows", "16", "--keep", "text"]
    assert encode.main(flags) == 0
    return root / "int4"


def test_the_best_of_the_candidates_come_in_the_order_of_a_search(shards):
    whole = Index.open(shards).search(QUERY, 61)
    chosen = {f"d{row}" for row in range(3, 60, 7)}
    wanted = [hit for hit in whole if hit.id in chosen]
    found = fusion.rescore(QUERY, sorted(chosen), shards, k=5)
    assert found == wanted[:5]
    assert found[0].fields["text"]
    rows = [hit.row for hit in wanted][::-1]
    rescorer = fusion.Rescorer(Index.open(shards))
    vector = Index.open(shards).vectors([QUERY])[0]
    for asked in (QUERY, vector):
        for candidates in (rows, np.array(rows), rows + rows):
            assert fusion.rescore(asked, candidates, rescorer, k=50) == wanted


@pytest.mark.parametrize("memory", [0, 100, 2**20])
def test_memory_does_not_change_what_is_found(shards, memory):
    rescorer = fusion.Rescorer(Index.open(shards, memory=memory))
    keys = [f"d{row}" for row in range(0, 60, 2)]
    first = rescorer.rescore(QUERY, keys, 9)
    assert rescorer.rescore(QUERY, keys, 9) == first == fusion.rescore(QUERY, keys, shards, k=9)


def test_an_id_that_occurs_twice_is_the_first_row(shards):
    (hit,) = fusion.rescore(QUERY, ["d7"], shards)
    assert hit.row == 7


def test_no_candidates_give_no_hits(shards):
    assert fusion.rescore(QUERY, [], shards) == []


@pytest.mark.parametrize(
    ("candidates", "words"),
    [
        (["d1", "zz"], r"there is no id 'zz': .*int4 has 61 rows"),
        ([3, 61], r"there is no row 61: .*int4 has 61 rows"),
        ([-1], r"there is no row -1"),
    ],
)
def test_candidates_of_other_documents_are_refused(shards, candidates, words):
    with pytest.raises(FusionError, match=words):
        fusion.rescore(QUERY, candidates, shards)
