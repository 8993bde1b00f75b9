"""Two stages: one vector a text finds, token vectors order anew, no label sets the weight."""

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny_models import build_tiny_bert

from fusion import evaluate, export, train
from fusion.inputs.data.hub import Document
from fusion.inputs.data.judged import RetrievalData
from fusion.inputs.data.pseudo import pseudo_data
from fusion.measure.report import read_report
from fusion.measure.retrieval.blending import blended, choose_weight, reranked, token_scores
from fusion.ragged import Ragged

RNG = np.random.default_rng(0)
VOCABULARY = tuple(f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in "nprst")


def ragged(counts, d, seed):
    rows = np.random.default_rng(seed).standard_normal((sum(counts), d)).astype(np.float32)
    return Ragged(rows, np.cumsum([0, *counts]))


def cosine_maxsim(query, document, d):
    """The definition, a token at a time."""
    best = []
    for q in query[:, :d].astype(np.float64):
        best.append(max(q @ t / np.linalg.norm(q) / np.linalg.norm(t)
                        for t in document[:, :d].astype(np.float64)))  # fmt: skip
    return np.mean(best)


def test_scores_stand_beside_their_candidates_whatever_their_order():
    queries, documents = ragged([3, 1, 4], 8, 1), ragged([2, 5, 0, 1, 3], 8, 2)
    candidates = np.array([[4, 0, 1, -1], [1, 2, 3, 0], [3, -1, -1, -1]])
    found = token_scores(queries, documents, candidates, [4, 8])
    for level, d in enumerate([4, 8]):
        for q in range(3):
            for place, document in enumerate(candidates[q]):
                if document in (-1, 2):
                    assert found[level, q, place] == -np.inf
                else:
                    wanted = cosine_maxsim(queries[q], documents[int(document)], d)
                    assert abs(found[level, q, place] - wanted) < 1e-5


def test_a_query_without_tokens_leaves_its_ranking_alone():
    queries, documents = ragged([2, 0, 3], 8, 1), ragged([2, 5, 1], 8, 2)
    candidates = np.array([[0, 1, 2], [2, 0, 1], [1, 0, 2]])
    scores = token_scores(queries, documents, candidates, [8])[0]
    assert (scores[1] == -np.inf).all()
    assert np.isfinite(scores[[0, 2]]).all()
    cosines = np.tile(np.float32([0.9, 0.8, 0.7]), (3, 1))
    assert reranked(candidates, blended(cosines, scores, 100.0))[1].tolist() == [2, 0, 1]


def test_blending_adds_and_lifts_no_document_that_has_no_tokens():
    cosines = np.float32([[0.9, 0.8, 0.7]])
    maxsims = np.float32([[0.1, -np.inf, 0.5]])
    found = blended(cosines, maxsims, 2.0)
    assert np.allclose(found, [[1.1, 1.0, 1.7]])  # the second counts as 0.1, the least
    assert reranked(np.array([[7, 3, 5, 9]]), found).tolist() == [[5, 7, 3, 9]]


def test_ties_go_to_the_lower_index_and_empty_places_stay_last():
    indices = np.array([[7, 3, 5, -1]])
    scores = np.float32([[0.5, 0.5, 0.9, 2.0]])
    assert reranked(indices, scores).tolist() == [[5, 3, 7, -1]]
    assert reranked(indices, scores[:, :2]).tolist() == [[3, 7, 5, -1]]


def pairs(q, n, gain):
    """Cosines that are noise, and MaxSim that says ``gain`` of what is right."""
    rng = np.random.default_rng(1)
    right = np.zeros((q, n), bool)
    right[np.arange(q), rng.integers(0, n, q)] = True
    cosines = rng.standard_normal((q, n)) * 0.1 + right * 0.2
    maxsims = rng.standard_normal((q, n)) * 0.1 + right * gain
    order = np.argsort(-cosines, axis=1)
    return [np.take_along_axis(a, order, 1).astype(t) for a, t in
            ((cosines, np.float32), (maxsims, np.float32), (right, bool))]  # fmt: skip


def test_the_weight_is_what_the_pseudo_queries_bear_out():
    assert choose_weight(*pairs(500, 50, 0.0)) < 0.1  # noise is left out
    assert 0.4 < choose_weight(*pairs(500, 50, 0.2)) < 2.5  # as good as the cosine: about 1
    assert 1.5 < choose_weight(*pairs(500, 50, 0.4)) < 4  # twice as good: about 2
    cosines, maxsims, right = pairs(500, 50, 0.2)
    assert choose_weight(cosines, maxsims, right & False) == 0  # nothing to tell by
    assert choose_weight(*(part[:3] for part in (cosines, maxsims, right))) == 0  # too little


def test_a_second_stage_that_ranks_no_better_has_no_weight():
    for seed in range(5):
        cosines, _, right = pairs(200, 20, 0.0)
        noise = np.random.default_rng(seed).standard_normal(cosines.shape).astype(np.float32)
        assert choose_weight(cosines, noise / 10, right) == 0


def test_pseudo_queries_find_rests_among_all_other_documents():
    rest = " ".join(f"word{i}" for i in range(20))
    documents = {
        "b": Document("A title", f"{rest} one"),
        "a": Document("", f"This is the first sentence here. {rest.title()} two"),
        "0": Document("", "too short"),
    }
    ids = sorted(documents, reverse=True)
    whole = [documents[key].whole for key in ids]
    data = RetrievalData("mine", "test", ["q"], ["query"], ids, whole, {"q": {"a": 1}})
    found = pseudo_data(data, documents, 10)
    assert found.queries == ["A title", "This is the first sentence here."]
    assert found.rests == [f"{rest} one", f"{rest.title()} two"]
    assert found.documents == [*whole, *found.rests]
    assert found.exclude.tolist() == [0, 1]
    assert found.qrels == {"query-0": {"rest-0": 1}, "query-1": {"rest-1": 1}}
    nothing = RetrievalData("mine", "test", ["q"], ["query"], ["0"], ["too short"], {})
    assert pseudo_data(nothing, documents, 10) is None


def test_queries_as_long_as_documents_are_judged_by_halves():
    words = [f"w{i}" for i in range(31)]
    documents = {"b": Document("", " ".join(words)), "a": Document("", "too short")}
    whole = [documents[key].whole for key in ("b", "a")]
    data = RetrievalData("mine", "test", ["q"], [" ".join(words[:29])], ["b", "a"], whole, {})
    found = pseudo_data(data, documents, 10)
    assert found.queries == [" ".join(words[:15])]
    assert found.rests == [" ".join(words[15:])]
    assert found.exclude.tolist() == [0]


def sentence(rng, words):
    return " ".join(rng.choice(VOCABULARY, words)).capitalize() + "."


def text_of(rng):
    """A first sentence, and a second one that says its words again among others."""
    first = sentence(rng, 5)
    second = rng.permutation([*first.lower().rstrip(".").split(), *rng.choice(VOCABULARY, 11)])
    return f"{first} {' '.join(second).capitalize()}."


def build_lexical(folder):
    """A BERT whose token vectors are its words' own: neither place nor neighbours change them."""
    path = build_tiny_bert(folder, extra_words=VOCABULARY)
    model = SentenceTransformer(str(path), device="cpu")
    bert = model[0].auto_model
    with torch.no_grad():
        bert.embeddings.position_embeddings.weight.zero_()
        for layer in bert.encoder.layer:
            for part in (layer.attention.output.dense, layer.output.dense):
                part.weight.zero_()
                part.bias.zero_()
    model.save_pretrained(str(path), create_model_card=False)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus whose queries are scattered words of their documents, and two runs over it."""
    root = tmp_path_factory.mktemp("rerank")
    rng = np.random.default_rng(0)
    texts = [text_of(rng) for _ in range(90)]
    asked = [" ".join(rng.permutation(text.replace(".", "").split())[:3]) for text in texts[:40]]
    data = root / "letters"
    (data / "qrels").mkdir(parents=True)
    for name, rows in (
        ("corpus", [{"_id": f"d{i:02}", "title": "", "text": t} for i, t in enumerate(texts)]),
        ("queries", [{"_id": f"q{i}", "text": t} for i, t in enumerate(asked)]),
    ):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (data / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    lines = "".join(f"q{i}\td{i:02}\t1\n" for i in range(40))
    (data / "qrels" / "test.tsv").write_text(
        f"query-id\tcorpus-id\tscore\n{lines}", encoding="utf-8"
    )
    encoder = build_lexical(root / "bert")
    common = [
        "--encoders",
        str(encoder),
        "--texts",
        f"data:{data}",
        "--epochs",
        "1",
        "--batch-size",
        "32",
    ]
    assert train.main([*common, "--dims", "8,16", "--output", str(root / "one")]) == 0
    many = ["--tokens", "--token-rows", "2048", "--dims", "4,8,16", "--output", str(root / "many")]
    assert train.main([*common, *many]) == 0
    return root


def test_both_stages_end_to_end(place, capfd):
    """Token vectors find scattered words that one vector lost; results say how and by how much."""
    out = place / "out"
    arguments = [
        str(place / "one"), "--rerank", str(place / "many"), "--data", str(place / "letters"),
        "--rerank-dims", "8,16", "--rerank-precisions", "float16,binary", "--rerank-top", "20",
        "--dims", "16", "--rerank-vectors", "4,100", "--output", str(out),
    ]  # fmt: skip
    assert evaluate.main(arguments) == 0
    printed = capfd.readouterr().out
    assert "letters: concat, 16 dims, float32 (64 B) + pca" in printed
    _, rows = read_report(out)
    plain = [row for row in rows if row.rerank is None]
    second = [row for row in rows if row.rerank is not None]
    assert {row.method for row in plain} == {"concat", "head"}
    assert len(second) == 2 * 2 * 2 * 2  # first stages, widths, precisions, numbers of vectors
    for row in second:
        stage = row.rerank
        size = {"float16": 2 * stage.dim, "binary": stage.dim / 8}[stage.precision]
        assert stage.bytes_per_document == pytest.approx(stage.vectors_per_document * size)
        assert row.bytes_per_vector == 64 + round(stage.bytes_per_document)
        assert stage.weight >= 0
        assert stage.vectors_per_document == 4 or "100x" in row.method
        assert (stage.run, stage.top) == ("many", 20)
        [alone] = [r for r in plain if r.method == row.method.partition("+")[0]]
        assert row.recall_at_100 == alone.recall_at_100  # only the order of the first 20 changes
    [best] = [r for r in second if r.rerank.dim == 16 and r.rerank.precision == "float16"
              and r.method.startswith("concat+tokens:pca-100x")]  # fmt: skip
    [alone] = [r for r in plain if r.method == "concat"]
    assert best.ndcg_at_10 > alone.ndcg_at_10
    report = json.loads((out / "results.json").read_text(encoding="utf-8"))
    tests = [line for line in report["comparisons"] if "+tokens:" in line["method"]]
    assert len(tests) == len(second)
    assert all(line["against"]["method"] in ("concat", "head") for line in tests)
    assert "rerank" not in report["rows"][0]
    assert "## Two stages" in (out / "results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["one", "--rerank", "one"], "is a run of one vector a text: make one with fusion.train"),
        (["many"], "is a run of token vectors"),
        (["one", "--rerank-top", "5"], "--rerank-top needs --rerank TOKEN_RUN"),
        (["one", "--rerank", "many", "--rerank-dims", "32"], "dims go up to 32, but"),
        (["one", "--rerank", "many", "--rerank-top", "0"], "rerank_top must be from 1 to"),
        (["one", "--rerank", "many", "--rerank-method", "x"], "rerank_method 'x' is unknown"),
        (["one", "--rerank", "many", "--rerank-precisions", "float32"], "kept in float16, not"),
        (["one", "--rerank", "many", "--budget", "9"], "--budget and --rerank exclude"),
    ],
)
def test_what_cannot_be_is_one_line(place, arguments, words, capfd):
    named = [str(place / a) if a in ("one", "many") else a for a in arguments]
    out = place / "nothing"
    assert evaluate.main([*named, "--data", str(place / "letters"), "--output", str(out)]) == 2
    error = capfd.readouterr().err.splitlines()
    assert len(error) == 1
    assert words in error[0]
    assert not out.exists()


def test_a_run_of_tokens_is_no_model(place, capfd):
    arguments = [str(place / "many"), "--output", str(place / "model")]
    assert export.main(arguments) == 2
    assert "is a run of token vectors, and a model gives one" in capfd.readouterr().err
    assert not (place / "model").exists()


def test_training_on_tokens_says_what_they_are_for(place, capfd, caplog):
    out = str(place / "again")
    encoder = str(place / "bert" / "model")
    arguments = ["--encoders", encoder, "--texts", f"data:{place / 'letters'}", "--dims", "8"]
    few = ["--tokens", "words", "--token-rows", "512", "--epochs", "1", "--output", out]
    assert train.main([*arguments, *few]) == 0
    assert f"evaluate RUN --rerank {out}" in capfd.readouterr().out
    assert "fitted on 512 of 672 tokens (words) of 32 of 90 texts" in caplog.text
    config = (place / "again" / "config.yaml").read_text(encoding="utf-8")
    assert "tokens:\n- words\ntoken_rows: 512" in config


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tokens", "nouns"], "tokens 'nouns' are unknown; choose among words,punctuation"),
        (["--tokens", "words,words"], "tokens names a kind twice"),
        (["--tokens", "--token-rows", "3"], "token_rows must be at least 16, got 3"),
    ],
)
def test_kinds_of_tokens_that_are_none(place, arguments, words, capfd):
    out = ["--texts", "pydocs", "--output", str(place / "none")]
    assert train.main(["--encoders", str(place / "bert" / "model"), *arguments, *out]) == 2
    assert words in capfd.readouterr().err
