"""One document or many texts: what the lines of a plain file look like."""

import re
from collections.abc import Sequence
from statistics import median

LINES = 200  # that are looked at
FEWEST = 20  # that tell anything
GO_ON = 0.25  # share of lines whose sentence goes on in the next one
SENTENCES = 0.6  # share of lines that are sentences
FEWEST_WORDS = 5  # of a line; fewer are names and keywords
SENTENCE_WORDS = 40  # a line of more is a paragraph

WARNING = (
    "%s: each line is a text of its own, and these read like the lines of one document; if they "
    "are, put each paragraph on a line, or write JSON lines with a field 'text'"
)
_ENDS = re.compile(r"[.!?…][\"'”’)\]]*$")


def is_one_document(lines: Sequence[str]) -> bool:
    """Whether lines are those of hard-wrapped prose, or sentences one after the other.

    Args:
        lines: The first ones of a file, without white space around; blank ones do not count.

    Example:
        >>> is_one_document(["The cat sat on the mat", "and slept all day, until"] * 10)
        True
    """
    full = [line for line in lines if line]
    if len(full) < FEWEST:
        return False
    ended = [bool(_ENDS.search(line)) for line in full]
    begun = [line[0].islower() for line in full]
    go_on = sum(not end and low for end, low in zip(ended, begun[1:], strict=False))
    words = median(len(line.split()) for line in full)
    if not FEWEST_WORDS <= words <= SENTENCE_WORDS:
        return False
    wrapped = go_on >= GO_ON * len(full) and any(ended)  # else they are phrases
    return wrapped or sum(ended) >= SENTENCES * len(full)
