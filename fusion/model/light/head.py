"""The map from blocks to the nested space in numpy: a stock ``Dense``, or a ``FusedHead``."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from fusion.model.light.layers import WEIGHTS, dense, gelu, normed, read_json

IDENTITY = "torch.nn.modules.linear.Identity"
FOLDERS = {"Dense": "1_Dense", "FusedHead": "1_FusedHead"}
OF_HEAD = {
    "in_dim", "out_dim", "input_norm", "bias", "negative_slope", "output_norm", "residual_width",
}  # fmt: skip
EPS = 1e-5  # of torch's LayerNorm


class Head:
    """The second module of a model."""

    def __init__(self, folder: Path) -> None:
        """Read its weights."""
        self.config = read_json(folder / "config.json")
        self.weights = load_file(folder / WEIGHTS)

    @staticmethod
    def reads(folder: Path) -> bool:
        """Whether a module's folder holds such a map."""
        config = read_json(folder / "config.json")
        return config.get("activation_function") == IDENTITY or set(config) == OF_HEAD

    def __call__(self, fused: np.ndarray) -> np.ndarray:
        """Blocks float32 [q, D] to nested vectors float32 [q, d], not unit-norm."""
        own, weights = self.config, self.weights
        x = normed(fused, weights, "input_norm", EPS) if own.get("input_norm") else fused
        x = dense(x, weights, "linear")
        if (slope := own.get("negative_slope")) is not None:
            x = np.where(x >= 0, x, x * np.float32(slope))
        x = normed(x, weights, "output_norm", EPS) if own.get("output_norm") else x
        if own.get("residual_width"):
            x = x + dense(gelu(dense(fused, weights, "residual.hidden")), weights, "residual.out")
        return x
