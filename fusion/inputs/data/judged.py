"""Queries, documents and judgements, once they are read."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RetrievalData:
    """Queries, documents and judgements of one split.

    Documents stand in descending order of their ids: ties in score that go to the lower index then
    go to the higher id, which is trec_eval's order.

    Attributes:
        name: The data set's name.
        split: ``test``, ``dev`` or ``train``.
        query_ids: q ids, those with a judgement in this split.
        queries: q texts.
        doc_ids: c ids, descending.
        documents: c texts: title, a space, text.
        qrels: query id to document id to relevance, an integer; 0 and below is not relevant.
    """

    name: str
    split: str
    query_ids: list[str]
    queries: list[str]
    doc_ids: list[str]
    documents: list[str]
    qrels: dict[str, dict[str, int]]

    @cached_property
    def exclude(self) -> np.ndarray:
        """int64 [q], the index of the document that is the query itself, or -1 (ArguAna).

        That is one of the query's own id that nobody judged for this query, and whose title, text
        or both are the query. A shared id alone says nothing: many collections count both sides
        from 0.
        """
        index = {doc_id: row for row, doc_id in enumerate(self.doc_ids)}
        rows = (index.get(key, -1) for key in self.query_ids)
        return np.array(
            [row if row >= 0 and self._is_itself(at, row) else -1 for at, row in enumerate(rows)],
            dtype=np.int64,
        )

    def _is_itself(self, query: int, document: int) -> bool:
        """A document is its title, a space, its text: the query is the one, the other, or all."""
        if self.doc_ids[document] in self.qrels[self.query_ids[query]]:
            return False
        asked, whole = (_spaced(side) for side in (self.queries[query], self.documents[document]))
        return whole.startswith(asked) or whole.endswith(asked)

    def summary(self) -> dict[str, Any]:
        """What was measured on, in numbers: a line of ``results.json``."""
        known = set(self.doc_ids)
        judged = [doc_id for row in self.qrels.values() for doc_id in row]
        return {
            "name": self.name,
            "split": self.split,
            "queries": len(self.query_ids),
            "documents": len(self.doc_ids),
            "judgements": len(judged),
            "judgements_of_unknown_documents": sum(doc_id not in known for doc_id in judged),
            "self_matches_left_out": int((self.exclude >= 0).sum()),
        }


def _spaced(text: str) -> str:
    """Words with one space around each, so that only whole words match, and no words nothing."""
    return f" {' '.join(text.split())} "
