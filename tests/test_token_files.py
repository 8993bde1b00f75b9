"""Vectors of tokens that somebody else computed: rows, offsets and ids beside one another."""

import numpy as np
import pytest

from fusion import train
from fusion.errors import FusionError
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.text import load_encoder
from fusion.inputs.store.store import Store

IDS = ["a", "b", "none", "c"]


def write(folder, rows, offsets, ids=IDS, name="mine"):
    np.save(folder / f"{name}.npy", rows)
    np.save(folder / f"{name}.offsets.npy", offsets)
    (folder / f"{name}.ids.txt").write_text("".join(f"{i}\n" for i in ids), encoding="utf-8")
    return f"file:{folder / f'{name}.npy'}"


@pytest.fixture
def rows():
    return np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)


def opened(name, ids, role=Role.DOCUMENT):
    return Store().open_tokens(load_encoder(name), ["text"] * len(ids), role, ids=ids)


def test_tokens_are_looked_up_by_id(tmp_path, rows):
    found = opened(write(tmp_path, rows, [0, 2, 3, 3, 6]), ["c", "none", "a", "c"])
    assert found.offsets.tolist() == [0, 3, 3, 5, 8]
    half = rows.astype(np.float16)
    assert np.array_equal(found[:], np.concatenate([half[3:], half[:2], half[3:]]))
    assert np.array_equal(found[2:4], np.concatenate([half[5:], half[:1]]))
    assert found[:].dtype == np.float16


def test_queries_and_documents_may_lie_apart(tmp_path, rows):
    write(tmp_path, rows, [0, 2, 3, 3, 6], name="document")
    write(tmp_path, rows[:2], [0, 2], ["q"], name="query")
    name = f"file:{tmp_path}"
    assert opened(name, ["q"], Role.QUERY).offsets.tolist() == [0, 2]
    assert opened(name, ["b"]).offsets.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("offsets", "ids", "words"),
    [
        ([0, 2, 3, 3, 7], IDS, r"mine.offsets.npy does not fit .*end at 7, but there are 6 rows"),
        ([0, 4, 3, 3, 6], IDS, r"must not fall, but offset 2 is 3 after 4"),
        ([1, 2, 3, 3, 6], IDS, r"must begin at 0, got 1"),
        ([0.0, 6.0], ["a"], r"must be n \+ 1 integers"),
        ([0, 2, 6], IDS, r"has offsets of 2 texts and mine.ids.txt has 4 ids"),
    ],
)
def test_arrays_and_offsets_that_do_not_fit(tmp_path, rows, offsets, ids, words):
    with pytest.raises(FusionError, match=words):
        load_encoder(write(tmp_path, rows, offsets, ids))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_a_token_that_is_not_finite_names_text_and_token(tmp_path, rows, value):
    rows[4, 1] = value
    found = opened(write(tmp_path, rows, [0, 2, 3, 3, 6]), IDS)
    found[:3]  # what is whole may be read
    with pytest.raises(FusionError, match=r"token 1 of 3 is not finite in float16 \(text 'c'\)"):
        found[:]


def test_what_is_asked_for_must_be_there_and_of_that_kind(tmp_path, rows):
    name = write(tmp_path, rows, [0, 2, 3, 3, 6])
    with pytest.raises(FusionError, match="no embedding for 1 of 2 ids, the first is 'x'"):
        opened(name, ["a", "x"])
    with pytest.raises(FusionError, match=r"holds vectors of tokens: use it with --tokens"):
        Store().embed(load_encoder(name), ["t"], Role.DOCUMENT, ["a"])
    (tmp_path / "mine.offsets.npy").unlink()
    (tmp_path / "mine.ids.txt").write_text("".join(f"{i}\n" for i in range(6)), encoding="utf-8")
    with pytest.raises(FusionError, match=r"one vector a text; .* offsets in mine.offsets.npy"):
        opened(name, ["0"])


def test_a_run_is_fitted_on_them(tmp_path):
    counts = np.random.default_rng(1).integers(0, 9, 60)
    rows = np.random.default_rng(0).standard_normal((counts.sum(), 8)).astype(np.float16)
    ids = [f"d{i}" for i in range(60)]
    name = write(tmp_path, rows, np.cumsum([0, *counts]), ids)
    texts = "".join(f'{{"_id": "{i}", "text": "text {i}"}}\n' for i in ids)
    (tmp_path / "texts.jsonl").write_text(texts, encoding="utf-8")
    arguments = ["--encoders", name, "--texts", str(tmp_path / "texts.jsonl"), "--tokens"]
    arguments += ["--dims", "4,8", "--epochs", "1", "--output", str(tmp_path / "run")]
    assert train.main(arguments) == 0
    from fusion.runs.folder import Run
    from fusion.space.pca import PCA

    run = Run.load(tmp_path / "run")
    unit = rows.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    assert run.environment["text_count"] == len(rows)
    assert np.allclose(run.compressors["pca"].matrix, PCA().fit(unit).matrix, atol=1e-4)
