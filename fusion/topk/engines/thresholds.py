"""Scores that a document must exceed to be among the k best of a row, and which do."""

import numpy as np
import torch

from fusion.topk.engines.sorting import RUN

GROUPS = 512  # groups of a row whose maxima bound the k-th score, for a small k
SAMPLE = 1400  # scores of a row, about, that it is guessed from for a large k


def guess_threshold(scores: np.ndarray, keep: int) -> np.ndarray:
    """A float32 [rows, 1] that at least ``keep`` scores of a row exceed, and few more, probably.

    For a small k it is certain: the k-th largest maximum of disjoint groups is a lower bound of the
    k-th score. Otherwise it is guessed, and whoever uses it must count what passes.
    """
    rows, width = scores.shape
    groups = min(GROUPS, width)
    if keep > groups // 3 and groups < width:
        return _sampled_threshold(scores, keep)
    whole = scores[:, : width // groups * groups].reshape(rows, -1, groups)  # (rows, m, groups)
    return exact_threshold(torch.from_numpy(whole).amax(dim=1).numpy(), keep)


def _sampled_threshold(scores: np.ndarray, keep: int) -> np.ndarray:
    """A guess from evenly spaced scores, three standard deviations to the safe side.

    They are sorted in runs that fit into registers, whose quantiles agree well enough to average.
    """
    sample = scores[:, :: max(1, scores.shape[1] // SAMPLE)]
    runs = -(-sample.shape[1] // RUN)
    length = sample.shape[1] // runs
    # Each run spans the whole row, since documents that lie together are often alike.
    sample = sample[:, : runs * length].reshape(len(scores), length, runs)
    sample = sample.swapaxes(1, 2).copy()  # (rows, runs, length)
    share = keep / scores.shape[1]
    unseen = 1 - runs * length / scores.shape[1]
    spread = np.sqrt(runs * length * share * max(0.0, 1 - share) * unseen)
    edge = length - int((runs * length * share + 3 * spread) / runs + 1)
    if edge < 0:
        return np.full((len(scores), 1), -np.inf, np.float32)
    sample.partition(edge, axis=2)
    return sample[:, :, edge].mean(axis=1, keepdims=True)


def exact_threshold(scores: np.ndarray, keep: int) -> np.ndarray:
    """The highest float32 [rows, 1] that ``keep`` scores of a row exceed, -inf if it has fewer."""
    edge = scores.shape[1] - keep
    if edge < 0:
        return np.full((len(scores), 1), -np.inf, np.float32)
    return np.nextafter(np.partition(scores, edge, axis=1)[:, edge, None], np.float32(-np.inf))


def true_positions(mask: np.ndarray) -> np.ndarray:
    """Ascending flat positions of what is true in a contiguous mask."""
    flat = mask.reshape(-1)
    if len(flat) % 8:
        return flat.nonzero()[0]
    words = flat.view(np.uint64)  # eight at a time, where nearly all are false
    hit = words != 0
    if np.count_nonzero(hit) * 4 > len(hit):
        return flat.nonzero()[0]
    where = hit.nonzero()[0]
    inside = words.take(where).view(bool).nonzero()[0]
    found = where.take(inside >> 3)
    found <<= 3
    inside &= 7
    found |= inside
    return found
