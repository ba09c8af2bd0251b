"""The extractor of a data set without labels: a small autoencoder, trained on its train split."""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from infogan.evaluation.extractors import Features
from infogan.evaluation.trained import Recipe, Trained, batches, obtain, to_unit
from shards import Dataset, Reader

FEATURES = 64
RECIPE = Recipe(version=2, images_per_epoch_of=3, fewest_images=60_000, most_images=300_000)


class Autoencoder(nn.Module):
    """Stride-2 convolutions down to a side of at most 8, 64 features, and back."""

    scale: Tensor

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        stages = max(1, math.ceil(math.log2(min(height, width) / 8)))
        widths = [channels, 32, *[64] * (stages - 1)]
        self.size = (height, width)
        self.small = (widths[-1], height // 2**stages, width // 2**stages)
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            down += [nn.Conv2d(n_in, n_out, 4, stride=2, padding=1), nn.ReLU()]
            up = [nn.ConvTranspose2d(n_out, n_in, 4, stride=2, padding=1), *([nn.ReLU(), *up] if up else [])]
        self.encoder = nn.Sequential(*down, nn.Flatten())
        self.features = nn.Linear(math.prod(self.small), FEATURES)
        self.register_buffer("scale", torch.ones(()))
        self.expand = nn.Linear(FEATURES, math.prod(self.small))
        self.decoder = nn.Sequential(*up)

    def forward(self, images: Tensor) -> Features:
        """uint8 [n, C, H, W] => features [n, 64], in units of `scale`; there are no logits."""
        return Features(self._code(images) / self.scale, None)

    def _code(self, images: Tensor) -> Tensor:
        code: Tensor = self.features(self.encoder(to_unit(images)))
        return code

    def reconstruct(self, images: Tensor) -> Tensor:
        """uint8 [n, C, H, W] => float32 [n, C, H, W], nominally in [-1, 1]."""
        x = F.relu(self.expand(self._code(images))).unflatten(1, self.small)
        return F.interpolate(self.decoder(x), self.size, mode="bilinear")


def trained_autoencoder(
    dataset: Dataset, device: torch.device, *, recipe: Recipe = RECIPE, only_cached: bool = False
) -> Trained | None:
    """The data set's autoencoder, from its cache or trained now (minutes) and kept there."""
    image = dataset.manifest.image
    network = Autoencoder(image.channels, image.height, image.width)
    return obtain(f"{dataset.manifest.name}-autoencoder", network, loss, scores, dataset, recipe, device, only_cached)


def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error of the reconstruction, images in [-1, 1]; labels are not used."""
    assert isinstance(network, Autoencoder)
    return F.mse_loss(network.reconstruct(images), to_unit(images))


@torch.inference_mode()
def scores(network: nn.Module, reader: Reader) -> dict[str, Any]:
    """{"rmse": of the reconstruction in grey levels of 0..255, "images": how many}."""
    assert isinstance(network, Autoencoder)
    squares, images_seen, pixels = 0.0, 0, 1
    for images, _ in batches(reader):
        error = network.reconstruct(images).clamp(-1, 1) - to_unit(images)
        squares += float(error.double().square().sum())
        images_seen += len(images)
        pixels = images[0].numel()
    return {"rmse": 127.5 * math.sqrt(squares / max(images_seen * pixels, 1)), "images": images_seen}
