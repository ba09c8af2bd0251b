"""Starting a verb in several processes of this machine."""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launch.plugin_option import loaded_plugins

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def start_processes(verb: str, processes: int, words: Sequence[str]) -> int:
    """Run `infogan VERB` with these words in several processes; returns the exit status of the first that failed, or 0.

    torch's launcher, since accelerate's starts only one process on a machine without a GPU. Each process prints its own
    error; the launcher's account of it, a traceback, would add nothing.
    """
    import logging
    import uuid

    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from infogan.watch import TOLD
    from shards.workers import available_cores

    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)
    launch_config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        max_restarts=0,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2",  # handed on; of any other, orphans would be left
    )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // processes)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # stacks of C++ while a lost process is looked for
    told = Path(tempfile.gettempdir()) / f"infogan-{launch_config.run_id}"
    os.environ[TOLD] = str(told)
    try:
        elastic_launch(launch_config, sys.executable)("-m", f"launch.{verb}", *loaded_plugins(), *words)
    except ChildFailedError as error:
        return _failed(error, told.exists())
    except SignalException as error:
        return 128 + error.sigval
    finally:
        told.unlink(missing_ok=True)
    return 0


def _failed(error: "ChildFailedError", told: bool) -> int:
    """The exit status; where a signal ended a process before the others watched over it, a line that nobody else has
    `told`."""
    from infogan.interruption import EXIT_PART_FAILED
    from infogan.watch import ALL_END

    rank, failure = error.get_first_failure()
    if failure.exitcode >= 0:
        return failure.exitcode
    if not told:
        who = f"rank {rank} (process {failure.pid})"
        print(f"error: {who} was ended by {failure.signal_name()}; {ALL_END}", file=sys.stderr)
    return EXIT_PART_FAILED
