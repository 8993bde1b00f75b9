"""How many documents it takes: a space fitted on a few of a corpus's documents, measured on all.

Command:  FUSION_DATA=... python experiments/tables/few_documents.py
Hardware: any CPU; four minutes on one core once the texts are embedded.
Expected: from 100 documents on the head is above the PCA of the same documents at every width but
          the full one, where they are within .001; 400 give at 128 dims what 32,000 Wikipedia
          paragraphs give.

Encoders, weights, recipe and test sets are those of compression.py --setting own. Each seed draws
its own documents, and the head's order of them. The rules for few texts (at most 50 passes, no
power on components that they leave empty) were set with 400 documents and SciFact's train queries.
Writes experiments/results/few_documents.json.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from compression import Setting, Texts, embed_all, environment

from fusion.measure.retrieval.sweep import Space, measure
from fusion.measure.rows import Row, mean_rows
from fusion.space.compressors import PCA, HeadCompressor
from fusion.space.training.batches import Queries
from fusion.space.training.fit import fit_head

RESULTS = Path(__file__).parents[1] / "results" / "few_documents.json"
COUNTS = (100, 400, 1600)
SETTING = Setting("own", (32, 64, 128, 256, 384, 512, 640), (0, 1, 2), None)


def some(texts: Texts, count: int, seed: int) -> tuple[np.ndarray, Queries | None]:
    """So many documents, float32 [n, D], and the queries that come from them."""
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(texts.fitted_on), count, replace=False))
    if texts.queries is None:
        return texts.fitted_on[chosen], None
    kept = np.isin(texts.queries.owners, chosen)
    owners = np.searchsorted(chosen, texts.queries.owners[kept])
    return texts.fitted_on[chosen], Queries(np.asarray(texts.queries.embeddings)[kept], owners)


def spaces(texts: Texts, count: int) -> Iterator[Space]:
    """PCA and the head of so many documents, for each seed."""
    _, queries = texts.splits["test"]
    for seed in SETTING.seeds:
        documents, parts = some(texts, count, seed)
        config = SETTING.trained(SETTING.ours, seed)
        trained = fit_head(documents, config, SETTING.dims, queries=parts)
        head = HeadCompressor(SETTING.dims, config, trained)
        for name, fitted in (("pca", PCA().fit(documents)), ("head", head)):
            yield Space(name, fitted.transform(queries), fitted.transform(texts.documents), seed)


def main() -> None:
    """Fit, measure, write the JSON."""
    where, rows = environment(), dict[int, list[Row]]()
    for texts in embed_all(SETTING):
        data, _ = texts.splits["test"]
        for count in COUNTS:
            rows.setdefault(count, []).extend(measure(data, spaces(texts, count), SETTING.dims))
    report: dict[str, Any] = {
        "environment": where,
        "recipe": SETTING.trained(SETTING.ours, 0).to_dict(),
        "seeds": list(SETTING.seeds),
        "rows": [
            {"documents": count, **row.to_dict()}
            for count, found in rows.items()
            for row in [*found, *mean_rows(found)]
        ],
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    main()
