"""The processes of a run find each other, and see to it that all of them run the same thing.

What they have to say to each other beside gradients goes through the store by which they met: it needs no network of
its own, and waits for as long as the work of one may take.
"""

import hashlib
import json
import platform
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from infogan import ranks
from shards.errors import UserError

MEETING = timedelta(minutes=10)
SILENT_S = 10.0  # of waiting for rank 0, before it is said; processes of a busy machine start seconds apart
CONNECT_S, AGAIN_S = 5.0, 0.2  # for a machine to answer; between two attempts
LONG_WORK = timedelta(days=1)  # of one process, for which the others wait; that one hangs meanwhile the watch finds


class Meeting:
    """What the processes of a run tell each other. All of them have to call the same methods in the same order."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world, self._talks = rank, world, 0

    def exchange(self, value: str = "", patience: timedelta = LONG_WORK) -> list[str]:
        """The `value` of every process, in the order of ranks; so it waits for all of them."""
        if self.world == 1:
            return [value]
        self._talks += 1
        store: Any = dist.distributed_c10d._get_default_store()
        keys = [f"meeting/{self._talks}/{rank}" for rank in range(self.world)]
        store.set(keys[self.rank], value)
        store.wait(keys, patience)
        values = [said.decode() for said in store.multi_get(keys)]
        heard = f"meeting/{self._talks}/heard"
        if store.add(heard, 1) == self.world:
            store.set(f"{heard} by all", "")
        if self.rank == 0:  # the store may be its own, and end with it
            store.wait([f"{heard} by all"], patience)
        return values

    def from_main(self, value: str) -> str:
        """What rank 0 says."""
        return self.exchange(value if self.rank == 0 else "")[0]

    def same(self, what: str, values: Mapping[str, Any]) -> None:
        """Refuse to go on unless all processes have the same `values`, which are JSON-able.

        Raises:
            UserError: on every process; it names the first value that differs, and who has which.
        """
        text = json.dumps(values, sort_keys=True)
        if len(set(self.exchange(hashlib.sha256(text.encode()).hexdigest()))) == 1:
            return
        raise UserError(difference(what, [json.loads(said) for said in self.exchange(text)]))

    def refuse_shared_gpus(self, device: torch.device) -> None:
        """Each process needs a GPU of its own."""
        if device.type != "cuda":
            return
        mine = [platform.node(), str(torch.cuda.get_device_properties(device).uuid)]
        found = [tuple(json.loads(said)) for said in self.exchange(json.dumps(mine), MEETING)]
        for host in dict.fromkeys(host for host, _ in found):
            processes = sum(there == host for there, _ in found)
            gpus = len({gpu for there, gpu in found if there == host})
            if gpus < processes:
                raise UserError(
                    f"processes: {processes} processes, {gpus} GPUs on {host}; start {gpus} processes there"
                )


@contextmanager
def explained() -> Iterator[None]:
    """Turns a failure to reach the others into one line; rank 0 says, once, that it waits for them."""
    told = ranks.told()
    if told is None or told.world == 1:
        yield
        return
    waiting = threading.Timer(SILENT_S, _say_that_it_waits, (told, f"the other {told.world - 1}"))
    waiting.daemon = True
    if told.rank == 0:
        waiting.start()
    try:
        yield
    except RuntimeError as error:
        raise _unmet(told, str(error).splitlines()[0]) from None
    finally:
        waiting.cancel()


def wait_for_main(patience: timedelta) -> None:
    """Return once somebody listens where rank 0 has to be met; says so, once, where that takes long.

    torch would wait too, but prints stacks of its own when nobody comes.
    """
    told = ranks.told()
    if told is None or told.world == 1 or told.rank == 0:
        return
    begun, silent = time.monotonic(), True
    until = begun + patience.total_seconds()
    while True:
        try:
            socket.create_connection((told.address, told.port), timeout=CONNECT_S).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                reason = error.strerror or str(error)
                raise _unmet(told, f"for {patience.total_seconds():g} s nobody answered there ({reason})") from None
        if silent and time.monotonic() - begun > SILENT_S:
            _say_that_it_waits(told, "rank 0")
            silent = False
        time.sleep(AGAIN_S)


def _say_that_it_waits(told: ranks.Ranks, whom: str) -> None:
    print(f"rank {told.rank}: waiting for {whom} at {told.address}:{told.port}", file=sys.stderr, flush=True)


def _unmet(told: ranks.Ranks, reason: str) -> UserError:
    return UserError(
        f"processes: rank {told.rank} of {told.world} could not meet the others at {told.address}:{told.port}: "
        f"{reason.rstrip('.')}; start all of them, with the same MASTER_ADDR and MASTER_PORT; where machines have "
        "several networks, or a name of their own that leads nowhere, GLOO_SOCKET_IFNAME (of GPUs NCCL_SOCKET_IFNAME) "
        "says which one to use"
    )


def difference(what: str, values: list[dict[str, Any]]) -> str:
    """The first of several processes' values that is not the same for all, in words."""
    key = next(key for key in sorted({key for one in values for key in one}) if len(_holders(key, values)) > 1)
    said = " and ".join(f"{value} on {_ranks(ranks)}" for value, ranks in _holders(key, values).items())
    return f"{what}: {key} is {said}; start all processes with the same command, files and code"


def _holders(key: str, values: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Which ranks have which value."""
    holders: dict[str, list[int]] = {}
    for rank, one in enumerate(values):
        holders.setdefault(json.dumps(one[key]).strip('"') if key in one else "absent", []).append(rank)
    return holders


def _ranks(ranks: list[int]) -> str:
    """`rank 1`, `ranks 1, 2 and 5`; of many only the first."""
    shown = [str(rank) for rank in ranks[:4]] + (["others"] if len(ranks) > 4 else [])
    return f"ranks {', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else f"rank {shown[0]}"
