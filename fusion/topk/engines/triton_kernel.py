"""The CUDA engine: one fused kernel accumulates, scales and filters all levels in registers.

The score matrix never exists. Each program computes one tile of queries x documents; after every
level it reduces groups of 16 documents to their maximum and appends the maxima above their row's
threshold. The k best documents lie in the k best groups, so at the end only those groups' documents
are scored again. Groups come in ascending order of documents and the threshold is the k-th best
maximum of earlier groups, so a group that only equals it holds nothing that is still wanted.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from fusion.topk import keys
from fusion.topk.problem import Problem

GROUP = 16  # documents that share one maximum
FIRST = 1024  # groups of the first chunk, which all pass
KEPT_BYTES = 2**28  # keys of one block of queries
CONVERTED = 2**18  # documents widened to float32 at a time, where the queries need that
RESCORED_BYTES = 2**27  # documents gathered at a time for the second scoring


def _config(q: int, c: int, d: int, warps: int, stages: int) -> triton.Config:
    return triton.Config({"Q": q, "C": c, "D": d}, num_warps=warps, num_stages=stages)


CONFIGS = {  # bytes of a number -> shapes of a tile, none of which spills registers
    2: [_config(128, 128, 32, 8, 3), _config(64, 128, 32, 8, 4), _config(64, 64, 64, 4, 3)],
    4: [_config(64, 64, 16, 8, 3), _config(64, 64, 32, 8, 3), _config(32, 64, 32, 4, 3)],
}


def nested_groups(  # type: ignore[no-untyped-def]  # Triton reads them as pointers and numbers
    queries,  # noqa: ANN001 - [q, width], contiguous
    corpus,  # noqa: ANN001 - this chunk, [stop - start, width], rows ``stride`` apart
    inverse,  # noqa: ANN001 - float32 [levels, c]
    dims,  # noqa: ANN001 - int32 [levels]
    thresholds,  # noqa: ANN001 - float32 [levels, q]
    exclude,  # noqa: ANN001 - int64 [q], read if EXCLUDE
    count,  # noqa: ANN001 - int32 [levels, q], zero at the start: passing groups of each row
    found,  # noqa: ANN001 - int64 [levels, q, SLOTS]: their keys, in any order
    rows,  # noqa: ANN001 - q
    documents,  # noqa: ANN001 - c
    width,  # noqa: ANN001
    stride,  # noqa: ANN001
    levels,  # noqa: ANN001
    start,  # noqa: ANN001 - the first document of this chunk, a multiple of 16
    stop,  # noqa: ANN001 - one past its last
    keep,  # noqa: ANN001 - only a key of the autotuner
    SLOTS: tl.constexpr,  # noqa: N803
    EXCLUDE: tl.constexpr,  # noqa: N803
    UPCAST: tl.constexpr,  # noqa: N803 - the interpreter multiplies the raw bits of bfloat16
    Q: tl.constexpr,  # noqa: N803
    C: tl.constexpr,  # noqa: N803
    D: tl.constexpr,  # noqa: N803
) -> None:
    """Append every group maximum of one tile that exceeds its row's threshold, level by level."""
    row = tl.program_id(1) * Q + tl.arange(0, Q)  # (Q,)
    column = start + tl.program_id(0) * C + tl.arange(0, C)  # (C,)
    group = (start + tl.program_id(0) * C) // 16 + tl.arange(0, C // 16)  # (G,)
    row_in, column_in = row < rows, column < stop
    query_row = queries + row.to(tl.int64)[:, None] * width
    corpus_row = corpus + (column - start).to(tl.int64)[None, :] * stride
    dots = tl.zeros((Q, C), tl.float32)
    begin = 0
    for level in range(levels):
        end = tl.load(dims + level)
        for first in range(begin, end, D):
            d = first + tl.arange(0, D)
            left = tl.load(
                query_row + d[None, :], mask=row_in[:, None] & (d < end)[None, :], other=0.0
            )  # (Q, D)
            right = tl.load(
                corpus_row + d[:, None], mask=column_in[None, :] & (d < end)[:, None], other=0.0
            )  # (D, C)
            if UPCAST:
                left, right = left.to(tl.float32), right.to(tl.float32)
            dots = tl.dot(left, right, dots, input_precision="ieee")
        begin = end
        scale = tl.load(
            inverse + level * documents.to(tl.int64) + column, mask=column_in, other=0.0
        )
        scores = tl.where(column_in[None, :], dots * scale[None, :], float("-inf"))  # (Q, C)
        if EXCLUDE:
            hidden = tl.load(exclude + row, mask=row_in, other=-1)
            scores = tl.where(hidden[:, None] == column[None, :], float("-inf"), scores)
        best = tl.max(tl.reshape(scores, (Q, C // 16, 16)), axis=2)  # (Q, G)
        best = tl.where(best == 0, 0.0, best)  # -0.0 would lose its tie
        threshold = tl.load(thresholds + level * rows + row, mask=row_in, other=float("inf"))
        passing = best > threshold[:, None]
        ranks = tl.cumsum(passing.to(tl.int32), axis=1)
        total = tl.sum(passing.to(tl.int32), axis=1)  # (Q,)
        base = tl.atomic_add(count + level * rows + row, total, mask=row_in & (total > 0))
        slot = base[:, None] + ranks - 1
        bits = best.to(tl.int32, bitcast=True)
        ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)
        key = (ordered << 32) | (0xFFFFFFFF - group.to(tl.int64))[None, :]
        place = (level * rows + row).to(tl.int64)[:, None] * SLOTS + slot
        tl.store(found + place, key, mask=passing & (slot < SLOTS))


def interpreted() -> bool:
    """Whether Triton runs kernels in Python (``TRITON_INTERPRET=1`` before its import)."""
    return not isinstance(triton.jit(nested_groups), triton.runtime.JITFunction)


# Sizes that change from call to call must not compile the kernel anew, nor become constants at 1.
CHANGING = ["rows", "documents", "levels", "start", "stop", "keep"]
kernel = triton.jit(nested_groups, do_not_specialize=CHANGING)
tuned = {
    size: triton.autotune(
        configs=configs[:1] if interpreted() else configs,
        key=["width", "keep"],  # not the rows: their number changes with every call
        reset_to_zero=["count"],
    )(kernel)
    for size, configs in CONFIGS.items()
}


def unfit(problem: Problem) -> str | None:
    """Why this engine cannot take a problem, or None."""
    if problem.corpus.device.type != "cuda" and not interpreted():
        return "the corpus is not on a CUDA device"
    if problem.corpus.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"the corpus is {problem.corpus.dtype}"
    if problem.corpus_norms.scale is not None:
        return "some rows are so large or small that they must be scaled first"
    return None


def search(problem: Problem) -> tuple[Tensor, Tensor]:
    """Scores and indices of every level, [l, q, keep], on the corpus's device."""
    slots = max(FIRST, triton.next_power_of_2(4 * problem.keep))
    rows = max(1, KEPT_BYTES // (8 * slots * len(problem.dims)))
    inverse = problem.corpus_norms.inverse.to(problem.corpus.device)
    blocks = (slice(first, first + rows) for first in range(0, len(problem.queries), rows))
    parts = [_search_block(problem, block, inverse, slots) for block in blocks]
    return torch.cat([s for s, _ in parts], dim=1), torch.cat([i for _, i in parts], dim=1)


def _search_block(
    problem: Problem, block: slice, inverse: Tensor, slots: int
) -> tuple[Tensor, Tensor]:
    """Collect the best groups chunk by chunk, then score their documents."""
    corpus, device = problem.corpus, problem.corpus.device
    if corpus.stride(1) != 1:
        corpus = corpus.contiguous()
    queries = problem.queries[block].to(device)
    narrow = queries.to(corpus.dtype)
    # Queries that came in half precision are exact in it; others keep float32 products.
    exact = torch.equal(narrow.float(), queries)
    exclude = None if problem.exclude is None else problem.exclude[block].to(device)
    shape = len(problem.dims), len(queries)
    best = torch.full((*shape, 0), keys.EMPTY, device=device)
    thresholds = torch.full(shape, -torch.inf, dtype=torch.float32, device=device)
    found = torch.empty(*shape, slots, dtype=torch.int64, device=device)
    dims = torch.tensor(problem.dims, dtype=torch.int32, device=device)
    start, size = 0, GROUP * FIRST
    while start < len(corpus):
        stop = min(start + size, len(corpus))
        chunk = corpus[start:stop] if exact else corpus[start:stop].float()
        count = torch.zeros(shape, dtype=torch.int32, device=device)
        tuned[chunk.element_size()][_grid(stop - start, shape[1])](
            narrow if exact else queries, chunk, inverse, dims, thresholds, exclude, count, found,
            shape[1], len(corpus), narrow.shape[1], chunk.stride(0), shape[0], start, stop,
            problem.keep, SLOTS=slots, EXCLUDE=exclude is not None,
            UPCAST=interpreted() and chunk.dtype == torch.bfloat16,
        )  # fmt: skip
        if int(count.max()) > slots:  # more passed than there is room for: a smaller chunk again
            size = max(GROUP * FIRST, (stop - start) // 2 // GROUP * GROUP)
            continue
        fresh = found.masked_fill(
            torch.arange(slots, device=device) >= count[..., None], keys.EMPTY
        )
        best = keys.merge([best, fresh], problem.keep)
        if best.shape[2] == problem.keep:
            thresholds = keys.unpack(best[..., -1].contiguous())[0]
        start, size = stop, min(2 * size, len(corpus) if exact else CONVERTED)
    _, groups = keys.unpack(best)
    return problem.finish(_rescore(problem, groups, queries, inverse, exclude), block)


def _grid(documents: int, rows: int) -> Callable[[dict[str, int]], tuple[int, int]]:
    return lambda meta: (triton.cdiv(documents, meta["C"]), triton.cdiv(rows, meta["Q"]))


def _rescore(
    problem: Problem, groups: Tensor, queries: Tensor, inverse: Tensor, exclude: Tensor | None
) -> Tensor:
    """Score the documents of the best groups [l, rows, k]; the best keys [l, rows, keep]."""
    device = queries.device
    inside = torch.arange(GROUP, device=device)
    results = torch.full((*groups.shape[:2], problem.keep), keys.EMPTY, device=device)
    for level, dim in enumerate(problem.dims):
        step = max(1, RESCORED_BYTES // (4 * dim * GROUP * groups.shape[2]))
        for first in range(0, len(queries), step):
            rows = slice(first, first + step)
            documents = (groups[level, rows, :, None] * GROUP + inside).flatten(1)  # (r, 16 k)
            real = (documents >= 0) & (documents < len(problem.corpus))
            if exclude is not None:
                real &= documents != exclude[rows, None]
            documents = documents.clamp(0, len(problem.corpus) - 1)
            vectors = problem.corpus[documents, :dim].float()  # (r, 16 k, d)
            dots = torch.bmm(vectors, queries[rows, :dim, None]).squeeze(2)  # (r, 16 k)
            scores = dots * inverse[level, documents]
            packed = keys.pack(scores, documents).masked_fill(~real, keys.EMPTY)
            results[level, rows] = keys.merge([results[level, rows], packed], problem.keep)
    return results
