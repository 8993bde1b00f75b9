"""An encoding as something that can be asked: texts or vectors go in, the nearest rows come out."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fusion.bulk.finished import model_of, open_shards
from fusion.bulk.searching.best import Best
from fusion.bulk.searching.blocks import Block, Shards
from fusion.bulk.searching.scorers import Scorer, scorer_of
from fusion.bulk.writing.shards import OWN_COLUMNS
from fusion.model.light.queries import QueryEncoder, query_encoder
from fusion.paths import as_path
from fusion.topk.cosines import rank_documents

logger = logging.getLogger(__name__)

MEMORY = 2**28
"""Bytes of codes that stay in memory between searches; larger encodings stream by each time."""
QUERIES_AT_ONCE = 256  # whose scores of a block are in memory together


@dataclass(frozen=True)
class Hit:
    """A row that was found."""

    id: str
    score: float
    """Cosine of the query with what is stored."""
    row: int
    """Its number over all shards, from 0 on."""
    fields: dict[str, str] = field(default_factory=dict)
    """What was kept beside it: ``text``, ``title``, …; what it has not is left out."""


class Index:
    """A finished encoding, searched exactly.

    >>> index = Index.open("vectors/mine")                            # doctest: +SKIP
    >>> for hit in index.search("What closes a file?", k=3):          # doctest: +SKIP
    ...     print(f"{hit.score:.3f}", hit.id, hit.fields.get("text"))
    """

    def __init__(self, shards: Shards, scorer: Scorer, model: Path, memory: int = MEMORY) -> None:
        """Take what ``open`` has found."""
        self.shards, self._scorer, self._model = shards, scorer, model
        self._encoder: QueryEncoder | None = None
        self.memory = memory
        self._kept: list[tuple[Block, Any]] = []

    @classmethod
    def open(
        cls, folder: str | Path, model: str | Path | None = None, *, memory: int = MEMORY
    ) -> "Index":
        """Open a folder of ``fusion.encode``.

        Args:
            folder: With its ``_manifest.json``.
            model: Where the model lies that encoded it; by default where it was then.
            memory: Bytes of codes that may stay in memory between searches.

        Raises:
            FusionError: It is no finished encoding, or of another model, or the model is gone.
        """
        shards = open_shards(as_path(folder))
        place = model_of(shards, str(as_path(model)) if model else "")
        return cls(shards, scorer_of(shards.manifest, place), place, memory)

    def __len__(self) -> int:
        return self.shards.manifest.rows

    @property
    def width(self) -> int:
        """Columns of a query's vector."""
        return int(self.shards.manifest.settings["width"])

    def search(self, query: str | np.ndarray, k: int = 10) -> list[Hit]:
        """The k rows nearest to a text, or to a vector float [d], the nearest first.

        Raises:
            ValueError: The query is empty or does not fit, or k is below 1.
            FusionError: The model or a shard cannot be read.
        """
        many = [query] if isinstance(query, str) else np.atleast_2d(query)
        return self.search_many(many, k)[0]

    def search_many(self, queries: Sequence[str] | np.ndarray, k: int = 10) -> list[list[Hit]]:
        """The same for each of q texts or of the vectors float [q, d]; shards are read once."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        vectors = self.vectors(queries)
        return self.hits(self.nearest(vectors, k))

    def hits(self, found: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[list[Hit]]:
        """Ids and what was kept, of the scores and rows of each query."""
        wanted = sorted({row for _, rows in found for row in rows.tolist()})
        stored = dict(zip(wanted, self.shards.rows(wanted), strict=True))
        return [
            [
                _hit(stored[row], score, row)
                for score, row in zip(*map(np.ndarray.tolist, pair), strict=True)
            ]
            for pair in found
        ]

    def vectors(self, queries: Sequence[str] | np.ndarray) -> np.ndarray:
        """Float32 [q, d] of texts, with the model's prompt for queries; vectors are checked.

        Raises:
            ValueError: A query is empty, or vectors have another width or are not finite.
        """
        if isinstance(queries, np.ndarray):
            return self._checked(queries)
        for number, query in enumerate(queries, 1):
            if not query.strip():
                raise ValueError(
                    "the query is empty" if len(queries) == 1 else f"query {number} is empty"
                )
        self._encoder = self._encoder or query_encoder(self._model, self.width)
        return np.asarray(self._encoder(queries), np.float32)

    def nearest(self, vectors: np.ndarray, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Scores float64 and rows int64, at most k, for each of the vectors float32 [q, d]."""
        best = [Best(vector, k, self._scorer.decode) for vector in vectors]
        parts = range(0, len(best), QUERIES_AT_ONCE)
        score = [self._scorer.scores(vectors[a : a + QUERIES_AT_ONCE]) for a in parts]
        for block, taken in self._blocks():
            for first, of_part in zip(parts, score, strict=True):
                own = best[first : first + QUERIES_AT_ONCE]
                for one, scores in zip(own, of_part(taken), strict=True):
                    one.add(block.first, block.codes, scores)
        return [one.result() for one in best]

    def best(
        self, vector: np.ndarray, rows: np.ndarray, codes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores float64 of some rows by their codes, and these rows, the best first."""
        documents = self._scorer.decode(codes).astype(np.float64)
        scores = rank_documents(vector.astype(np.float64), documents)
        order = np.lexsort((rows, -scores))
        return scores[order], rows[order]

    def _blocks(self) -> Iterator[tuple[Block, Any]]:
        """All blocks as they are scored; they stay in memory if all of them may."""
        if self._kept:
            yield from self._kept
            return
        kept: list[tuple[Block, Any]] | None = []
        size = 0
        for block in self.shards.blocks():
            taken = block, self._scorer.take(block.codes)
            size += block.codes.nbytes + _bytes_of(taken[1], block.codes)
            if kept is not None:
                kept = [*kept, taken] if size <= self.memory else None
            yield taken
        self._kept = kept or []

    def _checked(self, vectors: np.ndarray) -> np.ndarray:
        rows = np.asarray(vectors, np.float32)
        if rows.ndim != 2 or rows.shape[1] < self.width:
            raise ValueError(
                f"query vectors have shape {list(rows.shape)}, the rows are {self.width} wide"
            )
        if not np.isfinite(rows).all():
            row = int(np.argmin(np.isfinite(rows).all(axis=1)))
            raise ValueError(f"query vector {row + 1} holds a value that is not finite")
        return rows[:, : self.width]


def _bytes_of(taken: Any, codes: np.ndarray) -> int:  # noqa: ANN401 - of a scorer's own kind
    """Bytes of arrays in lists and tuples, less those that are the codes themselves."""
    if isinstance(taken, np.ndarray):
        return 0 if taken is codes else taken.nbytes
    return sum(_bytes_of(part, codes) for part in taken)


def _hit(stored: dict[str, Any], score: float, row: int) -> Hit:
    fields = {
        key: value for key, value in stored.items() if key not in OWN_COLUMNS and value is not None
    }
    return Hit(stored["id"], score, row, fields)
