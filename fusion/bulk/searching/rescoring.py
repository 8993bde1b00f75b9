"""The best candidates of a database, scored again by finer codes that lie beside it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fusion.bulk.searching.blocks import Shards
from fusion.bulk.searching.index import Hit, Index
from fusion.bulk.writing.repeats import HASH, hash_of
from fusion.errors import FusionError

Candidates = Sequence[str] | Sequence[int] | np.ndarray
"""Ids, or numbers of rows."""


def rescore(
    query: str | np.ndarray,
    candidates: Candidates,
    shards: "str | Path | Index | Rescorer",
    k: int = 10,
    *,
    model: str | Path | None = None,
) -> list[Hit]:
    """The k best of some candidates by the codes of shards, the best first.

    A database that holds few bytes a row, such as ``ubinary``, finds some tens of candidates; the
    shards hold codes that rank better and lie on disk.

    >>> found = database.search(coded_query, limit=100)                      # doctest: +SKIP
    >>> best = rescore("What closes a file?", [row.id for row in found], "vectors/int4")
    ... # doctest: +SKIP

    Args:
        query: A text, or its vector float [d].
        candidates: Ids as the shards have them, or numbers of rows over all shards from 0 on.
        shards: A folder of ``fusion.encode``. Who asks often gives a ``Rescorer`` of it, which
            loads the model and reads the ids once.
        k: How many of them.
        model: Where the model of a folder lies, if it has moved.

    Raises:
        FusionError: A candidate is not in the shards, or they cannot be read.
        ValueError: The query is empty or does not fit, or k is below 1.
    """
    if not isinstance(shards, Rescorer):
        shards = Rescorer(shards if isinstance(shards, Index) else Index.open(shards, model))
    return shards.rescore(query, candidates, k)


class Rescorer:
    """An index that finds rows by their ids and reads the codes of single ones."""

    def __init__(self, index: Index) -> None:
        """Take the index, whose memory is that of the codes that were read."""
        self.index = index
        self._shards = index.shards
        self._ends = np.cumsum([shard.rows for shard in self._shards.manifest.shards])
        self._codes: dict[int, np.ndarray] = {}
        self._ids: tuple[np.ndarray, np.ndarray] | None = None

    def rescore(
        self,
        query: str | np.ndarray,
        candidates: Candidates,
        k: int,
    ) -> list[Hit]:
        """See ``rescore``."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        asked = [query] if isinstance(query, str) else np.atleast_2d(query)
        vector = self.index.vectors(asked)[0]
        scores, rows = self.ranked(vector, self.rows_of(candidates))
        return self.index.hits([(scores[:k], rows[:k])])[0]

    def ranked(self, vector: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores float64 and rows int64, distinct ones, the best first; ties to the lower row."""
        rows = np.unique(rows)
        if not len(rows):
            return np.empty(0), rows
        return self.index.best(vector, rows, self._codes_of(rows))

    def rows_of(self, candidates: Candidates) -> np.ndarray:
        """Rows int64 [n] of ids, the first where several have one, or of numbers as they are.

        Raises:
            FusionError: There is no such row.
        """
        if not len(candidates):
            return np.empty(0, np.int64)
        if not isinstance(candidates[0], str):
            rows = np.asarray(candidates)
            wrong = rows[(rows < 0) | (rows >= len(self.index))]
            if len(wrong):
                raise FusionError(f"there is no row {wrong[0]}: {self._where()}")
            return rows.astype(np.int64)
        hashes, order = self._ids = self._ids or _read_ids(self._shards)
        wanted = np.frombuffer(b"".join(hash_of(str(key)) for key in candidates), HASH)
        places = np.minimum(np.searchsorted(hashes, wanted), len(hashes) - 1)
        for place in np.flatnonzero(hashes[places] != wanted)[:1]:
            raise FusionError(f"there is no id {candidates[place]!r}: {self._where()}")
        return order[places]

    def _where(self) -> str:
        return f"{self._shards.folder} has {len(self.index):,} rows, of other documents perhaps"

    def _codes_of(self, rows: np.ndarray) -> np.ndarray:
        """Codes [n, items] of rows; those of a shard stay while memory lasts."""
        owners = np.searchsorted(self._ends, rows, side="right")
        parts = []
        for owner in np.unique(owners).tolist():
            shard = self._shards.manifest.shards[owner]
            codes = self._codes.get(owner)
            if codes is None:
                codes = self._shards.codes(shard)
                if sum(kept.nbytes for kept in self._codes.values()) < self.index.memory:
                    self._codes[owner] = codes
            parts.append(codes[rows[owners == owner] - (self._ends[owner] - shard.rows)])
        return np.concatenate(parts)


def _read_ids(shards: Shards) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all ids, ascending, and the rows they belong to, int64; equal ones by row."""
    hashes = [
        b"".join(hash_of(key) for key in shards.columns(shard, ("id",))[0])
        for shard in shards.manifest.shards
    ]
    found = np.frombuffer(b"".join(hashes), HASH)
    order = np.argsort(found, kind="stable")
    return found[order], order
