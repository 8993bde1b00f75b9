"""What a person names to be measured: each once, and so that results can be told apart."""

from collections.abc import Sequence


def check_list(name: str, values: Sequence[object]) -> None:
    """Refuse an empty list, and one that names something twice.

    Raises:
        ValueError: It is that; the message has the option's name.
    """
    if not values:
        raise ValueError(f"{name} is empty: name at least one")
    if len(set(values)) < len(values):
        raise ValueError(f"{name} names one twice: {','.join(map(str, values))}")


def check_names(names: Sequence[str]) -> None:
    """Refuse two data sets that results could not tell apart.

    Raises:
        ValueError: Two have the same name, which is that of their folder.
    """
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two data sets are called {twice}: rename one folder")
