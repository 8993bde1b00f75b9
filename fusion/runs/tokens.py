"""Texts become token vectors of the fused space: ragged rows, mapped a slice at a time."""

import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from fusion.errors import FusionError
from fusion.inputs.data.texts import Texts
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.text import TextEncoder
from fusion.inputs.store.store import Store
from fusion.inputs.store.tokens import StoredTokens
from fusion.ragged import Ragged
from fusion.runs.config import TOKENS_A_TEXT, RunConfig
from fusion.samples import evenly_spaced
from fusion.space.blocks import Blocks
from fusion.space.summaries import summaries

logger = logging.getLogger(__name__)

IN_MEMORY = 2**28  # bytes of mapped token vectors; more are memory-mapped
ROWS = 16_384  # tokens that are mapped at a time


def token_sample(
    blocks: Blocks, encoders: Sequence[TextEncoder], texts: Texts, config: RunConfig, store: Store
) -> np.ndarray:
    """Fused token vectors to fit on, float32 [m, D]: evenly spaced over evenly spaced texts.

    Raises:
        FusionError: An encoder gives no token vectors, or two of them split texts differently.
    """
    rows = evenly_spaced(len(texts), config.token_rows // TOKENS_A_TEXT)
    chosen = [texts.texts[row] for row in rows]
    ids = [texts.ids[row] for row in rows]
    stored = open_tokens(encoders, chosen, Role.DOCUMENT, config, store, ids)
    if not len(stored[0]):
        raise FusionError("the texts have no tokens to fit on")
    fused = blocks.transform([one.sample(config.token_rows) for one in stored])
    logger.info(
        "fitted on %s of %s tokens (%s) of %s of %s texts",
        *(f"{n:,}" for n in (len(fused), len(stored[0]))),
        ", ".join(config.tokens),
        *(f"{n:,}" for n in (len(chosen), len(texts))),
    )
    return fused


def map_tokens(
    blocks: Blocks,
    stored: Sequence[StoredTokens],
    project: Callable[[np.ndarray], np.ndarray],
    width: int,
    store: Store,
    most: int | None = None,
) -> Ragged:
    """Token vectors of n texts in a mapped space, float16 [t, width], each of length 1 or shorter.

    Large ones lie in a memory-mapped file without a name, which goes when this process does.

    Args:
        blocks: How the encoders' vectors become one.
        stored: Those of each encoder, row by row of the same tokens.
        project: Maps fused rows float32 [any, D] to [any, width or more].
        width: Columns to keep.
        store: Has room for large ones.
        most: Vectors a text, at most, the best first (see ``summaries``); None for all tokens.

    Raises:
        FusionError: The store's disk has no room for that file.
    """
    offsets = stored[0].offsets

    def rows_of(rows: slice) -> np.ndarray:
        found = project(blocks.transform([one[rows] for one in stored]))[:, :width]
        # Their cosines are all that counts; so none is too small or too great for float16.
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    if most is None:
        return Ragged(half_rows(rows_of, (len(stored[0]), width), store), offsets)
    parts, counts = [], []
    for texts in _groups(offsets):
        of_texts = offsets[texts.start : texts.stop + 1]
        rows = rows_of(slice(int(of_texts[0]), int(of_texts[-1])))
        found = summaries(Ragged(rows, of_texts - of_texts[0]), most)
        parts.append(np.asarray(found.rows, dtype=np.float16))
        counts.append(found.counts)
    return Ragged(np.concatenate(parts), np.cumsum([0, *np.concatenate(counts)], dtype=np.int64))


def _groups(offsets: np.ndarray) -> Iterator[slice]:
    """Texts whose tokens are read together: some ``ROWS`` of them, or one text of more."""
    start = 0
    while start < len(offsets) - 1:
        stop = int(np.searchsorted(offsets, offsets[start] + ROWS, side="right")) - 1
        yield slice(start, max(stop, start + 1))
        start = max(stop, start + 1)


def half_rows(
    rows_of: Callable[[slice], np.ndarray], shape: tuple[int, int], store: Store
) -> np.ndarray:
    """Float16 [t, d] filled a slice of rows at a time; on the store's disk where it is large.

    Raises:
        FusionError: The store's disk has no room for it.
    """
    small = 2 * shape[0] * shape[1] <= IN_MEMORY
    filled = np.empty(shape, np.float16) if small else store.room(shape, np.float16)
    for start in range(0, len(filled), ROWS):
        rows = slice(start, min(start + ROWS, len(filled)))
        filled[rows] = rows_of(rows)
    return filled


def open_tokens(
    encoders: Sequence[TextEncoder],
    texts: Sequence[str],
    role: Role,
    config: RunConfig,
    store: Store,
    ids: Sequence[str] | None = None,
) -> list[StoredTokens]:
    """The kept tokens of texts by each encoder.

    Raises:
        FusionError: An encoder gives no token vectors, or two of them split texts differently.
    """
    stored = [store.open_tokens(one, texts, role, config.tokens, ids) for one in encoders]
    for other in stored[1:]:
        differs = np.flatnonzero(np.diff(other.offsets) != np.diff(stored[0].offsets))
        if len(differs):
            raise FusionError(
                f"{stored[0].name} and {other.name} split texts into different tokens, so theirs "
                f"cannot stand side by side (text {texts[differs[0]][:40]!r}): make a run of each"
            )
    return stored
