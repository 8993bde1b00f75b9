"""Plain texts to fit on: a file, the documents of retrieval data, or the embedded default."""

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fusion.errors import FusionError
from fusion.inputs.data.hub import Document, hub_reachable, not_found, wikipedia_from_hub
from fusion.inputs.data.pydocs import paragraphs
from fusion.inputs.data.records import repeated, text_of
from fusion.inputs.data.retrieval import EMBEDDED, check_data, load_documents, settled_data
from fusion.inputs.reading.kinds import KNOWN, kind_of
from fusion.inputs.reading.rows import TITLE, Fields, Heading, Row
from fusion.inputs.reading.sources import is_input
from fusion.inputs.reading.whole import read_rows
from fusion.paths import as_path, root_of
from fusion.samples import evenly_spaced

OF_DATA, WIKIPEDIA = "data:", "wikipedia"
logger = logging.getLogger(__name__)

_SENTENCE_ENDS = re.compile(r"(?<=[a-z0-9)\"'%\]][.!?])\s+(?=[A-Z\"'(0-9])")


@dataclass(frozen=True)
class Texts:
    """Plain texts to fit on.

    Attributes:
        name: What the person asked for.
        ids: n ids.
        texts: n texts, none empty.
        titles: n titles, empty where a text has none.
        headings: Those of each text that comes from a file; None for others, which are taken apart
            only if a person asks for it. May be left empty: then all are others.
    """

    name: str
    ids: list[str]
    texts: list[str]
    titles: list[str]
    headings: list[tuple[Heading, ...] | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def digest(self) -> str:
        """A hash of texts and titles, in their order."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (*self.texts, "", *self.titles):
            digest.update(part.encode() + b"\0")
        return digest.hexdigest()

    def first(self, count: int | None) -> "Texts":
        """The first ``count`` texts, all of them for None."""
        ids, texts, titles = self.ids[:count], self.texts[:count], self.titles[:count]
        return Texts(self.name, ids, texts, titles, self.headings[:count])


@dataclass(frozen=True)
class Reading:
    """How files of texts are read."""

    text_fields: tuple[str, ...] = ("text",)
    """Fields of JSON lines and tables that hold the text."""
    id_field: str = ""
    """Field of the id; by default ``_id`` or ``id``."""
    lines: bool = False
    """That a .txt file in a folder has a text on each line."""

    def __post_init__(self) -> None:
        self.fields()

    def fields(self) -> Fields:
        """What to look for in rows, with nothing found yet."""
        return Fields(self.text_fields, self.id_field)


def load_texts(name: str, max_texts: int | None = None, reading: Reading | None = None) -> Texts:
    """Load texts to fit on.

    Args:
        name: A file, a folder or a glob of documents and tables (titles are not part of the text,
            unless ``reading`` says so; a .txt file that is named itself has a text on each line),
            ``data:NAME`` (the documents of that retrieval data, no queries, no labels), a name in
            ``$FUSION_DATA/texts``, ``pydocs``, or ``wikipedia`` on the hub; several with commas.
        max_texts: Take at most the first so many.
        reading: How files are read.

    Raises:
        FusionError: It is nowhere (the message says where it was looked for), or it is empty.
    """
    reading = reading or Reading()
    parts = [_load_part(part, max_texts, reading) for part in _parts(name)]
    several = len(parts) > 1  # then ids may collide, and the source becomes part of an id
    ids = [f"{part.name}/{key}" if several else key for part in parts for key in part.ids]
    texts = [text for part in parts for text in part.texts]
    titles = [title for part in parts for title in part.titles]
    headings = [h for part in parts for h in part.headings or [None] * len(part)]
    return Texts(name, ids, texts, titles, headings).first(max_texts)


def _load_part(name: str, max_texts: int | None, reading: Reading) -> Texts:
    if name.startswith(OF_DATA):
        documents = load_documents(name.removeprefix(OF_DATA))
        whole, titles = [d.whole for d in documents.values()], [d.title for d in documents.values()]
        return Texts(name, list(documents), whole, titles).first(max_texts)
    if name == EMBEDDED:
        return _numbered(name, [Document("", text) for text in paragraphs()]).first(max_texts)
    path = _find_file(name)
    if path is not None:
        return read_texts(path, max_texts, reading)
    found = wikipedia_from_hub(max_texts) if name == WIKIPEDIA else None
    if found is None:
        raise FusionError(not_found("texts", name, _places(name)))
    return _numbered(name, found)


def check_texts(name: str) -> None:
    """Refuse texts that are nowhere or of no known kind, before anything is read.

    Raises:
        FusionError: As ``load_texts``.
    """
    for part in _parts(name):
        path = _find_file(part)
        if part.startswith(OF_DATA):
            check_data(part.removeprefix(OF_DATA))
        elif part != EMBEDDED and path is None and not (part == WIKIPEDIA and hub_reachable()):
            raise FusionError(not_found("texts", part, _places(part)))
        elif path is not None and path.is_file() and kind_of(path.name) is None:
            raise FusionError(f"{path} is of no known kind; choose among {KNOWN}")


def settled_texts(name: str) -> str:
    """The name with absolute paths in it where it means files or folders: it holds anywhere."""
    return ",".join(_settled(part) for part in _parts(name))


def _settled(part: str) -> str:
    if part.startswith(OF_DATA):
        return OF_DATA + settled_data(part.removeprefix(OF_DATA))
    path = _find_file(part)
    return str(path.absolute()) if path is not None and path == as_path(part) else part


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split(",") if part]
    if not parts:
        raise FusionError("--texts is empty; name a file, a data set (data:NAME) or pydocs")
    return parts


def _find_file(name: str) -> Path | None:
    """The file, folder or glob of texts that a name means, if it means one."""
    if name == EMBEDDED or name.startswith(OF_DATA):
        return None
    return next((path for path in _places(name) if is_input(str(path))), None)


def _places(name: str) -> list[Path]:
    own = [] if name == WIKIPEDIA else [as_path(name)]  # ./wikipedia is a file of that name
    root = root_of("FUSION_DATA")
    if root is None:
        return own
    return own + [root / "texts" / f"{name}{suffix}" for suffix in (".jsonl.gz", ".jsonl")]


def _numbered(name: str, documents: list[Document]) -> Texts:
    ids = [str(row) for row in range(len(documents))]
    return Texts(name, ids, [text_of([d.text]) for d in documents], [d.title for d in documents])


def read_texts(path: Path, max_texts: int | None = None, reading: Reading | None = None) -> Texts:
    """Read a file, a folder or a glob of texts; see ``load_texts``.

    Raises:
        FusionError: There is no text, a named file has a row that is none, or the folder is one of
            retrieval data.
    """
    if (path / "corpus.jsonl").is_file() and (path / "queries.jsonl").is_file():
        raise FusionError(f"{path} is retrieval data: write data:{path} to fit on its documents")
    reading = reading or Reading()
    rows = read_rows(path, reading.fields(), reading.lines, max_texts)
    ids = [_id_of(row, path) for row in rows]
    if words := repeated(ids):
        logger.warning("%s: %s", path, words)
    titles = [str(row.metadata.get(TITLE, "")) for row in rows]
    return Texts(path.name, ids, [row.text for row in rows], titles, [row.headings for row in rows])


def rows_of(texts: Texts) -> list[Row]:
    """Texts as rows that can be taken apart."""
    headings = texts.headings or [None] * len(texts)
    return [
        Row(key, text, {TITLE: title} if title else {}, above or (), number=0 if above else 1)
        for key, text, title, above in zip(
            texts.ids, texts.texts, texts.titles, headings, strict=True
        )
    ]


def _id_of(row: Row, path: Path) -> str:
    """A row's id; of one that has none of its own, in a file that was named, just its number."""
    return str(row.number) if row.id == f"{path.name}:{row.number}" else row.id


def pseudo_queries(
    texts: Sequence[str], count: int, titles: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Make queries and what they have to find without labels, by taking texts apart.

    Args:
        texts: n texts; a title that one begins with is cut off.
        count: Take at most so many; three times as many of those whose rest is the whole text, if
            that alone makes enough: there is nothing more to embed.
        titles: n titles, empty where a text has none; or nothing at all.

    Returns:
        Titles or first sentences of at least 5 words, and rests of at least 15, row by row.
    """
    parts = taken_apart(texts, titles)
    known = set(texts)
    whole = [part for part in parts if part.rest in known]
    if len(whole) >= count:
        parts, count = whole, 3 * count
    chosen = [parts[i] for i in evenly_spaced(len(parts), count)]
    return [part.query for part in chosen], [part.rest for part in chosen]


class Part(NamedTuple):
    """A text taken apart."""

    row: int
    """Of the text."""
    query: str
    """Its title, or its first sentence."""
    rest: str
    """What that has to find."""


def taken_apart(texts: Sequence[str], titles: Sequence[str] = ()) -> list[Part]:
    """The texts that can be taken apart into a title or first sentence and a rest.

    A text's title is worded more as people search than its first sentence is, so it comes first. Of
    texts with the same title only the first one is taken: the title does not tell them apart.
    """
    parts, seen = [], set()
    for row, (text, title) in enumerate(zip(texts, titles or [""] * len(texts), strict=True)):
        pair = _split_title(text, title) if title else _split_sentence(text)
        if pair is not None and not (title and title in seen):
            parts.append(Part(row, *pair))
            seen.add(title)
    return parts


def query_like(
    texts: Sequence[str], count: int, titles: Sequence[str] = ()
) -> tuple[list[str], list[int]]:
    """Find query-like parts of texts: a text's title, else single sentences out of it.

    Args:
        texts: n texts.
        count: At most so many sentences of each text, from the first one to the last, evenly
            spaced over it; 0 gives nothing, not even titles.
        titles: n titles, empty where a text has none; or nothing at all.

    Returns:
        Titles and sentences, and the index of the text that each belongs to, ascending. Sentences
        have 5 to 60 words; a text that has fewer than two of them gives none: its one sentence
        would be the text itself.
    """
    parts: list[str] = []
    owners: list[int] = []
    for index, text in enumerate(texts):
        title = titles[index].strip() if titles else ""
        found = [title][:count] if title else _some_sentences(text, count)
        parts += found
        owners += [index] * len(found)
    return parts, owners


def _some_sentences(text: str, count: int) -> list[str]:
    sentences = [s for s in _SENTENCE_ENDS.split(text) if 5 <= len(s.split()) <= 60]
    kept = count if len(sentences) > 1 else 0
    return [sentences[row] for row in evenly_spaced(len(sentences), kept)]


def _split_title(text: str, title: str) -> tuple[str, str] | None:
    rest = text.removeprefix(title)
    rest = (text if rest[:1].isalnum() else rest).strip()  # "Cat" is no part of "Cats purr"
    return (title, rest) if len(rest.split()) >= 15 else None


def _split_sentence(text: str) -> tuple[str, str] | None:
    match = re.search(r"(?<=[a-z0-9)\"'][.!?])\s+(?=[A-Z\"'(])", text)
    if match is None:
        return None
    first, rest = text[: match.start()], text[match.end() :]
    return (first, rest) if len(first.split()) >= 5 and len(rest.split()) >= 15 else None
