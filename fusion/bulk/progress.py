"""How far a job is: a bar on a terminal, a line now and then in a log."""

import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

from fusion.inputs.reading.reader import Reader

logger = logging.getLogger(__name__)

SECONDS = 30  # between the lines of a log


class Progress:
    """Rows, rows a second and time left; the time is told from the bytes of the input."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._rows = self._skipped = self._skipped_bytes = 0
        self._began = self._said = time.monotonic()
        self._bar = tqdm(
            total=reader.size, unit="B", unit_scale=True, disable=None, file=sys.stderr
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def skip(self, rows: int) -> None:
        """Rows of a shard that is there already."""
        self._skipped += rows
        self._skipped_bytes = self._reader.position
        self._bar.initial = self._skipped_bytes  # or the time left would be too short
        self._show()

    def add(self, rows: int) -> None:
        """Rows of a new shard."""
        self._rows += rows
        self._show()

    def _show(self) -> None:
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = self._rows / seconds
        words = f"{self._rows + self._skipped:,} rows, {rate:,.1f} rows/s"
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.update(self._reader.position - self._bar.n)
        if self._bar.disable and time.monotonic() - self._said > SECONDS:
            self._said = time.monotonic()
            new = self._reader.position - self._skipped_bytes
            left = (self._reader.size - self._reader.position) * seconds / max(new, 1)
            share = self._reader.position / max(self._reader.size, 1)
            logger.info("%s, %.1f %% of the input, %s left", words, 100 * share, _clock(left))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
