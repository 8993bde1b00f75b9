"""How many texts an encoder could not read to their end."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Cuts:
    """Counts of texts that are longer than an encoder's limit."""

    name: str
    """Of the encoder."""
    limit: int
    """Tokens that it reads of a text, its prompt among them."""
    texts: int = 0
    """That it was given."""
    lengths: Counter[int] = field(default_factory=Counter)
    """How many of the texts that were cut have so many tokens."""

    def add(self, tokens: Iterable[int]) -> None:
        """Count texts by their tokens."""
        tokens = list(tokens)
        self.texts += len(tokens)
        self.lengths.update(int(count) for count in tokens if count > self.limit)

    def add_all(self, texts: int, lengths: dict[int, int]) -> None:
        """Count texts that were counted elsewhere."""
        self.texts += texts
        self.lengths.update(lengths)

    def take(self) -> tuple[int, dict[int, int]]:
        """What was counted, to count it elsewhere; here it begins anew."""
        taken = self.texts, dict(self.lengths)
        self.texts, self.lengths = 0, Counter()
        return taken

    def words(self, of: str = "texts", at_least: bool = False) -> str:
        """One line for a person; empty where nothing was cut."""
        count = self.lengths.total()
        if not count:
            return ""
        less = "at least " if at_least else ""
        return (
            f"{less}{count:,} of {self.texts:,} {of} were cut at {self.limit:,} tokens by "
            f"{self.name}; median {self._median():,}"
        )

    def _median(self) -> int:
        """Tokens of the texts that were cut."""
        middle, seen = (self.lengths.total() + 1) // 2, 0
        for length in sorted(self.lengths):
            seen += self.lengths[length]
            if seen >= middle:
                return length
        return 0
