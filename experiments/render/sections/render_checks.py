"""Markdown of the checks: our metrics against others', known figures, bfloat16 encoders."""

import json
from pathlib import Path

ASKED_CONCAT = 0.5010  # of weights found without labels; the best single encoder has .4876


def render_metrics(path: Path) -> str:
    """Our nDCG@10 beside that of pytrec_eval, beir and mteb, on the same vectors."""
    report = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        "| data | our nDCG@10 | pytrec_eval, largest difference of a query | beir | mteb |",
        "|---|---|---|---|---|",
    ]
    for line in report["results"]:
        scores = [f"{line[name]['ndcg_at_10']:.5f}" for name in ("ours", "beir", "mteb")]
        apart = line["largest_difference"]["pytrec_eval, any query"]
        lines.append(f"| {line['data']} | {scores[0]} | {apart:.0e} | {scores[1]} | {scores[2]} |")
    return "\n".join(lines)


def render_all_widths(path: Path) -> str:
    """Other people's evaluators, from one encoding and from one a width."""
    report = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"{report['encoders']} on {report['data']}, {len(report['dims'])} widths; both metrics.",
        "",
        "| evaluator | texts encoded | width by width | largest difference of a number | not "
        "explained |",
        "|---|---|---|---|---|",
    ]
    for name, check in report["checks"].items():
        lines.append(
            f"| {name} {report['versions'][name]} | {check['texts_encoded']:,} "
            f"| {check['texts_encoded_width_by_width']:,} | {check['largest_difference']:.1e} "
            f"| {len(report['unexplained'][name])} |"
        )
    lines += [
        "",
        "A difference above 1e-6 is explained where ours is the number of the float64 order: the "
        "cosines are so close that a float32 product swaps them.",
    ]
    return "\n".join(lines)


def render_memory(path: Path) -> str:
    """Peak memory of training on embeddings that were and were not held in memory."""
    report = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"Limit of private memory, held by the kernel: {report['limit_mib']:,} MiB "
        f"({'held' if report['bounded'] else '**broken**'}). Mapped pages of a file count as "
        "resident, not as private: the system takes them back when it needs them.",
        "",
        "| texts | dims | fused embeddings, MiB | peak private, MiB | peak resident, MiB |",
        "|---|---|---|---|---|",
    ]
    for line in report["lines"]:
        lines.append(
            f"| {line['rows']:,} | {line['dim']} | {line['embeddings_mib']:,} "
            f"| {line['peak_private_mib']:,} | {line['peak_resident_mib']:,} |"
        )
    return "\n".join(lines)


def render_streaming(path: Path) -> str:
    """Extra memory of the streaming search by the size of the corpus."""
    report = json.loads(path.read_text(encoding="utf-8"))
    what = report["setting"]
    lines = [
        f"{what['queries']} queries, dims {', '.join(map(str, what['dims']))}, k = {what['k']}, "
        f"chunks of {what['chunk']:,} documents, one thread.",
        "",
        "| documents | extra memory, MB | bound, MB | seconds |",
        "|---|---|---|---|",
    ]
    for line in report["lines"]:
        lines.append(
            f"| {line['documents']:,} | {line['extra_mb']:.0f} | {report['bound_mb']:.0f} "
            f"| {line['seconds']:.1f} |"
        )
    return "\n".join(lines)


def render_weights(path: Path, *, asked: bool = True) -> str:
    """The concat's score under weights found without labels, and under others."""
    report = json.loads(path.read_text(encoding="utf-8"))
    names, rows = weights_table(path)
    lines = [
        f"{' and '.join(report['encoders'])}; weights chosen on the first {report['max_texts']:,} "
        f"texts of {report['texts']}." + f" Asked: a mean of {ASKED_CONCAT:.4f}." * asked,
        "",
        f"| squared weights | | {' | '.join(names)} |",
        "|---|---|" + "---|" * len(names),
    ]
    for row, scores in zip(report["rows"], rows.values(), strict=True):
        weights = " : ".join(f"{weight:g}" for weight in row["weights"])
        cells = " | ".join(f"{score:.4f}" for score in scores)
        lines.append(f"| {weights} | {row['name']} | {cells} |")
    noisy = " and ".join({" : ".join(f"{w:g}" for w in row) for row in report["beside_noise"]})
    lines += [
        "",
        f"Beside a third encoder that gives random vectors ({len(report['beside_noise'])} seeds): "
        f"{noisy}.",
    ]
    return "\n".join(lines)


def weights_table(path: Path) -> tuple[list[str], dict[str, list[float]]]:
    """The data sets and their mean, and the scores of each choice of weights on them."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    sets = list(rows[0]["ndcg_at_10"])
    scores = {row["name"]: [row["ndcg_at_10"][name] for name in sets] for row in rows}
    return [*sets, "mean"], {n: [*found, sum(found) / len(found)] for n, found in scores.items()}


def render_known_figures(path: Path) -> str:
    """What real encoders have to give on real data, and what they gave."""
    lines = [
        "| setting | data | method | asked | measured | |",
        "|---|---|---|---|---|---|",
    ]
    for line in json.loads(path.read_text(encoding="utf-8")):
        asked = f"{line['asked']:.4f} ± {line['tolerance']:.4f}"
        verdict = "ok" if line["ok"] else "**missed**"
        lines.append(
            f"| {line['setting']} | {line['data']} | {line['method']} "
            f"| {asked} | {line['measured']:.4f} | {verdict} |"
        )
    return "\n".join(lines)


def render_dtype(path: Path) -> str:
    """What bfloat16 encoders cost and gain."""
    report = json.loads(path.read_text(encoding="utf-8"))
    speed = report["texts_per_second"]
    gain = speed["bfloat16"] / speed["float32"]
    lines = [
        "| data | minilm, float32 | minilm, bfloat16 | concat, float32 | concat, bfloat16 "
        "| smallest cosine |",
        "|---|---|---|---|---|---|",
    ]
    for line in report["accuracy"]:
        scores = [
            line[dtype][method]
            for method in ("encoder:minilm", "concat")
            for dtype in ("float32", "bfloat16")
        ]
        cells = " | ".join(f"{score:.4f}" for score in scores)
        lines.append(f"| {line['data']} | {cells} | {line['cosine_min']:.4f} |")
    lines += [
        "",
        f"minilm alone embeds {gain:.1f} times as many documents a second in bfloat16 "
        f"({speed['bfloat16']:.0f} against {speed['float32']:.0f}; "
        f"{report['environment']['cpu']}).",
    ]
    return "\n".join(lines)
