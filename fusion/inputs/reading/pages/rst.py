"""reStructuredText as a document: headings and words, without most marks.

Most such files are Sphinx's: docutils knows few of their directives, and drops the text below one
that it does not know. Here the words of every directive stay, so no library is needed.
"""

import re

from fusion.inputs.data.records import field_text
from fusion.inputs.reading.pages.documents import Outline

ADORNMENT = re.compile(r"([!-/:-@[-`{-~])\1+\s*$")
SHORTEST = 3  # characters of an adornment: two dots are a mark
NO_WORDS = re.compile(
    r"\s*(\.\. (_[^:]+|index|highlight|toctree|contents|image|include|literalinclude|"
    r"currentmodule|module|sectionauthor|moduleauthor|versionadded|versionchanged|raw|"
    r"default-domain)::?.*|"
    r":[\w-]+:( .*)?|\.\. \[[^\]]+\] ?|\.\.)\s*$"
)
"""Lines that a reader of the page does not see: targets, options, directives without text."""
DIRECTIVE = re.compile(r"^(\s*)\.\. (?:[\w+:.-]+::) ?")
ROLE = re.compile(r":[\w+:.-]+:`~?!?([^`<]+?)(?:\s*<[^`>]*>)?`")
MARKED = re.compile(
    r"``([^`]+)``|`([^`<]+?)\s*(?:<[^`>]*>)?`__?|(?<!\w)\*\*([^*\n]+)\*\*|`([^`]+)`"
)


def parse(content: bytes) -> Outline:
    """Parse a page.

    Raises:
        Unfit: It is not UTF-8.
    """
    lines = field_text(content).replace("\r\n", "\n").expandtabs().split("\n")
    outline, styles, block = Outline(), [], []
    row = 0
    while row < len(lines):
        found = _heading(lines, row)
        if found is None:
            block.append(lines[row])
            row += 1
            continue
        outline.add(_words(block))
        block = []
        title, style, taken = found
        if style not in styles:
            styles.append(style)
        outline.add(_plain(title), styles.index(style) + 1)
        row += taken
    outline.add(_words(block))
    return outline


def _heading(lines: list[str], row: int) -> tuple[str, str, int] | None:
    """Title, style of adornment and number of lines of a heading that begins at a line."""
    over = _adorned(lines, row)
    if over and _adorned(lines, row + 2) == over and _is_title(lines[row + 1], lines[row + 2]):
        return lines[row + 1].strip(), over * 2, 3
    title = lines[row]
    under = _adorned(lines, row + 1)
    blank_before = row == 0 or not lines[row - 1].strip()
    if under and blank_before and title[:1].strip() and _is_title(title, lines[row + 1]):
        return title.strip(), under, 2
    return None


def _adorned(lines: list[str], row: int) -> str:
    """The character that a line of adornment is made of; empty for other lines."""
    line = lines[row] if row < len(lines) else ""
    match = ADORNMENT.match(line)
    return match.group(1) if match and len(line.strip()) >= SHORTEST else ""


def _is_title(title: str, line: str) -> bool:
    words = title.strip()
    return bool(words) and not ADORNMENT.match(words) and len(line.strip()) >= 0.7 * len(words)


def _words(block: list[str]) -> str:
    seen = [line for row, line in enumerate(block) if not _adorned(block, row)]
    kept = [_plain(DIRECTIVE.sub(r"\1", line)) for line in seen if not NO_WORDS.match(line)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n")


def _plain(line: str) -> str:
    line = ROLE.sub(r"\1", line)
    return MARKED.sub(lambda match: next(filter(None, match.groups()), ""), line)
