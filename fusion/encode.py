"""``python -m fusion.encode``: embed files of any size into parquet shards."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusion.bulk.writing.precisions import KINDS, PRECISIONS
from fusion.errors import FusionError
from fusion.inputs.reading.chunks import chunk_size
from fusion.inputs.reading.kinds import KNOWN
from fusion.paths import as_path
from fusion.terminal import (
    CHUNK,
    ID_FIELD,
    LINES,
    OVERLAP,
    TEXT_FIELDS,
    build_parser,
    comma_list,
    path,
    run_door,
    say,
)

if TYPE_CHECKING:
    from fusion.bulk.encoder import EncodeConfig
    from fusion.bulk.engine import Engine
    from fusion.bulk.writing.manifest import Manifest

DESCRIPTION = """Embed documents (Markdown, HTML, reStructuredText, text) and tables of texts (JSON
lines, CSV, parquet), files of any size in constant memory, into parquet shards of (id, embedding)
with a manifest. An interrupted job goes on with --resume; rows that cannot be encoded are told
before the work, and go to _rejects.jsonl with their reasons."""
EXAMPLES = """\
  python -m fusion.encode models/mine --input docs.jsonl --output vectors
  # a folder of pages: each file is a document
  python -m fusion.encode models/mine --input docs/ --output vectors
  # 64 bytes a vector; a table of tickets, titles before texts
  python -m fusion.encode models/mine --input tickets.csv --text-fields title,body \\
      --id-field number --truncate-dim 128 --precision int4 --output vectors
  # quote a glob, or the shell takes it apart
  python -m fusion.encode models/mine --input 'logs/**/*.parquet' --output vectors --resume
  # 32 bytes a vector out of float32 shards, without embedding again
  python -m fusion.encode --from vectors --precision int2 --truncate-dim 128 --output small
  # on a cluster; the shards are the same
  python -m fusion.encode models/mine --input corpus/ --output vectors \\
      --engine ray --ray-address auto
"""
MODEL_FLAGS = ("role", "truncate_dim", "precision", "codes", "dtype", "batch_size", "threads")
RAY_FLAGS = ("ray_address", "workers")
CONVERT_FLAGS = ("model", "precision", "truncate_dim", "codes", "resume", "overwrite")
JOB_FLAGS = ("shard_rows", "strict", "resume", "overwrite", "keep")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_door(encode, _parser(), arguments, required=["output"])


def _parser() -> argparse.ArgumentParser:
    parser = build_parser("encode", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="a model folder of fusion.export, or a hub id; "
        "with --from only where it has moved")  # fmt: skip
    add("--input", metavar="PATH", help=f"a file, a folder (all below it) or a quoted glob of "
        f"{KNOWN} (required) where there is no --from")  # fmt: skip
    add("--from", dest="source", type=path, metavar="SHARDS", help="convert float32 or float16 "
        "shards to another --precision and --truncate-dim (default: texts of --input are embedded)"
        )  # fmt: skip
    add("--output", type=path, metavar="DIR", help="folder of shards (required)")
    add("--role", choices=["document", "query"], help="whose prompts to use (default document)")
    add("--truncate-dim", type=int, metavar="D", help="width (default: the model's full one)")
    add("--precision", choices=PRECISIONS, help="what a vector is stored as "
        "(default float32)")  # fmt: skip
    add("--codes", choices=KINDS, help="plain: what vector databases take; fitted: the model's "
        "own, which rank better and fusion.load_codebook reads (default plain, but fitted with "
        "int3, int2 and those with a +)")  # fmt: skip
    add("--text-fields", type=comma_list, metavar="NAME,…", help=TEXT_FIELDS)
    add("--id-field", metavar="NAME", help=ID_FIELD)
    add("--metadata-fields", type=comma_list, metavar="NAME,…", help="fields of JSON lines and "
        "tables that are read beside the text; the title always is (default: none)"
        )  # fmt: skip
    add("--lines", action="store_true", help=LINES)
    add("--keep", type=comma_list, metavar="NAME,…", help="what to keep beside the vectors, for "
        "fusion.search to show: text, title, and other fields of the input (default nothing)"
        )  # fmt: skip
    add("--chunk", type=chunk_size, metavar="N|auto|none", help=CHUNK)
    add("--chunk-overlap", type=int, metavar="N", help=OVERLAP)
    add("--batch-size", type=int, metavar="N", help="texts that an encoder takes at once "
        "(default 32)")  # fmt: skip
    add("--dtype", choices=["float32", "bfloat16", "float16"], help="of the encoders' weights "
        "(default float32)")  # fmt: skip
    add("--shard-rows", type=int, metavar="N", help="rows of a shard, and what a kill costs "
        "(default 4096)")  # fmt: skip
    add("--threads", type=int, metavar="N", help="cores that each process takes on a CPU "
        "(default: all, or one for each model of ray)")  # fmt: skip
    add("--engine", choices=["local", "ray"], help="local: this machine's cores or GPUs; ray: "
        "Ray Data, here or on a cluster (default local)")  # fmt: skip
    add("--devices", type=comma_list, metavar="NAME,…", help="local: cpu, cuda:0, …; a process for "
        "each (default: all GPUs, or the cores)")  # fmt: skip
    add("--ray-address", metavar="HOST:PORT", help="ray: a cluster whose machines have MODEL under "
        "the same path; auto: that of this machine (default: this machine alone)")  # fmt: skip
    add("--workers", type=int, metavar="N", help="ray: models (default: one for each GPU or core)")
    add("--strict", action="store_true", help="stop at the first row that cannot be encoded")
    add("--resume", action="store_true", help="go on with an interrupted job")
    add("--overwrite", action="store_true", help="replace an earlier encoding")
    return parser


def encode(options: dict[str, Any]) -> None:
    """Find the input, load the model, encode, say what was done."""
    if "source" in options:
        return _convert(options)
    if missing := [name for name in ("model", "input") if name not in options]:
        names = " and ".join({"model": "MODEL", "input": "--input"}[name] for name in missing)
        raise ValueError(f"{names} must be given, or --from with shards to convert")
    from fusion.bulk.encoder import EncodeConfig
    from fusion.bulk.job import JobConfig, encode_rows
    from fusion.bulk.writing.journal import check_free
    from fusion.bulk.writing.shards import TEXT
    from fusion.inputs.reading.chunks import AUTO, Chunker, Chunking
    from fusion.inputs.reading.reader import Reader
    from fusion.inputs.reading.rows import Fields
    from fusion.inputs.reading.sources import find_sources
    from fusion.inputs.reading.survey import look_over
    from fusion.model.place import check_chunk, check_model

    folder = options["output"]
    job = JobConfig(**{name: options[name] for name in JOB_FLAGS if name in options})
    config = EncodeConfig(
        str(as_path(options["model"])),
        **{name: options[name] for name in MODEL_FLAGS if name in options},
    )
    beside = tuple(name for name in job.keep if name != TEXT)
    chunking = Chunking(options.get("chunk", AUTO), options.get("chunk_overlap", 0))
    fields = Fields(
        options.get("text_fields", ("text",)),
        options.get("id_field", ""),
        tuple(dict.fromkeys((*options.get("metadata_fields", ()), *beside))),
    )
    check_free(folder, job.resume, job.overwrite)
    lines = options.get("lines", False)
    reader = Reader(find_sources(str(as_path(options["input"])), folder, lines), fields)
    check_model(config.model, config.truncate_dim)
    check_chunk(config.model, chunking.size)
    look_over(reader)
    engine = _engine(config, options)
    reader.chunker = Chunker(engine.encoder.tokens, chunking)
    done = encode_rows(reader, folder, engine, job)
    _tell(done, folder)
    if chunks := reader.chunker.words():
        say(f"chunks:   {chunks}")
    if reader.lost:
        raise FusionError(_lost(reader.lost, len(reader.sources)))
    return None


def _convert(options: dict[str, Any]) -> None:
    """Make other codes of float shards."""
    if strange := sorted(options.keys() - {"source", "output", *CONVERT_FLAGS}):
        name = strange[0].replace("_", "-")
        raise ValueError(f"--{name} is for texts that are embedded; --from reads vectors")
    from fusion.bulk.convert import ConvertConfig, check_source, convert
    from fusion.bulk.finished import open_shards
    from fusion.bulk.writing.journal import check_free

    config = ConvertConfig(**{name: options[name] for name in CONVERT_FLAGS if name in options})
    folder, shards = options["output"], open_shards(options["source"])
    check_source(shards, folder, config)
    check_free(folder, config.resume, config.overwrite)
    _tell(convert(shards, folder, config), folder)


def _tell(done: "Manifest", folder: Path) -> None:
    """Say what was written."""
    from fusion.bulk.writing.manifest import MANIFEST, REJECTS

    settings, size = done.settings, done.about["bytes_per_vector"]
    words = f"{done.rows:,} of width {settings['width']}, {settings['precision']}"
    say(f"rows:     {words}, {size} bytes a vector")
    if done.rejected:
        say(f"rejected: {done.rejected:,} ({folder / REJECTS})")
    say(f"manifest: {folder / MANIFEST} ({len(done.shards)} shards)")


def _lost(reasons: dict[str, str], sources: int) -> str:
    """What to say of files that gave nothing or broke off, when all else is encoded."""
    names = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:3])
    names += "; …" if len(reasons) > 3 else ""
    words = "gave no row or broke off, all else is encoded"
    return f"{len(reasons)} of {sources} files {words} ({names})"


def _engine(config: "EncodeConfig", options: dict[str, Any]) -> "Engine":
    """The engine that was asked for, with its model."""
    from fusion.bulk.engine import choose_engine

    if options.get("engine", "local") == "local":
        if strange := [name for name in RAY_FLAGS if name in options]:
            raise ValueError(f"--{strange[0].replace('_', '-')} is of --engine ray; add that")
        return choose_engine(config, options.get("devices", ()))
    if "devices" in options:
        raise ValueError("--devices is of --engine local; Ray chooses devices, see --workers")
    from fusion.bulk.ray_engine import choose_ray

    return choose_ray(config, options.get("ray_address", ""), options.get("workers"))


if __name__ == "__main__":
    sys.exit(main())
