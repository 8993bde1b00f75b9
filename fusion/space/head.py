"""The head: one small learned map from fused embeddings to a nested space."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class HeadConfig:
    """What stands between a fused embedding and its nested vector.

    The defaults are the head of "Compressed Concatenation of Small Embedding Models"
    (arXiv 2510.04626): LayerNorm, Linear, BatchNorm1d, LeakyReLU(0.2).
    """

    in_dim: int
    """Width of the fused embedding."""
    out_dim: int
    """Width of the nested vector; every shorter one is its prefix."""
    input_norm: bool = True
    """LayerNorm before the linear map."""
    bias: bool = True
    """The linear map adds a bias."""
    batch_norm: bool = True
    """BatchNorm1d after the linear map; ``fold`` makes it part of that map."""
    negative_slope: float | None = 0.2
    """Slope of LeakyReLU below zero; None leaves the activation out."""
    output_norm: bool = False
    """LayerNorm at the end, as in earlier runs of the paper."""
    residual_width: int = 0
    """Hidden units of a non-linear branch that is added to the output and starts at zero."""

    def __post_init__(self) -> None:
        for name in ("in_dim", "out_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.residual_width < 0:
            raise ValueError(f"residual_width must be 0 or more, got {self.residual_width}")

    @classmethod
    def linear(cls, in_dim: int, out_dim: int, residual_width: int = 0) -> Self:
        """One matrix and nothing else: what a PCA start needs to begin as PCA exactly."""
        return cls(
            in_dim,
            out_dim,
            input_norm=False,
            bias=False,
            batch_norm=False,
            negative_slope=None,
            residual_width=residual_width,
        )


class FusionHead(nn.Module):
    """A head as its ``HeadConfig`` says, with a Kaiming start.

    Outputs are not unit-norm: whoever compares them slices to a width first and normalises then.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(config.in_dim, config.out_dim, bias=config.bias)
        nn.init.kaiming_normal_(self.linear.weight, a=config.negative_slope or 1.0)
        if config.bias:
            nn.init.zeros_(self.linear.bias)
        self.input_norm = nn.LayerNorm(config.in_dim) if config.input_norm else nn.Identity()
        self.batch_norm = nn.BatchNorm1d(config.out_dim) if config.batch_norm else nn.Identity()
        slope = config.negative_slope
        self.activation = nn.Identity() if slope is None else nn.LeakyReLU(slope)
        self.output_norm = nn.LayerNorm(config.out_dim) if config.output_norm else nn.Identity()
        self.residual = _residual(config) if config.residual_width else None

    def forward(self, embeddings: Tensor) -> Tensor:
        """Fused embeddings ``[n, in_dim]`` to nested vectors ``[n, out_dim]``, not unit-norm."""
        mapped = self.linear(self.input_norm(embeddings))  # (n, d)
        mapped = self.output_norm(self.activation(self.batch_norm(mapped)))  # (n, d)
        if self.residual is None:
            return mapped
        return mapped + self.residual(embeddings)  # (n, d)

    @torch.no_grad()
    def start_from(self, matrix: Tensor) -> None:
        """Make ``embeddings @ matrix`` the linear map, with a bias of zero.

        Args:
            matrix: ``[in_dim, out_dim]``, for example the components of a PCA.
        """
        self.linear.weight.copy_(matrix.T)
        if self.config.bias:
            self.linear.bias.zero_()

    @torch.no_grad()
    def fold(self) -> "FusionHead":
        """The same map without BatchNorm, whose running statistics become part of the Linear.

        Exact in eval mode (computed in float64, rounded once). The head itself stays as it is.
        """
        batch_norm = self.batch_norm
        folded = isinstance(batch_norm, nn.BatchNorm1d)
        config = replace(self.config, batch_norm=False, bias=self.config.bias or folded)
        twin = FusionHead(config).to(self.linear.weight.device, self.linear.weight.dtype)
        twin.load_state_dict(self.state_dict(), strict=False)
        if isinstance(batch_norm, nn.BatchNorm1d):
            bias = self.linear.bias.double() if self.config.bias else 0.0
            scale, shift = _affine(batch_norm)  # (d,), (d,)
            twin.linear.weight.copy_(self.linear.weight.double() * scale[:, None])  # (d, D)
            twin.linear.bias.copy_(bias * scale + shift)  # (d,)
        return twin.eval()


def _affine(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Scale and shift ``[d]`` in float64 that BatchNorm applies in eval mode."""
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None  # FusionHead always tracks running statistics
    assert var is not None
    scale = norm.weight.double() / torch.sqrt(var.double() + norm.eps)  # (d,)
    return scale, norm.bias.double() - mean.double() * scale


def _residual(config: HeadConfig) -> nn.Sequential:
    out = nn.Linear(config.residual_width, config.out_dim, bias=False)
    nn.init.zeros_(out.weight)  # the branch begins as nothing, so a PCA start stays one
    hidden = nn.Linear(config.in_dim, config.residual_width)
    return nn.Sequential(OrderedDict(hidden=hidden, activation=nn.GELU(), out=out))
