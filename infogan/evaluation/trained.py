"""Extractors trained on the data set itself: a fixed recipe, a hash of the outcome, a cache beside the data.

A recipe fixes the seed, the order of the images, the number of CPU threads and float32, so that the same
machine gives the same weights. Another kind of CPU or another release of torch may not: therefore the hash
of the weights is in the name of every number, the weights are kept beside the data set, and later
evaluations read the same file.

    <data>/derived/extractors/mnist-classifier-1a2b3c/weights.safetensors, extractor.json
"""

import contextlib
import hashlib
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from infogan.evaluation.extractors import HASH_LENGTH, Features, register
from infogan.evaluation.progress import progress
from infogan.randomness import generator
from shards import Dataset, Reader, atomic, open_reader
from shards.errors import UserError

FORMAT = 1
READ_CHUNK = 500

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
Scores = Callable[[nn.Module, Reader], dict[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """How an extractor is trained. A change that moves the outcome gets a new `version`.

    Images seen: `images_per_epoch_of` epochs, but at least `fewest_images` and at most `most_images`. Adam
    with a learning rate that rises over the first tenth and falls to 0 as a cosine; images are shifted by
    up to `shift` of their side, at random, with edge pixels repeated.
    """

    version: int
    images_per_epoch_of: int
    fewest_images: int
    most_images: int
    batch: int = 128
    lr: float = 3e-3
    shift: float = 0.07
    seed: int = 0
    threads: int = 2


class Trained:
    """An extractor trained on the data set: its network, its name, its own scores."""

    def __init__(self, network: nn.Module, record: dict[str, Any], device: torch.device) -> None:
        self.network = network.to(device).eval().requires_grad_(False)
        self.record = record
        self._device = device
        register(self.name, self.network, side=int(record["image"][1]))

    @property
    def name(self) -> str:
        return str(self.record["name"])

    @property
    def scores(self) -> dict[str, Any]:
        """Per split, {"accuracy" or "rmse": its own score there, "images": how many}."""
        return dict(self.record["scores"])

    @property
    def protocol(self) -> dict[str, Any]:
        own = {
            f"extractor_{split}_{key}": value
            for split, found in self.scores.items()
            for key, value in found.items()
            if key != "images"
        }
        return {
            "extractor": f"{self.record['kind']}, trained on this data set's train split",
            "extractor_sha256": self.record["sha256"],
            **own,
            "resize": "none",
            "grey_to_rgb": "none: the extractor reads the data set's own channels",
        }

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Features:
        features, logits = self.network(images.to(self._device))
        return Features(features.float().cpu(), None if logits is None else logits.float().cpu())


def obtain(
    kind: str,
    network: nn.Module,
    loss: Loss,
    scores: Scores,
    dataset: Dataset,
    recipe: Recipe,
    device: torch.device,
    only_cached: bool,
) -> Trained | None:
    """The extractor `kind` of this data set and recipe: read from the cache, or trained and put there.

    `network` gives the architecture; its weights are overwritten. A damaged cache entry is passed over.
    """
    folder = dataset.derived / "extractors"
    wanted = {"format": FORMAT, "kind": kind, "dataset": dataset.manifest.digest, "recipe": asdict(recipe)}
    found = _find(folder, wanted)
    if found is not None:
        record, tensors = found
        network.load_state_dict(tensors)
        return Trained(network, record, device)
    if only_cached:
        return None
    print(
        f"training {kind} on {dataset.manifest.name} for the distances, once, for a minute or more; "
        f"it is kept in {folder}",
        file=sys.stderr,
    )
    with fixed_arithmetic(recipe.threads):
        _train(network, loss, dataset, recipe, kind)
        own = {split: scores(network, open_reader(dataset, split)) for split in ("validation", "test")}
    weights = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    digest = hashlib.sha256(weights).hexdigest()
    image = dataset.manifest.image
    record = wanted | {
        "name": f"{kind}@{digest[:HASH_LENGTH]}",
        "sha256": digest,
        "image": [image.channels, image.height, image.width],
        "scores": own,
        "torch": torch.__version__,
    }
    _keep(folder / f"{kind}-{digest[:HASH_LENGTH]}", weights, record)
    return Trained(network, record, device)


def batches(reader: Reader) -> Iterator[tuple[Tensor, Tensor]]:
    """All images of a reader in order: (uint8 [n, C, H, W], int64 [n]) in chunks of a fixed size."""
    for start in range(0, reader.samples, READ_CHUNK):
        batch = reader.gather(np.arange(start, min(start + READ_CHUNK, reader.samples)))
        yield batch.images, batch.labels


def to_unit(images: Tensor) -> Tensor:
    """uint8 [n, C, H, W] => float32 in [-1, 1], channels-last."""
    return images.float().contiguous(memory_format=torch.channels_last) / 127.5 - 1


@contextlib.contextmanager
def fixed_arithmetic(threads: int) -> Iterator[None]:
    """Run with a fixed number of CPU threads and full float32; put the process's own settings back after."""
    before, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_float32_matmul_precision(precision)


def _train(network: nn.Module, loss: Loss, dataset: Dataset, recipe: Recipe, kind: str) -> None:
    reader = open_reader(dataset, "train")
    images_seen = min(max(recipe.images_per_epoch_of * reader.samples, recipe.fewest_images), recipe.most_images)
    steps = max(1, images_seen // recipe.batch)
    _initialise(network, generator(recipe.seed, f"extractor/{kind}/init"))
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
    order = _order(reader.samples, recipe.seed)
    for step in progress(range(steps), f"training {kind}"):
        batch = reader.gather(np.array([next(order) for _ in range(min(recipe.batch, reader.samples))]))
        images = shifted(batch.images, recipe.shift, generator(recipe.seed, "extractor/shift", step))
        optimizer.zero_grad(set_to_none=True)
        loss(network, images, batch.labels).backward()
        optimizer.step()
        schedule.step()
    network.eval()
    _set_scale(network, reader)


@torch.no_grad()
def _set_scale(network: nn.Module, reader: Reader) -> None:
    """Choose the features' unit: their mean variance over (at most 5,000) training images becomes 1."""
    chunks = [network(images).features for images, _ in itertools.islice(batches(reader), 5_000 // READ_CHUNK)]
    scale: Tensor = network.get_buffer("scale")
    scale.copy_(torch.cat(chunks).double().var(dim=0).mean().sqrt())


def _rate(progress_made: float) -> float:
    return min(1.0, 0.01 + progress_made / 0.1) * (1 + math.cos(math.pi * progress_made)) / 2


def _order(samples: int, seed: int) -> Iterator[int]:
    epoch = 0
    while True:
        yield from torch.randperm(samples, generator=generator(seed, "extractor/order", epoch)).tolist()
        epoch += 1


def _initialise(network: nn.Module, draws: torch.Generator) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, std=math.sqrt(2 / _fan_in(module)), generator=draws)  # He et al. 2015
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _fan_in(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> float:
    """How many inputs an output sums over; a transposed convolution spreads over stride^2 outputs."""
    if isinstance(module, nn.ConvTranspose2d):
        return module.weight[:, 0].numel() / math.prod(module.stride)
    return module.weight[0].numel()


def shifted(images: Tensor, share: float, draws: torch.Generator) -> Tensor:
    """Shift each of `images` [n, C, H, W] by up to `share` of a side, at random; edge pixels are repeated."""
    n, _, height, width = images.shape
    most = max(1, round(share * min(height, width)))
    dy, dx = torch.randint(-most, most + 1, (2, n, 1), generator=draws)
    rows = (torch.arange(height) + dy).clamp(0, height - 1)  # [n, H]
    columns = (torch.arange(width) + dx).clamp(0, width - 1)  # [n, W]
    picked = images.permute(0, 2, 3, 1)[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def _keep(folder: Path, weights: bytes, record: dict[str, Any]) -> None:
    """Put an extractor into the cache; where that cannot be written, the next run trains again."""
    try:
        with atomic.folder(folder, replace=True) as new:
            (new / "weights.safetensors").write_bytes(weights)
            (new / "extractor.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    except UserError as error:
        print(f"warning: the extractor is used but not kept: {error}", file=sys.stderr)


def _find(folder: Path, wanted: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    for path in sorted(folder.glob("*/extractor.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            weights = (path.parent / "weights.safetensors").read_bytes()
        except (OSError, ValueError):
            continue
        right = all(record.get(key) == value for key, value in wanted.items())
        if right and hashlib.sha256(weights).hexdigest() == record.get("sha256"):
            return record, load(weights)
    return None
