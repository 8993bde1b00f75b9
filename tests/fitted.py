"""A trained head, wrapped as a compressor: what most tests of training look at."""

from fusion.space.compressors import HeadCompressor
from fusion.space.training import fit


def fit_head(embeddings, config, dims, **kwargs):
    return HeadCompressor(dims, config, fit.fit_head(embeddings, config, dims, **kwargs))
