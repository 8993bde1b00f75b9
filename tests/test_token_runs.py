"""Token vectors of several encoders side by side: sampled to fit on, mapped a slice at a time."""

import numpy as np
import pytest
from tiny_models import build_tiny_bert

from fusion.errors import FusionError
from fusion.inputs.data.texts import Texts
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.text import load_encoder
from fusion.inputs.store.store import Store
from fusion.runs import tokens as module
from fusion.runs.config import RunConfig
from fusion.runs.tokens import map_tokens, open_tokens, token_sample
from fusion.space.blocks import Blocks
from fusion.space.summaries import summary

DOCS = [
    "the cat sleeps and the dog runs",
    "a query",
    "",
    "dog " * 60,
    "zebra , the cat .",
    "sentence",
]


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Four encoders of one vocabulary, with widths, poolings and prompts of their own."""
    root = tmp_path_factory.mktemp("four")
    prompts = [
        {"query": "query : "},
        {"query": "represent this : ", "passage": "passage : "},
        {},
        {},
    ]
    names = [
        str(build_tiny_bert(root / str(i), dim=8 + 4 * i, prompts=prompt, seed=i,
                            pooling="cls" if i % 2 else "mean"))
        for i, prompt in enumerate(prompts)
    ]  # fmt: skip
    return [load_encoder(name, "float32", "cpu") for name in names]


def config(encoders, **changes):
    names = tuple(encoder.name for encoder in encoders)
    return RunConfig(names, tokens=("words", "special"), **changes)


def blocks_of(encoders):
    weights = (1.0, 0.5, 0.25, 2.0)[: len(encoders)]
    return Blocks(tuple(e.name for e in encoders), tuple(e.dim for e in encoders), weights=weights)


def fused_alone(encoders, text, role):
    """Token by token: each encoder's unit vectors, scaled and set side by side."""
    parts = []
    for encoder, weight in zip(encoders, blocks_of(encoders).weights, strict=True):
        found = encoder.encode_tokens([text], role)
        rows = found.vectors.rows[np.isin(found.kinds, [0, 2])].astype(np.float32)
        parts.append(rows / np.linalg.norm(rows, axis=1, keepdims=True) * weight**0.5)
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("role", list(Role))
def test_encoders_of_one_vocabulary_stand_side_by_side_token_by_token(four, role):
    short = DOCS[:3] + DOCS[4:]  # prompts of other lengths cut long texts elsewhere
    store, blocks = Store(), blocks_of(four)
    stored = open_tokens(four, short, role, config(four), store)
    found = map_tokens(blocks, stored, lambda fused: fused, blocks.width, store)
    assert found.rows.dtype == np.float16
    for row, text in enumerate(short):
        wanted = fused_alone(four, text, role)
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
        assert np.allclose(found[row], wanted, atol=3e-3)


def test_encoders_that_split_texts_differently_are_refused(four, tmp_path):
    other = build_tiny_bert(tmp_path, dim=8, extra_words=("zebra",))
    pair = [four[0], load_encoder(str(other), "float32", "cpu")]
    with pytest.raises(FusionError, match=r"different tokens.*\(text 'zebra , the cat \.'\)"):
        open_tokens(pair, DOCS, Role.DOCUMENT, config(pair), Store())


def test_slices_are_mapped_as_the_whole_is(four, monkeypatch):
    one, store = four[:1], Store()
    stored = open_tokens(one, DOCS, Role.DOCUMENT, config(one), store)
    matrix = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    arguments = (blocks_of(one), stored, lambda fused: fused @ matrix, 4, store)
    whole = map_tokens(*arguments)
    few = map_tokens(*arguments, most=3)
    monkeypatch.setattr(module, "ROWS", 5)
    monkeypatch.setattr(module, "IN_MEMORY", 0)  # in a file
    assert np.array_equal(map_tokens(*arguments).rows, whole.rows)
    assert isinstance(map_tokens(*arguments).rows, np.memmap)
    again = map_tokens(*arguments, most=3)
    assert np.array_equal(again.rows, few.rows)
    assert np.array_equal(again.offsets, few.offsets)
    for row in range(len(DOCS)):
        wanted = summary(whole[row].astype(np.float32), 3)
        assert np.allclose(few[row], wanted, atol=2e-3)
    assert np.allclose(np.linalg.norm(whole.rows.astype(np.float32), axis=1), 1, atol=2e-3)


def test_what_is_fitted_on_is_spread_over_texts_and_tokens(four, caplog):
    caplog.set_level("INFO", "fusion")
    one = four[:1]
    texts = Texts("mine", [str(i) for i in range(6)], DOCS, [""] * 6)
    whole = open_tokens(one, DOCS, Role.DOCUMENT, config(one), Store())[0]
    found = token_sample(blocks_of(one), one, texts, config(one, token_rows=1000), Store())
    assert len(found) == len(whole)
    some = token_sample(blocks_of(one), one, texts, config(one, token_rows=32), Store())
    chosen = open_tokens(one, [DOCS[0], DOCS[5]], Role.DOCUMENT, config(one), Store())[0]
    assert len(some) == min(32, len(chosen))
    unit = chosen[:].astype(np.float32)
    assert np.allclose(some, unit / np.linalg.norm(unit, axis=1, keepdims=True), atol=1e-5)
    assert (
        f"fitted on {len(some)} of {len(chosen)} tokens (words, special) of 2 of 6" in caplog.text
    )
