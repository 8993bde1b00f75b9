"""Texts become fused embeddings: encoders, blocks and their weights."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fusion.errors import FusionError
from fusion.inputs.data.texts import Texts, pseudo_queries, query_like, rows_of
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.limits import shortest
from fusion.inputs.encoders.precomputed import PrecomputedEncoder
from fusion.inputs.encoders.text import FrozenEncoder, TextEncoder, load_encoder
from fusion.inputs.items import Item
from fusion.inputs.reading.chunks import AUTO, NONE, Chunker, Chunking
from fusion.inputs.reading.rows import TITLE, Row
from fusion.inputs.store.store import Store
from fusion.runs.config import RunConfig
from fusion.space.blocks import Blocks, Normalization
from fusion.space.training.recipe import TrainConfig

if TYPE_CHECKING:  # torch is loaded once all that can be checked without it is checked
    from fusion.space.training.batches import Queries

logger = logging.getLogger(__name__)

DEFAULT_DIMS = (32, 64, 128, 256, 384, 512, 768, 1024)
AUTO_PAIRS = 3000  # pseudo-queries that weights are chosen on
IN_MEMORY = 2**30  # bytes of fused embeddings; more are memory-mapped


def load_encoders(config: RunConfig, device: str = "auto") -> list[TextEncoder]:
    """The run's encoders, each loaded once; not bound to the device that it was trained on."""
    return [load_encoder(name, config.encoder_dtype, device) for name in config.encoders]


def take_apart(texts: Texts, encoders: Sequence[TextEncoder], chunking: Chunking) -> Texts:
    """Texts to learn from, with chunks in the place of those that are too long.

    By default only texts out of files are taken apart: those of retrieval data are judged whole.

    Raises:
        ValueError: Chunks are longer than what an encoder reads, or one has no texts to take apart.
    """
    known = [e.tokens for e in encoders if isinstance(e, FrozenEncoder)]
    if len(known) < len(encoders):
        if chunking.size not in (AUTO, NONE):
            raise ValueError("chunk: embeddings that lie in files are of whole texts; leave it out")
        return texts
    chunker = Chunker(shortest(known), chunking)
    found = Texts(texts.name, [], [], [])
    told: set[str] = set()
    for row, whole in zip(rows_of(texts), texts.headings or [None] * len(texts), strict=True):
        stays = whole is None and chunking.size == AUTO
        for part in [row] if stays else chunker.apart([row]):
            assert isinstance(part, Row)
            title = str(part.metadata.get(TITLE, ""))
            # A title does not tell the chunks of a section apart, so only the first one has it.
            is_told = part is not row and title in told
            told.add(title)
            found.ids.append(part.id)
            found.texts.append(part.text)
            found.titles.append("" if is_told else title)
    if words := chunker.words():
        logger.info("chunks to learn from: %s", words)
    return found


def fuse(
    blocks: Blocks,
    encoders: Sequence[TextEncoder],
    texts: Sequence[Item],
    role: Role,
    store: Store,
    ids: Sequence[str] | None = None,
) -> np.ndarray:
    """Embed texts or pictures with every encoder (through the store) and fuse them: float32 [n, D].

    Large ones lie in a memory-mapped file without a name, which goes when this process does.

    Raises:
        FusionError: The store's disk has no room for that file.
    """
    stored = [store.open(encoder, texts, role, ids) for encoder in encoders]
    shape = (len(texts), blocks.width)
    room = None if 4 * shape[0] * shape[1] <= IN_MEMORY else store.room(shape)
    return blocks.transform(stored, room)


def fuse_queries(
    blocks: Blocks,
    encoders: Sequence[TextEncoder],
    texts: Texts,
    config: TrainConfig,
    store: Store,
) -> "Queries | None":
    """Embed titles or sentences of the texts as queries; None where there are none to have.

    Embeddings that lie in files are of whole texts: with such an encoder there are none.
    """
    from fusion.space.training.batches import Queries

    if config.sentences and any(isinstance(encoder, PrecomputedEncoder) for encoder in encoders):
        logger.warning(
            "no titles or sentences are learned from: an encoder reads its embeddings from files"
        )
        return None
    titles = texts.titles if config.titles else ()
    parts, owners = query_like(texts.texts, config.sentences, titles)
    if not parts:
        return None
    logger.info("%d titles and sentences to learn from", len(parts))
    return Queries(fuse(blocks, encoders, parts, Role.QUERY, store), np.array(owners))


def default_dims(width: int) -> tuple[int, ...]:
    """The usual widths up to that of the concat, and the concat's own if it is small."""
    usual = tuple(dim for dim in DEFAULT_DIMS if dim <= width)
    return usual if width >= DEFAULT_DIMS[-1] or width in usual else (*usual, width)


def auto_weights(
    encoders: Sequence[TextEncoder], texts: Texts, normalize: Normalization, store: Store
) -> tuple[float, ...]:
    """Choose block weights without labels: titles or first sentences have to find their texts.

    Raises:
        FusionError: Fewer than 50 texts can be split into a title or sentence and a rest.
    """
    from fusion.space.weights import choose_weights

    if len(encoders) == 1:
        return (1.0,)
    for encoder in encoders:
        if isinstance(encoder, PrecomputedEncoder):
            raise FusionError(
                f"weights cannot be chosen with {encoder.name}: there is nothing to embed queries "
                "with; give --weights by hand, one number an encoder"
            )
    queries, rests = pseudo_queries(texts.texts, AUTO_PAIRS, texts.titles)
    if len(queries) < 50:
        raise FusionError(
            f"only {len(queries)} texts have a title or first sentence and a rest, too few to "
            "choose weights on; give --weights by hand, one number an encoder"
        )
    weights = choose_weights(
        [store.embed(encoder, queries, Role.QUERY) for encoder in encoders],
        [store.embed(encoder, rests, Role.DOCUMENT) for encoder in encoders],
        normalize,
    )
    chosen = ", ".join(f"{e.name} {w:g}" for e, w in zip(encoders, weights, strict=True))
    logger.info("weights chosen on %d pseudo-queries: %s", len(queries), chosen)
    return weights
