"""The cosines by which documents are ranked. Light to import."""

import numpy as np


def rank_documents(query: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Cosines float64 [c], by which documents are ranked; 0 where either side is zero."""
    norms = np.sqrt((documents * documents).sum(axis=1))
    dots = (documents * query).sum(axis=1)  # (c,)
    dots = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
    norm = np.sqrt((query * query).sum())
    return dots / norm if norm > 0 else np.zeros_like(dots)
