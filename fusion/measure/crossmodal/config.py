"""What to measure of pictures and texts. Light to import: it is checked before torch is loaded."""

from dataclasses import dataclass

from fusion.measure.naming import check_list
from fusion.space.codes.precision import Precision
from fusion.space.training.recipe import check_dims


@dataclass(frozen=True)
class CrossConfig:
    """What to measure."""

    data: tuple[str, ...]
    """Names or folders of pictures with captions, ``:de`` and the like behind them."""
    split: str = "test"
    """As the data names it."""
    dims: tuple[int, ...] = ()
    """Widths; empty for those of the run."""
    precisions: tuple[Precision, ...] = (Precision.FLOAT32,)
    """How the gallery is stored."""
    seeds: tuple[int, ...] = (0,)
    """Of the rotation of codes."""

    def __post_init__(self) -> None:
        for name in ("data", "precisions", "seeds"):
            check_list(name, getattr(self, name))
        if min(self.seeds) < 0:
            raise ValueError(f"seeds must be 0 or more, got {min(self.seeds)}")
        if self.dims:
            check_dims(self.dims, self.dims[-1])
        object.__setattr__(self, "precisions", tuple(Precision(p) for p in self.precisions))
