"""Write results.md and docs/measurements.md, and the tables of README.md and docs, from the JSON.

Command:  python experiments/render/render_results.py [--check]
Expected: pages change only if a JSON in experiments/results did; with --check nothing is written,
          and the exit code is 1 if something would change or a figure is not there.

A section whose JSON is not there says that it was not run. No number is typed by hand.
"""

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import render_figures
import render_headline
import render_reading
import render_stored
from sections import (
    render_checks,
    render_chunks,
    render_codes,
    render_compression,
    render_epoch,
    render_few,
    render_maxsim,
    render_model,
    render_paper,
    render_scale,
    render_topk,
    render_training,
    render_two_stages,
)

HERE = Path(__file__).parents[1]
RESULTS = HERE / "results"
ROOT = HERE.parent
SCALE = "benchmark_scale.json"


@dataclass(frozen=True)
class Section:
    """One part of docs/measurements.md."""

    title: str
    command: str
    """What anyone can repeat."""
    file: str
    """The JSON in experiments/results."""
    render: Callable[[Path], str]
    note: str = ""
    """What a reader has to know before trusting the table."""


def _compression(path: Path) -> str:
    return render_compression.render([path])


NOTE = (
    "Settings were picked on NFCorpus dev and train and SciFact train; ArguAna has neither split. "
    "But earlier recipes had been measured on test before the last changes, so these scores may be "
    "a little too good. PCA and heads are fitted on the same texts; ours also learns from single "
    "sentences of them, on Wikipedia from titles of the articles that the paragraphs come from. "
    "The run trains every head that it measures."
)
SECTIONS = (
    Section(
        "Small vectors: fitted on each corpus's own documents",
        "python experiments/tables/compression.py --setting own",
        "compression_own.json",
        _compression,
        NOTE,
    ),
    Section(
        "Small vectors: fitted on Wikipedia",
        "python experiments/tables/compression.py --setting wikipedia",
        "compression_wikipedia.json",
        _compression,
        NOTE,
    ),
    Section(
        "Small vectors: fitted on half as much of Wikipedia",
        "python experiments/tables/compression.py --setting wikipedia --max-texts 16000",
        "compression_wikipedia_16000.json",
        _compression,
        "The same recipe on fewer paragraphs.",
    ),
    Section(
        "How many documents it takes",
        "python experiments/tables/few_documents.py",
        "few_documents.json",
        render_few.render,
        "The recipe for one's own documents, fitted on a few of them. Its rules for few texts were "
        "set with 400 documents and SciFact's train queries.",
    ),
    Section(
        "Which epoch to keep",
        "python experiments/tables/keep_epoch.py",
        "keep_epoch.json",
        render_epoch.render,
        "None of these corpora is among the test sets of the tables above.",
    ),
    Section(
        "Chunks of long documents",
        "python experiments/tables/chunks.py",
        "chunks.json",
        render_chunks.render,
        "Pages of Python's documentation, whole and taken apart. The headings that are asked for "
        "are taken out of the pages, so nothing finds a section by its own heading.",
    ),
    Section(
        "Two stages: token vectors order the first results anew",
        "python experiments/tables/two_stages.py",
        "two_stages.json",
        render_two_stages.render,
        "How the weight is found was settled when the scores of ArguAna had been seen; it has no "
        "other split: halves of documents stand in for long queries, and a gain has to stand out "
        "from chance.",
    ),
    Section(
        "Weights without labels",
        "python experiments/tables/auto_weights.py",
        "auto_weights.json",
        render_checks.render_weights,
    ),
    Section(
        "Codes beside product quantisation",
        "python experiments/benchmarks/codes.py",
        "benchmark_codes.json",
        render_codes.render,
        "On dev and train splits, where the codes were chosen. A quantiser that is fitted on the "
        "very vectors that it codes learns them by heart: centroids count as bytes too.",
    ),
    Section(
        "The paper's tables",
        "python experiments/tables/paper_tables.py --table NAME",
        "paper_encoders.json",
        lambda path: render_paper.render(path.parent),
    ),
    Section(
        "Known figures on real data",
        "python experiments/checks/real_data.py --output experiments/results/check_real_data.json",
        "check_real_data.json",
        render_checks.render_known_figures,
    ),
    Section(
        "Our metrics against pytrec_eval, beir and mteb",
        "python experiments/clients/metrics.py",
        "check_metrics.json",
        render_checks.render_metrics,
    ),
    Section(
        "Other evaluators, all widths from one encoding",
        "python experiments/clients/all_widths.py --data scifact --encoders minilm,wordllama",
        "all_widths.json",
        render_checks.render_all_widths,
    ),
    Section(
        "Encoders in bfloat16",
        "python experiments/benchmarks/encoder_dtype.py",
        "encoder_dtype.json",
        render_checks.render_dtype,
    ),
    Section(
        "Encoding with one model",
        "python experiments/benchmarks/encode.py --model MODEL --texts wikipedia-100k",
        "benchmark_encode.json",
        render_model.render_encode,
    ),
    Section(
        "The same vectors in other programs",
        "python experiments/clients/agreement.py --run RUN --model MODEL",
        "clients.json",
        render_model.render_clients,
    ),
    Section(
        "A training step",
        "python experiments/benchmarks/training.py",
        "training_cpu.json",
        render_training.render,
    ),
    Section(
        "Training on more embeddings than memory",
        "python experiments/checks/memory.py",
        "check_memory.json",
        render_checks.render_memory,
    ),
    Section(
        "Cost as rows grow",
        "python experiments/benchmarks/scale.py --model MODEL",
        "benchmark_scale.json",
        render_scale.render,
    ),
    Section(
        "Nested cosine top-k",
        "python experiments/benchmarks/topk.py",
        "benchmark_topk.json",
        render_topk.render,
    ),
    Section(
        "Late interaction: MaxSim of token vectors",
        "python experiments/benchmarks/maxsim.py",
        "benchmark_maxsim.json",
        render_maxsim.render,
    ),
    Section(
        "Memory of the streaming search",
        "python experiments/checks/streaming.py",
        "check_streaming.json",
        render_checks.render_streaming,
    ),
)
INTRODUCTION = """# Measurements

Everything that was measured, what was asked for, and the log of records. What follows from it
stands in [results.md](../results.md).

Rendered from the JSON files in `experiments/results` by
`python experiments/render/render_results.py`; no number here was typed by hand. Each section names
the command that wrote its JSON. Real data is read through `FUSION_DATA` (see README). No GPU was at
hand: everything was measured on CPUs.

*Must*, *goal* and *stretch* are figures that were asked for before the work began; ✗ says that one
was missed. `head:fusion`, `head:corpus` and `head:paper` are heads of these recipes of
`fusion.train`. The *share of the floor* of a search is the time that its matrix products alone
would take, over its own.
"""
MEASUREMENTS = ROOT / render_reading.MEASUREMENTS
BLOCKS: dict[str, Callable[[], str]] = {  # in README.md and docs, between their markers
    "headline": lambda: render_headline.table(RESULTS / "compression_own.json"),
    "dtype": lambda: render_checks.render_dtype(RESULTS / "encoder_dtype.json"),
    "scale": lambda: render_scale.extrapolate(RESULTS / "benchmark_scale.json"),
    "stored": lambda: render_stored.table(RESULTS / "stored.json"),
}
FIGURES: dict[str, tuple[str, Callable[[Path, Path], None]]] = {  # picture: its JSON, its drawing
    "own_corpus.png": ("compression_own.json", render_headline.figure),
    "wikipedia.png": ("compression_wikipedia.json", render_headline.figure),
    "few_documents.png": ("few_documents.json", render_figures.few),
    "auto_weights.png": ("auto_weights.json", render_figures.weights),
    "benchmark_codes.png": ("benchmark_codes.json", render_figures.codes),
    "benchmark_topk.png": ("benchmark_topk.json", render_figures.topk),
    "benchmark_scale.svg": ("benchmark_scale.json", render_figures.scale),
}


def measurements() -> str:
    """The text of docs/measurements.md."""
    parts = [INTRODUCTION]
    for section in SECTIONS:
        path = RESULTS / section.file
        body = section.render(path) if path.is_file() else "Not run yet."
        body = body.replace("](experiments/", "](../experiments/")
        note = f"{section.note}\n\n" if section.note else ""
        parts.append(f"## {section.title}\n\n`{section.command}`\n\n{note}{body.strip()}\n")
    return "\n".join(parts)


def with_blocks(text: str) -> str:
    """A page with the blocks between its markers rendered anew."""
    for name, render in BLOCKS.items():
        pattern = rf"(<!-- {name}: rendered -->\n).*?(<!-- end -->)"
        if re.search(pattern, text, flags=re.DOTALL):
            body = render().strip()
            text = re.sub(pattern, rf"\g<1>{body}\n\g<2>", text, flags=re.DOTALL)
    return text


def pages() -> dict[Path, str]:
    """Every rendered page and its text."""
    found = [ROOT / "README.md", *sorted(MEASUREMENTS.parent.glob("*.md"))]
    rendered = {path: with_blocks(path.read_text(encoding="utf-8")) for path in found}
    whole = {ROOT / "results.md": render_reading.page(RESULTS), MEASUREMENTS: measurements()}
    return rendered | whole


def main() -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if stale")
    check = parser.parse_args().check
    stale = []
    for path, text in pages().items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    for name, (source, draw) in FIGURES.items():
        if not check:
            draw(RESULTS / source, RESULTS / name)
        elif not (RESULTS / name).is_file():
            stale.append(name)
    print(f"{'stale' if check else 'written'}: {', '.join(stale) or 'nothing'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
