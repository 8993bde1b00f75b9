"""The model hub: whether it answers, and data sets and texts from it, through ``datasets``."""

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from fusion.errors import FusionError, MissingExtraError
from fusion.inputs.data.judgements import Qrels, nested, relevance_of
from fusion.inputs.data.records import field_text, text_of
from fusion.inputs.data.repeats import each_once
from fusion.paths import as_path

WIKIPEDIA = ("wikimedia/wikipedia", "20231101.en")
HUB_CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "SENTENCE_TRANSFORMERS_HOME")
MIN_WORDS = 50  # of a paragraph, as in the paper
PAPER_TEXTS = 500_000


class Document(NamedTuple):
    """A document of retrieval data."""

    title: str
    """Empty where it has none."""
    text: str

    @property
    def whole(self) -> str:
        """What is embedded: title, a space, text; see ``text_of``."""
        return text_of([self.title, self.text])


@dataclass(frozen=True)
class RawData:
    """Rows of a retrieval data set as they were read.

    Attributes:
        documents: By their ids.
        queries: Query id to text; may hold those of other splits.
        qrels: Query id to document id to relevance, of one split.
    """

    documents: dict[str, Document]
    queries: dict[str, str]
    qrels: Qrels


@cache
def hub_reachable() -> bool:
    """Whether the model hub answers; asked once, since the hub's client retries for a minute."""
    if _is_on("HF_HUB_OFFLINE"):
        return False
    try:
        endpoint = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
        host, port = endpoint.hostname or "", endpoint.port
    except ValueError:  # the port is no number
        return False
    proxies = getproxies()
    if (proxies.get(endpoint.scheme) or proxies.get("all")) and not proxy_bypass(host):
        return True  # only the proxy knows; let the client ask it
    port = port or {"http": 80}.get(endpoint.scheme, 443)
    try:
        socket.create_connection((host or "?", port), timeout=5).close()
    except (OSError, UnicodeError):
        return False
    return True


def in_hub_cache(source: str) -> bool:
    """Whether something of a model lies in the hub client's cache; it may not be whole."""
    names = (source, f"sentence-transformers/{source}")  # a bare name may be that library's own
    folders = [f"models--{name.replace('/', '--')}" for name in names]
    return any((place / folder).is_dir() for place in _hub_caches() for folder in folders)


def _hub_caches() -> Iterator[Path]:
    """Where the clients look, by the variables that they read."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    named = [os.environ.get(name) for name in HUB_CACHES]
    for place in filter(None, [*named, f"{home}/hub"]):
        with suppress(FusionError):  # without a home folder there is no cache in it
            yield as_path(place)


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}


def data_from_hub(name: str, split: str) -> RawData | None:
    """Load BEIR's own copy of a data set; None where the hub does not have it."""
    datasets = _datasets(name)
    if datasets is None:
        return None
    try:
        corpus = datasets.load_dataset(f"BeIR/{name}", "corpus", split="corpus")
        queries = datasets.load_dataset(f"BeIR/{name}", "queries", split="queries")
        judged = datasets.load_dataset(
            f"BeIR/{name}-qrels", split="validation" if split == "dev" else split
        )
    except Exception:  # the library raises many kinds; the caller says where else was looked
        return None
    pairs = (
        ((str(row["query-id"]), str(row["corpus-id"])), relevance_of(row["score"], name))
        for row in judged
    )
    documents = ((row["_id"], Document(field_text(row["title"]), row["text"])) for row in corpus)
    asked = ((row["_id"], text_of([row["text"]])) for row in queries)
    return RawData(
        each_once(f"corpus of {name}", documents),
        each_once(f"queries of {name}", asked),
        nested(each_once(f"qrels of {name}", pairs)),
    )


def wikipedia_from_hub(max_texts: int | None) -> list[Document] | None:
    """The first paragraphs of at least 50 words of English Wikipedia; None without a hub."""
    datasets = _datasets("wikipedia")
    if datasets is None:
        return None
    try:
        articles = datasets.load_dataset(*WIKIPEDIA, split="train", streaming=True)
        return _paragraphs(articles, max_texts or PAPER_TEXTS)
    except Exception:  # as above
        return None


def not_found(what: str, name: str, tried: list[Path]) -> str:
    """One line that says where a name was looked for, and the way out."""
    places = ", ".join(str(path) for path in tried) or "no file"
    data = "" if os.environ.get("FUSION_DATA") else " ($FUSION_DATA is not set)"
    return (
        f"{what} {name!r} not found: tried {places}{data}, then the hub, which cannot be reached "
        "or does not have it; without a network use 'pydocs' or your own files"
    )


def _paragraphs(articles: Iterable[dict[str, str]], count: int) -> list[Document]:
    found: list[Document] = []
    for article in articles:
        parts = [p for p in article["text"].split("\n\n") if len(p.split()) >= MIN_WORDS]
        found += [Document(article["title"], part) for part in parts]
        if len(found) >= count:
            break
    return found[:count]


def _datasets(name: str) -> ModuleType | None:
    if not hub_reachable():
        return None
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(f"{name!r} is read from the hub by datasets", "hub") from error
    return datasets
