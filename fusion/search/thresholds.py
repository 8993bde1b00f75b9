"""Scores that a document must exceed to be among the k best of a row, and which do."""

import numpy as np
import torch

GROUPS = 512  # groups of a row whose maxima bound the k-th score, for a small k
SAMPLE = 1024  # scores of a row that it is guessed from, for a large k


def guess_threshold(scores: np.ndarray, keep: int) -> np.ndarray:
    """A float32 [rows, 1] that at least ``keep`` scores of a row exceed, and few more, probably.

    For a small k it is certain: the k-th largest maximum of disjoint groups is a lower bound of the
    k-th score. Otherwise it is guessed from evenly spaced scores, two standard deviations to the
    safe side, and whoever uses it must count what passes.
    """
    rows, width = scores.shape
    groups = min(GROUPS, width)
    if keep <= groups // 3 or groups == width:
        whole = scores[:, : width // groups * groups].reshape(rows, -1, groups)  # (rows, m, groups)
        return exact_threshold(torch.from_numpy(whole).amax(dim=1).numpy(), keep)
    share = keep / width
    sample = scores[:, :: -(-width // SAMPLE)]
    spread = np.sqrt(sample.shape[1] * share * max(0.0, 1 - share))
    return exact_threshold(sample, int(sample.shape[1] * share + 2 * spread + 2))


def exact_threshold(scores: np.ndarray, keep: int) -> np.ndarray:
    """The highest float32 [rows, 1] that ``keep`` scores of a row exceed, -inf if it has fewer."""
    edge = scores.shape[1] - keep
    if edge < 0:
        return np.full((len(scores), 1), -np.inf, np.float32)
    return np.nextafter(np.partition(scores, edge, axis=1)[:, edge, None], np.float32(-np.inf))


def true_positions(mask: np.ndarray) -> np.ndarray:
    """Ascending flat positions of what is true in a contiguous mask."""
    flat = mask.reshape(-1)
    if len(flat) % 8 or np.count_nonzero(flat) * 20 > len(flat):
        return flat.nonzero()[0]
    words = flat.view(np.uint64)  # eight at a time, where nearly all are false
    hit = (words != 0).nonzero()[0]
    inside = words[hit].view(bool).nonzero()[0]
    return hit[inside >> 3] * 8 + (inside & 7)
