"""Markdown of what benchmark_encode.py and clients.py measured of an exported model.

python experiments/render/sections/render_model.py encode experiments/results/benchmark_encode.json
"""

import json
import sys
from pathlib import Path
from typing import Any


def render_encode(path: Path | str) -> str:
    """Texts a second of the fused model and of its encoders one after the other."""
    report = json.loads(Path(path).read_text(encoding="utf-8"))
    process = report["process"]
    libraries = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines = [
        f"{' + '.join(report['encoders'])}, {report['cores']} CPU cores, {libraries}, "
        f"{report['time'][:10]}; medians of interleaved rounds. *Separate*: each encoder's own "
        "`encode` with batches of 32, then blocks and head; *small*: the same with batches of 8.",
        "",
        "| model | texts | words a text | texts/s | time / separate | time / small | largest "
        "difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in report["cases"]:
        lines.append(
            f"| {case['case']} | {case['texts']} as {case['role']} | {case['words_a_text']} "
            f"| {case['texts_per_second']['fused']:.0f} | {case['ratio']:.2f} "
            f"| {case['ratio_to_small_batches']:.2f} | {case['largest_difference']:.0e} |"
        )
    lines += [
        "",
        f"Loading takes {process['load_seconds']:.1f} s; a process that loads the model and embeds "
        f"{report['cases'][0]['texts']} documents holds at most {process['peak_mib']:.0f} MiB, of "
        f"which {process['libraries_mib']:.0f} MiB were there before the model.",
    ]
    return "\n".join(lines)


def render_clients(path: Path | str) -> str:
    """The scores that other people's programs give an exported model."""
    report = json.loads(Path(path).read_text(encoding="utf-8"))
    data, databases = report["data"], dict(report["databases"])
    libraries = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    scores = report["ndcg_at_10"]
    programs = list(next(iter(scores.values())))
    lines = [
        f"nDCG@10 on {data['queries']} queries and {data['documents']} documents of {data['name']} "
        f"(so few that they are easy to find). {libraries}.",
        "",
        f"| dims | {' | '.join(programs)} |",
        "|---|" + "---|" * len(programs),
        *(
            f"| {dim} | " + " | ".join(f"{row[program]:.5f}" for program in programs) + " |"
            for dim, row in scores.items()
        ),
        "",
        f"Largest difference {report['largest_difference']:.0e} (allowed: "
        f"{report['tolerance']:.0e}). LangChain's vectors differ from the model's by at most "
        f"{report['langchain_largest_difference_of_a_vector']:.0e}.",
        "",
        f"| {databases.pop('dim')} dims, stored and searched in | precision | bytes a vector "
        "| nDCG@10 |",
        "|---|---|---|---|",
        *(_database(name, row) for name, row in databases.items()),
    ]
    return "\n".join(lines)


def _database(name: str, row: dict[str, Any]) -> str:
    size, score = row["bytes_per_vector"], row["ndcg_at_10"]
    return f"| {name} | {row['precision']} | {size} | {score:.4f} |"


if __name__ == "__main__":
    print({"encode": render_encode, "clients": render_clients}[sys.argv[1]](sys.argv[2]))
