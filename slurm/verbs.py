"""`infogan sweep ...` and `infogan prepare`, for the entry points."""

import click

from slurm.verbs_look import cancel_command, collect_command, status_command, why_command
from slurm.verbs_send import evaluate_command, prepare_command, submit_command

__all__ = ["prepare_command", "sweep_group"]


@click.group("sweep", short_help="Many runs from one file, on a SLURM cluster or here.")
def sweep_group() -> None:
    """Many runs from one file, on a SLURM cluster or on this machine.

    SPEC is a sweep file (see configs/sweeps/), SWEEP such a file or the sweep's folder.
    """


for command in (submit_command, status_command, why_command, cancel_command, collect_command, evaluate_command):
    sweep_group.add_command(command)
