"""A database holds bits and finds candidates; codes on disk put them in order.

    pip install faiss-cpu lancedb
    FUSION_DATA=... python experiments/clients/rescore.py --floats SHARDS --data NAME

Hardware: any CPU; a minute for some thousand documents. SHARDS is what ``fusion.encode`` wrote of
NAME's corpus.jsonl in float32 at the model's full width (``--text-fields title,text``). Bits and
codes are made of it by ``fusion.encode --from``; the queries' floats are compared with the codes.

To expect: Hamming distance of 16 bytes alone loses much of the floats' nDCG@10; its best 100 in the
order of 64-byte codes lose a few hundredths, its best 200 less. Databases that compare bits give
the same rows, but for ties. Prints Markdown.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet

import fusion
from fusion.bulk.convert import ConvertConfig, convert
from fusion.bulk.finished import open_shards
from fusion.errors import FusionError
from fusion.inputs.data.judged import RetrievalData
from fusion.measure.retrieval.metrics import Judgements, ndcg_at_k

Find = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""Queries' bits [q, bytes], documents' bits and a number of candidates to rows int64 [q, n]."""


def by_faiss(queries: np.ndarray, documents: np.ndarray, count: int) -> np.ndarray:
    """Candidates of a flat binary index."""
    import faiss

    index = faiss.IndexBinaryFlat(8 * documents.shape[1])
    index.add(documents)
    return index.search(queries, count)[1]


def by_lancedb(queries: np.ndarray, documents: np.ndarray, count: int) -> np.ndarray:
    """Candidates of a table of bytes, by its Hamming distance."""
    import lancedb
    import pyarrow

    flat = pyarrow.array(documents.reshape(-1), pyarrow.uint8())
    column = pyarrow.FixedSizeListArray.from_arrays(flat, documents.shape[1])
    rows = pyarrow.table({"row": pyarrow.array(range(len(documents))), "vector": column})
    with tempfile.TemporaryDirectory() as folder:
        table = lancedb.connect(folder).create_table("bits", rows, mode="overwrite")
        asked = (table.search(q).distance_type("hamming").limit(count) for q in queries)
        return np.array([found.to_arrow()["row"].to_pylist() for found in asked])


def by_qdrant(queries: np.ndarray, documents: np.ndarray, count: int) -> np.ndarray:
    """Qdrant compares no bits that it is given."""
    raise FusionError(
        "qdrant has no Hamming distance: load uint8 of the same columns (8 times the bytes), or "
        "let its own binary quantisation find candidates"
    )


DATABASES: dict[str, Find] = {"faiss": by_faiss, "lancedb": by_lancedb, "qdrant": by_qdrant}


def score(data: RetrievalData, ids: list[str], found: list[np.ndarray]) -> float:
    """nDCG@10 of rows; a query that is itself a document does not find itself."""
    judgements = Judgements.from_qrels(data.query_ids, data.doc_ids, data.qrels)
    places = {key: place for place, key in enumerate(data.doc_ids)}
    of_row = np.array([places[key] for key in ids])
    ranked = np.full((len(found), 10), -1)
    for query, rows in enumerate(found):
        own = of_row[rows]
        best = own[own != data.exclude[query]][:10]
        ranked[query, : len(best)] = best
    return float(np.nanmean(ndcg_at_k(ranked, judgements)))


def main() -> None:
    """Convert, ask each database, rescore, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--floats", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--bits", type=int, default=128, help="columns of the bits in memory")
    parser.add_argument("--precision", default="int4", help="of the codes on disk")
    parser.add_argument("--dim", type=int, default=128, help="columns of the codes on disk")
    parser.add_argument("--shortlists", default="40,100,200")
    options = parser.parse_args()
    data, floats = fusion.load_data(options.data), open_shards(options.floats)
    ids = parquet.read_table(options.floats, columns=["id"])["id"].to_pylist()
    whole = fusion.Index.open(options.floats)
    asked = whole.vectors(data.queries)  # (q, D)
    exact = [rows for _, rows in whole.nearest(asked, 11)]
    print(f"| {options.data}, in memory + on disk | bytes | nDCG@10 |\n|---|---|---|")
    print(f"| floats, searched exactly | {4 * whole.width} | {score(data, ids, exact):.4f} |")
    with tempfile.TemporaryDirectory() as scratch:
        bits, codes = Path(scratch) / "bits", Path(scratch) / "codes"
        convert(floats, bits, ConvertConfig("ubinary", options.bits))
        way = ConvertConfig(options.precision, options.dim, "fitted")
        size = convert(floats, codes, way).about["bytes_per_vector"]
        finer = fusion.Rescorer(fusion.Index.open(codes))
        stored = np.stack(parquet.read_table(bits)["embedding"].to_numpy())
        coded = np.packbits(asked[:, : options.bits] > 0, axis=1)
        for name, find in DATABASES.items():
            try:
                table(data, ids, name, (find, coded, stored), (finer, asked, size), options)
            except FusionError as error:
                print(f"| {name}: {error} | – | – |")


def table(
    data: RetrievalData,
    ids: list[str],
    name: str,
    database: tuple[Find, np.ndarray, np.ndarray],
    beside: tuple[fusion.Rescorer, np.ndarray, int],
    options: argparse.Namespace,
) -> None:
    """Print a database's rows: alone, and with each shortlist in the order of the codes."""
    find, coded, stored = database
    finer, asked, size = beside
    alone = list(find(coded, stored, 11))
    print(f"| {name}, Hamming | {stored.shape[1]} | {score(data, ids, alone):.4f} |")
    for count in map(int, options.shortlists.split(",")):
        candidates = find(coded, stored, min(count, len(ids)))
        cut = asked[:, : options.dim]
        pairs = zip(cut, candidates, strict=True)
        best = [finer.ranked(query, rows)[1] for query, rows in pairs]
        words = f"{name}, Hamming's best {count} by {options.precision} × {options.dim}"
        print(f"| {words} | {stored.shape[1]} + {size} | {score(data, ids, best):.4f} |")


if __name__ == "__main__":
    main()
