"""What a run is made of. Light to import: a wrong value is refused before torch is loaded."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from fusion.errors import FusionError
from fusion.inputs.data.texts import Reading, settled_texts
from fusion.inputs.encoders.catalogue import PAPER_QUARTET, Modality
from fusion.inputs.encoders.names import check_encoder, modality_of, public_names, settled
from fusion.inputs.encoders.text import DTYPES
from fusion.inputs.encoders.tokens import TokenKind, checked_kinds
from fusion.inputs.reading.chunks import Chunking
from fusion.space.blocks import Normalization
from fusion.space.training.recipe import TrainConfig, check_dims

AUTO = "auto"
TOKENS_A_TEXT = 16  # of a text are fitted on at least, so that no text need be read for fewer
LATER = ("text_fields", "id_field", "lines", "chunk", "chunk_overlap", "tokens", "token_rows")
"""Fields that runs of earlier versions lack; written down where they are not as usual."""


@dataclass(frozen=True)
class RunConfig:
    """What a run is made of; together with the texts it decides every number in the folder."""

    encoders: tuple[str, ...] = PAPER_QUARTET
    """Names, folders, hub ids or ``file:PATH``; their order is the order of the blocks."""
    normalize: Normalization = Normalization.PER_MODEL
    """``none``, ``per-model`` or ``global``."""
    weights: tuple[float, ...] | str = ()
    """Squared weight of each block under cosine; empty for one each, ``auto`` to choose them."""
    texts: str = "wikipedia"
    """What to fit on; see ``fusion.inputs.data.texts.load_texts``."""
    max_texts: int | None = None
    """Take at most the first so many texts."""
    dims: tuple[int, ...] = ()
    """Widths to train for; empty for the usual ones that the concat can give."""
    encoder_dtype: str = "float32"
    """``float32`` or ``bfloat16``."""
    text_fields: tuple[str, ...] = ("text",)
    """Fields of JSON lines and tables that hold the text."""
    id_field: str = ""
    """Field of the id; by default ``_id`` or ``id``."""
    lines: bool = False
    """That a .txt file in a folder has a text on each line."""
    chunk: int | str = AUTO
    """Tokens of a chunk, ``auto`` or ``none``; see ``fusion.inputs.reading.chunks.Chunking``."""
    chunk_overlap: int = 0
    """Tokens that a chunk repeats of the one before it."""
    tokens: tuple[TokenKind, ...] = ()
    """One vector a token, of the tokens of these kinds; empty for one vector a text."""
    token_rows: int = 65_536
    """Tokens to fit on, at most, evenly spaced over those of at most a sixteenth as many texts."""
    train: TrainConfig = TrainConfig()  # noqa: RUF009 - frozen
    """How the head is trained."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "normalize", Normalization(self.normalize))
        if not self.encoders:
            raise ValueError("encoders is empty: name at least one, for example minilm,wordllama")
        if len(set(self.encoders)) != len(self.encoders):
            raise ValueError(f"encoders names one twice: {','.join(self.encoders)}")
        if self.max_texts is not None and self.max_texts < 2:
            raise ValueError(f"max_texts must be at least 2, got {self.max_texts}")
        if self.weights not in ((), AUTO) and len(self.weights) != len(self.encoders):
            raise ValueError(
                f"weights has {len(self.weights)} entries for {len(self.encoders)} encoders "
                f"({', '.join(self.encoders)}): give one for each, or auto"
            )
        if self.encoder_dtype not in DTYPES:
            known = ", ".join(DTYPES)
            raise ValueError(f"encoder_dtype must be one of {known}, got {self.encoder_dtype!r}")
        object.__setattr__(self, "tokens", checked_kinds(self.tokens))
        if self.token_rows < TOKENS_A_TEXT:
            raise ValueError(f"token_rows must be at least {TOKENS_A_TEXT}, got {self.token_rows}")
        self._check_reading()
        if self.dims:  # the upper bound is known only with the encoders
            check_dims(self.dims, self.dims[-1])

    def _check_reading(self) -> None:
        if not self.text_fields:
            raise ValueError("text-fields is empty; name at least one field")
        Chunking(self.chunk, self.chunk_overlap)

    def settled(self) -> Self:
        """The same with absolute paths: it holds in whatever folder it is read again."""
        names = tuple(settled(name) for name in self.encoders)
        return replace(self, encoders=names, texts=settled_texts(self.texts))

    def check_encoders(self) -> None:
        """Refuse encoders that cannot be had, in no time: nothing is loaded yet.

        Raises:
            FusionError: One of them cannot be had, or embeds no texts.
            ValueError: The encoders are known to give fewer columns than ``dims`` asks for.
        """
        for name in self.encoders:
            if modality_of(name) is not Modality.TEXT:
                raise FusionError(
                    f"encoder {name!r} embeds no texts, which a run is fitted on; pair it with an "
                    "encoder of texts: fusion.align"
                )
        widths = [check_encoder(name) for name in self.encoders]
        known = [width for width in widths if width is not None]
        if self.dims and len(known) == len(widths):
            check_dims(self.dims, sum(known))

    def described(self) -> dict[str, Any]:
        """As ``to_dict``, for others to read: of a path only its last name, the rest is private."""
        names = public_names(self.encoders)
        parts = [part.rpartition("/")[2] if "/" in part else part for part in self.texts.split(",")]
        return self.to_dict() | {"encoders": names, "texts": ",".join(parts)}

    @property
    def reading(self) -> Reading:
        """How files of texts are read."""
        return Reading(self.text_fields, self.id_field, self.lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML."""
        plain = asdict(self) | {"normalize": str(self.normalize), "encoders": list(self.encoders)}
        plain["dims"] = list(self.dims)
        plain["tokens"] = tuple(str(kind) for kind in self.tokens)
        for name in LATER:
            if plain[name] == getattr(type(self), name):
                del plain[name]
        for name in ("tokens", "text_fields"):
            if name in plain:
                plain[name] = list(plain[name])
        plain["weights"] = self.weights if isinstance(self.weights, str) else list(self.weights)
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """Undo ``to_dict``.

        Raises:
            ValueError: A field is unknown or has a value that it cannot have.
        """
        plain = dict(plain)
        train = plain.pop("train", {})
        for name in ("encoders", "dims", "weights", "tokens", "text_fields"):
            if isinstance(plain.get(name), list):
                plain[name] = tuple(plain[name])
        try:
            return cls(**plain, train=TrainConfig(**train))
        except TypeError as error:
            raise ValueError(f"the configuration does not fit this version: {error}") from error
