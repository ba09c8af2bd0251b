"""What a run would be, said before it starts: the config with the source of each value, the layers, memory and time."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from infogan.config import RunConfig, digest, flatten, to_plain
from infogan.engine import Engine, open_engine
from infogan.learner import Learner
from infogan.model import check_identity
from infogan.networks import Critic
from infogan.session import out_of_memory
from infogan.settings import Settings
from shards import Dataset
from shards.location import is_url
from shards.memory import free_device_memory

Hook = Callable[[nn.Module, object, Tensor], None]

TIMED_UPDATES = 3
BYTES_PER_WEIGHT = {"generator": 4 * 5, "critic": 4 * 4}
"""float32 weight, gradient and Adam's two moments; the generator has an EMA copy as well."""


def describe(settings: Settings, say: Callable[[str], None] = lambda line: None) -> Iterator[str]:
    """Everything that `--dry-run` prints, line by line as it is known; `say` is told what begins and may take long.

    Makes a few updates on noise to measure the time of one, last and where they fit into the memory.

    Raises:
        UserError: what stands at data.path is no data set, or does not fit the network.
    """
    engine = open_engine(settings.config)
    try:
        config = engine.config
        yield from _settings(settings, config)
        yield from ("", _data(config), "", *_layers(config), "")
        needed, line = _memory(config, engine)
        yield line
        say(f"timing {TIMED_UPDATES + 1} updates of {config.batch} images")
        yield from _time(config, engine, needed)
    finally:
        engine.close()


def _settings(settings: Settings, config: RunConfig) -> Iterator[str]:
    yield f"config {settings.preset}, digest {digest(config)[:12]} before its data set is known"
    flat = flatten(to_plain(config))
    width = max(len(path) for path in flat)
    for path, value in flat.items():
        yield f"  {path:<{width}} = {value!s:<16} # {_source(settings, path)}"


def _data(config: RunConfig) -> str:
    """What stands at data.path, and whether it fits the network."""
    dataset = _dataset(config)
    if dataset is None:
        return f"data: no data set at {config.data.path or 'data.path'} yet; infogan shards build makes one"
    check_identity(config, dataset)
    return f"data: {dataset.manifest.name}, {dataset.split('train').samples:,} training images, it fits the network"


def _source(settings: Settings, path: str) -> str:
    if path == "precision" and settings.config.precision == "auto":
        return "auto, by this device"
    return settings.sources.get(path, "default")


def _layers(config: RunConfig) -> Iterator[str]:
    """Every layer with its output shape, at the config's batch, and its parameters."""
    generator, critic, latents, images = _on_meta(config, config.batch)
    yield f"generator, in {_shape(latents)}: {_count(generator):,} parameters"
    yield from _table(generator, lambda: generator(latents))
    yield f"critic, in {_shape(images)}: {_count(critic):,} parameters"
    parts = ("trunk", "d_head", "q_head")
    yield "  " + ", ".join(f"{part} {_count(getattr(critic, part)):,}" for part in parts)
    yield from _table(critic, lambda: critic(None, images))


def _table(module: nn.Module, forward: Callable[[], object]) -> list[str]:
    rows: list[str] = []

    def noting(name: str, layer: nn.Module) -> Hook:
        def note(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
            count = f"{_count(layer):,}" if _count(layer) else ""
            rows.append(f"  {name:<12} {type(layer).__name__:<16} {_shape(output):<20} {count:>12}".rstrip())

        return note

    _run_with_hooks(module, noting, forward)
    return rows


def _memory(config: RunConfig, engine: Engine) -> tuple[int, str]:
    """Bytes of weights, what goes along with each, and all layers' outputs (the critic's for real and for fake
    images); and the same in words."""
    local = config.batch // engine.world // config.accumulation
    generator, critic, latents, images = _on_meta(config, local)
    weights = _count(generator) * BYTES_PER_WEIGHT["generator"] + _count(critic) * BYTES_PER_WEIGHT["critic"]
    values = _output_values(generator, lambda: generator(latents)) + 2 * _output_values(
        critic, lambda: critic(None, images)
    )
    size = 2 if config.precision in ("bf16", "fp16") else engine.dtype.itemsize
    return (
        weights + values * size,
        f"memory: about {weights / 2**20:,.0f} MiB for weights, gradients, optimizers and EMA, "
        f"and {values * size / 2**20:,.0f} MiB for the activations of {local} images",
    )


def _output_values(module: nn.Module, forward: Callable[[], object]) -> int:
    values = 0

    def count(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal values
        values += output.numel()

    _run_with_hooks(module, lambda _name, _layer: count, forward)
    return values


def _on_meta(config: RunConfig, batch: int) -> tuple[nn.Module, Critic, Tensor, Tensor]:
    """Generator, critic, and a batch of inputs for each, with shapes but no data."""
    codes = config.latent_codes()
    with torch.device("meta"):
        return (
            config.network.generator(codes.input_width),
            config.network.critic(codes.q_width),
            torch.empty(batch, codes.input_width),
            torch.empty(batch, *config.network.image_shape),
        )


def _run_with_hooks(module: nn.Module, hook: Callable[[str, nn.Module], Hook], forward: Callable[[], object]) -> None:
    """Call `forward` with a hook on every layer of `module`."""
    leaves = [(name, layer) for name, layer in module.named_modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(hook(name, layer)) for name, layer in leaves]
    forward()
    for handle in handles:
        handle.remove()


def _time(config: RunConfig, engine: Engine, needed: int) -> Iterator[str]:
    """How long one update takes and how long the run; `needed`: bytes, as estimated."""
    seconds = _seconds_if_it_fits(config, engine, needed)
    samples = _samples(config)
    if seconds is None:
        yield (
            f"one update: not timed, it does not fit into the free memory of {engine.device}: lower batch, raise "
            "accumulation, or use a smaller network"
        )
    else:
        yield (
            f"one update: {seconds:.3f} s ({config.batch / seconds:,.0f} images/s), the median of {TIMED_UPDATES} on "
            "noise, here and now"
        )
    if samples is None and config.stop.unit == "epochs":
        yield f"stop {config.stop}: its length is known once there is a data set at {config.data.path or 'data.path'}"
        return
    images = config.stop.images(config.batch, samples or 1)
    epochs = f" = {images / samples:,.1f} epochs" if samples else ""
    length = f"stop {config.stop} = {images // config.batch:,} updates = {images / 1000:,g} kimg{epochs}"
    if seconds is None:
        yield length
        return
    hours, minutes = divmod(round(images / config.batch * seconds / 60), 60)
    yield f"{length}: about {hours} h {minutes:02d} min, without pictures and evaluations"


def _seconds_if_it_fits(config: RunConfig, engine: Engine, needed: int) -> float | None:
    free = free_device_memory(engine.device)
    if any(engine.agree([free is not None and needed > free])):  # all processes or none: they wait for each other
        return None
    try:
        return _seconds_per_update(config, engine)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return None


def _seconds_per_update(config: RunConfig, engine: Engine) -> float:
    learner = Learner(config, engine)
    size = config.batch // engine.world // config.accumulation
    parts = [
        torch.randint(256, (size, *config.network.image_shape), dtype=torch.uint8) for _ in range(config.accumulation)
    ]
    times = []
    for update in range(TIMED_UPDATES + 1):
        begun = time.perf_counter()
        learner.update(parts, update * config.batch)
        learner.failed_updates()  # waits for the device
        times.append(time.perf_counter() - begun)
    return sorted(times[1:])[TIMED_UPDATES // 2]


def _samples(config: RunConfig) -> int | None:
    """Training images, where the data set is there already."""
    dataset = _dataset(config)
    return None if dataset is None else dataset.split("train").samples


def _dataset(config: RunConfig) -> Dataset | None:
    """What stands at data.path, if anything does; if that is no data set, opening it says so."""
    path = config.data.path
    return config.data.open() if path and (is_url(path) or Path(path).exists()) else None


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _shape(x: Tensor) -> str:
    return "[" + ", ".join(map(str, x.shape)) + "]"
