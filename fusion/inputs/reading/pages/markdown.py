"""Markdown as a document, by markdown-it-py: what a reader of the page sees, without its marks."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from fusion.inputs.data.records import field_text
from fusion.inputs.reading.pages.documents import Outline
from fusion.inputs.reading.pages.html import text_of_html

FENCE = "---"  # around a page's settings in YAML
NESTED = 80  # lists in lists, within what Python's own stack bears; what is deeper is left out
BREAKS = {"softbreak": "\n", "hardbreak": "\n"}


def parse(content: bytes) -> Outline:
    """Parse a page of Markdown (CommonMark, with tables).

    Raises:
        Unfit: It is not UTF-8.
    """
    settings, body = _split(field_text(content).replace("\r\n", "\n"))
    title = settings.get("title")
    page = _Page(Outline(title=title.strip() if isinstance(title, str) else ""))
    for token in _markdown().parse(body):
        page.take(token)
    return page.outline


@dataclass
class _Page:
    """Puts a page together out of its tokens."""

    outline: Outline
    level: int = 0
    """Of the heading that is open; 0 for none."""
    is_item: bool = False
    """Whether an item of a list has just begun."""
    cells: list[str] = field(default_factory=list)
    """Of the row of a table that is open."""

    def take(self, token: Token) -> None:
        """Take in the next token."""
        if token.type in ("heading_open", "heading_close"):
            self.level = int(token.tag[1:]) if token.nesting == 1 else 0
        elif token.type == "list_item_open":
            self.is_item = True
        elif token.type in ("th_open", "td_open"):
            self.cells.append("")
        elif token.type == "tr_close":
            self.outline.add(" | ".join(self.cells), tight=True)
            self.cells = []
        else:
            self._take_words(token)

    def _take_words(self, token: Token) -> None:
        if token.type == "inline" and self.cells:
            self.cells[-1] = _words(token)
        elif token.type == "inline":
            self.outline.add(_words(token), self.level, tight=self.is_item)
            self.is_item = False
        elif token.type in ("fence", "code_block"):
            self.outline.add(token.content)
        elif token.type == "html_block":
            self.outline.add(text_of_html(token.content))


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"maxNesting": NESTED}).enable("table")


def _words(token: Token) -> str:
    """The words of a line: of links what is shown, of pictures what describes them."""
    parts = []
    for child in token.children or ():
        if child.type in BREAKS:
            parts.append(BREAKS[child.type])
        elif child.type in ("text", "code_inline", "image"):
            parts.append(child.content)
    return "".join(parts)


def _split(text: str) -> tuple[dict[str, Any], str]:
    """The settings that a page begins with, if it does, and the page."""
    if not text.startswith(f"{FENCE}\n"):
        return {}, text
    head, fence, body = text[len(FENCE) + 1 :].partition(f"\n{FENCE}\n")
    try:
        settings = yaml.safe_load(head) if fence else None
    except (yaml.YAMLError, ValueError, RecursionError):
        settings = None
    return (settings, body) if isinstance(settings, dict) else ({}, text)
