"""Retrieval data made of documents alone: titles or first sentences have to find their rests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fusion.inputs.data.hub import Document
from fusion.inputs.data.judged import RetrievalData
from fusion.inputs.data.texts import Part, taken_apart
from fusion.samples import evenly_spaced

SPLIT = "pseudo"
FEWEST = 15  # words of a half


@dataclass(frozen=True)
class PseudoData(RetrievalData):
    """All documents, then the rests of some; a query must find its rest, not its own document.

    Example: of the document "Cats purr. They do it to breathe …" the query is "Cats purr.", and
    among all other documents it has to find "They do it to breathe …".
    """

    owners: np.ndarray
    """int64 [q], the document that each query was taken from."""

    @cached_property
    def exclude(self) -> np.ndarray:
        """int64 [q], the document that a query was taken from: it holds the query word by word."""
        return self.owners

    @property
    def rests(self) -> list[str]:
        """Q texts that are no documents: row i is what query i has to find."""
        return self.documents[len(self.documents) - len(self.queries) :]


def pseudo_data(
    data: RetrievalData, documents: Mapping[str, Document], count: int
) -> PseudoData | None:
    """Take documents apart, at most ``count`` of them, evenly spaced.

    Where the queries are about as long as the documents, as whole arguments are that look for
    others, a document's first half has to find the second.

    Args:
        data: Whose documents they are.
        documents: Title and text of each, by its id.
        count: Queries, at most.

    Returns:
        None where no document can be taken apart.
    """
    whole = [documents[key] for key in data.doc_ids]
    if _words(data.queries) > _words(data.documents) / 2:  # whole texts are what is searched with
        parts = _halves(data.documents)
    else:
        parts = taken_apart(data.documents, [document.title for document in whole])
    chosen = [parts[i] for i in evenly_spaced(len(parts), count)]
    if not chosen:
        return None
    query_ids = [f"query-{i}" for i in range(len(chosen))]
    rest_ids = [f"rest-{i}" for i in range(len(chosen))]
    return PseudoData(
        data.name,
        SPLIT,
        query_ids,
        [part.query for part in chosen],
        [*data.doc_ids, *rest_ids],
        [*data.documents, *(part.rest for part in chosen)],
        {query: {rest: 1} for query, rest in zip(query_ids, rest_ids, strict=True)},
        np.array([part.row for part in chosen], dtype=np.int64),
    )


def _words(texts: Sequence[str]) -> float:
    """Of the median text."""
    return float(np.median([len(text.split()) for text in texts]))


def _halves(texts: Sequence[str]) -> list[Part]:
    """First and second half of each text that has words enough for two."""
    parts = []
    for row, text in enumerate(texts):
        words = text.split()
        middle = len(words) // 2
        if middle >= FEWEST:
            parts.append(Part(row, " ".join(words[:middle]), " ".join(words[middle:])))
    return parts
