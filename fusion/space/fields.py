"""Types of a configuration's fields, checked: YAML and JSON hold what they like."""

import math
from dataclasses import fields
from typing import Any, get_args


def check_types(config: Any) -> None:  # noqa: ANN401 - any dataclass
    """Raise ValueError for a field whose value is not of its annotated type, or not finite."""
    for field in fields(config):
        value = getattr(config, field.name)
        kinds = get_args(field.type) or (field.type,)
        allowed = (*kinds, int) if float in kinds else kinds  # 1 is a float where one is wanted
        right = isinstance(value, allowed) and (bool in kinds or not isinstance(value, bool))
        if not right:
            names = " or ".join("nothing" if k is type(None) else k.__name__ for k in kinds)
            raise ValueError(f"{field.name} must be {names}, got {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{field.name} must be finite, got {value}")
