"""What would fail in every job, or half-way, is refused before anything is sent."""

from collections.abc import Sequence

from infogan.codes import ContinuousCode
from infogan.config import RunConfig
from infogan.engine import check_divides
from shards.errors import UserError
from shards.torchvision_ops import ensure_importable
from slurm.cluster import Cluster
from slurm.order import needs
from slurm.spec import Spec
from slurm.sweep import Run, described

LOGGED = (
    "kimg", "update", "epoch", "lambda_share", "loss/critic", "loss/generator", "score/real", "score/fake",
    "diversity/real", "diversity/fake", "penalty/r1", "skipped", "time/images_per_s", "time/data_wait",
)  # fmt: skip
"""What a run's log may have whatever its codes are (`infogan.tracking`)."""


def check(spec: Spec, cluster: Cluster, runs: Sequence[tuple[Run, RunConfig]]) -> None:
    """Check a sweep against where it is to run.

    Raises UserError naming file, place, rule and remedy.
    """
    try:
        _check_families(spec)
        _check_hours(spec, cluster, [run for run, _ in runs])
        for run, config in runs:
            _check_run(spec, run, config)
    except UserError as error:
        raise UserError(f"sweep {spec.path}: {error}") from None


def _check_families(spec: Spec) -> None:
    if not spec.evaluate.only:
        return
    ensure_importable()
    from infogan.evaluation.families import FAMILIES  # seconds, which few sweeps have to wait

    for name in spec.evaluate.only:
        if name not in FAMILIES:
            raise UserError(f"evaluate.only: {name}: no such metric family; there are: {', '.join(FAMILIES)}")


def _check_hours(spec: Spec, cluster: Cluster, runs: Sequence[Run]) -> None:
    """A sweep may take no more hours than it allows itself."""
    if spec.limits.hours is None or cluster.kind == "local":
        return
    taken = [needs(run.shape, cluster) for run in runs]
    most = sum(need.minutes / 60 * need.nodes * need.processes for need in taken)
    if most > spec.limits.hours:
        raise UserError(
            f"limits.hours: {len(runs)} runs may take {most:,.1f} hours of a process within one time limit each, and "
            f"{spec.limits.hours:,g} are allowed; raise it, or lower time"
        )


def _check_run(spec: Spec, run: Run, config: RunConfig) -> None:
    try:
        check_divides(config, run.shape.nodes * run.shape.processes)
    except UserError as error:
        raise UserError(f"the run with {described(run.values)}: {error}") from None
    for number, condition in enumerate(spec.stop_if):
        if condition.metric not in (known := logged(config)) and not condition.metric.startswith("validation/"):
            raise UserError(
                f"stop_if.{number}: {condition.metric}: the log of the run with {described(run.values)} has no such "
                f"number; it has {', '.join(known)}, and those of validation/"
            )


def logged(config: RunConfig) -> list[str]:
    """The numbers that training writes to a run's log."""
    found = list(LOGGED)
    for name, code in config.codes.items():
        found += [f"mi/{name}", f"mi/{name}/ceiling"]
        found += [f"mi/{name}/best_std", f"mse/{name}"] if isinstance(code, ContinuousCode) else []
    return found
