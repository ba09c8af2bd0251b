"""What a launcher says in the environment of the processes that it starts, checked at one place. Knows no torch.

`WORLD_SIZE` processes train one run; each has its `RANK` among all and its `LOCAL_RANK` among those of its machine, and
all meet at `MASTER_ADDR:MASTER_PORT`, where rank 0 listens.
"""

import os
from dataclasses import dataclass

from shards.errors import UserError

STARTED = "infogan train --processes N, torchrun and accelerate launch set all five"
MOST = 100_000  # processes of one run


@dataclass(frozen=True)
class Ranks:
    """Where this process stands among those of its run; `address` and `port` are None where nobody has to be met."""

    world: int = 1
    rank: int = 0
    local_rank: int = 0
    address: str | None = None
    port: int | None = None


def told() -> Ranks | None:
    """What this process was told; None where no launcher started it.

    Raises:
        UserError: one of the five is missing, or says what cannot be; it is named with its value and the rule.
    """
    if "WORLD_SIZE" not in os.environ:
        _number("RANK", 0, 1, "WORLD_SIZE, which is not set, would have to be larger")
        _number("LOCAL_RANK", 0, MOST)
        return None
    world = _number("WORLD_SIZE", 1, MOST + 1, missing=1)
    alone = world == 1
    rank = _number("RANK", 0, world, f"it counts from 0 and WORLD_SIZE is {world}", missing=0 if alone else None)
    local = _number("LOCAL_RANK", 0, world, f"it counts from 0 and WORLD_SIZE is {world}", missing=0 if alone else None)
    port = _number("MASTER_PORT", 1, 65536, missing=0 if alone else None) or None
    address = os.environ.get("MASTER_ADDR")
    if not alone and not (address or "").strip():
        raise _refused("MASTER_ADDR", address, "must name the machine of rank 0")
    return Ranks(world, rank, local, address, port)


def _number(name: str, least: int, below: int, why: str = "", missing: int | None = 0) -> int:
    """The whole number in a variable, within its range; `missing` where there is none, if that may be."""
    value, rule = os.environ.get(name), f"must be a whole number from {least} to {below - 1}"
    if value is None and missing is not None:
        return missing
    try:
        number = int(value or "")
    except ValueError:
        number = least - 1
    if not least <= number < below:
        raise _refused(name, value, f"{rule}, since {why}" if why else rule)
    return number


def _refused(name: str, value: str | None, rule: str) -> UserError:
    said = f"is not set, but WORLD_SIZE is {os.environ.get('WORLD_SIZE')}: it" if value is None else f"{value!r}:"
    return UserError(f"{name} {said} {rule}; {STARTED}, and without a launcher none is needed")
