"""How much memory is free, as far as this process is concerned."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import torch


def free_host_memory() -> int:
    """Bytes that one more process may take: what is available on the machine or left in the control group (as
    SLURM and containers set it), shared by the processes of a run on this machine."""
    free: int = psutil.virtual_memory().available
    group = _control_group()
    return min(free, group if group is not None else free) // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _control_group() -> int | None:
    """Bytes left in the tightest control group (version 2) of this process; None where nothing limits it."""
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="ascii").strip().rpartition("::")[2].lstrip("/")
    except OSError:
        return None
    root, left = Path("/sys/fs/cgroup"), list[int]()
    for folder in [root / own, *(root / own).parents]:
        try:
            limit = (folder / "memory.max").read_text(encoding="ascii").strip()
            used = int((folder / "memory.current").read_text(encoding="ascii"))
            cached = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        except (OSError, ValueError):
            continue
        if limit != "max":
            left.append(int(limit) - used + int(cached.get("inactive_file", 0)))
    return min(left) if left else None


def free_device_memory(device: torch.device) -> int | None:
    """Free bytes of a GPU's memory; the host's for the CPU; None for a device that cannot tell."""
    if device.type == "cpu":
        return free_host_memory()
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return None
