"""What a run is: the schema of a run's config, section by section.

Each section is a frozen dataclass whose `__post_init__` checks its ranges; `infogan.settings` reads YAML into it and
puts the section's path in front of a message. The identity of a run is everything that decides what is learned; its
digest is saved with every checkpoint. The rest (`RUNTIME`) may change when a run is resumed.
"""

import hashlib
import json
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from infogan.augment import Augment
from infogan.checks import above, at_least, no_null_byte, one_of
from infogan.codes import Code, Codes, Noise
from infogan.networks import Network
from infogan.objectives import NonSaturating, Objective
from shards import CacheOptions, Dataset, open_dataset

ReaderKind = Literal["auto", "resident", "indexed", "remote"]

LONGEST_NAME = 100  # bytes of a code's name, which is part of the names of files; these have 255
RESERVED = ("n", "seed", "codes")  # what `Model.sample` calls its own parameters

RUNTIME = (
    "data.path",
    "data.reader",
    "data.cache",
    "stop",
    "device",
    "threads",
    "check_interval",
    "patience",
    "deepspeed",
    "log",
    "images",
    "checkpoint",
    "eval",
)
"""Fields that may change when a run is resumed; every other field belongs to the run's identity."""

NEUTRAL: dict[str, Any] = {
    "data.window": None,
    "objective.r1": 0.0,
    "objective.ramp_kimg": 0.0,
    "augment.mirror": False,
    "augment.diffaugment": [],
    "sync_batchnorm": False,
}
"""Fields younger than the first runs: at these values they change nothing and stay out of the identity, so that a run
begun before there were any goes on."""


@dataclass(frozen=True)
class Data:
    """`path`: the data set's folder, made by `infogan shards build` or `adopt`, or its URL.

    `reader`: how images are read from it; `remote`, what `auto` means for a URL, keeps shards in `cache` on this
    machine, from a folder too. `window`: how many shards are shuffled together, and have to be there at a time, all
    where null; it decides the order of the images, wherever they lie. `digest`: which data set it has to be; empty in a
    preset, filled in when a run begins.
    """

    path: str = ""
    reader: ReaderKind = "auto"
    window: int | None = None
    cache: CacheOptions = field(default_factory=CacheOptions)
    digest: str = ""

    def __post_init__(self) -> None:
        no_null_byte("path", self.path)
        if self.window is not None:
            at_least("window", self.window, 1)

    def open(self, path: str | Path | None = None) -> Dataset:
        """The data set at `path` or, without one, where the config says."""
        return open_dataset(path or self.path, self.cache)


@dataclass(frozen=True)
class Adam:
    """Learning rate of one optimizer."""

    lr: float

    def __post_init__(self) -> None:
        above("lr", self.lr, 0)


@dataclass(frozen=True)
class Optimizers:
    """Adam for generator and critic; the critic's owns trunk, D head and Q head."""

    generator: Adam = Adam(1e-3)
    critic: Adam = Adam(2e-4)
    betas: tuple[float, float] = (0.5, 0.999)

    def __post_init__(self) -> None:
        for beta in self.betas:
            at_least("betas", beta, 0, below=1)


@dataclass(frozen=True)
class Ema:
    """Averaging of the generator's weights, counted in images.

    `half_life_kimg`: how long until a weight counts half; while a run is young the half-life is `rampup` times the
    images seen so far, so that the first weights are soon forgotten.
    """

    half_life_kimg: float = 10.0
    rampup: float = 0.05

    def __post_init__(self) -> None:
        above("half_life_kimg", self.half_life_kimg, 0)
        above("rampup", self.rampup, 0)


@dataclass(frozen=True)
class Every:
    """How often something happens, in thousands of images seen."""

    every_kimg: float = 64.0

    def __post_init__(self) -> None:
        above("every_kimg", self.every_kimg, 0)


@dataclass(frozen=True)
class Checkpoints(Every):
    """`keep`: how many of the newest checkpoints stay on disk, beside the best one; never fewer than 2."""

    keep: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("keep", self.keep, 2)


@dataclass(frozen=True)
class Evaluation:
    """Scores on the validation split while training; `every_kimg: null` switches them off."""

    every_kimg: float | None = 64.0

    def __post_init__(self) -> None:
        if self.every_kimg is not None:
            above("every_kimg", self.every_kimg, 0)


@dataclass(frozen=True)
class Stop:
    """When a run is finished, as `5000 updates`, `20 epochs` or `640 kimg`."""

    amount: float
    unit: str

    UNITS = ("updates", "epochs", "kimg")

    @classmethod
    def parse(cls, text: str) -> "Stop":
        words = str(text).split()
        try:
            amount = float(words[0])
            unit = {unit.rstrip("s"): unit for unit in cls.UNITS}[words[1].rstrip("s")]
        except (IndexError, KeyError, ValueError):
            raise ValueError(
                f"{text!r}: must be a number and a unit, as in '5000 updates', '20 epochs', '640 kimg'"
            ) from None
        if len(words) != 2 or not 0 < amount < float("inf"):
            raise ValueError(f"{text!r}: must be one number above 0 and one unit")
        return cls(amount, unit)

    def __str__(self) -> str:
        return f"{int(self.amount) if self.amount == int(self.amount) else self.amount} {self.unit}"

    def images(self, batch: int, samples: int) -> int:
        """Images after which the run stops, rounded up to whole updates."""
        per_unit = {"updates": batch, "epochs": samples, "kimg": 1000}[self.unit]
        return -(-round(self.amount * per_unit) // batch) * batch


@dataclass(frozen=True)
class RunConfig:
    """A whole run. `batch` is the global batch, whatever the number of processes; `accumulation` cuts each process's
    part of it into that many forward and backward passes. `sync_batchnorm`: BatchNorm sees the images of all processes
    together. `check_interval`: seconds between the moments at which all processes agree on whether to stop.
    `patience`: seconds after which a process that hangs, or is gone, ends the run. `deepspeed`: by which of DeepSpeed's
    JSON files to train, ours (`zero1`, `zero2`, `zero2_offload`) or one of yours."""

    network: Network
    codes: dict[str, Code] = field(default_factory=dict)
    seed: int = 0
    data: Data = Data()
    noise: Noise = field(default_factory=Noise)
    objective: Objective = field(default_factory=NonSaturating)
    augment: Augment = field(default_factory=Augment)
    optimizer: Optimizers = Optimizers()
    batch: int = 128
    accumulation: int = 1
    sync_batchnorm: bool = False
    stop: Stop = Stop(5000, "updates")
    ema: Ema = Ema()
    precision: str = "auto"
    device: str = "auto"
    threads: int | None = None
    check_interval: float = 2.0
    patience: float = 30.0
    deepspeed: str | None = None
    log: Every = Every(6.4)
    images: Every = Every(64.0)
    checkpoint: Checkpoints = Checkpoints()
    eval: Evaluation = Evaluation()

    def __post_init__(self) -> None:
        one_of("precision", self.precision, ("auto", "fp32", "bf16", "fp16", "fp64"))
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        at_least("seed", self.seed, 0, below=2**31)
        at_least("batch", self.batch, 2, below=1_000_001)
        above("check_interval", self.check_interval, 0)
        above("patience", self.patience, 0)
        if self.accumulation < 1 or self.batch % self.accumulation:
            raise ValueError(f"accumulation: {self.accumulation}: must divide batch {self.batch}")
        if self.batch // self.accumulation < 2:
            raise ValueError(
                f"accumulation: {self.accumulation}: leaves fewer than 2 images of batch {self.batch} at a time, and "
                f"BatchNorm needs 2; at most {self.batch // 2}"
            )
        if self.threads is not None:
            at_least("threads", self.threads, 1, below=1025)
        if self.noise.size == 0 and not self.codes:
            raise ValueError("codes: none, and noise.size is 0: the generator would have no input")
        for name in self.codes:
            if len(name.encode()) > LONGEST_NAME:
                raise ValueError(f"codes: {name[:20]}...: {len(name.encode())} bytes: at most {LONGEST_NAME} in a name")
            if not name.isidentifier() or name in RESERVED:
                raise ValueError(
                    f"codes: {name!r}: a code's name must be a word of letters, digits and _, and none of {RESERVED}"
                )

    def latent_codes(self) -> Codes:
        """The codes and the noise as one object that can be sampled."""
        return Codes(self.codes, self.noise)


def to_plain(value: Any) -> Any:
    """A config, or a part of one, as plain dicts, lists and scalars, ready for YAML or JSON."""
    if isinstance(value, Stop):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        named = {
            key: getattr(type(value), key)
            for key in ("name", "kind")
            if isinstance(getattr(type(value), key, None), str)
        }
        return named | {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return value


def flatten(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict from dotted path to value."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{path}.")
        else:
            flat[path] = value
    return flat


def identity(config: RunConfig) -> dict[str, Any]:
    """What decides what is learned, as dotted path -> value; data counts by its digest, not by where it lies.

    `codes` holds the order of the codes, which is that of the generator's input and of Q's output.
    """
    values = {
        path: value
        for path, value in flatten(to_plain(config)).items()
        if not _is_runtime(path) and not (path in NEUTRAL and value == NEUTRAL[path])
    }
    return values | {"codes": ", ".join(config.codes)}


def digest(config: RunConfig) -> str:
    """sha256 of a config's identity, hex."""
    return hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()


def _is_runtime(path: str) -> bool:
    return any(path == field_path or path.startswith(f"{field_path}.") for field_path in RUNTIME)
