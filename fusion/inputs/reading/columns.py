"""Values out of a column of parquet: whatever arrow calls a text or an id is one."""

from typing import Any
from uuid import UUID

from fusion.inputs.data.records import Unfit
from fusion.inputs.reading.arrow import arrow

VIEWS = (arrow.string_view(), arrow.binary_view())
STRINGS = (arrow.string(), arrow.large_string(), *VIEWS)
BYTES = (arrow.binary(), arrow.large_binary())


def values_of(column: Any) -> list[Any]:  # noqa: ANN401 - an array of arrow
    """Values of a column; texts as bytes, since parquet does not vouch for their UTF-8.

    Returns:
        bytes, numbers, ``UUID`` and None; ``Unfit`` in the place of what none of them can be.
    """
    if isinstance(column, arrow.ExtensionArray):
        if column.type.extension_name == "arrow.uuid":
            return [raw and UUID(bytes=raw) for raw in column.storage.to_pylist()]
        column = column.storage
    kind = column.type
    if arrow.types.is_dictionary(kind):
        return values_of(column.dictionary_decode())
    if kind in STRINGS:
        large = kind == arrow.large_string()
        return column.cast(arrow.large_binary() if large else arrow.binary()).to_pylist()
    if arrow.types.is_fixed_size_binary(kind):  # NULs fill it up
        return [raw and raw.rstrip(b"\0") for raw in column.to_pylist()]
    is_number = arrow.types.is_integer(kind) or arrow.types.is_floating(kind)
    if is_number or arrow.types.is_decimal(kind) or kind in BYTES:
        return column.to_pylist()
    unfit = Unfit(f"not text but {kind}")
    return [unfit if there else None for there in column.is_valid().to_pylist()]


def ids_of(column: Any) -> list[Any]:  # noqa: ANN401 - an array of arrow
    """As ``values_of``; bytes of a fixed size that are no text, as hashes are, in hexadecimal."""
    if arrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not arrow.types.is_fixed_size_binary(column.type):
        return values_of(column)
    whole = column.to_pylist()
    return [_name(*pair) for pair in zip(whole, values_of(column), strict=True)]


def _name(whole: bytes | None, text: bytes | None) -> bytes | str | None:
    if whole is None or text is None:
        return None
    is_text = text.decode("utf-8", "replace").replace("\ufffd", "\0").isprintable()
    return text if text and is_text else whole.hex()


def metadata_of(column: Any) -> list[Any]:  # noqa: ANN401 - an array of arrow
    """As ``values_of``; what is neither text nor number as Python has it, such as times."""
    values = values_of(column)
    if any(isinstance(value, Unfit) for value in values):
        return column.to_pylist()
    return values
