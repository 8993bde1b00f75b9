"""HTML as a document, by selectolax: what a reader of the page sees, without what is around it."""

import codecs
import re

from selectolax.lexbor import LexborHTMLParser, LexborNode

from fusion.inputs.data.records import Unfit, field_text
from fusion.inputs.reading.pages.documents import Outline

AROUND = (
    "script, style, noscript, template, svg, iframe, nav, footer, aside, form, button, "
    "[role=navigation], [role=search], [role=contentinfo], [hidden], .headerlink"
)
"""What is on every page of a site and of no use to a search, by its tags and roles."""
MAIN = ("main", "[role=main]", "article", "body")
BLOCKS = {
    "address", "article", "blockquote", "body", "caption", "center", "dd", "details", "dialog",
    "div", "dl", "dt", "fieldset", "figcaption", "figure", "header", "hgroup", "hr", "html", "li",
    "main", "ol", "p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul",
}  # fmt: skip
TIGHT = {"li", "dd", "tr"}
CELLS = {"td", "th"}
LEVELS = {f"h{level}": level for level in range(1, 7)}
CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
HEAD = 1024  # bytes in which a page names its encoding


def parse(content: bytes) -> Outline:
    """Parse a page.

    Raises:
        Unfit: Its bytes are not of the encoding that it names, UTF-8 where it names none.
    """
    tree = LexborHTMLParser(_decoded(content))
    named = tree.css_first("title")
    title = " ".join(named.text().split()) if named is not None else ""
    for around in tree.css(AROUND):
        around.decompose()
    root = next((node for name in MAIN if (node := tree.css_first(name)) is not None), None)
    outline = _Walk(Outline())
    if root is not None:
        outline.into(root)
    outline.close()
    found = outline.outline
    if not any(heading.level == 1 for heading in found.headings):
        found.title = title  # else its first heading says it without the name of the site
    return found


def text_of_html(markup: str) -> str:
    """The text of a piece of HTML, as it stands in Markdown."""
    return parse(markup.encode("utf-8")).text


def _decoded(content: bytes) -> str:
    named = CHARSET.search(content[:HEAD])
    name = named.group(1).decode("ascii") if named else "utf-8"
    try:
        if codecs.lookup(name).name == "utf-8":
            return field_text(content)
        return content.decode(name)
    except LookupError:
        return field_text(content)
    except UnicodeDecodeError as error:
        raise Unfit(f"it says that it is {name}, but is not at byte {error.start}") from None


class _Walk:
    """Walks a page in its order, and puts its blocks together."""

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self.line: list[str] = []
        self.level = 0
        self.tight = self.is_code = False

    def into(self, root: LexborNode) -> None:
        """Take in all below a node, without recursion: pages nest as deep as they like."""
        waiting = [(root, False)]
        while waiting:
            node, is_done = waiting.pop()
            if is_done:
                self._close(node)
                continue
            self._open(node)
            waiting.append((node, True))
            waiting += [(child, False) for child in reversed(list(node.iter(include_text=True)))]

    def _open(self, node: LexborNode) -> None:
        tag = node.tag
        if tag == "-text":
            text = node.text_content or ""
            self.line.append(text if self.is_code else re.sub(r"\s+", " ", text))
        elif tag == "br":
            self.line.append("\n")
        elif tag == "img":
            self.line.append((node.attributes.get("alt") or "").strip())
        elif tag in CELLS and self.line and "".join(self.line).strip():
            self.line.append(" | ")
        elif tag in BLOCKS or tag in LEVELS:
            self.close()
            self.level = LEVELS.get(tag, 0)
            self.is_code = tag == "pre" or self.is_code
            self.tight = tag in TIGHT

    def _close(self, node: LexborNode) -> None:
        if node.tag in BLOCKS or node.tag in LEVELS:
            self.close()
            self.level = 0
            self.is_code = self.is_code and node.tag != "pre"

    def close(self) -> None:
        """End a block."""
        text = "".join(self.line)
        if not self.is_code:
            text = "\n".join(" ".join(part.split()) for part in text.split("\n"))
        self.outline.add(text if self.is_code else text.strip(), self.level, self.tight)
        self.line.clear()
        self.tight = False
