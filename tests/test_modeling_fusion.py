import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tiny_runs import DIMS, TEXTS, build_tiny_run, expected, many

from fusion.model.folder import build_model, export, load
from fusion.model.modules.fused_encoder import CPU_ROWS
from fusion.model.modules.modeling_fusion import FusedEncoder, FusedHead
from fusion.model.modules.shared_tokens import SharedTokens, token_counts


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


def as_query(model, texts, **options):
    return model.encode(texts, prompt_name="query", **options)


WAYS = {
    "encode": ("document", SentenceTransformer.encode),
    "encode_document": ("document", SentenceTransformer.encode_document),
    "encode_query": ("query", SentenceTransformer.encode_query),
    "prompt_name": ("query", as_query),
}


@pytest.fixture(scope="module")
def of_the_run(run):
    return {
        role: expected(run, many(257), role, "head", DIMS[-1]) for role in ("query", "document")
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("count", "batch_size"), [(5, 1), (257, 257)])
def test_vectors_are_those_of_the_run_in_every_call(of_the_run, model, way, count, batch_size):
    role, _ = WAYS[way]
    call = as_query if way == "prompt_name" else getattr(type(model), way)
    for dim in DIMS:
        found = call(model, many(count), batch_size=batch_size, truncate_dim=dim)
        cut = of_the_run[role][:count, :dim]
        right = cut / np.linalg.norm(cut, axis=1, keepdims=True)
        np.testing.assert_allclose(found, right, atol=1e-5)


def test_equal_batches_give_equal_bits(run, model):
    texts = [*many(30), *TEXTS][-CPU_ROWS:]
    with torch.inference_mode():
        features = model.preprocess(texts, prompt=model.prompts["query"])
        fused = model[0](features)["sentence_embedding"].numpy()
        own = [
            encoder.encode(texts, prompt=prompt, batch_size=1000, normalize_embeddings=False)
            for encoder, prompt in zip(
                model[0].encoders, model[0].prompts_for(None, "query"), strict=True
            )
        ]
    # One batch in the order of the texts against one batch in the order of their lengths: padding
    # is the same, so only a difference in arithmetic could show.
    np.testing.assert_array_equal(fused, run.blocks.transform(own))


def test_a_cpu_takes_a_batch_in_bites_of_its_own_width(model, monkeypatch):
    texts = [*many(3 * CPU_ROWS), "long " * 40]
    shapes = []
    tiny = model[0].encoders[0]
    whole = type(tiny).forward

    def watched(encoder, features, *args, **kwargs):
        if encoder is tiny:
            shapes.append(tuple(features["input_ids"].shape))
        return whole(encoder, features, *args, **kwargs)

    monkeypatch.setattr(type(tiny), "forward", watched)
    monkeypatch.setattr("fusion.model.modules.fused_encoder.CPU_TOKENS", 0)
    bitten = model.encode(texts, batch_size=100)
    counts, widths = zip(*shapes, strict=True)
    assert counts == (CPU_ROWS, CPU_ROWS, CPU_ROWS, 1)
    assert widths[0] > max(widths[1:])  # sorted by length: only one pays for the long text
    monkeypatch.setattr("fusion.model.modules.fused_encoder.CPU_ROWS", 1000)
    np.testing.assert_allclose(bitten, model.encode(texts, batch_size=100), atol=1e-6)
    assert len(shapes) == len(counts) + 1  # one bite


@pytest.mark.slow
def test_a_pool_gives_the_vectors_of_one_process(model):
    texts = many(20)
    pool = model.start_multi_process_pool(["cpu", "cpu"])
    try:
        found = model.encode_query(texts, pool=pool, truncate_dim=8)
    finally:
        model.stop_multi_process_pool(pool)
    np.testing.assert_allclose(found, model.encode_query(texts, truncate_dim=8), atol=1e-5)


def test_queries_differ_from_documents_and_plain_means_document(model):
    plain = model.encode(TEXTS)
    assert np.array_equal(plain, model.encode_document(TEXTS))
    # The disease: with empty prompts encode(prompt_name="query") would be a document.
    assert np.abs(model.encode(TEXTS, prompt_name="query") - plain).max() > 0.01


def test_each_encoder_gets_its_own_prompt(model):
    prompts = model[0].prompts_for(None, "query")
    assert prompts == ["represent this sentence: ", "query: ", "", "represent this sentence: ", ""]
    assert model[0].prompts_for(None) == ["", "passage: ", "", "", ""]
    for row, encoder in enumerate(model[0].encoders):
        own = encoder[0].preprocess(TEXTS, prompt=prompts[row])
        suffix = f".{row}" if row else ""
        found = model.preprocess(TEXTS, prompt=model.prompts["query"])
        assert torch.equal(found[f"input_ids{suffix}"], own["input_ids"])


@pytest.mark.parametrize("prompt", ["my own: ", ""])
def test_a_prompt_of_the_users_replaces_all(model, prompt):
    found = model.encode_query(TEXTS, prompt=prompt)
    features = model.preprocess(TEXTS, prompt=prompt)
    for row, encoder in enumerate(model[0].encoders):
        own = encoder[0].preprocess([prompt + text for text in TEXTS])
        assert torch.equal(features[f"input_ids.{row}" if row else "input_ids"], own["input_ids"])
    assert np.abs(found - model.encode_query(TEXTS)).max() > 0.01


def test_a_client_that_glues_our_prompt_to_the_text_is_understood(model):
    glued = [model.prompts["query"] + text for text in TEXTS]
    np.testing.assert_array_equal(model.encode(glued), model.encode_query(TEXTS))


def test_a_type_error_of_an_encoder_is_not_tried_again_with_glued_prompts(model, monkeypatch):
    def broken(*args, **kwargs):
        raise TypeError("no such option")

    monkeypatch.setattr(model[0], "shared", [])
    monkeypatch.setattr(model[0].encoders[4][0], "preprocess", broken)
    with pytest.raises(RuntimeError, match="no such option"):
        model.encode_query(TEXTS)


def test_only_texts_are_taken(model):
    with pytest.raises(ValueError, match="not int"):
        model.encode([1, 2])


def test_features_are_flat_tensors_that_move_to_a_device(model):
    features = model.preprocess(TEXTS, prompt=model.prompts["query"])
    assert {key.partition(".")[0] for key in features} == {
        "input_ids",
        "attention_mask",
        "token_type_ids",
        "modality",
    }
    assert "input_ids.4" in features
    assert not any(isinstance(value, (dict, list)) for value in features.values())


def test_encoders_of_one_vocabulary_share_a_tokeniser(model):
    (group,) = model[0].shared
    assert list(group.members) == [0, 1, 2, 3]  # the fifth has another vocabulary


def test_tokens_that_would_differ_are_not_shared(model):
    encoders = [model[0].encoders[0], model[0].encoders[1]]
    encoders[0][0].tokenizer.add_tokens(["neverseen"])
    assert SharedTokens.find(encoders, model[0].settings) == []


def test_splicing_is_refused_where_it_gives_other_tokens(model, monkeypatch):
    group = model[0].shared[0]
    assert group.agrees(["cat ", "dog ", "", "the: "]) is True
    assert group.agrees(["cat ", "dog", "", "the "]) is False  # "dog" and a text's first letter
    wrong = SharedTokens.features(group, ["one"], ["", "", "", ""])
    monkeypatch.setattr(SharedTokens, "features", lambda *_: wrong)
    assert group.agrees(["", "", "", ""]) is False


def test_a_prompt_that_runs_into_the_text_is_not_spliced(model):
    first, second, *_ = model[0].settings.encoders
    entries = (first, replace(second, query_prompt="dog"))
    settings = replace(model[0].settings, encoders=entries)
    assert SharedTokens.find(list(model[0].encoders[:2]), settings) == []


def test_excluded_prompts_keep_an_encoder_out_of_the_shared_tokens(model):
    model[0].encoders[0][1].include_prompt = False
    (group,) = SharedTokens.find(list(model[0].encoders), model[0].settings)
    assert list(group.members) == [1, 2, 3]


def test_trailing_normalize_of_an_encoder_is_gone(model):
    kinds = [type(encoder[-1]).__name__ for encoder in model[0].encoders]
    assert kinds == ["Pooling"] * 5


def test_a_leaky_slope_survives_saving(run, folder, model):
    assert isinstance(model[1], FusedHead)
    assert model[1].activation.negative_slope == 0.2
    assert not any(isinstance(m, torch.nn.BatchNorm1d) for m in model.modules())


def test_the_head_stays_in_float32_beside_bfloat16_encoders(model, folder):
    low = load(folder, device="cpu", model_kwargs={"dtype": "bfloat16"})
    trusted = SentenceTransformer(
        str(folder), trust_remote_code=True, device="cpu", model_kwargs={"dtype": torch.bfloat16}
    )
    for found in (low, trusted):
        assert found[0].encoders[0].dtype == torch.bfloat16
        assert found[1].linear.weight.dtype == torch.float32
        vectors = found.encode_query(many(50))
        assert vectors.dtype == np.float32
        assert (vectors * model.encode_query(many(50))).sum(axis=1).min() > 0.995


def test_half_checkpoints_are_computed_in_float32(folder, tmp_path):
    half = load(folder, device="cpu", model_kwargs={"dtype": "float16"})
    half.save_pretrained(str(tmp_path / "half"))
    for options in ({}, {"model_kwargs": {"dtype": "auto"}}):
        again = load(tmp_path / "half", device="cpu", **options)
        assert again[0].encoders[0].dtype == torch.float32


def test_static_embeddings_follow_the_dtype_too(model, tmp_path):
    static = StaticEmbedding(model[0].encoders[4].tokenizer, embedding_dim=4)
    encoders = [model[0].encoders[0], SentenceTransformer(modules=[static], device="cpu")]
    entry = model[0].settings.encoders[0]
    entries = (entry, replace(entry, name="static", path="encoders/static", dim=4))
    settings = replace(model[0].settings, encoders=entries, dims=(12,), files={})
    modules = [FusedEncoder(settings, encoders, {"norms": np.ones(12, np.float32)}), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(tmp_path / "saved"))
    low = load(tmp_path / "saved", device="cpu", model_kwargs={"dtype": "bfloat16"})
    assert [encoder.dtype for encoder in low[0].encoders] == [torch.bfloat16] * 2
    assert "offsets.1" in low.preprocess(TEXTS)  # no padding, no mask, and no shared tokens
    assert low.encode(TEXTS).shape == (len(TEXTS), 12)
    assert load(tmp_path / "saved", device="cpu")[0].encoders[1].dtype == torch.float32


def test_truncated_vectors_are_unit_norm_at_load_and_at_call(folder, model):
    at_load = load(folder, truncate_dim=8, device="cpu")
    trusted = SentenceTransformer(str(folder), trust_remote_code=True, truncate_dim=8, device="cpu")
    with model.truncate_embeddings(8):
        in_context = model.encode(TEXTS)
    for found in (at_load.encode(TEXTS), trusted.encode(TEXTS), in_context):
        assert found.shape == (len(TEXTS), 8)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
        np.testing.assert_array_equal(found, model.encode(TEXTS, truncate_dim=8))
    assert at_load.get_embedding_dimension() == 8
    # The disease: slicing what Normalize made unit-norm.
    assert np.linalg.norm(model.encode(TEXTS)[:, :8], axis=1).max() < 0.99


def test_an_untrained_width_works_and_warns_once(model):
    with pytest.warns(UserWarning, match="width 9 was not trained; the nearest trained one is 8"):
        assert model.encode(TEXTS, truncate_dim=9).shape[1] == 9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode(TEXTS, truncate_dim=9)
        model.encode(TEXTS, truncate_dim=8)


@pytest.mark.parametrize("dim", [0, -1, 25])
def test_a_width_that_cannot_be_is_an_error(folder, model, dim):
    with pytest.raises(ValueError, match=f"from 1 to 24, got {dim}"):
        model.encode(TEXTS, truncate_dim=dim)
    if dim > 0:
        with pytest.raises(ValueError, match="from 1 to 24"):
            SentenceTransformer(str(folder), trust_remote_code=True, truncate_dim=dim)


def test_no_token_embeddings(model):
    with pytest.raises(ValueError, match="no token embeddings"):
        model.encode(TEXTS, output_value="token_embeddings")


def test_empty_input_and_empty_text(model):
    assert model.encode([]).size == 0
    assert np.isfinite(model.encode(["", "cat"])).all()


def test_setting_a_length_limit_reaches_all_encoders(model):
    assert model.max_seq_length == 24
    model.max_seq_length = 6
    assert [encoder.max_seq_length for encoder in model[0].encoders] == [6] * 5
    assert model.preprocess(["cat " * 50])["input_ids.3"].shape[1] == 6


def test_pca_is_a_stock_dense_and_exact(run):
    model = build_model(run, "pca")
    assert type(model[1]) is Dense
    found = model.encode_query(TEXTS, truncate_dim=16)
    np.testing.assert_allclose(found, expected(run, TEXTS, "query", "pca", 16), atol=1e-5)


def test_lengths_are_counted_with_the_tokenizer_of_static_embeddings_too():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    tokenizer = Tokenizer(WordLevel({"cat": 0, "dog": 1, "[UNK]": 2}, unk_token="[UNK]"))
    encoder = StaticEmbedding(tokenizer, embedding_dim=4)
    features = encoder.preprocess(["cat", "dog"])
    assert token_counts(features, encoder.tokenizer) == []  # it cuts nothing, and says nothing
