"""One vector a token: what an encoder says of them, what is kept, and what the store gives back."""

import numpy as np
import pytest
import torch

from fusion.errors import FusionError
from fusion.inputs.encoders import tokens as tokens_module
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.text import load_encoder
from fusion.inputs.encoders.tokens import TokenKind, check_tokens, kept
from fusion.inputs.store import tokens as store_module
from fusion.inputs.store.store import Store

DOCS = ["the cat sleeps, and the dog runs.", "!", "", "dog " * 60, "zebra", "the cat"]
WORDS, MARKS, SPECIAL, PROMPT = range(4)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(store_module, "TOKEN_CHUNK", 2)


@pytest.fixture(scope="module")
def encoder(tiny_encoder):
    return load_encoder(str(tiny_encoder), "float32", "cpu")


def alone(encoder, text, role):
    """Vectors [t, D] and pieces of a text, by transformers alone."""
    transformer = encoder.model[0]
    tokenizer = encoder.model.tokenizer
    inputs = tokenizer(
        encoder.card.prompt(role) + text, truncation=True, max_length=32, return_tensors="pt"
    )
    with torch.inference_mode():
        states = transformer.auto_model(**inputs).last_hidden_state[0]
    return states.numpy(), tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])


@pytest.mark.parametrize("role", list(Role))
def test_every_token_is_what_transformers_says_of_the_text_alone(encoder, role):
    found = encoder.encode_tokens(DOCS, role)
    assert found.vectors.rows.dtype == np.float16
    for text, (start, stop) in enumerate(
        zip(found.vectors.offsets, found.vectors.offsets[1:], strict=False)
    ):
        states, pieces = alone(encoder, DOCS[text], role)
        assert np.allclose(found.vectors[text], states, atol=2e-3)
        wanted = [
            SPECIAL if piece in ("[CLS]", "[SEP]") else MARKS if piece in ",.!:" else WORDS
            for piece in pieces
        ]
        wanted[1:3] = [PROMPT, PROMPT]  # "query :" or "passage :"
        assert found.kinds[start:stop].tolist() == wanted
    assert found.lengths.tolist() == [13, 5, 4, 64, 9, 6]


def test_the_mean_of_the_tokens_is_the_text(encoder):
    found = encoder.encode_tokens(DOCS, Role.DOCUMENT)
    pooled = encoder.encode(DOCS, Role.DOCUMENT)
    means = [found.vectors[i].astype(np.float32).mean(axis=0) for i in range(len(DOCS))]
    assert np.allclose(means, pooled, atol=2e-3)


def test_a_text_that_would_be_left_with_no_token_keeps_all():
    kinds = np.array([SPECIAL, WORDS, MARKS, SPECIAL, MARKS, SPECIAL], np.uint8)
    offsets = np.array([0, 4, 4, 6])  # the second has none to begin with
    assert kept(kinds, offsets, [TokenKind.WORDS]).tolist() == [0, 1, 0, 0, 1, 1]
    assert kept(kinds, offsets, [TokenKind.PUNCTUATION]).tolist() == [0, 0, 1, 0, 1, 0]
    assert kept(kinds, offsets, [TokenKind.PROMPT]).all()


def test_pieces_of_words_are_words_and_their_marks_punctuation():
    pieces = [",", "##.", "...", "\u2014", "##s", "a.b", "", " ", "\ufffd", "\u00b0", "#", "[UNK]"]
    found = [tokens_module.is_punctuation(piece) for piece in pieces]
    assert found == [True, True, True, True, *[False] * 6, True, False]


def test_the_store_gives_back_what_is_kept_and_computes_nothing_twice(encoder, tmp_path):
    texts = [*DOCS, DOCS[0]]
    whole = encoder.encode_tokens(texts, Role.DOCUMENT)
    for keep in (list(TokenKind), [TokenKind.WORDS], [TokenKind.WORDS, TokenKind.SPECIAL]):
        stored = Store(tmp_path).open_tokens(encoder, texts, Role.DOCUMENT, keep)
        mask = kept(whole.kinds, whole.vectors.offsets, keep)
        wanted = whole.vectors.rows[mask]
        assert stored.shape == wanted.shape
        assert np.allclose(stored[:], wanted, atol=2e-3)  # batch mates differ
        assert np.array_equal(stored[5:17], stored[:][5:17])
        assert np.array_equal(
            stored.sample(7), stored[:][np.linspace(0, len(wanted) - 1, 7).round().astype(int)]
        )
        assert np.array_equal(stored.sample(10**6), stored[:])
    paths = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len(paths) == 3
    Store(tmp_path).open_tokens(encoder, DOCS[::-1], Role.DOCUMENT)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == paths


def test_vectors_and_tokens_of_an_encoder_do_not_meet(encoder, tmp_path):
    store = Store(tmp_path)
    store.embed(encoder, DOCS, Role.DOCUMENT)
    store.open_tokens(encoder, DOCS, Role.DOCUMENT)
    assert store.embed(encoder, DOCS, Role.DOCUMENT).shape == (len(DOCS), 16)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_shard_of_tokens_is_named_and_computed_again(encoder, tmp_path, damage, caplog):
    whole = Store(tmp_path).open_tokens(encoder, DOCS, Role.DOCUMENT)[:]
    path = sorted(tmp_path.rglob("*.safetensors"))[1]
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(bytes(content) if damage == "flipped" else bytes(content[:-5]))
    again = Store(tmp_path).open_tokens(encoder, DOCS, Role.DOCUMENT)[:]
    assert path.name in caplog.text
    assert np.array_equal(again, whole)


def test_tokens_of_texts_that_are_cut_are_counted(encoder, tmp_path, caplog):
    Store(tmp_path).open_tokens(encoder, DOCS, Role.DOCUMENT)
    assert "1 of 6 texts were cut at 32 tokens" in caplog.text


@pytest.mark.parametrize(("value", "kind"), [(0, "zero"), (np.nan, "not finite"), (np.inf, "not")])
def test_a_token_without_direction_names_text_and_token(value, kind):
    vectors = np.ones((4, 3), np.float16)
    vectors[2] = value
    with pytest.raises(FusionError, match=rf"token 2 of 4 is {kind}.*\(text 'the cat'\)"):
        check_tokens(vectors, "m", "the cat")


def test_an_encoder_that_gives_nan_for_a_token_stores_nothing(encoder, tmp_path, monkeypatch):
    weights = encoder.model[0].auto_model.embeddings.word_embeddings.weight
    zebra = encoder.model.tokenizer.convert_tokens_to_ids("z")
    before = weights.data[zebra].clone()
    weights.data[zebra] = float("nan")
    try:
        with pytest.raises(FusionError, match=r"token \d of 9 is not finite.*'zebra'"):
            Store(tmp_path).open_tokens(encoder, ["zebra"], Role.DOCUMENT)
    finally:
        weights.data[zebra] = before
    assert not list(tmp_path.rglob("*.safetensors"))


def test_static_embeddings_have_no_tokens(tmp_path):
    pytest.importorskip("wordllama")
    encoder = load_encoder("wordllama", "float32", "cpu")
    with pytest.raises(FusionError, match=r"'wordllama' has no vectors of tokens.*name a t"):
        Store(tmp_path).open_tokens(encoder, DOCS, Role.DOCUMENT)
