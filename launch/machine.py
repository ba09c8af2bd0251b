"""Plain facts about the machine and the installation, and what is wrong with them, for `infogan doctor`.

Each section is one function that looks at one thing and returns name -> fact, None for something missing;
what it finds wrong it adds to `Findings`.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from launch.cli import DISTRIBUTION
from shards.versions import installed

Facts = dict[str, str | None]

OUR_PACKAGES = ("launch", "infogan", "shards", "slurm")
# Distributions whose module bears another name.
MODULE_NAMES = {
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "torch-fidelity": "torch_fidelity",
}
# What disagrees with ours when accelerate reads it on its own.
ACCELERATE_KEYS = (
    "distributed_type",
    "gradient_accumulation_steps",
    "mixed_precision",
    "num_machines",
    "num_processes",
    "use_cpu",
)
SLURM_PROGRAMS = ("sinfo", "sbatch", "srun", "squeue", "sacct", "scontrol")
WEIGHTS = {"inception": "weights-inception-*.pth", "vgg16": "vgg16-*.pth"}

GIB = 2**30
LITTLE_DISK = 2 * GIB
# What containers give when nobody asks for more; worker processes hand batches over through it.
LITTLE_SHARED_MEMORY = 65 * 2**20


@dataclass
class Findings:
    """What the sections found wrong: problems break something, notes are worth knowing."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def look_at_machine(findings: Findings) -> Facts:
    import psutil

    from shards.workers import available_cores

    memory = psutil.virtual_memory()
    disk = shutil.disk_usage(Path.cwd())
    if disk.free < LITTLE_DISK:
        findings.notes.append(f"only {_gib(disk.free)} free in {Path.cwd()}, where runs and data sets go by default")
    facts: Facts = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        "cores": f"{available_cores()} usable of {os.cpu_count()}",
        "memory": f"{_gib(memory.available)} available of {_gib(memory.total)}",
        "disk here": f"{_gib(disk.free)} free of {_gib(disk.total)}",
    }
    if Path("/dev/shm").is_dir():
        shared = shutil.disk_usage("/dev/shm")
        facts["/dev/shm"] = f"{_gib(shared.free)} free of {_gib(shared.total)}"
        if shared.total < LITTLE_SHARED_MEMORY:
            findings.notes.append("/dev/shm is small: give the container more (docker run --shm-size=2g)")
    return facts


def look_at_our_packages(findings: Findings) -> Facts:
    """Where launch, infogan, shards and slurm come from: these are names that other packages use too."""
    root = Path(__file__).resolve().parent.parent
    owners = metadata.packages_distributions()
    facts: Facts = {DISTRIBUTION: installed(DISTRIBUTION) or "not installed, used from a folder"}
    for name in OUR_PACKAGES:
        folder = _folder(name)
        facts[name] = str(folder) if folder else None
        if folder is None:
            findings.problems.append(f"package {name} is missing: install {DISTRIBUTION} again")
        elif folder.parent != root:
            findings.problems.append(f"package {name} is not ours but {folder}, first on sys.path: remove it")
        others = sorted(set(owners.get(name, ())) - {DISTRIBUTION})
        if others:
            findings.problems.append(f"package {name} is also installed by {', '.join(others)}: uninstall that")
    return facts


def look_at_dependencies(findings: Findings) -> Facts:
    """Version and place of each distribution that setup.cfg asks for, against the range it asks for."""
    from packaging.requirements import Requirement

    facts: Facts = {}
    for line in _requirements():
        requirement = Requirement(line)
        extra = re.search(r'extra == "(\w+)"', line)
        if extra and extra.group(1) == "dev":
            continue
        found = installed(requirement.name)
        if found is None:
            facts[requirement.name] = "not installed" + (f" (extra {extra.group(1)})" if extra else "")
            if not extra:
                findings.problems.append(f"{requirement.name} is missing: pip install '{line}'")
            continue
        facts[requirement.name] = f"{found}  {_folder(MODULE_NAMES.get(requirement.name, requirement.name))}"
        if not requirement.specifier.contains(found, prereleases=True):
            findings.problems.append(f"{requirement.name} {found} is not {requirement.specifier}: reinstall it")
    return facts


def look_at_devices(findings: Findings) -> Facts:
    """Every device, which one `auto` picks, and in which precision."""
    import torch

    from infogan.devices import auto_precision, cpu_name, native_bf16, nvidia_driver, resolve_device, unusable_gpu

    native = {True: "native bf16", False: "no native bf16"}
    facts: Facts = {"cpu": f"{cpu_name()}, {native[native_bf16(torch.device('cpu'))]}"}
    reason = unusable_gpu()
    if reason is not None:
        findings.problems.append(f"a GPU is there but cannot be used: {reason}; or ask for device=cpu")
        return facts | {"gpu": f"there but unusable: {reason}"}
    device = resolve_device("auto")
    if device.type == "cuda":
        facts["driver"] = f"{nvidia_driver() or 'unknown'}, torch built for CUDA {torch.version.cuda}"
    for index in range(torch.cuda.device_count() if device.type == "cuda" else 0):
        card = torch.cuda.get_device_properties(index)
        facts[f"cuda:{index}"] = (
            f"{card.name}, capability {card.major}.{card.minor}, {_gib(card.total_memory)}, "
            f"{native[native_bf16(torch.device('cuda', index))]}"
        )
    return facts | {
        "device=auto": f"{device.type}" + ("" if device.type == "cuda" else " (no GPU here)"),
        "precision=auto": f"{auto_precision(device)} ({native[native_bf16(device)]} on {device.type})",
    }


def look_at_torchvision(findings: Findings) -> Facts:
    """Whether torchvision can be imported beside this torch, and whether its compiled operators are there."""
    import torch

    from shards import torchvision_ops

    torchvision_ops.ensure_importable()
    try:
        import torchvision
        from torchvision.extension import _has_ops
    except (ImportError, RuntimeError) as error:
        findings.problems.append(f"torchvision does not go with torch {torch.__version__}: {one_line(error)}")
        return {"import": "fails"}
    shim = "only declared, by us: a CUDA build of torchvision beside a CPU torch"
    return {"import": f"works ({torchvision.__version__})", "its operators": "loaded" if _has_ops() else shim}


def look_at_processes(findings: Findings) -> Facts:
    """Threads, launch settings in the environment, and the file that accelerate would read unasked."""
    import torch
    import yaml
    from accelerate.commands.config.config_args import default_config_file

    threads = os.environ.get("OMP_NUM_THREADS")
    facts: Facts = {"threads": f"{torch.get_num_threads()} (OMP_NUM_THREADS {threads or 'unset'})"}
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES"):
        if name in os.environ:
            facts[name] = os.environ[name]
    path = Path(default_config_file)
    if not path.is_file():
        return facts | {"accelerate's own file": f"none ({path})"}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        findings.problems.append(f"{path}, which accelerate launch reads unasked, is damaged: {one_line(error)}")
        return facts | {"accelerate's own file": f"damaged ({path})"}
    settings = {key: content[key] for key in ACCELERATE_KEYS if key in content} if isinstance(content, dict) else {}
    said = ", ".join(f"{key}={value}" for key, value in settings.items()) or "nothing that matters here"
    findings.notes.append(f"accelerate launch without --config_file reads {path}: {said}")
    return facts | {"accelerate's own file": f"{path}: {said}"}


def look_at_slurm(findings: Findings) -> Facts:
    """Which of SLURM's programs are there, and whether this is a job already."""
    found = {name: path for name in SLURM_PROGRAMS if (path := shutil.which(name))}
    if not found:
        return {"programs": "none found"}
    facts: Facts = {"programs": ", ".join(found)}
    missing = [name for name in ("sbatch", "srun") if name not in found]
    if missing:
        findings.notes.append(f"SLURM without {', '.join(missing)}: jobs cannot be submitted from here")
    try:
        answer = subprocess.run(
            [next(iter(found.values())), "--version"], capture_output=True, text=True, timeout=10, check=True
        )
        facts["version"] = answer.stdout.strip()
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or [one_line(error)]
        findings.notes.append(f"SLURM does not answer: {said[-1]}")
    except (OSError, subprocess.SubprocessError) as error:
        findings.notes.append(f"SLURM does not answer: {one_line(error)}")
    if job := os.environ.get("SLURM_JOB_ID"):
        facts["this is job"] = job
    return facts


def look_at_weights(findings: Findings) -> Facts:
    """The pretrained networks that metrics take their names from, where torch looks for them."""
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    facts: Facts = {"folder": str(folder)}
    for name, pattern in WEIGHTS.items():
        facts[name] = "not here: metrics use a network trained on the data set itself"
        for path in sorted(folder.glob(pattern)):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            # torch's own convention: the name ends in the first eight digits of the file's sha256.
            genuine = digest[:8] == path.stem.rpartition("-")[2]
            facts[name] = f"{path.name}, sha256 {digest[:8]}, {'genuine' if genuine else 'NOT what its name says'}"
            if not genuine:
                findings.problems.append(f"{path}: sha256 {digest[:8]}, not as its name says: delete it")
    return facts


def _requirements() -> list[str]:
    try:
        return metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []


def _folder(module: str) -> Path | None:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).resolve().parent


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
