"""The door to pyarrow, which is an extra."""

from fusion.errors import MissingExtraError

try:
    import pyarrow
    import pyarrow.parquet
except ImportError as error:
    raise MissingExtraError("bulk encoding reads and writes parquet", "bulk") from error

arrow, parquet = pyarrow, pyarrow.parquet
