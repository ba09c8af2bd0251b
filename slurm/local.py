"""`cluster: local`: the same sweep on this machine without SLURM, so many runs at once, until all are done.

Ctrl-C, SIGTERM and the end of the terminal (SIGHUP, unless `nohup` has it ignored) reach every run that is under way:
they save and leave, and the same command goes on.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from slurm.attempts import Record
from slurm.cluster import Cluster
from slurm.order import Order, share
from slurm.submissions import Turn
from slurm.supervisor import Ending, Signals, supervise, with_caches
from slurm.sweep import Run, Sweep

Say = Callable[[str], None]
HANDED_ON: dict[int, str] = {signal.SIGINT: "SIGINT", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGTERM"}
"""A signal to the sweep -> what its runs are told, who are in sessions of their own and know no terminal."""


def run_all(
    sweep: Sweep,
    runs: Sequence[Run],
    cluster: Cluster,
    order: Callable[[Run], Order],
    say: Say,
    turn: Turn,
) -> bool:
    """Run them all; whether none failed and none was stopped."""
    job = f"local-{os.getpid()}-{time.time():.0f}"
    turn.note({run.id: job for run in runs})
    turn.end()
    signals = Signals()
    before = {number: signal.getsignal(number) for number in HANDED_ON}
    if before[signal.SIGHUP] == signal.SIG_IGN:  # by nohup
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, lambda number, frame: signals.stop(HANDED_ON[number]))
    places: SimpleQueue[int] = SimpleQueue()
    for place in range(cluster.parallel):
        places.put(place)

    def work(run: Run) -> Ending | None:
        place = places.get()
        try:
            return _run(sweep, share(order(run), place, cluster.parallel), job, signals, say)
        finally:
            places.put(place)

    try:
        with ThreadPoolExecutor(cluster.parallel) as pool:
            endings = list(pool.map(work, runs))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return all(ending is not None and ending.outcome in ("finished", "hopeless") for ending in endings)


def _run(sweep: Sweep, order: Order, job: str, signals: Signals, say: Say) -> Ending | None:
    """One run from where it stands to its end; None where the sweep was told to stop before its turn."""
    if signals.name is not None:
        return None
    record = Record(Path(order.sweep), order.run_id)
    log = sweep.folder / "logs" / f"{order.run_id}.log"
    log.parent.mkdir(exist_ok=True)
    record.begin(order, job, 0, log.absolute())
    threads = {"OMP_NUM_THREADS": str(order.cpus)}
    environment = with_caches({**order.within(os.environ), **threads}, order.scratch)
    commands = [(order.training(launcher=True), True)] if order.train else []
    commands += [(order.evaluation(), False)] if order.evaluate is not None else []
    ending = Ending("finished")
    with log.open("ab") as output:
        for words, training in commands:
            ending = supervise(order, words, signals, environment, log, watches=training, output=output)
            if ending.outcome != "finished":
                break
    record.end(job, 0, outcome=ending.outcome, message=ending.message, requeued=False, images_after=order.progress()[0])
    say(f"run {order.run_id}: {ending.outcome}{': ' if ending.message else ''}{ending.message}")
    return ending
