"""The trained head as a module of a sentence-transformers model."""

from typing import Any

from sentence_transformers.base.modules import Module
from torch import nn


class FusedHead(Module):
    """A trained head that no stock module can be: norms, a leaky activation, a residual branch."""

    config_keys = [  # noqa: RUF012 - the base class has a plain list too
        "in_dim", "out_dim", "input_norm", "bias", "negative_slope", "output_norm",
        "residual_width",
    ]  # fmt: skip

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        input_norm: bool = True,
        bias: bool = True,
        negative_slope: float | None = 0.2,
        output_norm: bool = False,
        residual_width: int = 0,
    ) -> None:
        """Build it with its BatchNorm folded; fields as in ``fusion.space.head.HeadConfig``."""
        super().__init__()
        self.in_dim, self.out_dim, self.residual_width = in_dim, out_dim, residual_width
        self.bias, self.negative_slope = bias, negative_slope
        self.linear = nn.Linear(in_dim, out_dim, bias=bias)
        self.input_norm = nn.LayerNorm(in_dim) if input_norm else nn.Identity()
        self.activation = nn.LeakyReLU(negative_slope) if negative_slope is not None else None
        self.output_norm = nn.LayerNorm(out_dim) if output_norm else nn.Identity()
        if residual_width:
            self.residual = nn.Sequential()
            self.residual.add_module("hidden", nn.Linear(in_dim, residual_width))
            self.residual.add_module("activation", nn.GELU())
            self.residual.add_module("out", nn.Linear(residual_width, out_dim, bias=False))

    def get_config_dict(self) -> dict[str, Any]:
        """What is saved."""
        config = {key: getattr(self, key) for key in self.config_keys}
        for key in ("input_norm", "output_norm"):
            config[key] = isinstance(config[key], nn.LayerNorm)
        return config

    def get_embedding_dimension(self) -> int:
        """Columns of the output."""
        return self.out_dim

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401
        """``[n, in_dim]`` to nested ``[n, out_dim]``."""
        fused = features["sentence_embedding"]  # (n, D)
        mapped = self.linear(self.input_norm(fused))  # (n, d)
        if self.activation is not None:
            mapped = self.activation(mapped)
        mapped = self.output_norm(mapped)
        if self.residual_width:
            mapped = mapped + self.residual(fused)
        features["sentence_embedding"] = mapped
        return features

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Write configuration and weights."""
        self.save_config(output_path)
        self.save_torch_weights(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **hub: Any) -> "FusedHead":  # type: ignore[override] # noqa: ANN401
        """Read what ``save`` wrote."""
        names = ("token", "cache_folder", "revision", "local_files_only")
        places = {k: hub[k] for k in names if k in hub} | {"subfolder": subfolder}
        config = cls.load_config(model_name_or_path, **places)
        if set(config) != set(cls.config_keys):
            raise ValueError(f"{subfolder}/config.json has other fields than {cls.config_keys}")
        return cls.load_torch_weights(model_name_or_path, model=cls(**config), **places)
