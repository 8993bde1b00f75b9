"""One document or many texts: what the lines of a plain file look like."""

import re
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

LINES = 200  # that are looked at
FEWEST = 20  # that tell anything
GO_ON = 0.25  # share of lines that are full and whose sentence goes on in the next one
FULL = 0.9  # of the usual width: what a line reaches with the next one's first word
SENTENCES = 0.6  # share of lines that are one sentence each
BACK = 0.1  # share of lines that begin with a word for what was said before
FEWEST_WORDS = 5  # of a line; fewer are names and keywords
SENTENCE_WORDS = 40  # a line of more is a paragraph

WARNING = (
    "%s: each line is a text of its own, and these read like the lines of one document; if they "
    "are, put each paragraph on a line, or write JSON lines with a field 'text'"
)
_ENDS = re.compile(r"[.!?…][\"'”’)\]]*$")
_STOPS = re.compile(r"\w\w[.!?…][\"'”’)\]]*\s+[\"'“‘(\[]*[A-Z]")
_BACK = re.compile(
    r"[\"'“‘(\[]*(he|she|it|they|this|that|these|those|his|her|its|their|such|both|but|and|or|so|yet"
    r"|then|thus|hence|therefore|however|moreover|still|also|here|there|another|meanwhile)\b",
    re.IGNORECASE,
)


def is_one_document(lines: Sequence[str]) -> bool:
    """Whether lines are those of hard-wrapped prose, or sentences one after the other.

    Short paragraphs, questions, captions and messages, one a line, are neither: they do not fill
    their lines, have several sentences, or begin with no word that needs the line before.

    Args:
        lines: The first ones of a file, without white space around; blank ones do not count.

    Example:
        >>> is_one_document(["The cat sat on the mat", "and slept all day, until"] * 10)
        True
    """
    full = [line for line in lines if line]
    if len(full) < FEWEST:
        return False
    words = median(len(line.split()) for line in full)
    return FEWEST_WORDS <= words <= SENTENCE_WORDS and (_is_wrapped(full) or _is_split(full))


def _is_wrapped(lines: Sequence[str]) -> bool:
    """Whether sentences go on from line to line because a line is full."""
    width = sorted(map(len, lines))[len(lines) * 9 // 10]
    pairs = list(pairwise(lines))
    reached = [len(line) + 1 + len(after.split()[0]) for line, after in pairs]
    go_on = sum(
        after[0].islower() and not _ENDS.search(line) and length > FULL * width
        for (line, after), length in zip(pairs, reached, strict=True)
    )
    ended = any(_ENDS.search(line) for line in lines)  # else they are phrases
    return ended and go_on >= GO_ON * len(lines)


def _is_split(lines: Sequence[str]) -> bool:
    """Whether each line is a sentence, and some need those before."""
    single = sum(bool(_ENDS.search(line)) and not _STOPS.search(line) for line in lines)
    back = sum(bool(_BACK.match(line)) for line in lines)
    return single >= SENTENCES * len(lines) and back >= BACK * len(lines)
