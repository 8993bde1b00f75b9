"""The model's README.md: what it is made of, what it scores, how it is used, what does not work."""

import json
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import yaml

from fusion.errors import FusionError

if TYPE_CHECKING:
    from fusion.model.modules.settings import EncoderEntry, FusionSettings

HUB = "https://huggingface.co/"
CODE_URL = "https://arxiv.org/abs/2510.04626"
BODY = Template("""
# $name

$count frozen text encoders side by side, and one nested vector space of $width dimensions learned
over them: the first $dims columns of a vector are vectors themselves. No encoder was fine-tuned.

| encoder | weight | dims | licence | revision |
|---|---|---|---|---|
$encoders

The weight is squared, as it counts in a cosine. Blocks are normalised `$normalize`; the space was
fitted ($compressor) on `$texts`, without labels. Each encoder keeps its own licence.

## Use

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("$name", trust_remote_code=True)
queries = model.encode_query(["how do small encoders add up?"])
documents = model.encode_document(["Their embeddings are set side by side."])
scores = model.similarity(queries, documents)
```

`trust_remote_code=True` runs `modeling_fusion.py` of this folder and the Python files beside it,
and nothing else; with `fusion` installed, `fusion.load("$name")` needs no flag and runs no code of
the folder.

Each encoder gets its own prompt. **Plain `encode` means a document**; for a query use
`encode_query` or `prompt_name="query"`. A `prompt` of yours replaces those of all encoders.

```python
# fewer dimensions: unit-norm at every width; trained ones are $dims
small = SentenceTransformer("$name", trust_remote_code=True, truncate_dim=$half)

# 8, 4 or 1 bits a dimension, on one grid for queries, documents and single texts
codes = small.encode_document(["a text", "another"], precision="int8")  # or "int4", "binary"
vectors = small.dequantize(codes, "int8", $half)  # unit vectors again
halves = small.encode_document(["a text", "another"], precision="float16")

# half the memory: encoders in bfloat16, the head stays in float32
fast = SentenceTransformer("$name", trust_remote_code=True, model_kwargs={"dtype": "bfloat16"})
```

An `int8` code is the vector times a constant, rounded: dot products of codes rank like cosines.
Those plain codes are what vector databases take. Better ones travel with the model and need nothing
else; the table below measures them, queries in float32 against coded documents:

```python
book = model.codes("int2", $half)  # or int8, int4, int3, int2+, binary+, binary
codes = book.encode(documents)  # uint8 (n, book.bytes_per_vector)
scores = book.score(queries, codes)  # float32 (q, n): cosines
# the same with fusion and without a loaded model: fusion.load_codebook("$name", "int2", $half)
```

## Scores

$scores

## What does not work

- ONNX and OpenVINO export, text-embeddings-inference and fastembed: they run a single transformer,
  and would leave out all encoders but one. The way round: each folder in `encoders/` is a
  sentence-transformers model of its own. Let them run those that they know, with the prompts
  of `model[0].prompts_for("<fusion:query>")`, and put the vectors of all encoders together here:
  `model.fuse([one array an encoder])`.
- Token embeddings (`output_value="token_embeddings"`): the encoders' tokens differ.
- Texts longer than an encoder's limit are cut, at each encoder's own limit.

## Citation

The method is that of *Compressed Concatenation of Small Embedding Models* ([arXiv]($code)).

```bibtex
@inproceedings{compressed-concatenation-2025,
  title = {Compressed Concatenation of Small Embedding Models},
  booktitle = {Proceedings of CIKM},
  year = {2025},
  eprint = {2510.04626},
  archivePrefix = {arXiv}
}
```
""")


def read_results(path: Path, compressor: str) -> list[dict[str, Any]]:
    """The rows of an evaluation's ``results.json`` that are about the exported compressor.

    Raises:
        FusionError: The file cannot be read or holds no such row.
    """
    path = path / "results.json" if path.is_dir() else path
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        found = [row for row in rows if row["method"] == compressor]
        for row in found:  # whatever the card needs is there, or this is another kind of file
            row["data"], row["dim"], row["precision"], row["bytes_per_vector"], row["split"]
            float(row["ndcg_at_10"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FusionError(f"{path} is no results.json of fusion.evaluate: {error!r}") from error
    if not found:
        raise FusionError(f"{path} has no row of the method {compressor!r}; evaluate it first")
    return found


def render_card(
    name: str,
    settings: "FusionSettings",
    texts: str,
    compressor: str,
    rows: list[dict[str, Any]] | None = None,
) -> str:
    """Text of the card.

    Args:
        name: What the snippets load.
        settings: Of the model.
        texts: What the space was fitted on.
        compressor: ``head`` or ``pca``.
        rows: From ``read_results``; None says that nothing was measured.
    """
    dims = ", ".join(map(str, settings.dims[:-1])) or str(settings.dims[-1])
    body = BODY.substitute(
        name=name,
        count=len(settings.encoders),
        width=settings.dims[-1],
        dims=dims,
        half=settings.dims[len(settings.dims) // 2],
        encoders="\n".join(map(_encoder_line, settings.encoders)),
        normalize=settings.normalize,
        compressor=compressor,
        texts=Path(texts).name if "/" in texts or "\\" in texts else texts,
        scores=_table(rows) if rows else "Not measured: exported without `--results`.",
        code=CODE_URL,
    )
    header = yaml.safe_dump(_header(name, settings, rows or []), sort_keys=False)
    return f"---\n{header}---\n{body}"


def base_model(entry: "EncoderEntry") -> str | None:
    """The hub id that an encoder's weights go back to, if there is one."""
    from fusion.inputs.encoders.catalogue import CATALOGUE

    if entry.source.startswith("package:"):
        known = CATALOGUE.get(entry.name)
        reference = known.reference if known is not None else ""
        return reference.removeprefix(HUB) if reference.startswith(HUB) else None
    return entry.source if "/" in entry.source else None


def _encoder_line(entry: "EncoderEntry") -> str:
    found = base_model(entry)
    name = f"[{entry.name}]({HUB}{found})" if found else entry.name
    revision = f"`{entry.revision}`" if entry.revision else "not recorded"
    return f"| {name} | {entry.weight:g} | {entry.dim} | {entry.licence} | {revision} |"


def _header(name: str, settings: "FusionSettings", rows: list[dict[str, Any]]) -> dict[str, Any]:
    found = [base_model(entry) for entry in settings.encoders]
    licences = {entry.licence for entry in settings.encoders}
    header: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "license": licences.pop() if len(licences) == 1 else "other",
        "tags": ["sentence-transformers", "feature-extraction", "matryoshka", "custom_code"],
        "base_model": [hub_id for hub_id in found if hub_id],
    }
    results = [_result(row) for row in rows if row["precision"] == "float32"]
    if results:
        header["model-index"] = [{"name": name, "results": results}]
    return header


def _result(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": {"type": "retrieval"},
        "dataset": {"type": row["data"], "name": row["data"], "split": row["split"]},
        "metrics": [
            {
                "type": "ndcg_at_10",
                "name": f"nDCG@10 at {row['dim']} dims",
                "value": round(float(row["ndcg_at_10"]), 5),
            }
        ],
    }


def _table(rows: list[dict[str, Any]]) -> str:
    data = list(dict.fromkeys(row["data"] for row in rows))
    keys = sorted({(row["dim"], -row["bytes_per_vector"], row["precision"]) for row in rows})
    # The first of several seeds stands in the card; the evaluation has them all.
    cells = {(row["dim"], row["precision"], row["data"]): row for row in reversed(rows)}
    lines = [
        "nDCG@10 (queries in float32, documents as stored).",
        "",
        f"| dims | stored as | bytes | {' | '.join(data)} |",
        "|---|---|---|" + "---|" * len(data),
    ]
    for dim, negative, precision in keys:
        found = [cells.get((dim, precision, name)) for name in data]
        scores = ["–" if row is None else f"{row['ndcg_at_10']:.4f}" for row in found]
        lines.append(f"| {dim} | {precision} | {-negative} | {' | '.join(scores)} |")
    return "\n".join(lines)
