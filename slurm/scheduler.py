"""What SLURM says of jobs: squeue for those that live, accounting (through submitit) for those that have ended.

Either may be missing: then nothing is said, and heartbeats alone have to tell.
"""

import getpass
import subprocess
from collections.abc import Sequence

LIVE_LATER = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}


def live(jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Of the jobs (`1234_5`), those that wait or run: their state, and SLURM's reason."""
    if not jobs:
        return {}
    command = ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i|%T|%r"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    wanted = set(jobs)
    lines = (line.split("|", 2) for line in said.splitlines() if line.count("|") >= 2)
    return {job: (state, reason) for job, state, reason in lines if job in wanted}


def ended(jobs: Sequence[str]) -> dict[str, str]:
    """The final states of jobs that have ended, as accounting has them; those it does not know are left out."""
    if not jobs:
        return {}
    from submitit.core.logger import get_logger
    from submitit.slurm.slurm import SlurmInfoWatcher

    get_logger().setLevel("CRITICAL")  # that accounting does not answer is no news to a user
    watcher = SlurmInfoWatcher()
    for job in jobs:
        watcher.register_job(job)
    watcher.update()
    states = {job: watcher.get_state(job, mode="cache") for job in jobs}
    return {job: state for job, state in states.items() if state not in ("UNKNOWN", "RUNNING", "PENDING")}


def largest_array() -> int | None:
    """SLURM's MaxArraySize; None where it cannot be asked."""
    try:
        said = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = [line.partition("=")[2].strip() for line in said.splitlines() if line.startswith("MaxArraySize")]
    return int(found[0]) if found and found[0].isdigit() else None


def requeue(job: str) -> str:
    """Put a running job back into the queue; why that was refused, empty where it was not."""
    try:
        subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=True)
    except subprocess.CalledProcessError as error:
        return " ".join(f"scontrol requeue: {error.stderr}".split())
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return ""


def cancel(jobs: Sequence[str]) -> None:
    """End jobs, waiting or running; those that have ended are left as they are."""
    if jobs:
        subprocess.run(["scancel", "--quiet", *jobs], check=False, timeout=120)
