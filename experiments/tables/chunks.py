"""What chunks are worth on long documents: pages of Python's documentation, headings as queries.

Command:  python experiments/tables/chunks.py [--pages FOLDER]
Hardware: any CPU; about five minutes on one core.
Expected: chunks find far more of the sections that begin behind an encoder's limit than the cut
          page does, and lose nothing on those before it.

FOLDER holds the documentation as HTML (Debian's package python3.11-doc has it). Pages of 400 to
2,500 tokens are taken, evenly spaced. A query is a heading of two words or more that no other page
has; it is taken out of its page, so that nothing finds it by its own words, and its page is the one
right answer. A page has the score of its best chunk. Writes experiments/results/chunks.json.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fusion.environment import describe_environment
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.limits import Tokenizing, shortest
from fusion.inputs.encoders.text import FrozenEncoder, load_encoder
from fusion.inputs.reading.chunks import Chunker, Chunking
from fusion.inputs.reading.reader import Reader
from fusion.inputs.reading.rows import Heading, Row
from fusion.inputs.reading.sources import find_sources
from fusion.measure.statistics import bootstrap_means, compare, intervals
from fusion.samples import evenly_spaced

RESULTS = Path(__file__).parents[1] / "results" / "chunks.json"
PAGES = Path("/usr/share/doc/python3.11/html")
PARTS = ("library", "howto", "tutorial", "reference", "using", "extending", "faq")
COUNT, SHORTEST, LONGEST = 200, 400, 2500  # pages, and their tokens
WEIGHTS = {"minilm": 1.0, "wordllama": 0.5}  # squared
NUMBERS = re.compile(r"^[\d.]+\s*")
WAYS = {  # what becomes of a page -> how, and whether headings stand above chunks
    "as it is": (Chunking("none"), True),
    "chunks of 100": (Chunking(100), True),
    "chunks of 200": (Chunking(200), True),
    "chunks of 200, overlap 40": (Chunking(200, 40), True),
    "chunks of 200, no headings above": (Chunking(200), False),
}
DEAR = ("as it is", "chunks of 200")  # measured with minilm too


@dataclass(frozen=True)
class Query:
    """A heading that was taken out of its page."""

    text: str
    page: int
    behind: bool
    """Whether its section begins behind what minilm reads of the page."""


def read_pages(folder: Path, tokens: Tokenizing) -> list[Row]:
    """Pages of the right lengths, evenly spaced."""
    sources = [s for part in PARTS for s in find_sources(str(folder / part / "*.html"))]
    rows = [row for row in Reader(sources) if isinstance(row, Row) and row.headings]
    lengths = map(len, tokens.starts([row.text for row in rows]))
    fit = [r for r, n in zip(rows, lengths, strict=True) if SHORTEST <= n <= LONGEST]
    return [fit[at] for at in evenly_spaced(len(fit), COUNT)]


def take_out(pages: list[Row], tokens: Tokenizing) -> tuple[list[Row], list[Query]]:
    """The pages without the headings that are asked for, and these."""
    named = Counter(words for page in pages for _, words in _headings(page))
    bare, queries = [], []
    for row, page in enumerate(pages):
        asked = [
            (heading, words)
            for heading, words in _headings(page)
            if heading.level > 1 and named[words] == 1 and len(words.split()) >= 2
        ]
        left, moved = _without(page, [heading for heading, _ in asked])
        starts = tokens.starts([left.text])[0]
        limit = starts[tokens.room] if len(starts) > (tokens.room or 0) else len(left.text)
        bare.append(left)
        queries += [
            Query(words, row, place >= limit)
            for (_, words), place in zip(asked, moved, strict=True)
        ]
    return bare, queries


def _headings(page: Row) -> list[tuple[Heading, str]]:
    return [(h, NUMBERS.sub("", page.text[h.start : h.end])) for h in page.headings]


def _without(page: Row, asked: list[Heading]) -> tuple[Row, list[int]]:
    """A page without some of its headings, and where their sections begin in it."""
    text, removed, places, kept = page.text, 0, [], []
    for heading in page.headings:
        start, end = heading.start - removed, heading.end - removed
        if heading in asked:
            text = text[:start] + text[end:].lstrip("\n")
            removed = len(page.text) - len(text)
            places.append(start)
        else:
            kept.append(replace(heading, start=start, end=end))
    return replace(page, text=text, headings=tuple(kept)), places


def ways(pages: list[Row], tokens: Tokenizing) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """What becomes of the pages: names, n texts, and int [n] which page each belongs to."""
    for name, (chunking, headed) in WAYS.items():
        texts, owners = [], []
        for row, page in enumerate(pages):
            for part in Chunker(tokens, chunking).apart([page]):
                start, end = part.metadata.get("start", 0), part.metadata.get("end")
                texts.append(part.text if headed else page.text[start:end])
                owners.append(row)
        yield name, texts, np.array(owners)


def ndcg(
    queries: np.ndarray, parts: np.ndarray, owners: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """nDCG@10 [q] where each query [q, d] has one right page, by the best of its parts [n, d]."""
    scores = queries @ parts.T  # (q, n)
    pages = np.full((len(queries), owners.max() + 1), -np.inf, np.float32)  # (q, pages)
    for page in range(pages.shape[1]):
        pages[:, page] = scores[:, owners == page].max(axis=1)
    own = pages[np.arange(len(queries)), right]
    ranks = (pages > own[:, None]).sum(axis=1)
    return np.where(ranks < 10, 1 / np.log2(ranks + 2), 0.0)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fused(encoders: list[FrozenEncoder], texts: list[str], role: Role) -> np.ndarray:
    """Blocks of length 1, weighted, side by side: float32 [n, d] of length 1."""
    blocks = [WEIGHTS[e.name] ** 0.5 * unit(e.encode(texts, role)) for e in encoders]
    return unit(np.concatenate(blocks, axis=1))


def measured(
    encoders: list[FrozenEncoder], pages: list[Row], asked: list[Query], tokens: Tokenizing
) -> Iterator[dict[str, Any]]:
    """A row of the report for each way, compared with the pages as they are."""
    queries = fused(encoders, [query.text for query in asked], Role.QUERY)
    right, behind = (np.array([getattr(q, k) for q in asked]) for k in ("page", "behind"))
    base: np.ndarray | None = None
    for name, texts, owners in ways(pages, tokens):
        if len(encoders) > 1 and name not in DEAR:
            continue
        scores = ndcg(queries, fused(encoders, texts, Role.DOCUMENT), owners, right)
        base = scores if base is None else base
        yield {
            "encoders": [encoder.name for encoder in encoders],
            "way": name,
            "texts": len(texts),
            "ndcg_at_10": float(scores.mean()),
            "ci95": intervals(bootstrap_means(scores[:, None]))[0].tolist(),
            "before": float(scores[~behind].mean()),
            "behind": float(scores[behind].mean()),
            "against": None if scores is base else _plain(compare([scores], [base])),
        }


def _plain(found: Any) -> dict[str, Any]:  # noqa: ANN401 - a Comparison
    return {"difference": found.difference, "ci95": list(found.ci95), "p_value": found.p_value}


def main() -> None:
    """Read, take apart, measure, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=Path, default=PAGES, help=f"HTML (default {PAGES})")
    encoders = [load_encoder(name) for name in WEIGHTS]
    tokens = shortest([encoder.tokens for encoder in encoders])
    pages, asked = take_out(read_pages(parser.parse_args().pages, tokens), tokens)
    rows = [
        row for some in ([encoders[1]], encoders) for row in measured(some, pages, asked, tokens)
    ]
    report = {
        "environment": describe_environment(),
        "weights": WEIGHTS,
        "pages": len(pages),
        "queries": len(asked),
        "behind": sum(query.behind for query in asked),
        "limit": tokens.room,
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
