"""Range checks for config sections: each raises a ValueError `field: value: rule`; the loader adds the path."""

import math
from collections.abc import Sequence


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: {value!r}: must be one of {', '.join(allowed)}")


def above(name: str, value: float, bound: float) -> None:
    """`value` must be finite and above `bound`."""
    if not bound < value < float("inf"):
        raise ValueError(f"{name}: {value}: must be above {bound} and finite")


def at_least(name: str, value: float, bound: float, *, below: float = float("inf")) -> None:
    """`value` must be finite, at least `bound`, and below `below`."""
    if not math.isfinite(value):
        raise ValueError(f"{name}: {value}: must be finite")
    if not bound <= value < below:
        rule = f"at least {bound}" + (f" and below {below}" if below < float("inf") else "")
        raise ValueError(f"{name}: {value}: must be {rule}")


def no_null_byte(name: str, value: str) -> None:
    """`value` must be a path that the system can be asked for."""
    if "\0" in value:
        raise ValueError(f"{name}: {value!r}: must hold no null byte")
