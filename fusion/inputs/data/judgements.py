"""Judgements out of a file: BEIR's three columns or TREC's four, under a heading or none."""

import re
from collections.abc import Iterator
from pathlib import Path

from fusion.errors import FusionError
from fusion.inputs.data.jsonl import read_lines
from fusion.inputs.data.repeats import each_once, shown

HIGHEST = 2**31  # a relevance beyond is a damaged file
Qrels = dict[str, dict[str, int]]
"""Query id to document id to relevance."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,15}(\.0*)?")
_ITERATION = re.compile(r"[Qq]?[0-9.]+")  # TREC's second column, which nobody reads
_QUERY = {"query", "queryid", "qid", "topic", "topicid"}
_DOCUMENT = {"corpus", "corpusid", "doc", "docid", "docno", "document", "documentid", "pid", "did"}
_SCORE = {"score", "rel", "relevance", "relevancy", "grade", "label", "judgement", "judgment"}
EXPECTED = "'query-id<tab>corpus-id<tab>integer score' or TREC's 'query-id 0 corpus-id score'"


def read_judgements(path: Path) -> Qrels:
    """Read a file of judgements.

    Columns stand between tabs, or between spaces where a line has no tab. A first line that ends in
    no number is a heading if it names what it heads (``query-id corpus-id score``, ``qid pid
    relevance``); any other is an error, not a judgement less.

    Raises:
        FusionError: A line is neither, two lines contradict each other, or there is no judgement.
    """
    rows = each_once(str(path), _rows(path))
    if not rows:
        raise FusionError(f"{path} holds no judgement")
    return nested(rows)


def nested(rows: dict[tuple[str, str], int]) -> Qrels:
    """Judgements of pairs (query id, document id), by query."""
    qrels: Qrels = {}
    for (query_id, doc_id), relevance in rows.items():
        qrels.setdefault(query_id, {})[doc_id] = relevance
    return qrels


def relevance_of(score: object, where: str) -> int:
    """A score as an integer; ``1.0`` is 1.

    Raises:
        FusionError: It is no integer, or beyond ``HIGHEST``.
    """
    text = str(score).strip()
    if not _INTEGER.fullmatch(text):
        raise FusionError(f"{where} is not {EXPECTED}: its score is {shown(text)}")
    relevance = int(text.partition(".")[0])
    if abs(relevance) > HIGHEST:
        raise FusionError(f"{where} has a score beyond {HIGHEST}")
    return relevance


def _rows(path: Path) -> Iterator[tuple[tuple[str, str], int]]:
    width = 0
    for number, line in read_lines(path):
        row, where = _columns(line), f"{path}:{number}"
        if not width:
            _check_width(where, row)
            width = len(row)
            if _is_heading(where, row):
                continue
        query_id, doc_id, score = _triple(where, row, width)
        yield (query_id, doc_id), relevance_of(score, where)


def _columns(line: str) -> list[str]:
    line = line.rstrip()
    return line.split("\t") if "\t" in line else line.split()


def _check_width(where: str, row: list[str]) -> None:
    if len(row) not in (3, 4):
        raise FusionError(f"{where} is not {EXPECTED}")


def _triple(where: str, row: list[str], width: int) -> tuple[str, str, str]:
    _check_width(where, row)
    if len(row) != width:
        raise FusionError(f"{where} has {len(row)} columns, the lines before it {width}")
    if width == 3:
        query_id, doc_id, score = row
    else:
        query_id, iteration, doc_id, score = row
        if not _ITERATION.fullmatch(iteration):
            raise FusionError(f"{where} is not {EXPECTED}")
    return query_id, doc_id, score


def _is_heading(where: str, row: list[str]) -> bool:
    """Whether the first line names its columns.

    Raises:
        FusionError: It does so in another order, or it may as well be a damaged judgement.
    """
    if _INTEGER.fullmatch(row[-1].strip()):
        return False
    names = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in row]
    if names[0] in _DOCUMENT or names[-2] in _QUERY:
        raise FusionError(f"{where} heads other columns than {EXPECTED}")
    if names[-1] in _SCORE or (names[0] in _QUERY and names[-2] in _DOCUMENT):
        return True
    raise FusionError(f"{where} is neither a heading nor {EXPECTED}")
