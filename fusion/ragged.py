"""Items of one vector or many, in one array without padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

import numpy as np

if TYPE_CHECKING:  # numpy arrays are joined and cut without it
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Ragged:
    """The vectors of all items, one item after another.

    Example:
        >>> import numpy as np
        >>> items = Ragged(np.eye(3, dtype=np.float32), offsets=[0, 2, 2, 3])
        >>> len(items), items.counts.tolist(), items[0].tolist()
        (3, [2, 0, 1], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    """

    rows: Union[np.ndarray, "Tensor"]
    """[t, D], of any dtype, memory-mapped if you like; it is never copied whole."""
    offsets: np.ndarray
    """int64 [n + 1]: item i has the rows from ``offsets[i]`` up to ``offsets[i + 1]``, maybe none.
    Any integers are taken, on the CPU."""

    def __post_init__(self) -> None:
        """Refuse offsets that do not fit the rows.

        Raises:
            ValueError: It names the first offset that does not fit.
        """
        if self.rows.ndim != 2:
            raise ValueError(f"rows must have two dimensions [t, D], got {tuple(self.rows.shape)}")
        object.__setattr__(self, "offsets", _checked(self.offsets, len(self.rows)))

    @classmethod
    def of(cls, items: Sequence[np.ndarray] | Sequence["Tensor"]) -> "Ragged":
        """Join items, at least one, each of vectors [any, D]."""
        if not len(items):
            raise ValueError("there are no items to join: their width would be unknown")
        offsets = np.cumsum([0, *map(len, items)], dtype=np.int64)
        tensors = [item for item in items if not isinstance(item, np.ndarray)]
        if not tensors:
            return cls(np.concatenate(items), offsets)
        import torch

        return cls(torch.cat(tensors), offsets)

    def __len__(self) -> int:
        """How many items there are."""
        return len(self.offsets) - 1

    def __getitem__(self, item: int) -> Any:  # noqa: ANN401 - of the rows' own kind
        """The vectors of an item, [any, D]; a view."""
        at = range(len(self))[item]
        return self.rows[int(self.offsets[at]) : int(self.offsets[at + 1])]

    @property
    def counts(self) -> np.ndarray:
        """How many vectors each item has, int64 [n]."""
        return np.diff(self.offsets)


def _checked(offsets: Any, rows: int) -> np.ndarray:  # noqa: ANN401 - whatever was given
    """Offsets int64 [n + 1] from 0 up to the number of rows."""
    given = np.asarray(offsets)
    if given.ndim != 1 or not len(given) or given.dtype.kind not in "iu":
        raise ValueError(
            f"offsets must be n + 1 integers for n items, got {given.dtype} of shape {given.shape}"
        )
    checked = given.astype(np.int64)
    if checked[0] != 0:
        raise ValueError(f"offsets must begin at 0, got {checked[0]}")
    falls = (np.diff(checked) < 0).nonzero()[0]
    if len(falls):
        a, b = checked[falls[0] : falls[0] + 2]
        raise ValueError(f"offsets must not fall, but offset {falls[0] + 1} is {b} after {a}")
    if checked[-1] != rows:
        raise ValueError(f"offsets end at {checked[-1]}, but there are {rows} rows")
    return checked
