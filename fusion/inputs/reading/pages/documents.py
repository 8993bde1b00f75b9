"""Files that are one document each: text with a title and headings."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import BinaryIO

from fusion.inputs.data.records import field_text
from fusion.inputs.reading.kinds import Kind
from fusion.inputs.reading.lines import MARK
from fusion.inputs.reading.rows import (
    LONGEST_DOCUMENT,
    TITLE,
    Fields,
    Heading,
    Row,
    check_size,
    checked,
)

GAP, TIGHT = "\n\n", "\n"  # between paragraphs; between the items of a list, rows of a table
PARSERS = {  # the libraries behind them are loaded when the first such file is met
    Kind.MARKDOWN: "fusion.inputs.reading.pages.markdown:parse",
    Kind.HTML: "fusion.inputs.reading.pages.html:parse",
    Kind.RST: "fusion.inputs.reading.pages.rst:parse",
}


@dataclass
class Outline:
    """A document's text as it is put together, block by block."""

    title: str = ""
    """Its own; else the first of its highest headings."""
    parts: list[str] = field(default_factory=list)
    headings: list[Heading] = field(default_factory=list)
    length: int = 0
    """Characters so far."""

    def add(self, block: str, level: int = 0, tight: bool = False) -> None:
        """Add a block of text; ``level`` from 1 on makes it a heading, ``tight`` keeps it close."""
        block = block.strip("\n") if level == 0 else " ".join(block.split())
        if not block.strip():
            return
        if self.parts:
            self._append(TIGHT if tight else GAP)
        if level:
            self.headings.append(Heading(self.length, self.length + len(block), level))
        self._append(block)

    def _append(self, text: str) -> None:
        self.parts.append(text)
        self.length += len(text)

    @property
    def text(self) -> str:
        """All blocks."""
        return "".join(self.parts)


def read_document(name: str, kind: Kind, file: BinaryIO, fields: Fields) -> Row:
    """Read a file that is one document.

    Its id is its name; ``title`` and ``text`` are its fields.

    Raises:
        Unfit: It is empty, too long, or no text.
    """
    content = file.read(LONGEST_DOCUMENT + 1)
    check_size(len(content), LONGEST_DOCUMENT)
    outline = _parser(kind)(content.removeprefix(MARK))
    text = checked(field_text(outline.text), LONGEST_DOCUMENT)
    title = field_text(outline.title or _first_heading(outline, text)).strip()
    headings = tuple(outline.headings)
    if title and TITLE in fields.text and not text.startswith(title):
        before = f"{title}{GAP}"
        text = before + text
        headings = tuple(
            Heading(h.start + len(before), h.end + len(before), h.level) for h in headings
        )
    return Row(name, text, {TITLE: title} if title else {}, headings)


def _parser(kind: Kind) -> Callable[[bytes], Outline]:
    if kind not in PARSERS:
        return _parse_plain
    module, _, function = PARSERS[kind].partition(":")
    parser: Callable[[bytes], Outline] = getattr(import_module(module), function)
    return parser


def _parse_plain(content: bytes) -> Outline:
    text = field_text(content).replace("\r\n", "\n").strip()
    return Outline(parts=[text])


def _first_heading(outline: Outline, text: str) -> str:
    highest = min((heading.level for heading in outline.headings), default=0)
    first = next((h for h in outline.headings if h.level == highest), None)
    return text[first.start : first.end] if first else ""
