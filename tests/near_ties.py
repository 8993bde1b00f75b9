"""Searches whose results lie so near one another that float32 cannot tell them apart."""

import numpy as np

from fusion.topk.reference import reference_topk


def copies(q, c, d, seed=0):
    """Copies of one document: any two of them tie."""
    rng = np.random.default_rng(seed)
    queries = rng.standard_normal((q, d)).astype(np.float32)
    return queries, np.tile(rng.standard_normal(d).astype(np.float32), (c, 1))


def one_ulp_apart(q, c, d, seed=0):
    """Documents in families of some twenty that differ by the last bit of one component."""
    rng = np.random.default_rng(seed)
    queries = rng.standard_normal((q, d)).astype(np.float32)
    corpus = rng.standard_normal((max(1, c // 20), d)).astype(np.float32)
    corpus = corpus[rng.integers(0, len(corpus), c)]
    rows, columns = np.arange(c), rng.integers(0, d, c)
    to = np.where(rng.random(c) < 0.5, -9, 9).astype(np.float32)
    corpus[rows, columns] = np.nextafter(corpus[rows, columns], to)
    return queries, corpus


def out_of_order(search, queries, corpus, dims, k, exclude=None):
    """How many rows of results are not those of the float64 reference."""
    _, indices = search(queries, corpus, dims, k, exclude=exclude)
    _, expected = reference_topk(queries, corpus, dims, k, exclude=exclude)
    return int((np.asarray(indices) != expected).any(axis=2).sum())
