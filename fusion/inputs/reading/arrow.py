"""The door to pyarrow, which is an extra: only parquet needs it."""

from fusion.errors import MissingExtraError

try:
    import pyarrow
    import pyarrow.parquet
except ImportError as error:
    raise MissingExtraError("parquet is read by pyarrow", "bulk") from error

arrow, parquet = pyarrow, pyarrow.parquet
