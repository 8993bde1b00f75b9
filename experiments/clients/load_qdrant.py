"""Load what ``fusion.encode`` wrote, in float32 or float16, into Qdrant, and ask it a question.

    python experiments/clients/load_qdrant.py VECTORS DATABASE MODEL "a question"

Hardware: any CPU. DATABASE is a folder for Qdrant's local mode; for a server put its ``url=`` in
place of ``path=``. Shards stream by. To expect: the ten nearest texts' ids with their cosines.
"""

import argparse
from pathlib import Path

import pyarrow.dataset as ds
from qdrant_client import QdrantClient, models

import fusion

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
for argument in ("vectors", "database", "model", "question"):
    parser.add_argument(argument)
vectors, database, model, question = vars(parser.parse_args()).values()
shards = ds.dataset(sorted(map(str, Path(vectors).glob("part-*.parquet"))))
width = shards.schema.field("embedding").type.list_size
client = QdrantClient(path=database)
client.create_collection("texts", models.VectorParams(size=width, distance=models.Distance.COSINE))
rows = (row for batch in shards.to_batches() for row in batch.to_pylist())
points = (models.PointStruct(id=i, vector=row["embedding"], payload={"id": row["id"]})
          for i, row in enumerate(rows))  # fmt: skip
client.upload_points("texts", points)
query = fusion.load(model, truncate_dim=width).encode_query(question).tolist()
for point in client.query_points("texts", query, limit=10).points:
    print(point.payload["id"], round(point.score, 4), sep="\t")
