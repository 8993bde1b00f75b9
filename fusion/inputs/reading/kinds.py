"""What a file is, told by the end of its name."""

from enum import StrEnum


class Kind(StrEnum):
    """How a file is read."""

    LINES = "lines"
    """Plain text, a text a line."""
    TEXT = "text"
    """Plain text, one document."""
    MARKDOWN = "markdown"
    HTML = "html"
    RST = "rst"
    JSON_LINES = "jsonl"
    TABLE = "table"
    PARQUET = "parquet"


KINDS = {
    ".txt": Kind.TEXT,
    ".md": Kind.MARKDOWN,
    ".markdown": Kind.MARKDOWN,
    ".html": Kind.HTML,
    ".htm": Kind.HTML,
    ".rst": Kind.RST,
    ".jsonl": Kind.JSON_LINES,
    ".csv": Kind.TABLE,
    ".tsv": Kind.TABLE,
    ".parquet": Kind.PARQUET,
}
PACKED = ".gz"
KNOWN = f"{', '.join(KINDS)}, also {PACKED} of each"


def ending(name: str) -> str:
    """The end that tells a file's kind, without that of a packed one: ``A.CSV.gz`` gives .csv."""
    dot, last = name.lower().removesuffix(PACKED).rpartition(".")[1:]
    return dot + last


def kind_of(name: str, lines: bool = False) -> Kind | None:
    """The kind of a file; None where it is not known.

    ``lines`` makes each line of a .txt file a text of its own.
    """
    kind = KINDS.get(ending(name))
    return Kind.LINES if lines and kind is Kind.TEXT else kind
