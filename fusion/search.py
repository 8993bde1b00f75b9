"""``python -m fusion.search``: the nearest rows of a folder of shards, exactly."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fusion.terminal import INTERRUPTED, build_parser, path, run_door, say

if TYPE_CHECKING:
    from fusion.bulk.searching.index import Hit, Index

DESCRIPTION = """Search what fusion.encode wrote, exactly, in any precision, in memory that stays
flat as rows grow. Without a query it asks for one, again and again, until the input ends."""
EXAMPLES = """\
  python -m fusion.search vectors --query "What closes a file?"
  # encode with --keep, and the texts are shown
  python -m fusion.encode models/mine --input docs.jsonl --keep text,title --output vectors
  # many queries, a line of JSON for each: {"_id": …, "text": …} or a text a line
  python -m fusion.search vectors --queries queries.jsonl -k 100 --json > found.jsonl
  # ask from a prompt; the model has moved
  python -m fusion.search vectors --model elsewhere/mine
"""
PROMPT = "query: "
SHOWN = 300  # characters of a text


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_door(search, _parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = build_parser("search", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("shards", type=path, metavar="SHARDS", help="a folder of fusion.encode")
    add("--query", metavar="TEXT", help="what to look for (default: asked for at a prompt)")
    add("--queries", type=path, metavar="FILE", help="a .txt with a query a line, .jsonl with "
        "text and _id (also .gz), or .npy of query vectors")  # fmt: skip
    add("-k", type=int, metavar="N", help="results of a query (default 10)")
    add("--json", action="store_true", help="print a line of JSON for each query")
    add("--model", metavar="MODEL", help="the model that encoded the shards, where it has moved "
        "(default: where it was then)")  # fmt: skip
    return parser


def search(options: dict[str, Any]) -> int | None:
    """Open the shards, ask, print."""
    from fusion.bulk.searching.index import MEMORY, Index
    from fusion.bulk.searching.questions import Questions, read_questions

    k, as_json = options.get("k", 10), options.get("json", False)
    _check(options.get("query"), "queries" in options, k)
    questions = None
    if "queries" in options:
        questions = read_questions(options["queries"])
    elif "query" in options:
        questions = Questions([""], [options["query"]])
    memory = MEMORY if questions is None else 0  # what is asked once is not kept
    index = Index.open(options["shards"], options.get("model"), memory=memory)
    if k > len(index):
        sys.stderr.write(f"-k {k} is more than the {len(index):,} rows there are: all are shown\n")
    if questions is None:
        return _ask(index, k, as_json)
    found = index.search_many(questions.asked, k)
    for key, text, hits in zip(questions.ids, questions.named, found, strict=True):
        _show(key, text, hits, as_json)
    return None


def _check(query: str | None, in_file: bool, k: int) -> None:
    if query is not None and in_file:
        raise ValueError("--query and --queries both say what to look for; give one of them")
    if query is not None and not query.strip():
        raise ValueError("--query is empty; say what to look for")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")


def _ask(index: "Index", k: int, as_json: bool) -> int:
    """Answer what is typed, or what comes through a pipe, a line at a time."""
    while True:
        try:
            line = input(PROMPT if sys.stdin.isatty() else "").strip()
        except EOFError:
            return 0
        except KeyboardInterrupt:
            return INTERRUPTED
        if line:
            _show("", line, index.search(line, k), as_json)


def _show(key: str, query: str, hits: Sequence["Hit"], as_json: bool) -> None:
    """Print what was found; ``key`` is the query's id where it has one."""
    if as_json:
        own = {"_id": key, "query": query} if key else {"query": query}
        plain = [_plain(rank, hit) for rank, hit in enumerate(hits, 1)]
        say(json.dumps({**own, "hits": plain}, ensure_ascii=False))
        return
    if key:
        say(f"{key}: {query}")
    for rank, hit in enumerate(hits, 1):
        title = f"  {hit.fields['title']}" if hit.fields.get("title") else ""
        say(f"{rank:>3}  {hit.score:.4f}  {hit.id}{title}")
        text = " ".join(str(hit.fields.get("text", "")).split())
        if text:
            say(f"     {text[:SHOWN]}{'…' if len(text) > SHOWN else ''}")
        for name in hit.fields.keys() - {"text", "title"}:
            say(f"     {name}: {hit.fields[name]}")


def _plain(rank: int, hit: "Hit") -> dict[str, Any]:
    own = {"rank": rank, "id": hit.id, "score": round(hit.score, 6), "row": hit.row}
    return {**hit.fields, **own}


if __name__ == "__main__":
    sys.exit(main())
