"""A trained InfoGAN as its users meet it: images for chosen codes, and codes for given images.

model = infogan.load("runs/mnist-seed0")
images = model.sample(8, digit=7)               # uint8 [8, C, H, W]; a code by its name...
images = model.sample(8, codes={0: 7, 1: 0.5})  # ...or by its number, in the config's order
codes = model.encode(images)                    # code name -> posterior Q(c|x)
"""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from infogan import checkpoint as checkpoints
from infogan import settings
from infogan.batchnorm import estimate_statistics
from infogan.codes import CategoricalCode, Codes, Posterior
from infogan.config import RunConfig
from infogan.devices import resolve_device
from infogan.networks import Critic, to_network_range
from infogan.pictures import generate
from infogan.randomness import generator as draws
from shards import Dataset, Plan, Reader, open_reader
from shards.errors import UserError

STATISTICS_BATCHES = 64
"""Batches (of the run's size) over which BatchNorm statistics are estimated before a model is used."""

MOST_SAMPLED = 1_000_000
"""Images that one call of `Model.sample` makes at most: all are held in memory."""

MOST_EXTREME = 1e6  # for a continuous code; the prior ends at 1

METADATA = "infogan"


@dataclass(frozen=True)
class Origin:
    """Where a model's weights come from; goes into every report."""

    run: str
    kimg: float
    update: int
    checkpoint_digest: str
    data_name: str
    data_digest: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Model:
    """The EMA generator and the critic of a run, in float32 and evaluation mode, BatchNorm statistics estimated afresh.

    `generator`: [n, codes.input_width] => images in `image_range`. `critic`: see `Critic.forward`.
    """

    config: RunConfig
    codes: Codes
    generator: nn.Module
    critic: Critic
    origin: Origin
    device: torch.device

    @property
    def image_range(self) -> tuple[float, float]:
        return self.config.network.image_range

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.config.network.image_shape

    @torch.no_grad()
    def sample(
        self, n: int = 1, *, seed: int = 0, codes: Mapping[str | int, float] | None = None, **named: float
    ) -> Tensor:
        """Make n images: uint8 [n, C, H, W].

        Codes given by name (`digit=7`, `c1=-1.5`) or by number (`codes={0: 7}`) are held there; the others and the
        noise are drawn from their priors with `seed`. A categorical code takes a category from 0 on, a continuous
        one any number (the prior covers -1 to 1; traversals go to 2). Raises a UserError for a code or a category
        that is not there.
        """
        if not isinstance(n, int) or not 0 < n <= MOST_SAMPLED:
            raise UserError(
                f"sample: n={n!r}: must be a whole number from 1 to {MOST_SAMPLED:,}; make more in several calls"
            )
        latents = self.codes.sample(n, draws(seed, "latents/sample"))
        values = dict(latents.values)
        wanted: dict[str | int, float] = dict(codes or {})
        wanted.update(named)
        for key, value in wanted.items():
            name = self._code_name(key)
            values[name] = torch.full_like(values[name], self._code_value(name, value))
        noise = latents.vector[:, : self.codes.noise.size]
        return generate(self.generator, self.codes.assemble(noise, values), self.image_range)

    @torch.no_grad()
    def encode(self, images: Tensor, chunk: int = 500) -> dict[str, Posterior]:
        """Q's reading of images, uint8 [n, C, H, W]: one posterior per code, on the CPU."""
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.image_shape:
            channels, height, width = self.image_shape
            raise UserError(
                f"encode: images of {images.dtype} {list(images.shape)}: "
                f"must be torch.uint8 [n, {channels}, {height}, {width}]"
            )
        parts = []
        for part in images.split(chunk):
            real = to_network_range(part.to(self.device), self.image_range)
            parts.append(self.critic(None, real).q.cpu())
        return self.codes.split(torch.cat(parts))

    def with_critic_statistics_of(self, images: Tensor) -> "Model":
        """This model with the critic's BatchNorm statistics estimated on `images`, uint8 [n, C, H, W].

        In training Q reads generated images by their own statistics; to score it on them as it was trained, give it
        theirs in place of the training images'.
        """
        critic = copy.deepcopy(self.critic)
        batches = (
            to_network_range(part.to(self.device), self.image_range)
            for part in images.split(self.config.batch)
            if len(part) == min(self.config.batch, len(images))
        )
        estimate_statistics(critic, batches, lambda part: critic(None, part))
        return replace(self, critic=critic)

    def _code_name(self, key: str | int) -> str:
        names = list(self.codes.codes)
        if isinstance(key, int) and 0 <= key < len(names):
            return names[key]
        if key in names:
            return str(key)
        known = ", ".join(f"{number}: {name}" for number, name in enumerate(names))
        raise UserError(f"code {key!r}: this model has no such code; it has {known}")

    def _code_value(self, name: str, value: float) -> float:
        code = self.codes.codes[name]
        if isinstance(code, CategoricalCode):
            if not isinstance(value, int | float) or value not in range(code.ways):
                raise UserError(f"code {name}={value}: must be a category from 0 to {code.ways - 1}")
        elif not isinstance(value, int | float) or not abs(value) <= MOST_EXTREME:
            raise UserError(f"code {name}={value}: must be a number from -{MOST_EXTREME:g} to {MOST_EXTREME:g}")
        return value


def snapshot(
    config: RunConfig,
    generator: nn.Module,
    critic: Critic,
    reader: Reader,
    origin: Origin,
    device: torch.device,
) -> Model:
    """Make a model of weights as they stand: copies them to float32 and estimates their BatchNorm statistics.

    The generator's over new latents, the critic's over images of `reader`, the training split's.
    """
    codes = config.latent_codes()
    judged = copy.deepcopy(generator).to(device, torch.float32).eval().requires_grad_(False)
    judge = copy.deepcopy(critic).to(device, torch.float32).eval().requires_grad_(False)
    estimate_statistics(judged, _statistics_latents(config, codes, device), judged)
    estimate_statistics(judge, statistics_images(config, reader, device), lambda images: judge(None, images))
    return Model(config, codes, judged, judge, origin, device)


def load(path: str | Path, *, which: str = "latest", data: str | Path | None = None, device: str = "auto") -> Model:
    """Open a run folder or an export folder.

    A run's exported model is used where it is of the checkpoint asked for (`latest`, `best`, or kimg); otherwise the
    checkpoint is, and then the training images must be at hand (`data`, or where the config says) to estimate the
    critic's BatchNorm statistics.
    """
    path = Path(path)
    if (path / "generator.safetensors").is_file():
        if which != "latest":
            raise UserError(f"{path}: an export holds one checkpoint, not {which!r}; give its run instead")
        return load_export(path, device)
    if not (path / "config.yaml").is_file():
        raise UserError(f"{path}: neither a run nor an exported model; a run folder holds config.yaml and checkpoints/")
    found = checkpoints.find(path, which)
    if exported_digest(path / "export") == found.digest:
        return load_export(path / "export", device)
    config = settings.saved(path / "config.yaml")
    dataset = config.data.open(data)
    check_identity(config, dataset)
    return from_checkpoint(path, found, config, dataset, resolve_device(device))


def from_checkpoint(
    run: Path, found: checkpoints.Checkpoint, config: RunConfig, dataset: Dataset, device: torch.device
) -> Model:
    """The model of one checkpoint of a run."""
    codes = config.latent_codes()
    generator = config.network.generator(codes.input_width).eval()
    critic = config.network.critic(codes.q_width)
    found.load_into("ema", generator)
    found.load_into("critic", critic)
    origin = origin_of(run, found.digest, found.state, dataset)
    with closing(open_reader(dataset, "train", kind=config.data.reader)) as reader:
        return snapshot(config, generator, critic, reader, origin, device)


def origin_of(run: Path, checkpoint_digest: str, state: Mapping[str, Any], dataset: Dataset) -> Origin:
    """Origin of the weights that a checkpoint's state describes."""
    manifest = dataset.manifest
    kimg = state["images"] / 1000
    return Origin(
        run.name,
        kimg,
        state["update"],
        checkpoint_digest,
        manifest.name,
        manifest.digest,
        tuple(manifest.classes),
    )


def check_identity(config: RunConfig, dataset: Dataset) -> None:
    """Refuse a data set that is not the one of the config, or whose images do not fit its network."""
    manifest = dataset.manifest
    if config.data.digest and config.data.digest != manifest.digest:
        raise UserError(
            f"data {dataset.shown}: digest {manifest.digest[:12]}, but this run's data has {config.data.digest[:12]}; "
            "point data.path at the data set that it was trained on"
        )
    channels, height, width = config.network.image_shape
    image = manifest.image
    if (image.channels, image.height, image.width) != (channels, height, width):
        raise UserError(
            f"data {dataset.shown}: images of {image.height}x{image.width}x{image.channels}, "
            f"but network {config.network.name} takes {height}x{width}x{channels}; choose another network, "
            "or build the data set at that size"
        )


def load_export(folder: Path, device: str = "auto") -> Model:
    """Open an exported model, which needs neither its run nor its data."""
    target = resolve_device(device)
    about, generator_tensors = _read_export(folder / "generator.safetensors")
    _, critic_tensors = _read_export(folder / "critic.safetensors")
    config = settings.from_plain(about["config"], about.get("plugins", ()))
    codes = config.latent_codes()
    generator = config.network.generator(codes.input_width)
    critic = config.network.critic(codes.q_width)
    try:
        generator.load_state_dict(generator_tensors)
        critic.load_state_dict(critic_tensors)
    except RuntimeError as error:
        raise UserError(
            f"{folder}: its weights do not fit its own config ({str(error).splitlines()[0]}); export the run again"
        ) from None
    origin = Origin(**about["origin"] | {"classes": tuple(about["origin"]["classes"])})
    players = [module.to(target).eval().requires_grad_(False) for module in (generator, critic)]
    return Model(config, codes, players[0], critic, origin, target)


def exported_digest(folder: Path) -> str | None:
    """Digest of the checkpoint that an export was made of; None where there is no sound export."""
    try:
        return load_export(folder, "cpu").origin.checkpoint_digest
    except UserError:
        return None


def _read_export(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})[METADATA])
            return about, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: not a model that this program exported, or damaged ({error}); export the run again"
        ) from None


def _statistics_latents(config: RunConfig, codes: Codes, device: torch.device) -> Iterator[Tensor]:
    for batch in range(STATISTICS_BATCHES):
        yield codes.sample(config.batch, draws(config.seed, "latents/statistics", batch)).vector.to(device)


def statistics_images(config: RunConfig, reader: Reader, device: torch.device) -> Iterable[Tensor]:
    """Batches of training images, in the network's range, over which a critic's statistics are estimated."""
    count = min(STATISTICS_BATCHES * config.batch, reader.samples)
    if config.data.window is None:
        whole = torch.randperm(reader.samples, generator=draws(config.seed, "images/statistics"))[:count]
    else:  # of few shards, as in training, or a remote reader would have to fetch them all
        sizes = [shard.samples for shard in reader.manifest.splits["train"].shards]
        whole = torch.from_numpy(Plan(sizes, config.seed, config.data.window).indices(0, count))
    for indices in whole.split(config.batch):
        if len(indices) == config.batch or len(whole) < config.batch:
            images = reader.gather(indices.numpy()).images
            yield to_network_range(images.to(device), config.network.image_range)
