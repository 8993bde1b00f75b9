"""Names of what a vector may be stored as. Light to import: ``--help`` shows them."""

PLAIN = {  # what a list of an embedding column holds
    "float32": "float32",
    "float16": "float16",
    "int8": "int8",
    "uint8": "uint8",
    "int4": "uint8",  # two columns a byte, the first one high
    "binary": "int8",  # eight signs a byte, minus 128, as sentence-transformers packs them
    "ubinary": "uint8",
}
FITTED = ("int8", "int4", "int3", "int2+", "int2", "binary+", "binary")
PRECISIONS = tuple(dict.fromkeys([*PLAIN, *FITTED]))
KINDS = ("plain", "fitted")


def kind_of(precision: str, codes: str) -> str:
    """``plain`` or ``fitted``; the latter by default where there are no plain codes.

    Raises:
        ValueError: There are no such codes.
    """
    kind = codes or ("plain" if precision in PLAIN else "fitted")
    if precision not in {"plain": PLAIN, "fitted": FITTED}.get(kind, ()):
        known = ", ".join(PLAIN if kind == "plain" else FITTED)
        raise ValueError(f"there are no {kind} codes of precision {precision!r}; {kind}: {known}")
    return kind
