"""Load what ``fusion.encode`` wrote, in float32 or float16, into LanceDB, and ask it a question.

    python experiments/clients/load_lancedb.py VECTORS DATABASE MODEL "a question"

Hardware: any CPU. Shards stream by, so memory stays flat. To expect: the ten nearest texts' ids
with their cosines, as an exact search gives them; without an index LanceDB searches exactly too.
"""

import argparse
from pathlib import Path

import lancedb
import pyarrow.dataset as ds

import fusion

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
for argument in ("vectors", "database", "model", "question"):
    parser.add_argument(argument)
vectors, database, model, question = vars(parser.parse_args()).values()
shards = ds.dataset(sorted(map(str, Path(vectors).glob("part-*.parquet"))))
width = shards.schema.field("embedding").type.list_size
table = lancedb.connect(database).create_table("texts", shards.scanner().to_reader())
query = fusion.load(model, truncate_dim=width).encode_query(question)
found = table.search(query, "embedding").distance_type("cosine").limit(10).to_list()
for row in found:
    print(row["id"], round(1 - row["_distance"], 4), sep="\t")
