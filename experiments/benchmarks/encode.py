"""Encoding with one fused model against encoding with its encoders one after the other.

    FUSION_DATA=... python experiments/benchmarks/encode.py --model MODEL --texts wikipedia-100k

Hardware: a Linux machine's CPU, otherwise idle; minutes. MODEL is what ``fusion.export`` made of
minilm and wordllama. A second case puts four copies of the model's first encoder side by side, with
the four prompts of the paper's encoders: one vocabulary, so that texts are tokenised once.

To expect: a ratio (the fused model's time over the sum of the encoders') below 1. The encoders take
sentence-transformers' batches of 32; on a CPU the fused model cuts them into bites that fit its
caches. Beside it stands the ratio to encoders that are given batches of that size by hand.

Writes experiments/results/benchmark_encode.json: texts a second, ratio, peak memory of a process
that loads and encodes, and the time to load.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here needs the hub

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize

import fusion
from fusion.inputs.data.texts import load_texts
from fusion.model.modules.fused_encoder import CPU_ROWS, FusedEncoder
from fusion.model.modules.settings import PROMPTS, EncoderEntry, FusionSettings

RESULTS = Path(__file__).parents[1] / "results"
SEARCH = "Represent this sentence for searching relevant passages: "
PAPER_PROMPTS = (SEARCH, "query: ", "", SEARCH)


def one_after_the_other(model: Any, role: str) -> Callable[[list[str], int], np.ndarray]:  # noqa: ANN401
    """Each encoder's own ``encode``, then blocks and head: what the fused model stands for."""
    prompts = model[0].prompts_for(PROMPTS[role])

    def encode(texts: list[str], batch_size: int) -> np.ndarray:
        blocks = []
        for row, encoder in enumerate(model[0].encoders):
            vectors = encoder.encode(
                texts, prompt=prompts[row], batch_size=batch_size, show_progress_bar=False
            )
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            blocks.append(vectors / norms * float(model[0].scales[row]))
        with torch.inference_mode():
            fused = {"sentence_embedding": torch.from_numpy(np.hstack(blocks))}
            for module in list(model)[1:]:
                fused = module(fused)
        return fused["sentence_embedding"].numpy()

    return encode


def quartet(model: Any) -> Any:  # noqa: ANN401 - SentenceTransformer's types say Module
    """Four copies of the first encoder, with the paper's prompts and one vocabulary."""
    first = model[0].encoders[0]
    width = model[0].settings.encoders[0].dim
    entries = tuple(
        EncoderEntry(f"copy-{row}", f"encoders/{row}", width, 1.0, query_prompt=prompt)
        for row, prompt in enumerate(PAPER_PROMPTS)
    )
    settings = FusionSettings(entries, "per-model", (1024,))
    modules = [FusedEncoder(settings, [first] * 4, {}), Dense(4 * width, 1024, bias=False)]
    return SentenceTransformer(modules=[*modules, Normalize()], device="cpu", prompts=dict(PROMPTS))


def compare(model: Any, texts: list[str], role: str, repeats: int) -> dict[str, Any]:  # noqa: ANN401
    """Time both ways in turn; medians of ``repeats``. CPU time does not see other people's work."""
    separate = one_after_the_other(model, role)
    fused = model.encode(texts[:64], prompt_name=role, show_progress_bar=False)
    off = float(np.abs(fused - separate(texts[:64], 32)).max())
    ways: dict[str, Callable[[], np.ndarray]] = {
        "fused": lambda: model.encode(
            texts, prompt_name=role, batch_size=32, show_progress_bar=False
        ),
        "separate": lambda: separate(texts, 32),
        "separate_small": lambda: separate(texts, CPU_ROWS),
    }
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats):
        for name in list(ways)[:: 1 if turn % 2 else -1]:  # neither always goes first
            start, used = time.perf_counter(), time.process_time()
            ways[name]()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - used)
    return {
        "role": role,
        "texts": len(texts),
        "words_a_text": round(statistics.mean(len(text.split()) for text in texts), 1),
        "texts_per_second": {k: len(texts) / statistics.median(v) for k, v in wall.items()},
        "seconds": wall,
        "cpu_seconds": cpu,
        "ratio": _ratio(wall, "separate"),
        "cpu_ratio": _ratio(cpu, "separate"),
        "ratio_to_small_batches": _ratio(wall, "separate_small"),
        "largest_difference": off,
    }


def _ratio(seconds: dict[str, list[float]], peer: str) -> float:
    return statistics.median(seconds["fused"]) / statistics.median(seconds[peer])


def load_and_encode(model: Path, texts: list[str]) -> dict[str, float]:
    """In a process of its own: seconds to load, and the most memory that was ever held."""
    code = (
        "import json, sys, time\n"
        "from pathlib import Path\n"
        "import sentence_transformers, fusion.model.modules.modeling_fusion\n"
        "def most():\n"  # not ru_maxrss, in which a parent's memory shows
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(int(l.split()[1]) / 1024 for l in lines if l.startswith('VmHWM'))\n"
        "held, start = most(), time.perf_counter()\n"
        "model = fusion.load(sys.argv[1], device='cpu')\n"
        "seconds = time.perf_counter() - start\n"
        "model.encode(json.load(sys.stdin), show_progress_bar=False)\n"
        "print(json.dumps({'load_seconds': seconds, 'peak_mib': most(), 'libraries_mib': held}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model)],
        input=json.dumps(texts), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Measure, write the JSON, print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="an exported model")
    parser.add_argument("--texts", default="pydocs")
    parser.add_argument("--documents", type=int, default=96)
    parser.add_argument("--queries", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "benchmark_encode.json")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    texts = load_texts(options.texts, max(options.documents, options.queries)).texts
    documents = texts[: options.documents]
    queries = [" ".join(text.split()[:8]) for text in texts[: options.queries]]
    model = fusion.load(options.model, device="cpu")
    cases = []
    for name, tested in (("model", model), ("four, one vocabulary", quartet(model))):
        for role, given in (("document", documents), ("query", queries)):
            case = {"case": name, **compare(tested, given, role, options.repeats)}
            cases.append(case)
            speed = case["texts_per_second"]
            print(
                f"{name}, {role}: {speed['fused']:.0f} texts/s, ratio {case['ratio']:.3f} "
                f"(of CPU time {case['cpu_ratio']:.3f})"
            )
    report = {
        "command": f"python experiments/benchmarks/encode.py --model MODEL --texts {options.texts} "
        f"--documents {options.documents} --queries {options.queries}",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        "versions": {name: version(name) for name in ("torch", "sentence-transformers")},
        "encoders": [entry.name for entry in model[0].settings.encoders],
        "cases": cases,
        "process": load_and_encode(options.model, documents),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
