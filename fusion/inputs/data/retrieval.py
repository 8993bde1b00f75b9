"""Retrieval data with judgements: from a folder, by name, or embedded.

A folder is laid out as BEIR does it: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/SPLIT.tsv``.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

from fusion.errors import FusionError
from fusion.inputs.data.hub import Document, RawData, data_from_hub, hub_reachable, not_found
from fusion.inputs.data.jsonl import read_rows
from fusion.inputs.data.judged import RetrievalData
from fusion.inputs.data.judgements import Qrels, read_judgements
from fusion.inputs.data.records import Unfit, field_text, text_of
from fusion.inputs.data.repeats import each_once, shown
from fusion.paths import as_path, root_of

logger = logging.getLogger(__name__)

EMBEDDED = "pydocs"
CORPUS = "corpus.jsonl"


def load_data(name: str, split: str = "test") -> RetrievalData:
    """Load retrieval data: a folder, ``$FUSION_DATA/beir/NAME``, ``pydocs``, or BEIR on the hub.

    Raises:
        FusionError: It is nowhere (the message says where it was looked for), or a file is missing
            or malformed.
    """
    if name == EMBEDDED:
        from fusion.inputs.data.pydocs import retrieval_data

        return retrieval_data(split)
    folder = find_folder(name)
    if folder is not None:
        return read_beir(folder, split)
    return assemble(name, split, _from_hub(name, split))


def load_documents(name: str) -> dict[str, Document]:
    """The documents of retrieval data by their ids, without its queries and judgements."""
    if name == EMBEDDED:
        data = load_data(name)
        return {i: Document("", t) for i, t in zip(data.doc_ids, data.documents, strict=True)}
    folder = find_folder(name)
    if folder is not None:
        return _read_corpus(folder)
    return _from_hub(name, "test").documents


def _from_hub(name: str, split: str) -> RawData:
    found = data_from_hub(name, split)
    if found is None:
        raise FusionError(not_found("data", name, _places(name)))
    return found


def find_folder(name: str) -> Path | None:
    """Where the data lies: the folder ``NAME``, or ``$FUSION_DATA/beir/NAME``.

    A folder without a corpus that only happens to be called so hides no data; it is given back, for
    a message, where there is nothing else.
    """
    found = [folder for folder in _places(name) if folder.is_dir()]
    whole = [folder for folder in found if _file(folder / CORPUS) is not None]
    return next(iter([*whole, *found]), None)


def check_data(name: str, split: str = "") -> None:
    """Refuse data that is nowhere, or a split that it has not, before anything is read.

    Raises:
        FusionError: It is neither embedded, nor a folder, nor is there a hub to ask.
    """
    folder = None if name == EMBEDDED else find_folder(name)
    if folder is not None and split:
        _existing(folder / "qrels" / f"{split}.tsv")
    if name != EMBEDDED and folder is None and not hub_reachable():
        raise FusionError(not_found("data", name, _places(name)))


def settled_data(name: str) -> str:
    """The name with an absolute path in it if it means a folder of its own: it holds anywhere."""
    folder = None if name == EMBEDDED else find_folder(name)
    return str(folder.absolute()) if folder is not None and folder == as_path(name) else name


def has_split(name: str, split: str) -> bool:
    """Whether data has judgements of a split; they may be damaged."""
    if name == EMBEDDED:
        return True
    folder = find_folder(name)
    if folder is not None:
        return _file(folder / "qrels" / f"{split}.tsv") is not None
    return data_from_hub(name, split) is not None


def _places(name: str) -> list[Path]:
    root = root_of("FUSION_DATA")
    return [as_path(name)] + ([root / "beir" / name] if root else [])


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
    path = _existing(folder / CORPUS)
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
    if (found := _file(path)) is not None:
        return found
    beside = ", ".join(sorted(p.name for p in path.parent.glob("*"))) or "nothing"
    raise FusionError(f"{path} is missing; {path.parent.name}/ holds {beside}")


def _file(path: Path) -> Path | None:
    """The file, or the same one gzipped; None where there is neither."""
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)
