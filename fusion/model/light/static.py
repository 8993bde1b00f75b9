"""Static embeddings in numpy: the mean of a row for each token."""

from pathlib import Path

import numpy as np
from safetensors import safe_open
from tokenizers import Tokenizer

from fusion.model.light.layers import WEIGHTS, module_names

TABLE = "embedding.weight"


class Static:
    """One frozen encoder without layers."""

    def __init__(self, folder: Path) -> None:
        """Read the vocabulary; rows of the table stay on disk until they are used."""
        self.table = safe_open(folder / WEIGHTS, framework="np").get_slice(TABLE)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()

    @staticmethod
    def reads(folder: Path) -> bool:
        """Whether a folder holds such an encoder."""
        return module_names(folder) == ["StaticEmbedding"]

    def encode(self, text: str) -> np.ndarray:
        """The embedding of a text with its prompt, float32 [d]; zeros where it has no token."""
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        if not ids:
            return np.zeros(self.table.get_shape()[1], np.float32)
        rows = [self.table[row : row + 1] for row in ids]
        return np.concatenate(rows).astype(np.float32).mean(axis=0)
