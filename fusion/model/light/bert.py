"""BERT in numpy, float32, a text at a time: the same vectors as torch's, to rounding.

Torch and transformers take seconds to import; a query of some words takes their BERT as many
milliseconds as this one. Only the plain architecture is known; ``reads`` says whether it is that.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from tokenizers import Tokenizer

from fusion.model.light.layers import WEIGHTS, dense, gelu, module_names, normed, read_json

MODULES = [["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]]
PLAIN: dict[str, dict[str, Any]] = {  # settings of a transformer that change nothing here, by file
    "sentence_bert_config.json": {
        "transformer_task": ("feature-extraction",),
        "modality_config": (
            {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        ),
        "module_output_name": ("token_embeddings",),
        "max_seq_length": (None,),
        "do_lower_case": (False,),
        "processing_kwargs": (None, {}),
        "unpad_inputs": (None, False),
    },
    "1_Pooling/config.json": {
        "embedding_dimension": None,  # whatever it is
        "pooling_mode": ("mean", "cls"),
        "include_prompt": (True,),
    },
}
ARCHITECTURE = {
    "model_type": ("bert",),
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
}


class Bert:
    """One frozen encoder: a transformer and its pooling."""

    def __init__(self, folder: Path) -> None:
        """Read what an encoder's folder holds; its weights stay on disk until they are used."""
        self.config = read_json(folder / "config.json")
        self.pooling = read_json(folder / "1_Pooling/config.json")["pooling_mode"]
        self.unit = "Normalize" in module_names(folder)
        self.weights = safe_open(folder / WEIGHTS, framework="np")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        length = read_json(folder / "tokenizer_config.json").get("model_max_length", math.inf)
        self.tokenizer.enable_truncation(int(min(length, self.config["max_position_embeddings"])))
        self._layers = [dict(self._layer(row)) for row in range(self.config["num_hidden_layers"])]

    @staticmethod
    def reads(folder: Path) -> bool:
        """Whether a folder holds such an encoder, and nothing that this file does not know."""
        if module_names(folder) not in MODULES:
            return False
        config = read_json(folder / "config.json")
        known = all(config.get(key, right[0]) in right for key, right in ARCHITECTURE.items())
        return known and all(
            _is_plain(read_json(folder / name), own) for name, own in PLAIN.items()
        )

    def encode(self, text: str) -> np.ndarray:
        """The embedding of a text with its prompt, float32 [d]."""
        x = self._embedded(self.tokenizer.encode(text).ids)  # (t, d)
        for layer in self._layers:
            x = self._attended(x, layer)
            inner = gelu(dense(x, layer, "intermediate.dense"))
            x = self._normed(x + dense(inner, layer, "output.dense"), layer, "output.LayerNorm")
        pooled = x[0] if self.pooling == "cls" else x.mean(axis=0)
        return pooled / np.linalg.norm(pooled) if self.unit else pooled

    def _embedded(self, ids: list[int]) -> np.ndarray:
        words = self.weights.get_slice("embeddings.word_embeddings.weight")
        rows = np.concatenate([words[row : row + 1] for row in ids])
        places = self.weights.get_slice("embeddings.position_embeddings.weight")[: len(ids)]
        kinds = self.weights.get_slice("embeddings.token_type_embeddings.weight")[:1]
        own = {
            name: self.weights.get_tensor(f"embeddings.{name}")
            for name in ("LayerNorm.weight", "LayerNorm.bias")
        }
        return self._normed(rows + kinds + places, own, "LayerNorm")

    def _layer(self, row: int) -> Iterator[tuple[str, np.ndarray]]:
        start = f"encoder.layer.{row}."
        for name in self.weights.keys():  # noqa: SIM118 - no dict
            if name.startswith(start):
                yield name.removeprefix(start), self.weights.get_tensor(name)

    def _attended(self, x: np.ndarray, layer: dict[str, np.ndarray]) -> np.ndarray:
        heads = self.config["num_attention_heads"]
        query, key, value = (
            dense(x, layer, f"attention.self.{name}").reshape(len(x), heads, -1).swapaxes(0, 1)
            for name in ("query", "key", "value")
        )  # (h, t, s)
        scores = query @ key.swapaxes(1, 2) / np.float32(math.sqrt(query.shape[2]))  # (h, t, t)
        scores = np.exp(scores - scores.max(axis=2, keepdims=True))
        scores /= scores.sum(axis=2, keepdims=True)
        context = (scores @ value).swapaxes(0, 1).reshape(x.shape)
        found = dense(context, layer, "attention.output.dense")
        return self._normed(x + found, layer, "attention.output.LayerNorm")

    def _normed(self, x: np.ndarray, own: dict[str, np.ndarray], name: str) -> np.ndarray:
        return normed(x, own, name, self.config["layer_norm_eps"])


def _is_plain(config: dict[str, Any], known: dict[str, Any]) -> bool:
    return all(
        key in known and (known[key] is None or value in known[key])
        for key, value in config.items()
    )
