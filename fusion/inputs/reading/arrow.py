"""The door to pyarrow, for all that reads or writes parquet; it is an extra."""

from fusion.errors import MissingExtraError

try:
    import pyarrow
    import pyarrow.parquet
except ImportError as error:
    raise MissingExtraError("parquet is read and written by pyarrow", "bulk") from error

arrow, parquet = pyarrow, pyarrow.parquet
