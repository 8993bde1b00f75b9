"""Two stages: what one vector a text found is ordered anew by MaxSim of token vectors."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fusion.inputs.data.judged import RetrievalData
from fusion.inputs.data.pseudo import PseudoData, pseudo_data
from fusion.inputs.data.retrieval import load_documents
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.precomputed import PrecomputedEncoder
from fusion.inputs.encoders.text import TextEncoder
from fusion.inputs.store.store import Store
from fusion.measure.naming import check_names
from fusion.measure.retrieval.blending import (
    blended,
    choose_weight,
    reranked,
    token_scores,
)
from fusion.measure.retrieval.config import CONCAT, EvaluationConfig, RerankConfig
from fusion.measure.retrieval.evaluation import spaces
from fusion.measure.retrieval.metrics import Judgements
from fusion.measure.retrieval.sets import check_token_widths, check_widths
from fusion.measure.retrieval.sweep import RECALL_CUTOFF, Found, row_of, searched
from fusion.measure.rows import Rerank, Row, mean_rows, with_intervals
from fusion.measure.stages import STAGES
from fusion.ragged import Ragged
from fusion.runs.folder import Run
from fusion.runs.fusing import load_encoders
from fusion.runs.tokens import half_rows, map_tokens, open_tokens
from fusion.space.codes import Codebook, Precision
from fusion.space.summaries import first_vectors

logger = logging.getLogger(__name__)

PAIRS = 500  # documents that are taken apart to choose a weight on
FEWEST = 50  # of them, to choose one at all
UNKNOWN = 1.0  # the weight where none can be chosen


@dataclass(frozen=True, eq=False)
class _First:
    """One variant of the first stage: what it found for the queries and for the pseudo-queries."""

    method: str
    seed: int
    found: Found
    pseudo: Found | None


@dataclass(frozen=True, eq=False)
class _Tokens:
    """Token vectors of a data set at one width or, where they are floats, at several."""

    vectors: int | None
    """Of a document, at most; None for all of its tokens."""
    dims: list[int]
    precision: Precision
    bytes_per_vector: list[int]
    queries: Ragged
    pseudo_queries: Ragged | None
    documents: Ragged
    """Of the documents, then of the rests of those that were taken apart."""


@dataclass(frozen=True, eq=False)
class _Mapper:
    """A token run, ready to map texts."""

    run: Run
    config: RerankConfig
    encoders: Sequence[TextEncoder]
    store: Store

    def __call__(
        self,
        texts: Sequence[str],
        role: Role,
        width: int,
        ids: Sequence[str],
        most: int | None = None,
    ) -> Ragged:
        stored = open_tokens(self.encoders, texts, role, self.run.config, self.store, ids)
        return map_tokens(self.run.blocks, stored, self.project, width, self.store, most)

    @property
    def dims(self) -> list[int]:
        """Widths to measure, ascending."""
        return list(check_token_widths(self.run.config.dims, self.run.blocks.width, self.config))

    @property
    def calibration(self) -> np.ndarray:
        """float32 [n, d], training tokens of unit length that codes are fitted on."""
        found = self.project(self.run.calibration)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    def coded(self, tokens: Ragged, precision: Precision, dim: int) -> Ragged:
        """Token vectors as their codes give them back, float16 [t, dim]."""
        book = Codebook.fit(self.calibration, precision, dim)

        def rows_of(rows: slice) -> np.ndarray:
            return book.decode(book.encode(np.asarray(tokens.rows[rows], dtype=np.float32)))

        decoded = half_rows(rows_of, (len(tokens.rows), dim), self.store)
        return Ragged(decoded, tokens.offsets)

    def project(self, fused: np.ndarray) -> np.ndarray:
        """Fused rows float32 [n, D] in the space whose token vectors are compared."""
        if self.config.method == CONCAT:
            return fused
        return self.run.compressors[self.config.method].transform(fused)


@dataclass(frozen=True, eq=False)
class _Task:
    """One data set to measure in two stages."""

    data: RetrievalData
    pseudo: PseudoData | None
    judgements: Judgements
    rerank: RerankConfig
    name: str
    """Of the token run."""


def rerank_sets(
    run: Run,
    tokens: Run,
    sets: Sequence[RetrievalData],
    config: EvaluationConfig,
    rerank: RerankConfig,
    name: str = "tokens",
) -> list[Row]:
    """Measure a run as ``evaluate_sets`` does, and each of its rankings reordered by token vectors.

    The weight of MaxSim is found on each data set anew, from its documents alone.

    Args:
        run: Gives one vector a text.
        tokens: A run of ``--tokens``.
        sets: The data.
        config: What to measure of the first stage.
        rerank: And of the second.
        name: Of the token run, for the rows.

    Returns:
        The rows of ``evaluate_sets``, and for each of them one for every width and precision of the
        token vectors, whose ``rerank`` says which; with several data sets also their means.

    Raises:
        FusionError: Data or an encoder cannot be had, or texts have no token vectors.
        ValueError: A width that a run cannot give.
    """
    config = replace(config, dims=check_widths(run.config.dims, run.blocks.width, config))
    check_names([data.name for data in sets])
    store, encoders = Store(), load_encoders(run.config)
    run.check_encoders(encoders)
    token_encoders = load_encoders(tokens.config)
    tokens.check_encoders(token_encoders)
    mapper = _Mapper(tokens, rerank, token_encoders, store)
    rows: list[Row] = []
    for of_config, data in zip(config.data, sets, strict=True):
        pseudo = _pseudo(data, of_config, [*encoders, *token_encoders])
        judgements = Judgements.from_qrels(data.query_ids, data.doc_ids, data.qrels)
        task = _Task(data, pseudo, judgements, rerank, name)
        firsts = list(_first_stages(run, task, encoders, config, store))
        rows += with_intervals([*_first_rows(task, firsts), *_second_rows(task, firsts, mapper)])
    return rows + mean_rows(rows) if len(sets) > 1 else rows


def _pseudo(data: RetrievalData, name: str, encoders: Sequence[TextEncoder]) -> PseudoData | None:
    """What the weight is chosen on; None, with a warning, where there is too little."""
    found = None
    if not any(isinstance(encoder, PrecomputedEncoder) for encoder in encoders):
        found = pseudo_data(data, load_documents(name), PAIRS)
    if found is not None and len(found.queries) >= FEWEST:
        return found
    logger.warning(
        "%s: the weight of MaxSim cannot be chosen, it is %g: that takes %d documents with a title "
        "or first sentence and a rest, and encoders that embed these", data.name, UNKNOWN, FEWEST,
    )  # fmt: skip
    return None


def _first_stages(
    run: Run,
    task: _Task,
    encoders: Sequence[TextEncoder],
    config: EvaluationConfig,
    store: Store,
) -> Iterator[_First]:
    """Every variant of the first stage, for the queries and for the pseudo-queries."""
    depth = max(RECALL_CUTOFF, task.rerank.top)
    sides = [
        [
            (space.method, space.seed, found)
            for space in spaces(run, data, encoders, config, store)
            for found in searched(data, space, config.dims, config.precisions, depth=depth)
        ]
        for data in (task.data, task.pseudo)
        if data is not None
    ]
    for row, (method, seed, found) in enumerate(sides[0]):
        yield _First(method, seed, found, sides[1][row][2] if len(sides) > 1 else None)


def _first_rows(task: _Task, firsts: Sequence[_First]) -> list[Row]:
    return [row_of(task.data, task.judgements, f.method, f.seed, f.found) for f in firsts]


def _second_rows(task: _Task, firsts: Sequence[_First], mapper: _Mapper) -> Iterator[Row]:
    for tokens in _variants(task, mapper):
        for first in firsts:
            logger.info(
                "%s: ordering %s of %s anew by tokens in %s",
                task.data.name, first.found.dim, first.method, tokens.precision,
            )  # fmt: skip
            yield from _second_stage(task, first, tokens)


def _variants(task: _Task, mapper: _Mapper) -> Iterator[_Tokens]:
    """Token vectors of a data set: floats at all widths together, codes one width at a time."""
    dims, data, pseudo = mapper.dims, task.data, task.pseudo
    queries = mapper(data.queries, Role.QUERY, dims[-1], data.query_ids)
    asked = (
        mapper(pseudo.queries, Role.QUERY, dims[-1], pseudo.query_ids)
        if pseudo is not None
        else None
    )
    many = task.rerank.vectors
    most = max(many, default=None)
    whole = pseudo or data
    documents = mapper(whole.documents, Role.DOCUMENT, dims[-1], whole.doc_ids, most)
    for precision in task.rerank.precisions:
        sizes = {dim: precision.bytes_of(dim) for dim in dims}
        for levels in [dims] if precision.is_float else [[dim] for dim in dims]:
            stored = (
                documents if precision.is_float else mapper.coded(documents, precision, levels[0])
            )
            for count in many or (None,):
                held = stored if count in (None, most) else first_vectors(stored, count)
                yield _Tokens(
                    count, levels, precision, [sizes[d] for d in levels], queries, asked, held
                )


def _second_stage(task: _Task, first: _First, tokens: _Tokens) -> Iterator[Row]:
    """A row for each width of the token vectors."""
    top, c = task.rerank.top, len(task.data.documents)
    found = first.found
    scores = token_scores(tokens.queries, tokens.documents, found.indices[:, :top], tokens.dims)
    weights = _weights(task, first.pseudo, tokens)
    kept = tokens.documents.counts[:c].mean()
    for dim, size, weight, of_dim in zip(
        tokens.dims, tokens.bytes_per_vector, weights, scores, strict=True
    ):
        ordered = reranked(found.indices, blended(found.scores[:, :top], of_dim, weight))
        stage = Rerank(
            task.name, task.rerank.method, dim, str(tokens.precision), top, weight,
            float(kept), float(kept * size),
        )  # fmt: skip
        both = replace(
            found, indices=ordered, bytes_per_vector=found.bytes_per_vector + round(kept * size)
        )
        many = f"-{tokens.vectors}x" if tokens.vectors else "-"
        method = f"{first.method}{STAGES}{stage.method}{many}{dim}-{stage.precision}"
        row = row_of(task.data, task.judgements, method, first.seed, both)
        yield replace(row, rerank=stage)


def _weights(task: _Task, pseudo: Found | None, tokens: _Tokens) -> list[float]:
    """The weight of MaxSim at each width."""
    if task.pseudo is None or pseudo is None or tokens.pseudo_queries is None:
        return [UNKNOWN] * len(tokens.dims)
    top = task.rerank.top
    indices, cosines = pseudo.indices[:, :top], pseudo.scores[:, :top]
    rests = len(task.data.documents) + np.arange(len(indices))[:, None]  # (q, 1)
    scores = token_scores(tokens.pseudo_queries, tokens.documents, indices, tokens.dims)
    return [choose_weight(cosines, of_dim, indices == rests) for of_dim in scores]
