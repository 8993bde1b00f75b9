"""Tiny encoders of the real architectures: the hub's weights cannot be had offline."""

from pathlib import Path

import torch

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "runs",
    "sleeps",
    "query",
    "passage",
    "represent",
    "this",
    "sentence",
    ":",
    ",",
    ".",
    "of",
    "and",
    "to",
]
LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def vocabulary(extra: tuple[str, ...] = ()) -> dict[str, int]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *WORDS, *extra, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    return {piece: row for row, piece in enumerate(dict.fromkeys(pieces))}


def build_tiny_bert(
    folder: Path,
    *,
    dim: int = 16,
    pooling: str = "mean",
    prompts: dict[str, str] | None = None,
    normalize: bool = True,
    seed: int = 0,
    extra_words: tuple[str, ...] = (),
    max_seq_length: int = 32,
) -> Path:
    """Save a sentence-transformers BERT with random weights; return its folder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    inner = folder / "inner"
    inner.mkdir(parents=True)
    tokenizer = BertTokenizerFast(vocab=vocabulary(extra_words), do_lower_case=True)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=dim,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * dim,
        max_position_embeddings=64,
        initializer_range=0.5,  # the default's 0.02 gives texts that hardly differ
    )
    BertModel(config).eval().save_pretrained(inner)
    tokenizer.save_pretrained(inner)
    transformer = Transformer(str(inner), max_seq_length=max_seq_length)
    modules = [transformer, Pooling(dim, pooling_mode=pooling)]
    if normalize:
        modules.append(Normalize())
    model = SentenceTransformer(modules=modules, device="cpu", prompts=prompts)
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"
