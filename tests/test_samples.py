"""A sample has to reach from the first row to the last."""

import numpy as np
import pytest

from fusion.samples import evenly_spaced


@pytest.mark.parametrize(("n", "most"), [(4097, 4096), (8000, 4096), (8191, 4096), (100_000, 4096)])
def test_samples_reach_the_end(n, most):
    rows = evenly_spaced(n, most)
    assert (rows[0], rows[-1], len(rows)) == (0, n - 1, most)
    gaps = np.diff(rows)
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("n", [0, 1, 7])
def test_few_rows_are_all_taken(n):
    assert evenly_spaced(n, 7).tolist() == list(range(n))
