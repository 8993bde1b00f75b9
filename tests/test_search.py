"""Shards are searched: the order is that of evaluation, whatever the precision."""

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_runs import DIMS, many

import fusion
from fusion import encode, search
from fusion.bulk.searching import best, blocks, index
from fusion.bulk.searching.best import Best
from fusion.bulk.searching.index import Index
from fusion.bulk.writing.precisions import FITTED, PLAIN
from fusion.errors import FusionError
from fusion.model.folder import load, load_codebook
from fusion.topk.nested import nested_topk

DIM = DIMS[2]
QUERIES = ["does the cat run", "passage 7", "query of the dog"]
CODES = [(p, "plain") for p in PLAIN] + [(p, "fitted") for p in FITTED]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("in") / "docs.jsonl"
    rows = [
        {"_id": f"d{row}", "text": text, "title": f"Page {row}", "year": 1900 + row}
        for row, text in enumerate(many(90))
    ]
    rows += [rows[3] | {"_id": "again"}, rows[3] | {"_id": "once more", "title": ""}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def written(model, source, folder, *more):
    flags = [str(model), "--input", str(source), "--output", str(folder), "--devices", "cpu"]
    flags += ["--shard-rows", "20", "--truncate-dim", str(DIM), *more]
    assert encode.main(flags) == 0
    return folder


@pytest.fixture(scope="module")
def shards(model, source, tmp_path_factory):
    root = tmp_path_factory.mktemp("vectors")
    return written(model, source, root / "int8", "--precision", "int8", "--keep", "text,title,year")


def stored(folder):
    return np.array(pq.read_table(sorted(folder.glob("*.parquet")))["embedding"].to_pylist())


def decoded(model, codes, precision, kind):
    if kind == "fitted":
        return load_codebook(model, precision, DIM).decode(codes.astype(np.uint8))
    return load(model, device="cpu").dequantize(codes, precision, DIM)


@pytest.mark.parametrize(("precision", "kind"), CODES)
@pytest.mark.parametrize("memory", [0, index.MEMORY])
def test_order_and_scores_are_those_of_the_exact_engine(
    model, source, tmp_path, monkeypatch, precision, kind, memory
):
    folder = written(model, source, tmp_path / "v", "--precision", precision, "--codes", kind)
    asked = load(model, truncate_dim=DIM, device="cpu").encode_query(QUERIES * 4)
    documents = decoded(model, stored(folder), precision, kind)
    scores, rows = nested_topk(asked, documents, [DIM], 12)
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 30)  # several blocks, of a shard or more
    opened = Index.open(folder, memory=memory)
    for queries in (asked, asked[:2], asked[:2]):  # by decoding; by tables; from memory
        found = opened.search_many(queries, 12)
        wanted = [scores[0, : len(queries)].numpy(), rows[0, : len(queries)].tolist()]
        assert [[hit.row for hit in hits] for hits in found] == wanted[1]
        np.testing.assert_allclose(
            [[h.score for h in hits] for hits in found], wanted[0], atol=1e-6
        )
    assert [hit.id for hit in found[0]] == [f"d{r}" if r < 90 else names(r) for r in wanted[1][0]]


def names(row):
    return {90: "again", 91: "once more"}[row]


def test_ndcg_of_what_is_found_is_that_of_evaluation(model, tmp_path):
    from fusion.inputs.data.judged import RetrievalData
    from fusion.measure.retrieval.config import EvaluationConfig
    from fusion.measure.retrieval.exported import evaluate_model_on
    from fusion.measure.retrieval.metrics import Judgements, ndcg_at_k

    documents = many(80)
    keys = [f"d{row:02}" for row in range(80)][::-1]
    queries = [" ".join(text.split()[:3]) for text in documents[:30]]
    qrels = {f"q{row}": {keys[row]: 1} for row in range(30)}
    data = RetrievalData("d", "test", list(qrels), queries, keys, documents, qrels)
    loaded = load(model, device="cpu")
    config = EvaluationConfig(data=("d",), dims=(DIM,), precisions=("int2", "float32"))
    book = lambda precision, dim: load_codebook(model, precision, dim)  # noqa: E731
    rows = evaluate_model_on(loaded, DIMS, [data], config, book)
    lines = [json.dumps({"_id": k, "text": t}) for k, t in zip(keys, documents, strict=True)]
    (tmp_path / "docs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    judged = Judgements.from_qrels(data.query_ids, keys, qrels)
    for row in rows:
        out = tmp_path / row.precision
        folder = written(model, tmp_path / "docs.jsonl", out, "--precision", row.precision)
        found = Index.open(folder).search_many(queries, 10)
        ranked = np.array([[hit.row for hit in hits] for hits in found])
        assert ranked.shape == (30, 10)
        assert np.nanmean(ndcg_at_k(ranked, judged)) == pytest.approx(row.ndcg_at_10, abs=1e-6)


def test_equal_rows_are_found_in_their_order_however_many_there_are(monkeypatch):
    monkeypatch.setattr(best, "PENDING", 50)
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.standard_normal((4, 8)).astype(np.float32), 500, axis=0)
    query = rows[1200] + np.float32(0.1)
    keeper = Best(query, 700, lambda codes: codes)
    cosines = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
    noise = rng.uniform(-2e-7, 2e-7, len(rows)).astype(np.float32)
    for start in range(0, 2000, 128):
        part = slice(start, start + 128)
        keeper.add(start, rows[part], (cosines + noise)[part])
    _, wanted = nested_topk(query[None], rows, [8], 700)
    assert keeper.result()[1].tolist() == wanted[0, 0].tolist()


def test_hits_bring_what_was_kept(shards):
    hit = Index.open(shards).search("Page", k=1)[0]
    row = int(hit.id.removeprefix("d")) if hit.id.startswith("d") else 3
    assert hit.fields["text"] == many(90)[row]
    assert hit.fields["year"] == str(1900 + row)
    assert fusion.Index is Index


def test_what_a_row_has_not_is_left_out(shards):
    table = pq.read_table(sorted(shards.glob("*.parquet")))
    assert table.column_names == ["id", "embedding", "text", "title", "year"]
    assert table["title"].to_pylist()[-2:] == ["Page 3", None]
    hits = Index.open(shards).search(many(90)[3], k=92)
    assert [("title" in h.fields) for h in hits if h.id == "once more"] == [False]


def lines(capsys):
    return capsys.readouterr().out.splitlines()


def test_door_prints_rank_score_title_and_text(shards, capsys):
    assert search.main([str(shards), "--query", many(90)[41], "-k", "2"]) == 0
    first, text, *_ = lines(capsys)
    hit = Index.open(shards).search(many(90)[41], k=1)[0]
    assert first == f"  1  {hit.score:.4f}  {hit.id}  {hit.fields['title']}"
    assert text.strip() == hit.fields["text"]


@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".npy"])
def test_queries_of_a_file_are_answered_as_json(model, shards, tmp_path, capsys, ending):
    path = tmp_path / f"asked{ending}"
    if ending == ".npy":
        np.save(path, load(model, device="cpu").encode_query(QUERIES)[:, :DIM])
    elif ending == ".txt":
        path.write_text("\n".join(QUERIES) + "\n", encoding="utf-8")
    else:
        rows = [{"_id": f"q{row}", "text": text} for row, text in enumerate(QUERIES)]
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert search.main([str(shards), "--queries", str(path), "-k", "3", "--json"]) == 0
    found = [json.loads(line) for line in lines(capsys)]
    wanted = [Index.open(shards).search(query, 3) for query in QUERIES]
    assert [[hit["id"] for hit in row["hits"]] for row in found] == [
        [hit.id for hit in hits] for hits in wanted
    ]
    assert found[0]["_id"] == ("q0" if ending == ".jsonl" else "1")
    assert [hit["rank"] for hit in found[0]["hits"]] == [1, 2, 3]
    assert found[0]["hits"][0]["text"]


def test_prompt_answers_line_by_line(shards, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{QUERIES[0]}\n\n{QUERIES[1]}\n"))
    assert search.main([str(shards), "-k", "1", "--json"]) == 0
    assert [json.loads(line)["query"] for line in lines(capsys)] == QUERIES[:2]


def test_more_results_than_rows_are_all_of_them(shards, capsys):
    assert search.main([str(shards), "--query", "cat", "-k", "500", "--json"]) == 0
    told = capsys.readouterr()
    assert len(json.loads(told.out)["hits"]) == 92
    assert told.err == "-k 500 is more than the 92 rows there are: all are shown\n"


def test_a_model_that_moved_or_is_another_one(model, source, shards, tmp_path, capsys):
    moved, vectors = tmp_path / "moved", tmp_path / "vectors"
    shutil.copytree(model, moved)
    shutil.copytree(shards, vectors)
    manifest = vectors / "_manifest.json"
    text = manifest.read_text(encoding="utf-8")
    assert str(model.resolve()) in text
    manifest.write_text(text.replace(str(model.resolve()), "/no/such/model"), encoding="utf-8")
    with pytest.raises(FusionError, match=r"the model of .* cannot be had: .*name it with --model"):
        Index.open(vectors)
    assert search.main([str(vectors), "--query", "cat", "--model", str(moved)]) == 0
    capsys.readouterr()
    config = moved / "fusion_config.json"
    plain = json.loads(config.read_text(encoding="utf-8"))
    plain["encoders"][0]["weight"] = 0.25
    config.write_text(json.dumps(plain), encoding="utf-8")
    assert search.main([str(vectors), "--query", "cat", "--model", str(moved)]) == 1
    assert "was encoded by another model than" in capsys.readouterr().err


def test_a_damaged_shard_is_told(shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    first, second, *_ = sorted(copy.glob("*.parquet"))
    second.write_bytes(second.read_bytes()[:-9])
    with pytest.raises(FusionError, match=rf"{second.name} cannot be read"):
        Index.open(copy).search("cat")
    second.unlink()
    with pytest.raises(FusionError, match=rf"{second.name} cannot be read"):
        Index.open(copy).search("cat")
    shutil.copy(first, second)
    pq.write_table(pq.read_table(first).slice(0, 7), second)
    with pytest.raises(FusionError, match="has 7 rows, but its manifest says 20"):
        Index.open(copy).search("cat")


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        (np.ones((1, 3), np.float32), r"have shape \[1, 3\], the rows are 16 wide"),
        (np.full((2, DIM), np.nan, np.float32), "query vector 1 holds a value that is not finite"),
    ],
)
def test_vectors_that_cannot_be_asked(shards, vectors, words):
    with pytest.raises(ValueError, match=words):
        Index.open(shards).search_many(vectors)
    with pytest.raises(ValueError, match="the query is empty"):
        Index.open(shards).search("  ")
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        Index.open(shards).search("cat", 0)


def test_a_search_imports_neither_torch_nor_pandas(shards):
    code = "import sys; from fusion.search import main; main(sys.argv[1:])\n"
    code += "print({'torch', 'pandas', 'transformers', 'pyarrow.compute'} & sys.modules.keys())"
    command = [sys.executable, "-c", code, str(shards), "--query", "the cat", "-k", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
