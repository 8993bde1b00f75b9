"""Weights of the blocks without labels: what is chosen, and what the concat scores with it.

Command:  FUSION_DATA=... python experiments/tables/auto_weights.py
Hardware: any CPU; a minute once the texts are embedded, half an hour before.
Expected: mean test nDCG@10 of the concat above .5010 with the chosen weights, .4929 with equal
          ones; weight 0 for the encoder whose embeddings are noise.

Encoders minilm and wordllama, and the two beside random vectors. The weights are chosen on the
first 16,000 Wikipedia paragraphs, by their titles. Writes experiments/results/auto_weights.json.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from compression import DATA, ENCODERS, TEXTS, WIDTHS, environment

from fusion.inputs.data.retrieval import load_data
from fusion.inputs.data.texts import Texts, load_texts, pseudo_queries
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.text import TextEncoder, load_encoder
from fusion.inputs.store.store import Store
from fusion.measure.retrieval.sweep import Space, measure
from fusion.runs.fusing import AUTO_PAIRS, auto_weights, fuse
from fusion.space.blocks import Blocks, Normalization
from fusion.space.weights import choose_weights

RESULTS = Path(__file__).parents[1] / "results" / "auto_weights.json"
FIXED = {"equal": (1.0, 1.0), "first alone": (1.0, 0.0), "1 : 0.5": (1.0, 0.5)}
MAX_TEXTS = 16_000
NOISE = 384  # columns of the useless encoder


def beside_noise(
    paragraphs: Texts, encoders: Sequence[TextEncoder], store: Store, seeds: Sequence[int]
) -> list[list[float]]:
    """The weights that are chosen where a third encoder gives random vectors, one row a seed."""
    parts = pseudo_queries(paragraphs.texts, AUTO_PAIRS, paragraphs.titles)
    queries, rests = (
        [store.embed(e, texts, role) for e in encoders]
        for texts, role in zip(parts, (Role.QUERY, Role.DOCUMENT), strict=True)
    )
    chosen = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        noise = [rng.standard_normal((len(parts[0]), NOISE), dtype=np.float32) for _ in range(2)]
        chosen.append(list(choose_weights([*queries, noise[0]], [*rests, noise[1]])))
    return chosen


def concat_scores(
    weights: Sequence[float], encoders: Sequence[TextEncoder], store: Store
) -> dict[str, float]:
    """nDCG@10 of the concat on every test set."""
    blocks = Blocks(ENCODERS, WIDTHS, weights=tuple(weights))
    scores = {}
    for name in DATA:
        data = load_data(name)
        queries = fuse(blocks, encoders, data.queries, Role.QUERY, store)
        documents = fuse(blocks, encoders, data.documents, Role.DOCUMENT, store)
        space = Space("concat", queries, documents, dims=(blocks.width,))
        scores[name] = measure(data, [space], (blocks.width,))[0].ndcg_at_10
    return scores


def main() -> None:
    """Choose, measure, write the JSON."""
    where, store = environment(), Store()
    encoders = [load_encoder(name) for name in ENCODERS]
    paragraphs = load_texts(TEXTS, MAX_TEXTS)
    chosen = auto_weights(encoders, paragraphs, Normalization.PER_MODEL, store)
    tried = {"chosen without labels": chosen, **FIXED}
    report = {
        "encoders": list(ENCODERS),
        "texts": TEXTS,
        "max_texts": MAX_TEXTS,
        "environment": where,
        "rows": [
            {"weights": list(w), "name": n, "ndcg_at_10": concat_scores(w, encoders, store)}
            for n, w in tried.items()
        ],
        "beside_noise": beside_noise(paragraphs, encoders, store, range(3)),
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for row in report["rows"]:
        print(row["name"], row["weights"], np.mean(list(row["ndcg_at_10"].values())))
    print(report["beside_noise"])


if __name__ == "__main__":
    main()
