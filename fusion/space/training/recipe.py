"""How a head is trained: one flat configuration, and named sets of its defaults.

Light to import, since a value that cannot be is refused before torch is loaded.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from fusion.space.fields import check_types

if TYPE_CHECKING:  # a wrong value is refused before torch is loaded
    from fusion.space.head import HeadConfig

RECIPES: dict[str, dict[str, Any]] = {
    # A linear map that begins as PCA and learns which neighbours matter, and stays close enough to
    # PCA to serve texts that it never saw.
    "fusion": {},
    # The same for the very documents that will be searched: nothing has to be held back.
    "corpus": {
        "steps": 300,
        "lr": 6e-3,
        "keep_start": 0.0,
        "pace": 0.75,
        "start_power": -0.15,
        "teacher_power": -0.15,
        "student_temperature": 0.06,
        "sentences": 3,
        "titles": False,
    },
    # arXiv 2510.04626, as published; but the epoch is chosen on held-back text, not on test scores.
    "paper": {
        "loss": "mse",
        "sentences": 0,
        "head": "paper",
        "start": "kaiming",
        "teacher_power": 0.0,
        "pace": 0.0,
        "keep_start": 0.0,
        "steps": None,
        "epochs": 50,
        "batch_size": 128,
        "lr": 1e-3,
        "adam_eps": 1e-8,
        "weight_decay": 1e-4,
        "schedule": "step",
        "clip_norm": 0.0,
        "validation": 0.2,
    },
}
"""What each recipe changes of TrainConfig's defaults."""
WHERE = ("device", "devices", "nodes", "strategy")
"""Settings of where a training runs: it may move to other machines and go on there."""

_CHOICES: dict[str, Sequence[Any]] = {
    "recipe": tuple(RECIPES),
    "loss": ("mse", "kl"),  # the names of LOSSES
    "head": ("linear", "paper"),
    "start": ("pca", "kaiming"),
    "schedule": ("constant", "step", "cosine"),
    "precision": ("32", "bf16-mixed"),
    "device": ("auto", "cpu", "cuda"),
}
_RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "temperature": ("positive", lambda v: v > 0),
    "student_temperature": ("positive", lambda v: v is None or v > 0),
    "spread": ("0 or more", lambda v: v >= 0),
    "sentences": ("0 or more", lambda v: v >= 0),
    "residual_width": ("0 or more", lambda v: v >= 0),
    "epochs": ("positive", lambda v: v is None or v > 0),
    "steps": ("positive", lambda v: v is None or v > 0),
    "batch_size": ("at least 2", lambda v: v >= 2),
    "lr": ("positive", lambda v: v > 0),
    "adam_eps": ("positive", lambda v: v > 0),
    "pace": ("0 or more", lambda v: v >= 0),
    "keep_start": ("0 or more and below 1", lambda v: 0 <= v < 1),
    "weight_decay": ("0 or more", lambda v: v >= 0),
    "step_epochs": ("positive", lambda v: v > 0),
    "step_gamma": ("above 0, up to 1", lambda v: 0 < v <= 1),
    "clip_norm": ("0 (off) or more", lambda v: v >= 0),
    "validation": ("above 0 and below 1", lambda v: 0 < v < 1),
    "patience": ("0 (off) or more", lambda v: v >= 0),
    "seed": ("0 or more, below 2**32", lambda v: 0 <= v < 2**32),
    "devices": ("positive, or -1 for all", lambda v: v == -1 or v > 0),
    "nodes": ("positive", lambda v: v > 0),
}


@dataclass(frozen=True)
class TrainConfig:
    """How a head is trained; the defaults are the recipe ``fusion``.

    Example:
        >>> TrainConfig.of("paper", epochs=5).batch_size
        128
    """

    recipe: str = "fusion"
    """The recipe that it began as; a note, it changes nothing by itself."""
    loss: str = "kl"
    """A name in LOSSES."""
    temperature: float = 0.05
    """Of the loss "kl": what counts as a neighbour."""
    student_temperature: float | None = None
    """Of the loss "kl", at full width: above ``temperature`` the gaps between near and far grow
    wider than the teacher's, which suits the texts that are learned from; below it they shrink,
    which suits others. None takes the same."""
    spread: float = 0.15
    """Of the loss "kl": a width w of D has the student's temperature times (D / w) ** spread."""
    head: str = "linear"
    """"linear" (one matrix) or "paper" (LayerNorm, Linear, BatchNorm1d, LeakyReLU)."""
    residual_width: int = 0
    """Hidden units of a non-linear branch that starts at zero; 0 leaves it out."""
    start: str = "pca"
    """"pca" (uncentred, of the training texts) or "kaiming"."""
    start_power: float = -0.1
    """Each component of the PCA start is scaled by its eigenvalue to this power."""
    teacher_power: float = -0.1
    """The teacher is the full PCA space with that scaling; 0 is the fused space itself."""
    sentences: int = 1
    """So many sentences of each text are learned from as queries are; 0 leaves them out. They have
    to be embedded too. Loss "kl" only."""
    titles: bool = True
    """A text that has a title lends that as its query instead; only where ``sentences`` is not 0.
    Titles are worded more like queries than sentences are."""
    epochs: int | None = None
    """Passes over the training texts; give this or ``steps``."""
    steps: int | None = 900
    """About so many batches in all, but few texts are passed over 50 times at most; give this or
    ``epochs``."""
    batch_size: int = 512
    """Texts that are compared with one another; several devices share them out."""
    lr: float = 4e-3
    """Learning rate of AdamW at its highest."""
    adam_eps: float = 1e-3
    """Of AdamW: where gradients are far below it, as in late columns, steps shrink with them."""
    pace: float = 1.0
    """Output column j moves (smallest width / j) ** pace times as far in a step: late columns, in
    which PCA can hardly be bettered, stay close to where they start. 0 moves all alike."""
    keep_start: float = 0.1
    """Least share of the start in the matrix that comes back, the rest is the best epoch's: between
    the two lie better maps for other texts than either. More of a PCA start is kept where that
    lowers the loss of held-back texts, as it does where texts are few. Linear heads only."""
    weight_decay: float = 0.0
    """Of AdamW."""
    schedule: str = "cosine"
    """"constant", "cosine" down to zero, or "step": times ``step_gamma`` each ``step_epochs``."""
    step_epochs: int = 10
    """Of the schedule "step"."""
    step_gamma: float = 0.8
    """Of the schedule "step"."""
    clip_norm: float = 1.0
    """Gradients are clipped to this norm; 0 leaves them."""
    precision: str = "32"
    """"32" or "bf16-mixed"; cosines are compared in float32 either way."""
    validation: float = 0.05
    """Share of the texts held back, on which the best epoch is chosen. With the loss "kl" each of
    them is compared with all texts, with "mse" with the others that are held back."""
    patience: int = 0
    """Stop after so many validations without a better one; 0 never stops early."""
    seed: int = 0
    """Of the split, the start and the order of the batches."""
    device: str = "auto"
    """"auto" (cuda where there is one), "cpu" or "cuda"."""
    devices: int = 1
    """How many devices of a node; -1 takes all."""
    nodes: int = 1
    """How many nodes; the run folder and the store lie on a disk that they share."""
    strategy: str = "auto"
    """Lightning's name of the way in which devices work together."""

    def __post_init__(self) -> None:
        check_types(self)
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        for name, (words, holds) in _RANGES.items():
            if not holds(value := getattr(self, name)):
                raise ValueError(f"{name} must be {words}, got {value}")
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"give either epochs or steps, got epochs={self.epochs} and steps={self.steps}"
            )
        if self.sentences and self.loss != "kl":
            raise ValueError(
                f"sentences is {self.sentences}, but the loss {self.loss} compares texts only; "
                "set sentences to 0"
            )
        linear = self.head == "linear" and not self.residual_width
        if self.keep_start and not linear:
            raise ValueError(
                f"keep_start is {self.keep_start}, but only a linear head without a residual "
                "branch can be averaged with its start; set keep_start to 0"
            )

    @classmethod
    def of(cls, recipe: str, **changes: Any) -> Self:  # noqa: ANN401 - values of any field
        """The configuration of a recipe, with changes; ``epochs`` and ``steps`` oust each other."""
        if recipe not in RECIPES:
            raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {recipe!r}")
        for given, other in (("epochs", "steps"), ("steps", "epochs")):
            if changes.get(given) is not None:
                changes.setdefault(other, None)
        if changes.get("loss", "kl") != "kl":
            changes.setdefault("sentences", 0)
        return cls(**{"recipe": recipe, **RECIPES[recipe], **changes})

    def head_config(self, in_dim: int, out_dim: int) -> "HeadConfig":
        """The head that is trained, at given widths."""
        from fusion.space.head import HeadConfig

        if self.head == "linear":
            return HeadConfig.linear(in_dim, out_dim, self.residual_width)
        return HeadConfig(in_dim, out_dim, residual_width=self.residual_width)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or YAML; ``TrainConfig(**values)`` takes them back."""
        return asdict(self)


def check_dims(dims: Sequence[int], width: int) -> tuple[int, ...]:
    """The dims as a tuple, if they increase, are positive and stay within ``width`` columns."""
    dims = tuple(int(d) for d in dims)
    if not dims or min(dims) < 1:
        raise ValueError(f"dims must be positive and at least one, got {list(dims)}")
    if list(dims) != sorted(set(dims)):
        raise ValueError(f"dims must increase, got {','.join(map(str, dims))}")
    if dims[-1] > width:
        raise ValueError(f"dims go up to {dims[-1]}, but the fused embedding has {width} columns")
    return dims
