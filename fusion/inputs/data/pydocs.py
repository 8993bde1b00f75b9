"""``pydocs``, the embedded default: real text that every machine has, the docstrings of Python.

As texts: paragraphs of the docstrings of the standard library and of our own dependencies. As
retrieval data: the summary line of a docstring is the query, the rest of it the one relevant
document. A docstring serves either as text or as retrieval data, by its hash, never as both.
Sources are parsed, never imported.
"""

import ast
import gc
import hashlib
import inspect
import json
import logging
import os
import re
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tqdm import tqdm

from fusion.errors import FusionError, MissingExtraError
from fusion.inputs.data.judged import RetrievalData
from fusion.paths import default_root

logger = logging.getLogger(__name__)

MIN_WORDS = 20  # of a paragraph
MIN_SUMMARY_WORDS = 5
# With the standard library these are on every machine that trains. All installed packages
# would give twice the text, in three times the time, and another data set on each machine. Those
# that training brings are needed too: without them the same name would be other data.
PACKAGES = (
    "lightning",
    "matplotlib",
    "numpy",
    "safetensors",
    "scipy",
    "sentence_transformers",
    "sklearn",
    "torch",
    "tqdm",
    "yaml",
)
MAX_PAIRS = 2500  # of retrieval data in each split; keeps the demo short
SPLITS = ("test", "dev", "train")
# Their docstrings are test cases, generated, or copies of one another.
SKIPPED = {"test", "tests", "idlelib", "lib2to3", "pip", "_vendor", "vendored", "vendor"}
SHARED_WORDS = 0.6  # of the smaller one, above which two texts are near-duplicates


def paragraphs() -> list[str]:
    """Paragraphs of at least 20 words out of docstrings that are no retrieval data."""
    seen: dict[str, None] = {}
    for docstring in _docstrings():
        if _split_of(docstring) != "text":
            continue
        for paragraph in re.split(r"\n\s*\n", docstring):
            text = _one_line(paragraph)
            if len(text.split()) >= MIN_WORDS and _is_prose(text):
                seen.setdefault(text)
    # Neighbours come from one package; a fixed shuffle makes any prefix a fair sample.
    return sorted(seen, key=_hash)


def retrieval_data(split: str) -> RetrievalData:
    """Summary lines as queries, the rest of their docstrings as documents.

    Raises:
        FusionError: ``split`` is not one of ``test``, ``dev``, ``train``.
    """
    if split not in SPLITS:
        raise FusionError(f"pydocs has no split {split!r}; choose one of {', '.join(SPLITS)}")
    pairs = [pair for d in _docstrings() if _split_of(d) == split and (pair := _pair(d))]
    pairs = _without_near_duplicates(sorted(pairs, key=lambda pair: _hash(pair[1])))[:MAX_PAIRS]
    # Ids come from the text, so they stay the same when another package is installed.
    by_id = {_hash(document): (query, document) for query, document in pairs}
    doc_ids = sorted(by_id, reverse=True)
    query_ids = [f"q-{key}" for key in doc_ids]
    return RetrievalData(
        name="pydocs",
        split=split,
        query_ids=query_ids,
        queries=[by_id[key][0] for key in doc_ids],
        doc_ids=doc_ids,
        documents=[by_id[key][1] for key in doc_ids],
        qrels={f"q-{key}": {key: 1} for key in doc_ids},
    )


def _pair(docstring: str) -> tuple[str, str] | None:
    summary, _, rest = docstring.partition("\n\n")
    query, document = _one_line(summary), _one_line(rest)
    words = len(query.split())
    if not MIN_SUMMARY_WORDS <= words <= MIN_WORDS or not _is_prose(query):
        return None
    if len(document.split()) < MIN_WORDS or not _is_prose(document) or query in document:
        return None
    return query, document


def _without_near_duplicates(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Drop a pair whose query repeats, or whose document shares most of its words with another."""
    kept: list[tuple[str, str]] = []
    queries: set[str] = set()
    holders: dict[str, list[int]] = {}  # the rarest kind of word pair finds candidates quickly
    word_sets: list[set[str]] = []
    for query, document in pairs:
        words = set(re.findall(r"\w{4,}", document.lower()))
        shingles = _shingles(document)
        candidates = {row for shingle in shingles for row in holders.get(shingle, ())}
        if query.lower() in queries or any(
            len(words & word_sets[row])
            > SHARED_WORDS * max(1, min(len(words), len(word_sets[row])))
            for row in candidates
        ):
            continue
        queries.add(query.lower())
        for shingle in shingles:
            holders.setdefault(shingle, []).append(len(kept))
        kept.append((query, document))
        word_sets.append(words)
    return kept


def _shingles(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[at : at + 5]) for at in range(len(words) - 4)}


def _split_of(docstring: str) -> str:
    """A fifth of all docstrings for each split of the retrieval data, the rest for texts.

    By what follows the summary: overloads repeat it, and a document must not be in two splits.
    """
    summary, _, rest = docstring.partition("\n\n")
    bucket = int(_hash(_one_line(rest) or summary)[:4], 16) % 5
    return SPLITS[bucket] if bucket < len(SPLITS) else "text"


def _is_prose(text: str) -> bool:
    letters = sum(character.isalpha() or character == " " for character in text)
    return letters >= 0.8 * len(text) and ">>>" not in text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


@cache
def _docstrings() -> tuple[str, ...]:
    """All docstrings, each once; parsing takes half a minute, so they are kept on disk."""
    files = _source_files()
    state = [f"{path}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in files]
    path = default_root() / f"pydocs-{_hash(' '.join(state))}.json"
    if path.is_file():
        try:
            return tuple(json.loads(path.read_text(encoding="utf-8")))
        except ValueError:
            logger.warning("%s is damaged and is made again", path.name)
    found = tuple(dict.fromkeys(_parse(files)))
    if not found:
        raise FusionError("no docstrings were found beside this Python; name other --texts")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(found), encoding="utf-8")
    partial.replace(path)
    return found


def _parse(files: list[Path]) -> list[str]:
    found: list[str] = []
    gc.disable()  # a syntax tree is all small objects: collection would double the time
    try:
        for path in tqdm(files, desc="reading docstrings", unit="file", disable=None):
            found += _docstrings_in(path)
    finally:
        gc.enable()
    return found


def _source_files() -> list[Path]:
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise MissingExtraError(f"pydocs reads the docstrings of {', '.join(missing)} too", "train")
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    roots = [stdlib]
    for name in PACKAGES:
        spec = find_spec(name)
        roots += [Path(folder) for folder in (spec and spec.submodule_search_locations) or []]
    files: list[Path] = []
    for root in roots:
        skipped = SKIPPED | {"site-packages"} if root == stdlib else SKIPPED
        files += [
            path
            for path in sorted(root.rglob("*.py"))
            if not skipped & set(path.relative_to(root).parts)
        ]
    return files


def _docstrings_in(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError, RecursionError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(tree) if isinstance(node, kinds))
    return [inspect.cleandoc(text) for node in nodes if (text := ast.get_docstring(node, False))]
