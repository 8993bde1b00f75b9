"""An hour's worth of rows in a minute or two: memory at the end is what it was at the beginning."""

import json
from pathlib import Path

import pytest
from tiny_runs import build_tiny_run, many

from fusion.bulk.encoder import EncodeConfig, ModelEncoder
from fusion.bulk.engine import OneDevice
from fusion.bulk.job import JobConfig, encode_rows
from fusion.inputs.reading.reader import Reader
from fusion.inputs.reading.sources import find_sources
from fusion.model.folder import export

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "benchmark_scale.json"
HOUR = 3600  # seconds
GROWTH = 1.05


class Watched:
    """An encoder that notes how much memory its process holds."""

    def __init__(self, encoder):
        self.encoder, self.settings, self.about = encoder, encoder.settings, encoder.about
        self.cuts = encoder.cuts
        self.rows, self.held = [0], []

    def encode(self, texts):
        done = self.encoder.encode(texts)
        lines = Path("/proc/self/status").read_text().splitlines()
        self.held.append(next(int(x.split()[1]) for x in lines if x.startswith("VmRSS")))
        self.rows.append(self.rows[-1] + len(texts))
        return done


@pytest.mark.soak
def test_memory_at_the_end_is_that_after_the_first_fifth(tmp_path):
    rate = json.loads(RESULTS.read_text(encoding="utf-8"))["model"]["rows_per_second"]
    total = round(rate * HOUR)  # what real encoders do in an hour, tiny ones do in minutes
    export(build_tiny_run(tmp_path / "encoders"), tmp_path / "tiny")
    texts = many(5_000)
    with (tmp_path / "in.jsonl").open("w", encoding="utf-8") as file:
        for row in range(total):
            line = {"_id": f"d{row}", "text": f"{texts[row % len(texts)]} {row}"}
            file.write(json.dumps(line) + "\n" + "\n" * (row % 100 == 0))  # some are rejected
    watched = Watched(ModelEncoder(EncodeConfig(str(tmp_path / "tiny"), precision="int8"), "cpu"))
    reader = Reader(find_sources(str(tmp_path / "in.jsonl"), tmp_path / "out"))
    done = encode_rows(reader, tmp_path / "out", OneDevice(watched), JobConfig(shard_rows=1024))
    assert (done.rows, done.rejected) == (total, -(-total // 100))
    fifth = next(i for i, rows in enumerate(watched.rows[1:]) if rows >= total / 5)
    early, late = max(watched.held[: fifth + 1]), max(watched.held[fifth + 1 :])
    assert late <= GROWTH * early, f"{early / 1024:.0f} MiB became {late / 1024:.0f} MiB"
