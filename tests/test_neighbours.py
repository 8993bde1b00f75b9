import numpy as np
import pytest

from fusion.measure.neighbours import neighbours_kept
from fusion.runs.config import RunConfig
from fusion.runs.folder import Run
from fusion.runs.training import CALIBRATION_ROWS
from fusion.samples import evenly_spaced
from fusion.space.blocks import Blocks
from fusion.space.compressors import FirstK
from fusion.space.training.batches import split
from fusion.space.training.recipe import TrainConfig


def run_of(vectors, count, validation=0.05):
    config = RunConfig(("a",), dims=(2, 6, 12), train=TrainConfig(validation=validation, seed=3))
    head = FirstK().fit(vectors)
    return Run(config, Blocks(("a",), (12,)), {"head": head}, vectors, {"text_count": count})


def share_kept(vectors, dim, held):
    """Of the ten nearest by all columns, those that are among the ten nearest by the first few."""
    total = 0
    for row in held:
        near = []
        for part in (vectors, vectors[:, :dim]):
            unit = part / np.linalg.norm(part, axis=1, keepdims=True)
            cosines = unit.astype(np.float64) @ unit[row].astype(np.float64)
            cosines[row] = -np.inf
            near.append(set(np.argsort(-cosines)[:10].tolist()))
        total += len(near[0] & near[1]) / 10
    return total / len(held)


@pytest.mark.parametrize("count", [120, 3 * CALIBRATION_ROWS])
def test_shares_are_those_of_a_search_by_hand(count):
    rows = evenly_spaced(count, CALIBRATION_ROWS)
    vectors = np.random.default_rng(0).normal(size=(len(rows), 12)).astype(np.float32)
    vectors *= np.linspace(3, 0.3, 12, dtype=np.float32)
    kept = neighbours_kept(run_of(vectors, count))
    trained, held = (part.tolist() for part in split(count, 0.05, 3))
    places = [place for place, row in enumerate(rows.tolist()) if row in set(held)]
    assert not set(rows[places].tolist()) & set(trained)
    assert (kept.queries, kept.texts) == (len(places), len(rows))
    for dim in (2, 6, 12):
        assert kept.shares[dim] == pytest.approx(share_kept(vectors, dim, places), abs=1e-9)
    assert kept.shares[2] < kept.shares[6] < kept.shares[12] == 1
    assert f"12 dims 100% of the 10 nearest by the full concat ({len(places)} held-" in str(kept)


def test_few_texts_have_few_neighbours():
    vectors = np.eye(12, dtype=np.float32)[:5] + 0.1
    kept = neighbours_kept(run_of(vectors, 5, validation=0.3))
    assert kept.shares[12] == 1
    assert kept.queries in (1, 2)
