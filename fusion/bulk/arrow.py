"""The door to pyarrow, which is an extra."""

try:
    import pyarrow
    import pyarrow.parquet
except ImportError as error:
    raise ImportError(
        "bulk encoding reads and writes parquet: pip install 'fusion-embeddings[bulk]'"
    ) from error

arrow, parquet = pyarrow, pyarrow.parquet
