"""The data sets and widths of an evaluation, found and checked before torch is loaded."""

from collections.abc import Sequence

from fusion.errors import FusionError
from fusion.inputs.data.judged import RetrievalData
from fusion.inputs.data.retrieval import check_data, has_split, load_data
from fusion.measure.naming import check_names
from fusion.measure.retrieval.config import CONCAT, EvaluationConfig, RerankConfig
from fusion.space.training.recipe import check_dims

CHOICE_SPLITS = ("dev", "train")
"""Where to choose, in this order; never the split that is reported."""


def load_sets(config: EvaluationConfig) -> list[RetrievalData]:
    """All data sets; one that is nowhere fails before another is read.

    Raises:
        FusionError: Data cannot be had or read.
        ValueError: Two have the same name.
    """
    for name in config.data:
        check_data(name, config.split)
    sets = [load_data(name, config.split) for name in config.data]
    check_names([data.name for data in sets])
    return sets


def check_widths(trained: Sequence[int], width: int, config: EvaluationConfig) -> tuple[int, ...]:
    """The widths to measure of a run: those asked for, or the trained ones and what fills a budget.

    Args:
        trained: Widths of the run.
        width: Columns of its fused embeddings.
        config: What to measure.

    Raises:
        ValueError: A width that the run cannot give.
    """
    filling: set[int] = set()
    if config.budget is not None:
        filling = {precision.widest(config.budget) for precision in config.precisions}
    widths = sorted({*trained, *(dim for dim in filling if 0 < dim <= width)})
    return check_dims(config.dims or widths, width)


def check_token_widths(trained: Sequence[int], width: int, config: RerankConfig) -> tuple[int, ...]:
    """The widths of token vectors to measure: those asked for, or the widest.

    Args:
        trained: Widths of the token run.
        width: Columns of its fused token vectors.
        config: What to measure.

    Raises:
        ValueError: A width that the run cannot give.
    """
    widest = width if config.method == CONCAT else trained[-1]
    return check_dims(config.dims or (widest,), width)


def sets_to_choose_on(names: Sequence[str], reported: str) -> list[RetrievalData]:
    """The data on which a budget is filled: the split to choose on of each data set that has one.

    Raises:
        FusionError: None has a split besides the reported one, or such a split is damaged.
    """
    found = []
    for name in names:
        others = (split for split in CHOICE_SPLITS if split != reported)
        split = next((split for split in others if has_split(name, split)), None)
        if split is not None:
            found.append(load_data(name, split))
    if not found:
        raise FusionError(
            f"none of {', '.join(names)} has a dev or train split to choose on; a budget has to be "
            "filled without looking at the split that is reported"
        )
    return found
