"""An evaluation in three sentences, each read off its rows and paired tests."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from fusion.measure.comparisons import REFERENCE, RIVAL
from fusion.measure.rows import Row
from fusion.measure.statistics import RESAMPLES
from fusion.measure.tables import headline, human_bytes, human_score

CHANCE = 0.05  # a p-value below it, adjusted, is called beyond chance
NEAR = 0.99  # of the full score: within 1 %
MOST_SIZES = 3


def three_sentences(rows: Sequence[Row], comparisons: Sequence[dict[str, Any]]) -> list[str]:
    """What keeps how much at which size, what beats what, and the cheapest that is good enough.

    Args:
        rows: All rows, means included; seeds are averaged.
        comparisons: The lines of ``comparisons_of``.

    Returns:
        Three sentences. Where one cannot be said of these rows, it says why.
    """
    shown = headline(rows)
    full = _full(shown)
    return [_kept(shown, full), _beaten(comparisons), _cheapest(shown, full)]


def _full(rows: Sequence[Row]) -> Row | None:
    """What shares are of: the full concat, or the full width of the only method, in float32."""
    floats = [row for row in rows if row.precision == "float32"]
    concats = [row for row in floats if row.method == REFERENCE]
    alone = floats if len({row.method for row in rows}) == 1 else []
    return max(concats or alone, key=lambda row: row.dim, default=None)


def _kept(rows: Sequence[Row], full: Row | None) -> str:
    if full is None or full.ndcg_at_10 <= 0:
        return f"{_no_share(full)} {_best(rows)}"
    steps = _frontier(row for row in rows if row.bytes_per_vector < full.bytes_per_vector)
    whole = f"{_whole(full)} scores {human_score(full.ndcg_at_10)} in {_size(full)}"
    if not steps:
        return f"{whole}; nothing smaller was measured."
    few = _spaced(steps, MOST_SIZES)
    kept = [f"{_size(row)} keep {_share(row, full)} of it ({_name(row)})" for row in few]
    return f"{whole}; {_listed(kept)}."


def _no_share(full: Row | None) -> str:
    if full is None:
        return "The full concat was not measured in float32, so no share of it can be told:"
    return f"{_whole(full)} scores 0, so no share of it can be told:"


def _best(rows: Sequence[Row]) -> str:
    best = max(rows, key=lambda row: (row.ndcg_at_10, -row.bytes_per_vector))
    return f"the best score is {human_score(best.ndcg_at_10)} in {_size(best)} ({_name(best)})."


def _beaten(comparisons: Sequence[dict[str, Any]]) -> str:
    """Both families of tests: against PCA at the same width, and against the full concat."""
    if not comparisons:
        return (
            "No two methods were compared: a test needs the full concat in float32, or "
            f"{RIVAL} beside another method."
        )
    families = [
        [line for line in comparisons if line["against"]["method"] == method]
        for method in (RIVAL, REFERENCE)
    ]
    said = [words for family in families if family for words in _family(family)]
    level = f"{CHANCE:g}".removeprefix("0")
    return f"Paired tests show beyond chance (p below {level} after Holm): {'; '.join(said)}."


def _family(lines: Sequence[dict[str, Any]]) -> list[str]:
    against = lines[0]["against"]["method"]
    rival = "the full concat" if against == REFERENCE else against
    if len(lines) / (RESAMPLES + 1) >= CHANCE:
        return [f"nothing against {rival}, as {len(lines):,} tests are too many for that"]
    proven = [line for line in lines if line["p_holm"] < CHANCE]
    better = [line for line in proven if line["difference"] > 0]
    worse = [line for line in proven if line["difference"] < 0]
    if not proven:
        return [f"no difference from {rival}"]
    said = [f"{_variants(better) if better else 'nothing'} better than {rival}"]
    if worse:
        many = f"{len(worse)} of {len(lines)} vectors"  # whose losses are what was to be expected
        said.append(f"{_variants(worse) if against == RIVAL else many} worse than {rival}")
    return said


def _variants(lines: Sequence[dict[str, Any]]) -> str:
    """Methods with their widths in float32; of the codes only how many there are."""
    plain: dict[str, list[int]] = {}
    for line in lines:
        if line["precision"] == "float32":
            plain.setdefault(line["method"], []).append(line["dim"])
    said = [
        f"{_method(method)} at {_listed(map(str, sorted(dims)))} dims"
        for method, dims in plain.items()
    ]
    coded = sum(line["precision"] != "float32" for line in lines)
    if coded:
        said.append(f"{coded} coded vector{'s' * (coded > 1)}")
    return _listed(said)


def _cheapest(rows: Sequence[Row], full: Row | None) -> str:
    if full is None or full.ndcg_at_10 <= 0:
        return "Without a full score no vector can be called the cheapest within 1 % of it."
    smaller = [row for row in rows if row.bytes_per_vector < full.bytes_per_vector]
    near = [row for row in smaller if row.ndcg_at_10 >= NEAR * full.ndcg_at_10]
    if near:
        row = min(near, key=lambda row: (row.bytes_per_vector, -row.ndcg_at_10))
        times = full.bytes_per_vector / row.bytes_per_vector
        return (
            f"By these scores the cheapest vector within 1 % of full is {_name(row)}: "
            f"{_size(row)}, {times:.3g} times smaller, {_share(row, full)} of the score."
        )
    if not smaller:
        return "Nothing smaller than full was measured, so nothing cheaper can be named."
    row = max(smaller, key=lambda row: (row.ndcg_at_10, -row.bytes_per_vector))
    return (
        f"No smaller vector comes within 1 % of full; the best of them is {_name(row)}: "
        f"{_size(row)}, {_share(row, full)} of the score."
    )


def _frontier(rows: Iterable[Row]) -> list[Row]:
    """The rows that no row of as few bytes beats, by bytes."""
    found: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.bytes_per_vector, -row.ndcg_at_10)):
        if not found or row.ndcg_at_10 > found[-1].ndcg_at_10:
            found.append(row)
    return found


def _spaced(rows: Sequence[Row], most: int) -> list[Row]:
    """The first, the last, and some between."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def _share(row: Row, full: Row) -> str:
    """Rounded down: what misses 99 % must not be called 99.0 %."""
    return f"{math.floor(1000 * row.ndcg_at_10 / full.ndcg_at_10 + 1e-9) / 10:.1f} %"


def _whole(full: Row) -> str:
    if full.method == REFERENCE:
        return f"The full concat ({full.dim} dims)"
    return f"The full width of {_method(full.method)} ({full.dim} dims)"


def _name(row: Row) -> str:
    return f"{_method(row.method)}, {row.dim} dims, {row.precision}"


def _method(method: str) -> str:
    encoder = method.removeprefix("encoder:")
    return method if encoder == method else f"{encoder} alone"


def _size(row: Row) -> str:
    """In words where it stands in a sentence: 53 bytes, 12.3 kB."""
    return human_bytes(row.bytes_per_vector).replace(" B", " bytes")


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
