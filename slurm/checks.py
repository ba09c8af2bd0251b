"""What would fail in every job, or half-way, is refused before anything is sent."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from infogan import deepspeed_file
from infogan.config import RunConfig
from infogan.engine import check_divides
from infogan.model import check_identity
from shards import open_dataset
from shards.errors import UserError
from shards.torchvision_ops import ensure_importable
from slurm import recipes
from slurm.cluster import Cluster
from slurm.expand import splits_of
from slurm.metric_names import REPORTED, is_among, of_log, offered, ranked_of_log, to_rank_by
from slurm.order import needs
from slurm.parsing import cut
from slurm.ranking import LOG, better_of
from slurm.spec import Spec
from slurm.sweep import Run, described


def check(spec: Spec, cluster: Cluster, runs: Sequence[tuple[Run, RunConfig]]) -> None:
    """Check a sweep against where it is to run.

    Raises UserError naming file, place, rule and remedy.
    """
    configs = [config for _, config in runs]
    check_made(spec, configs)
    with _of(spec):
        _check_hours(spec, cluster, [run for run, _ in runs])
        _check_best(spec, configs)
        _check_data(configs)
        for run, config in runs:
            _check_run(spec, cluster, run, config)


def check_made(spec: Spec, configs: Sequence[RunConfig]) -> None:
    """Check what data sets are made of, and what every evaluation of runs of these configs would refuse.

    Raises UserError naming file, place, rule and remedy.
    """
    with _of(spec):
        recipes.check(spec, configs)
        _check_families(spec.evaluate.only)
        weights = spec.evaluate.weights
        if weights is not None and not Path(weights).is_file():
            raise UserError(
                f"evaluate.weights: {cut(weights)}: no such file; name the Inception weights, or leave it out"
            )
        for config in configs:
            _check_split(spec.evaluate.split, config)
            _check_which(spec.evaluate.which, config)


@contextmanager
def _of(spec: Spec) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"sweep {spec.path}: {error}") from None


def _check_split(split: str, config: RunConfig) -> None:
    splits = splits_of(config)
    if splits is not None and splits.get(split, 0) < 2:
        raise UserError(
            f"evaluate.split: {cut(split)}: the data set {config.data.path} has no such split of 2 images or more; "
            f"it has {', '.join(f'{name} ({images:,})' for name, images in splits.items())}"
        )


def _check_which(which: str, config: RunConfig) -> None:
    samples = (splits_of(config) or {}).get("train")
    if which in ("latest", "best") or (config.stop.unit == "epochs" and samples is None):
        return
    last = config.stop.images(config.batch, samples or 1) / 1000
    if float(which) > last:
        raise UserError(
            f"evaluate.which: {which}: a run ends at {last:g} kimg (stop: {config.stop}); say latest, best, or a kimg "
            "before that"
        )


def _check_families(only: Sequence[str]) -> None:
    if only:
        _families().check_families("evaluate.only", [cut(name) for name in only])


def _families() -> ModuleType:
    """The metric families, which take seconds to import; few sweeps have to wait for them."""
    ensure_importable()
    from infogan.evaluation import families

    return families


def _check_best(spec: Spec, configs: Sequence[RunConfig]) -> None:
    """What ranks must be a number that some run can have, with an end that is known to be the good one."""
    if spec.best is None:
        return
    metric, of_log = spec.best.metric.removeprefix(LOG), spec.best.metric.startswith(LOG)
    split, only = spec.evaluate.split, spec.evaluate.only
    names = [n for config in configs for n in (ranked_of_log(config) if of_log else to_rank_by(config, split, only))]
    if not is_among(metric, names) and (of_log or not _own_family(only)):
        raise UserError(
            f"best.metric: {cut(spec.best.metric)}: no run can have such a number; {offered(metric, names)}"
        )
    if spec.best.better is None:
        try:
            better_of(metric)
        except UserError as error:
            raise UserError(f"best.metric: {error}") from None


def _own_family(only: Sequence[str]) -> bool:
    """Whether a family that is none of ours will be measured, whose numbers have names that we cannot know."""
    return any(family not in REPORTED for family in only or _families().FAMILIES)


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


def _check_data(configs: Sequence[RunConfig]) -> None:
    """Every run must fit its data set, where that is on this machine already."""
    places = dict.fromkeys(config.data.path for config in configs)
    there = {path: open_dataset(path) for path in places if (Path(path) / "manifest.json").is_file()}
    for config in configs:
        if config.data.path in there:
            check_identity(config, there[config.data.path])


def _check_run(spec: Spec, cluster: Cluster, run: Run, config: RunConfig) -> None:
    world = run.shape.nodes * run.shape.processes
    try:
        check_divides(config, world)
        if config.deepspeed is not None:
            deepspeed_file.check(*deepspeed_file.read(config.deepspeed), config, world)
        _check_device(config, cluster, needs(run.shape, cluster).gpus)
    except UserError as error:
        raise UserError(f"the run with {cut(described(run.values))}: {error}") from None
    _check_conditions(spec, run, config)


def _check_device(config: RunConfig, cluster: Cluster, gpus: int) -> None:
    """A job without GPUs cannot compute as if it had some. On this machine, the run itself sees what there is."""
    given = gpus > 0 or cluster.kind == "local" or any(key.startswith(("gpus", "gres")) for key in cluster.sbatch)
    remedy = "gives its processes none: say gpus_per_process in shape or in the cluster file"
    if config.device == "cuda" and not given:
        raise UserError(f"device: cuda needs a GPU, and cluster {cluster.name} {remedy}, or device: cpu")
    if config.precision == "fp16" and (config.device == "cpu" or not given):
        where = "device is cpu: say device: auto" if given else f"cluster {cluster.name} {remedy}"
        raise UserError(f"precision: fp16 needs a GPU, and {where}, or precision: bf16 or fp32")


def _check_conditions(spec: Spec, run: Run, config: RunConfig) -> None:
    for number, condition in enumerate(spec.stop_if):
        if not is_among(condition.metric, known := of_log(config)):
            off = condition.metric.startswith("validation/") and config.eval.every_kimg is None
            instead = "it is scored where eval.every_kimg is set" if off else offered(condition.metric, known)
            raise UserError(
                f"stop_if.{number}: {cut(condition.metric)}: the log of the run with {cut(described(run.values))} has "
                f"no such number; {instead}"
            )
