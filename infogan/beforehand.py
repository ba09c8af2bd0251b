"""What a run is refused for before it trains. Imports no trainer, so that a launcher can look before it starts any."""

from dataclasses import replace
from pathlib import Path

import torch

from infogan import deepspeed_file, launched
from infogan import run as runs
from infogan.config import RunConfig
from infogan.devices import resolve_device
from infogan.engine import check_divides
from infogan.model import check_identity
from infogan.settings import Settings
from shards import Dataset
from shards.errors import UserError
from shards.memory import free_host_memory
from shards.workers import available_cores

PROCESSES_PER_CORE = 4
"""On a CPU more than one makes nothing faster; some more may be tried, hundreds bring a machine to a stop."""

PROCESS_BYTES = 400 * 10**6
"""What a process has in memory for itself once it has imported what training needs."""


def check(settings: Settings, run: Path | None, processes: int) -> None:
    """Refuse, before any of them is started, what each of so many processes of this machine would be refused for.

    Raises:
        UserError: too many of them; a batch that they cannot divide; a data set, run or device that does not fit.
    """
    config = settings.config
    device = resolve_device(launched.agreed_device(config))
    refuse_too_many(processes, device)
    check_divides(config, processes)
    told = None
    if config.deepspeed is not None:
        where, read = deepspeed_file.read(config.deepspeed)
        deepspeed_file.check(where, read, config, processes)
        told = deepspeed_file.precision(read)
    launched.agreed_precision(config, device, told)
    run = runs.default_folder(settings.preset, config) if run is None else run
    runs.refuse_foreign(run)
    resolved(config, run, config.data.open(), runs.learned(run))


def refuse_too_many(processes: int, device: torch.device) -> None:
    """A GPU is one process's own; on a CPU, cores and memory have to suffice. Initialises no GPU."""
    if device.type == "cuda":
        gpus = torch.cuda.device_count()
        if processes > gpus:
            raise UserError(f"--processes {processes}: each needs a GPU of its own; GPUs here: {gpus}; say {gpus}")
        return
    cores, free = available_cores(), free_host_memory()
    limits = {
        f"{PROCESSES_PER_CORE} per core on {cores} cores": PROCESSES_PER_CORE * cores,
        f"{free / 1e9:.1f} GB of memory are free and each takes {PROCESS_BYTES / 1e9:g} GB": free // PROCESS_BYTES,
    }
    rule, most = min(limits.items(), key=lambda limit: limit[1])
    if processes > most:
        raise UserError(
            f"--processes {processes}: at most {most} are possible here, {rule}; on a CPU more processes than cores "
            f"make nothing faster: say --processes {max(1, min(cores, most))}"
        )


def resolved(config: RunConfig, run: Path, dataset: Dataset, saved: RunConfig | None) -> RunConfig:
    """The config with what it leaves open taken from the data set and from the run that goes on, whose it has to be."""
    config = runs.follow_saved(config, saved)
    check_identity(config, dataset)
    config = replace(config, data=replace(config.data, digest=dataset.manifest.digest))
    if saved is not None:
        runs.refuse_changes(run, config, saved)
    return config
