"""Retrieval data with judgements: from a folder, by name, or embedded.

A folder is laid out as BEIR does it: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/SPLIT.tsv``.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fusion.errors import FusionError
from fusion.inputs.hub import Document, RawData, data_from_hub, not_found
from fusion.inputs.jsonl import read_rows
from fusion.inputs.judgements import Qrels, read_judgements
from fusion.inputs.records import Unfit, field_text, text_of
from fusion.inputs.repeats import each_once, shown

logger = logging.getLogger(__name__)

EMBEDDED = "pydocs"


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


def load_data(name: str, split: str = "test") -> RetrievalData:
    """Load retrieval data: a folder, ``$FUSION_DATA/beir/NAME``, ``pydocs``, or BEIR on the hub.

    Raises:
        FusionError: It is nowhere (the message says where it was looked for), or a file is missing
            or malformed.
    """
    if name == EMBEDDED:
        from fusion.inputs.pydocs import retrieval_data

        return retrieval_data(split)
    folder = find_folder(name)
    if folder is not None:
        return read_beir(folder, split)
    return assemble(name, split, _from_hub(name, split))


def load_documents(name: str) -> dict[str, Document]:
    """The documents of retrieval data by their ids, without its queries and judgements."""
    folder = find_folder(name)
    if folder is not None:
        return _read_corpus(folder)
    if name == EMBEDDED:
        data = load_data(name)
        return {i: Document("", t) for i, t in zip(data.doc_ids, data.documents, strict=True)}
    return _from_hub(name, "test").documents


def _from_hub(name: str, split: str) -> RawData:
    found = data_from_hub(name, split)
    if found is None:
        raise FusionError(not_found("data", name, _places(name)))
    return found


def find_folder(name: str) -> Path | None:
    """Where the data lies: the folder ``NAME``, or ``$FUSION_DATA/beir/NAME``."""
    return next((folder for folder in _places(name) if folder.is_dir()), None)


def _places(name: str) -> list[Path]:
    root = os.environ.get("FUSION_DATA")
    return [Path(name)] + ([Path(root) / "beir" / name] if root else [])


def read_beir(folder: Path, split: str) -> RetrievalData:
    """Read a folder in BEIR's layout.

    Judgements that name unknown documents are kept (they count in the ideal ranking, as in
    trec_eval) and reported.

    Raises:
        FusionError: A file is missing or malformed.
    """
    found = RawData(_read_corpus(folder), _read_queries(folder), _read_qrels(folder, split))
    return assemble(folder.resolve().name, split, found)


def assemble(name: str, split: str, found: RawData) -> RetrievalData:
    """Bring rows, wherever they come from, into the order that evaluation needs."""
    documents, queries, qrels = found.documents, found.queries, found.qrels
    query_ids = [key for key in queries if key in qrels]
    if not query_ids:
        one, other = (shown(next(iter(side), "")) for side in (queries, qrels))
        raise FusionError(
            f"{name}: no query is judged in the split {split!r}: the queries' ids look like {one}, "
            f"those of the judgements like {other}"
        )
    _look_over(name, documents, queries, qrels)
    doc_ids = sorted(documents, reverse=True)
    return RetrievalData(
        name=name,
        split=split,
        query_ids=query_ids,
        queries=[queries[key] for key in query_ids],
        doc_ids=doc_ids,
        documents=[documents[key].whole for key in doc_ids],
        qrels={key: qrels[key] for key in query_ids},
    )


def _look_over(
    name: str, documents: dict[str, Document], queries: dict[str, str], qrels: Qrels
) -> None:
    """Say what of the judgements cannot count.

    Raises:
        FusionError: None of them can: every method would score 0.
    """
    pairs = [(key, doc_id) for key, judged in qrels.items() for doc_id in judged]
    strangers = [doc_id for _, doc_id in pairs if doc_id not in documents]
    lost = [key for key in qrels if key not in queries]
    negative = [" ".join(pair) for pair in pairs if qrels[pair[0]][pair[1]] < 0]
    blank = [key for key in queries if key in qrels and not queries[key].strip()]
    barren = [key for key in queries if key in qrels and max(qrels[key].values()) < 1]
    for what, found in (
        ("judgements name unknown documents and count as not found", strangers),
        ("judged queries have no text and are not counted", lost),
        ("queries are without a word", blank),
        ("judgements are negative and count as 0", negative),
        ("queries have no judgement above 0 and score 0", barren),
    ):
        if found:
            first = shown(found[0])
            logger.warning("%s: %d %s (the first is %s)", name, len(found), what, first)
    good = [pair for pair in pairs if pair[0] in queries and qrels[pair[0]][pair[1]] > 0]
    if not good:
        raise FusionError(f"{name}: no judgement is above 0, so every score would be 0")
    if all(doc_id not in documents for _, doc_id in good):
        raise FusionError(
            f"{name}: none of the {len(good)} relevant documents is in the corpus, whose ids look "
            f"like {shown(next(iter(documents)))}; the judgements say {shown(good[0][1])}"
        )


def _read_corpus(folder: Path) -> dict[str, Document]:
    path = _existing(folder / "corpus.jsonl")
    documents = each_once(str(path), _documents(path))
    empty = sum(not document.whole for document in documents.values())
    if empty:
        raise FusionError(f"{folder}/corpus.jsonl has {empty} documents without any text")
    if not documents:
        raise FusionError(f"{folder}/corpus.jsonl is empty")
    return documents


def _read_queries(folder: Path) -> dict[str, str]:
    path = _existing(folder / "queries.jsonl")
    queries = each_once(str(path), _queries(path))
    if not queries:
        raise FusionError(f"{folder}/queries.jsonl is empty")
    return queries


def _documents(path: Path) -> Iterator[tuple[str, Document]]:
    for number, row in read_rows(path):
        try:
            document = Document(field_text(row.get("title")), field_text(row["text"]))
        except Unfit as error:
            raise FusionError(f"{path}:{number}: the title or text is unfit: {error}") from None
        yield row["_id"], document


def _queries(path: Path) -> Iterator[tuple[str, str]]:
    for number, row in read_rows(path):
        try:
            yield row["_id"], text_of([row["text"]])
        except Unfit as error:
            raise FusionError(f"{path}:{number}: the text is unfit: {error}") from None


def _read_qrels(folder: Path, split: str) -> Qrels:
    return read_judgements(_existing(folder / "qrels" / f"{split}.tsv"))


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    zipped = path.with_name(path.name + ".gz")
    if zipped.is_file():
        return zipped
    beside = ", ".join(sorted(p.name for p in path.parent.glob("*"))) or "nothing"
    raise FusionError(f"{path} is missing; {path.parent.name}/ holds {beside}")
