"""What an alignment is made of. Light to import: what cannot be is refused before torch loads."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from fusion.errors import FusionError
from fusion.inputs.data.captions import is_captions, settled_captions
from fusion.inputs.encoders.catalogue import Modality
from fusion.inputs.encoders.names import check_encoder, modality_of, public_names, settled
from fusion.inputs.encoders.precomputed import SCHEME
from fusion.inputs.encoders.text import DTYPES
from fusion.paths import as_path
from fusion.runs.folder import CONFIG
from fusion.space.training.recipe import check_dims

METHODS = ("cca", "procrustes", "ridge")
KEPT = ("procrustes", "ridge")
"""Methods that map the source into the target's own space."""
TARGET = "target"
OF_TEXTS = "texts:"


@dataclass(frozen=True)
class AlignConfig:
    """What an alignment is made of; together with the pairs it decides every number in it."""

    source: tuple[str, ...]
    """Encoders of the side that is mapped in any case."""
    target: tuple[str, ...]
    """Encoders of the other side, or one folder of a run whose space is to be kept."""
    pairs: str
    """Pictures with captions; or ``texts:`` and a name of texts, each embedded by both sides."""
    method: str = ""
    """One of METHODS; by default cca, or ridge where the target is kept."""
    keep: str | None = None
    """``target``: its vectors stay as they are, and the source is mapped into their space."""
    source_weights: tuple[float, ...] = ()
    """Squared weight of each source block under cosine; empty for one each."""
    target_weights: tuple[float, ...] = ()
    """Likewise of the target's."""
    dims: tuple[int, ...] = ()
    """Nested widths; empty for the usual ones that the pairs can give."""
    max_pairs: int | None = None
    """Learn from at most so many pictures (or texts), the first ones."""
    seed: int = 0
    """Of the pairs held back where the data has no split of its own to choose on."""
    encoder_dtype: str = "float32"
    """``float32`` or ``bfloat16``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", self.method or ("ridge" if self.keep else "cca"))
        self._check_method()
        for side in ("source", "target"):
            _check_side(side, getattr(self, side), getattr(self, f"{side}_weights"))
        if self.max_pairs is not None and self.max_pairs < 2:
            raise ValueError(f"max_pairs must be at least 2, got {self.max_pairs}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be 0 or more, below 2**32, got {self.seed}")
        if self.encoder_dtype not in DTYPES:
            known = ", ".join(DTYPES)
            raise ValueError(f"encoder_dtype must be one of {known}, got {self.encoder_dtype!r}")
        if self.dims:  # the upper bound is known only with the encoders
            check_dims(self.dims, self.dims[-1])

    def _check_method(self) -> None:
        if self.keep not in (None, TARGET):
            raise ValueError(f"keep must be {TARGET}, got {self.keep!r}")
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if self.keep and self.method not in KEPT:
            ways = ", ".join(KEPT)
            raise ValueError(f"method {self.method} maps both sides; with --keep target use {ways}")
        if not self.keep and self.method in KEPT:
            raise ValueError(f"method {self.method} maps into the target's space: --keep target")

    @property
    def of_texts(self) -> str:
        """The name behind ``texts:``; empty where pairs are pictures with captions."""
        return self.pairs.removeprefix(OF_TEXTS) if self.pairs.startswith(OF_TEXTS) else ""

    @property
    def target_run(self) -> Path | None:
        """The folder of the run that ``target`` names, if it names one."""
        if len(self.target) != 1:
            return None
        path = as_path(self.target[0])
        return path if (path / CONFIG).is_file() else None

    def settled(self) -> Self:
        """The same with absolute paths: it holds in whatever folder it is read again."""
        run = self.target_run
        target = tuple(map(settled, self.target)) if run is None else (str(run.absolute()),)
        prefix = OF_TEXTS if self.of_texts else ""
        pairs = prefix + settled_captions(self.of_texts or self.pairs)
        return replace(self, source=tuple(map(settled, self.source)), target=target, pairs=pairs)

    def check(self) -> None:
        """Refuse, in no time, what cannot be had or cannot be paired: nothing is loaded yet.

        Raises:
            FusionError: Encoders or pairs cannot be had, or are of the wrong kind.
        """
        if not is_captions(self.of_texts or self.pairs):
            raise FusionError(
                f"pairs {self.pairs!r} not found: a folder with captions.jsonl, or the name of one "
                "in $FUSION_DATA/multimodal, or texts: before either"
            )
        _check_modality("source", self.source, Modality.TEXT)
        if self.target_run is None:
            wanted = Modality.TEXT if self.of_texts else Modality.IMAGE
            _check_modality("target", self.target, wanted)
        elif not self.keep:
            raise FusionError(f"{self.target[0]} is a run, whose space is kept: say --keep target")
        for name in (*self.source, *(self.target if self.target_run is None else ())):
            check_encoder(name)

    def described(self) -> dict[str, Any]:
        """As ``to_dict``, for others to read: of a path only its last name."""
        plain = self.to_dict()
        names = {side: public_names(plain[side]) for side in ("source", "target")}
        return plain | names | {"pairs": self.pairs.rpartition("/")[2]}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML."""
        plain = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """Undo ``to_dict``.

        Raises:
            ValueError: A field is unknown or has a value that it cannot have.
        """
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()
        }
        try:
            return cls(**fields)
        except TypeError as error:
            raise ValueError(f"the configuration does not fit this version: {error}") from error


def _check_side(side: str, names: tuple[str, ...], weights: tuple[float, ...]) -> None:
    if not names:
        raise ValueError(f"{side} is empty: name at least one encoder")
    if len(set(names)) != len(names):
        raise ValueError(f"{side} names one twice: {','.join(names)}")
    if weights and len(weights) != len(names):
        raise ValueError(
            f"{side}_weights has {len(weights)} entries for {len(names)} encoders "
            f"({', '.join(names)}): give one for each"
        )


def _check_modality(side: str, names: tuple[str, ...], wanted: Modality) -> None:
    for name in names:
        if not name.startswith(SCHEME) and modality_of(name) is not wanted:
            what = "pictures" if wanted is Modality.IMAGE else "texts"
            raise FusionError(
                f"the {side} of these pairs is {what}, which encoder {name!r} does not embed; "
                "captions are the source, pictures the target"
            )
