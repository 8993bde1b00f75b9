import io
import logging
import re
import sys

import pytest

from fusion.bulk import progress
from fusion.bulk.progress import Progress
from fusion.inputs.reading.reader import Reader
from fusion.inputs.reading.rows import Row
from fusion.inputs.reading.sources import find_sources


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def reader(tmp_path):
    path = tmp_path / "in" / "a.txt"
    path.parent.mkdir()
    path.write_text("".join(f"text number {row}\n" for row in range(1000)), encoding="utf-8")
    return Reader(find_sources(str(path), tmp_path / "out"))


@pytest.fixture
def clock(monkeypatch):
    """One second goes by for every row."""
    now = [100.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def read(reader, clock, rows=500):
    with Progress(reader) as bar:
        for number, item in enumerate(reader, 1):
            assert isinstance(item, Row)
            clock[0] += 1
            if number % 100 == 0:
                bar.add(100)
            if number == rows:
                return


def test_terminal_shows_rows_a_second_and_time_left(reader, clock, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    read(reader, clock)
    last = [line for line in re.split(r"[\r\n]", screen.getvalue()) if line.strip()][-1]
    assert "500 rows, 1.0 rows/s" in last
    # Half of the bytes are read after 500 seconds, but for ten digits of row numbers.
    assert re.search(r"[45]\d%", last)
    elapsed, left = re.search(r"\[(\d+:\d+)<(\d+:\d+)", last).groups()
    assert elapsed == "08:20"
    assert 8 <= int(left.partition(":")[0]) <= 9


def test_skipped_rows_do_not_count_as_fast_ones(reader, clock, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress(reader) as bar:
        for number, _ in enumerate(reader, 1):
            if number == 500:
                bar.skip(500)
            elif number > 500:
                clock[0] += 1
            if number == 600:
                bar.add(100)
                break
    last = [line for line in re.split(r"[\r\n]", screen.getvalue()) if line.strip()][-1]
    assert "600 rows, 1.0 rows/s" in last
    assert 6 <= int(re.search(r"<(\d+):\d+", last).group(1)) <= 7  # 400 rows are left


def test_file_gets_no_bar_but_a_line_now_and_then(reader, clock, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "fusion")
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "SECONDS", 250)
    read(reader, clock)
    assert screen.getvalue() == ""
    [line] = caplog.messages
    assert re.fullmatch(r"300 rows, 1\.0 rows/s, \d\d\.\d % of the input, 0:1[12]:\d\d left", line)
