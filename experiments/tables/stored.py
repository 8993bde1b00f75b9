"""What one can store where: floats, the plain codes that vector databases take, and our own codes.

Command:  FUSION_DATA=... python experiments/tables/stored.py [--data NAME,...]
Hardware: any CPU. Once the texts are embedded, some minutes on one core.
Expected: plain int8 costs next to nothing, one plain bit a column a seventh to a quarter of the
          score; our codes keep more in as many bytes, since they are fitted and their queries stay
          float32.

Encoders minilm and wordllama, squared weights 1 and 0.5, the recipe ``corpus`` fitted on each data
set's own documents. Plain codes are those of an exported model (one step for all columns, or
signs), and queries are coded alike, as a database compares them. Nothing is chosen here: our codes
are those that compression.py chose on dev and train splits of its own data.

Writes experiments/results/stored.json.
"""

import argparse
import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from compression import environment
from sentence_transformers.util.quantization import quantize_embeddings

from fusion.inputs.data.judged import RetrievalData
from fusion.inputs.data.retrieval import load_data
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.store.store import Store
from fusion.measure.retrieval.sweep import Space, measure
from fusion.measure.rows import Row, mean_rows
from fusion.model.ranges import fit_ranges
from fusion.runs.config import RunConfig
from fusion.runs.folder import Run
from fusion.runs.fusing import fuse, load_encoders
from fusion.runs.training import train
from fusion.space.codes import Codebook, Precision
from fusion.space.training.recipe import TrainConfig

RESULTS = Path(__file__).parents[1] / "results"
ENCODERS, WEIGHTS = ("minilm", "wordllama"), (1.0, 0.5)
FLOATS = (640, 128)
PLAIN = (("int8", 512), ("int8", 256), ("ubinary", 512), ("ubinary", 128))
OURS = (("int2", 512), ("binary+", 455), ("binary", 128))


def rows_of(run: Run, data: RetrievalData, seed: int) -> list[Row]:
    """Every way of storing the documents of one data set."""
    encoders, store = load_encoders(run.config), Store()
    queries = fuse(run.blocks, encoders, data.queries, Role.QUERY, store)
    documents = fuse(run.blocks, encoders, data.documents, Role.DOCUMENT, store)
    head = run.compressors["head"]
    spaces = [Space("concat", queries, documents, seed, dims=(run.blocks.width,))]
    found = measure(data, spaces, (run.blocks.width,))
    asked, kept = head.transform(queries), head.transform(documents)
    found += measure(data, [Space("float", asked, kept, seed, dims=FLOATS)], FLOATS)
    calibration = head.transform(run.calibration)
    for space, precision, size in _coded(asked, kept, calibration, seed):
        [row] = measure(data, [space], space.dims)
        found.append(replace(row, precision=precision, bytes_per_vector=size))
    return found


def _coded(
    queries: np.ndarray, documents: np.ndarray, calibration: np.ndarray, seed: int
) -> Iterator[tuple[Space, str, int]]:
    ranges = fit_ranges(calibration, [dim for _, dim in PLAIN])
    for precision, dim in PLAIN:
        sides = [_plain(rows[:, :dim], precision, ranges) for rows in (queries, documents)]
        size = dim if precision == "int8" else dim // 8
        yield Space("plain", *sides, seed, dims=(dim,)), precision, size
    for precision, dim in OURS:
        book = Codebook.fit(calibration, Precision(precision), dim, seed=seed)
        decoded = book.decode(book.encode(documents))
        space = Space("ours", queries[:, :dim], decoded, seed, dims=(dim,))
        yield space, precision, book.bytes_per_vector


def _plain(rows: np.ndarray, precision: str, ranges: dict[str, np.ndarray]) -> np.ndarray:
    """What a database compares: the integers, or signs, whose cosine orders as Hamming does."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)  # (n, d)
    if precision == "ubinary":
        return np.where(unit > 0, np.float32(1), np.float32(-1))
    codes = quantize_embeddings(unit, "int8", ranges=ranges[f"int8.{rows.shape[1]}"])
    return np.asarray(codes, dtype=np.float32)


def main() -> None:
    """Read the arguments, fit, measure, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="nfcorpus,scifact,arguana")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--output", type=Path, default=RESULTS / "stored.json")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    names, seeds = args.data.split(","), [int(seed) for seed in args.seeds.split(",")]
    where, rows = environment(), []
    for name in names:
        for seed in seeds:
            recipe = TrainConfig.of("corpus", seed=seed)
            config = RunConfig(ENCODERS, weights=WEIGHTS, texts=f"data:{name}", train=recipe)
            with tempfile.TemporaryDirectory() as folder:
                run = train(config, Path(folder) / "run")
                rows += rows_of(run, load_data(name), seed)
            logging.info("%s, seed %d: done", name, seed)
    rows += mean_rows(rows)
    report = {
        "command": f"python experiments/tables/stored.py --data {args.data} --seeds {args.seeds}",
        "encoders": list(ENCODERS),
        "weights": list(WEIGHTS),
        "data": names,
        "seeds": seeds,
        "environment": where,
        "rows": [row.to_dict() for row in rows],
    }
    args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
