"""What to measure. Light to import: a wrong value is refused before torch is loaded."""

from dataclasses import dataclass

from fusion.measure.naming import check_list
from fusion.space.codes.precision import Precision
from fusion.space.training.recipe import check_dims

ENCODERS, CONCAT = "encoders", "concat"
METHODS = (ENCODERS, CONCAT, "first-k", "random-k", "gaussian", "pca", "head")
SECOND_STAGE = (CONCAT, "pca", "head")
MOST_RERANKED = 1000
PAPER_DATA = ("nfcorpus", "scifact", "arguana")


@dataclass(frozen=True)
class EvaluationConfig:
    """What to measure."""

    data: tuple[str, ...] = PAPER_DATA
    """Names or folders of retrieval data."""
    split: str = "test"
    """``test``, ``dev`` or ``train``."""
    methods: tuple[str, ...] = METHODS
    """Any of METHODS."""
    dims: tuple[int, ...] = ()
    """Widths of the nested methods; empty for those that the run was trained for."""
    precisions: tuple[Precision, ...] = (Precision.FLOAT32,)
    """How documents are stored."""
    seeds: tuple[int, ...] = (0,)
    """Of random-k, of the Gaussian projection, and of the rotation of codes."""
    budget: int | None = None
    """Bytes a vector: codes of more are left out, and unless ``dims`` says otherwise the widest
    vector of each precision that they hold is measured too."""

    def __post_init__(self) -> None:
        for name in ("data", "methods", "precisions", "seeds"):
            check_list(name, getattr(self, name))
        if min(self.seeds) < 0:
            raise ValueError(f"seeds must be 0 or more, got {min(self.seeds)}")
        for method in self.methods:
            if method not in METHODS:
                raise ValueError(f"method {method!r} is unknown; choose among {','.join(METHODS)}")
        if self.dims:
            check_dims(self.dims, self.dims[-1])
        if self.budget is not None and self.budget < 1:
            raise ValueError(f"budget must be positive, got {self.budget} bytes")
        object.__setattr__(self, "precisions", tuple(Precision(p) for p in self.precisions))


@dataclass(frozen=True)
class RerankConfig:
    """How token vectors order anew what one vector a text found."""

    method: str = "pca"
    """``concat``, ``pca`` or ``head`` of the token run."""
    dims: tuple[int, ...] = ()
    """Widths of the token vectors; empty for the widest of the token run."""
    precisions: tuple[Precision, ...] = (Precision.FLOAT16,)
    """How the documents' token vectors are stored."""
    vectors: tuple[int, ...] = ()
    """Vectors a document, at most, the best first; empty for all of its tokens."""
    top: int = 100
    """Results of the first stage that are ordered anew."""

    def __post_init__(self) -> None:
        if self.method not in SECOND_STAGE:
            raise ValueError(
                f"rerank_method {self.method!r} is unknown; choose among {','.join(SECOND_STAGE)}"
            )
        if not 1 <= self.top <= MOST_RERANKED:
            raise ValueError(f"rerank_top must be from 1 to {MOST_RERANKED}, got {self.top}")
        check_list("rerank_precisions", self.precisions)
        if self.dims:
            check_dims(self.dims, self.dims[-1])
        if self.vectors and min(self.vectors) < 1:
            raise ValueError(f"rerank_vectors must be positive, got {min(self.vectors)}")
        object.__setattr__(self, "precisions", tuple(Precision(p) for p in self.precisions))
        if Precision.FLOAT32 in self.precisions:
            raise ValueError("rerank_precisions: token vectors are kept in float16, not float32")
