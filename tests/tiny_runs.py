"""A finished run over tiny encoders with the paper's poolings, prompts and one vocabulary."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tiny_models import build_tiny_bert

from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.text import load_encoder
from fusion.runs.config import RunConfig
from fusion.runs.folder import Run
from fusion.space.blocks import Blocks
from fusion.space.compressors import PCA, HeadCompressor
from fusion.space.head import FusionHead, HeadConfig

SEARCH = "represent this sentence: "
PAPER = {  # pooling, prompts, width: as the paper's four have them
    "bge": ("cls", {"query": SEARCH}, 8),
    "e5": ("mean", {"query": "query: ", "passage": "passage: "}, 8),
    "gist": ("cls", {}, 8),
    "arctic": ("cls", {"query": SEARCH}, 16),
}
DIMS = (4, 8, 16, 24)
TEXTS = [
    "the cat sleeps and the dog runs",
    "A query, of the passage",
    "zebra xylophone",
    "dog " * 60,
    "Naïve cafés: represent",
]


def many(count: int) -> list[str]:
    """Different texts of different lengths."""
    words = ["cat", "dog", "runs", "sleeps", "query", "passage", "sentence", "represent"]
    rng = np.random.default_rng(0)
    return [f"{' '.join(rng.choice(words, 1 + row % 12))} {row}" for row in range(count)]


def build_tiny_run(folder: Path) -> Run:
    """Five encoders: the paper's four and one with another vocabulary. Nothing is trained."""
    names = []
    for seed, (name, (pooling, prompts, dim)) in enumerate(PAPER.items()):
        tiny = build_tiny_bert(
            folder / name, dim=dim, pooling=pooling, prompts=prompts, seed=seed, max_seq_length=24
        )
        names.append(str(tiny.rename(folder / f"tiny-{name}")))
    other = build_tiny_bert(folder / "other", dim=8, seed=9, extra_words=("zebra", "xylophone"))
    names.append(str(other.rename(folder / "tiny-other")))
    encoders = [load_encoder(name, "float32", "cpu") for name in names]
    blocks = Blocks(
        tuple(names), tuple(e.dim for e in encoders), weights=(1.0, 0.5, 1.5, 1.0, 0.25)
    )
    texts = many(200)
    fused = blocks.transform([encoder.encode(texts, Role.DOCUMENT) for encoder in encoders])
    torch.manual_seed(0)
    head = FusionHead(HeadConfig(blocks.width, DIMS[-1]))
    head(torch.from_numpy(fused))  # gives BatchNorm statistics that are not the start's
    config = RunConfig(
        encoders=tuple(names), weights=blocks.weights, dims=DIMS, texts="/somewhere/texts.jsonl"
    )
    compressors = {"pca": PCA().fit(fused), "head": HeadCompressor(DIMS, head=head)}
    return Run(config, blocks, compressors, fused, {})


def with_head(run: Run, **changes: object) -> Run:
    """The run with a head of another shape, random."""
    config = HeadConfig(run.blocks.width, DIMS[-1], **changes)
    torch.manual_seed(1)
    head = FusionHead(config)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return replace(
        run, compressors=run.compressors | {"head": HeadCompressor(DIMS, head=head.eval())}
    )


def expected(run: Run, texts: list[str], role: str, compressor: str, dim: int) -> np.ndarray:
    """What the training pipeline makes of texts: unit vectors [n, dim], one batch."""
    blocks = []
    for name in run.config.encoders:
        encoder = load_encoder(name, "float32", "cpu")
        prompt = encoder.card.prompt(Role(role))
        options = {"prompt": prompt, "batch_size": len(texts), "show_progress_bar": False}
        blocks.append(encoder.model.encode(texts, **options))
    nested = run.compressors[compressor].transform(run.blocks.transform(blocks))[:, :dim]
    return nested / np.linalg.norm(nested, axis=1, keepdims=True)
