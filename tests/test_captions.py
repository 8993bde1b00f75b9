import json

import numpy as np
import pytest
from PIL import Image

from fusion.errors import FusionError
from fusion.inputs.data.captions import is_captions, load_captions, settled_captions, splits_of

LINES = [
    {"image": "a.png", "split": "train", "captions": ["one", " two "], "captions_de": "eins"},
    {"image": "b.png", "split": "test", "captions": ["three"], "captions_de": ["drei", "vier"]},
    {"image": "c.png", "split": "test", "captions": ["five", "six"]},
]


def build(folder, lines=LINES):
    folder.mkdir(parents=True)
    for row, name in enumerate(("a.png", "b.png", "c.png")):
        Image.new("RGB", (9, 9), (row, 0, 0)).save(folder / name)
    text = "".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines)
    (folder / "captions.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_captions_stand_beside_their_pictures(tmp_path):
    data = load_captions(str(build(tmp_path / "set")), "test")
    assert data.name == "set"
    assert data.picture_ids == ["b.png", "c.png"]
    assert data.texts == ["three", "five", "six"]
    np.testing.assert_array_equal(data.owner, [0, 1, 1])
    assert data.text_ids == ["b.png#0", "c.png#0", "c.png#1"]
    assert data.first(1).texts == ["three"]
    digests = {data.digest(), data.first(1).digest(), data.digest(pictures=False)}
    assert len(digests) == 3
    (tmp_path / "set" / "b.png").write_bytes((tmp_path / "set" / "a.png").read_bytes())
    changed = load_captions(str(tmp_path / "set"), "test")
    assert changed.digest() not in digests
    assert changed.digest(pictures=False) in digests
    assert load_captions(str(tmp_path / "set"), "train").texts == ["one", "two"]
    assert splits_of(str(tmp_path / "set")) == ["test", "train"]


def test_a_colon_asks_for_a_language_and_pictures_without_it_are_left_out(tmp_path, caplog):
    build(tmp_path / "set")
    data = load_captions(f"{tmp_path / 'set'}:de", "test")
    assert (data.name, data.texts, data.picture_ids) == ("set:de", ["drei", "vier"], ["b.png"])
    assert "1 of 2 pictures of test have no captions_de" in caplog.text
    assert load_captions(f"{tmp_path / 'set'}:de", "train").texts == ["eins"]
    with pytest.raises(FusionError, match=r"no 'captions_fr' .* languages behind a colon: de"):
        load_captions(f"{tmp_path / 'set'}:fr", "test")


def test_names_are_looked_up_in_the_data_folder(tmp_path, monkeypatch):
    build(tmp_path / "multimodal" / "mine")
    assert not is_captions("mine")
    with pytest.raises(FusionError, match=r"pictures 'mine' not found: .*FUSION_DATA is not set"):
        load_captions("mine", "test")
    monkeypatch.setenv("FUSION_DATA", str(tmp_path))
    assert is_captions("mine")
    assert is_captions("mine:de")
    assert load_captions("mine", "test").name == "mine"
    assert settled_captions("mine:de") == "mine:de"
    monkeypatch.chdir(tmp_path / "multimodal")
    assert settled_captions("mine:de") == f"{tmp_path / 'multimodal' / 'mine'}:de"


@pytest.mark.parametrize(
    ("lines", "split", "message"),
    [
        (LINES, "val", "has no split 'val'; it has test, train"),
        ([], "test", "has no split 'test'; it has nothing"),
        (["{"], "test", "jsonl:1 is not JSON"),
        ([{"image": "a.png", "captions": ["x"]}], "test", ":1 needs the strings 'image' and 'spl"),
        ([{"image": 3, "split": "test"}], "test", ":1 needs the strings 'image' and 'split'"),
        ([LINES[1] | {"captions": [" "]}], "test", ":1: a text in captions is empty"),
        ([LINES[1] | {"captions": [{}]}], "test", ":1: captions is no list of texts: not text but"),
        ([LINES[1] | {"captions": 5}], "test", ":1: captions is no list of texts"),
        ([LINES[1], LINES[1]], "test", ":2 holds 'b.png' again"),
        (
            [LINES[1], LINES[2] | {"image": "d.png"}],
            "test",
            "1 of 2 pictures are missing, .* d",
        ),
    ],
)
def test_what_is_wrong_is_named(lines, split, message, tmp_path):
    folder = build(tmp_path / "set", lines)
    with pytest.raises(FusionError, match=message):
        load_captions(str(folder), split)
