"""Starting a verb in several processes of this machine."""

import os
import sys
from collections.abc import Sequence

from launch.plugin_option import loaded_plugins


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

    from infogan.interruption import EXIT_PART_FAILED
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
    try:
        elastic_launch(launch_config, sys.executable)("-m", f"launch.{verb}", *loaded_plugins(), *words)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code >= 0 else EXIT_PART_FAILED  # killed; another process has told of it
    except SignalException as error:
        return 128 + error.sigval
    return 0
