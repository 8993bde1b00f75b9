import numpy as np
import pytest
import torch
from tiny_runs import TEXTS, build_tiny_run, many

from fusion.bulk.writing.coders import PlainCoder
from fusion.errors import FusionError
from fusion.model.folder import export, load, load_codebook
from fusion.space.codes import Precision


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return build_tiny_run(tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    export(run, folder)
    return folder


@pytest.fixture
def model(folder):
    return load(folder, device="cpu")


@pytest.mark.parametrize("precision", ["int8", "uint8", "int4", "binary", "ubinary"])
@pytest.mark.parametrize("dim", [8, 24])
def test_codes_are_on_one_grid_whatever_they_are_made_with(model, precision, dim):
    options = {"precision": precision, "truncate_dim": dim, "batch_size": 1}
    together = model.encode(TEXTS, **options)
    assert together.dtype == (np.int8 if precision in ("int8", "binary") else np.uint8)
    assert model.encode([], precision=precision).dtype == together.dtype
    for row, text in enumerate(TEXTS):  # a plain model calibrates per call; a single text raises
        np.testing.assert_array_equal(model.encode(text, **options), together[row])
    floats = model.encode(TEXTS, truncate_dim=dim, batch_size=1)
    decoded = model.dequantize(together, precision, dim)
    least = {"int8": 0.999, "uint8": 0.999, "int4": 0.95, "binary": 0.6, "ubinary": 0.6}
    assert (floats * decoded).sum(axis=1).min() > least[precision]


def test_integer_dot_products_are_float_ones_times_a_constant(model):
    texts = many(60)
    floats, codes = (model.encode(texts, precision=p) for p in ("float32", "int8"))
    products = codes.astype(np.int32) @ codes.astype(np.int32).T
    low, high = model[0].ranges["int8.24"]
    step = (high[0] - low[0]) / 255
    np.testing.assert_allclose(products * step**2, floats @ floats.T, atol=0.03)


def test_codes_of_an_untrained_width_use_the_next_wider_grid(model):
    with pytest.warns(UserWarning, match="width 12"):
        codes = model.encode(many(60), precision="int8", truncate_dim=12)
    floats = model.encode(many(60), truncate_dim=12)
    assert (floats * model.dequantize(codes, "int8", 12)).sum(axis=1).min() > 0.99


def test_tensors_of_codes_and_an_unknown_precision(model):
    assert model.encode(TEXTS, precision="int8", convert_to_tensor=True).dtype == torch.int8
    with pytest.raises(ValueError, match="precision 'int3' is unknown"):
        model.encode(TEXTS, precision="int3")


@pytest.mark.parametrize("precision", list(Precision))
def test_a_model_hands_out_its_fitted_codes(model, folder, precision):
    documents, queries = model.encode(many(60)), model.encode_query(TEXTS)
    for dim in (16, None):
        book = model.codes(precision, dim)
        of_the_folder = load_codebook(folder, precision, dim or 24)
        codes = book.encode(documents)
        np.testing.assert_array_equal(codes, of_the_folder.encode(documents), strict=True)
        scores = book.score(queries, codes)
        assert scores.shape == (len(TEXTS), 60)
        np.testing.assert_array_equal(scores, of_the_folder.score(queries, codes), strict=True)


def test_codes_have_the_width_of_the_models_vectors(folder):
    assert load(folder, truncate_dim=8, device="cpu").codes("int4").dim == 8


def test_codes_that_a_model_has_not(model, folder):
    with pytest.raises(ValueError, match="no codes of width 5; choose among 4, 8, 16, 24"):
        model.codes("int3", 5)
    with pytest.raises(ValueError, match="no codes of width 0"):
        model.codes("int3", 0)
    with pytest.raises(ValueError, match="precision 'int5' is unknown"):
        model.codes("int5")
    model[0].codebooks = b""  # exported before codes travelled
    with pytest.raises(FusionError, match=r"no intact codebooks.*export again"):
        model.codes("int3")


@pytest.mark.parametrize("dim", [8, 24])
def test_half_precision_is_that_of_bulk_encoding(model, dim):
    found = model.encode(TEXTS, precision="float16", truncate_dim=dim)
    floats = model.encode(TEXTS, truncate_dim=dim)
    np.testing.assert_array_equal(found, floats.astype(np.float16), strict=True)
    of_bulk = PlainCoder(model, "float16", dim).encode(floats)
    np.testing.assert_array_equal(found, of_bulk, strict=True)
    one = model.encode(TEXTS[0], precision="float16", truncate_dim=dim, convert_to_tensor=True)
    assert one.dtype == torch.float16
    assert one.shape == (dim,)
    assert model.encode([], precision="float16").dtype == np.float16
    back = model.dequantize(found, "float16", dim)
    np.testing.assert_allclose(back, floats, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("dim", [8, None])
def test_embeddings_made_elsewhere_become_the_models_vectors(model, dim):
    prompts = model[0].prompts_for(model.prompts["query"])
    blocks = [
        encoder.encode(TEXTS, prompt=prompt)
        for encoder, prompt in zip(model[0].encoders, prompts, strict=True)
    ]
    found = model.fuse(blocks, truncate_dim=dim)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, model.encode_query(TEXTS, truncate_dim=dim), atol=1e-5)
    with pytest.raises(ValueError, match=r"4 embeddings .* 5 encoders"):
        model.fuse(blocks[:4])
    with pytest.raises(ValueError, match=r"of tiny-e5 must be \[5, 8\], not \[5, 7\]"):
        model.fuse([blocks[0], blocks[1][:, :7], *blocks[2:]])
    with pytest.raises(ValueError, match=r"of tiny-e5 must be \[5, 8\], not \[4, 8\]"):
        model.fuse([blocks[0], blocks[1][:4], *blocks[2:]])
