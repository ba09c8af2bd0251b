"""The data set's own classifier: a small convolutional network, trained on the labels of its train split."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from infogan.evaluation.extractors import Features
from infogan.evaluation.trained import Recipe, Trained, batches, obtain, to_unit
from shards import Dataset, Reader

FEATURES = 64  # few enough that the covariance of a split of a few hundred images has full rank
RECIPE = Recipe(version=2, images_per_epoch_of=3, fewest_images=60_000, most_images=300_000)


class Classifier(nn.Module):
    """A stride-2 convolution, 3x3 convolutions and pooling down to a side of at most 8, two FC layers."""

    scale: Tensor

    def __init__(self, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        poolings = max(0, math.ceil(math.log2(min(height, width) / 16)))
        layers: list[nn.Module] = [nn.Conv2d(channels, 32, 4, stride=2, padding=1), nn.ReLU()]
        width_in = 32
        for _ in range(poolings):
            layers += [nn.Conv2d(width_in, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            width_in = 64
        layers += [nn.Conv2d(width_in, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
        self.convolutions = nn.Sequential(*layers)
        self.features = nn.Linear(64 * 16, FEATURES)
        self.logits = nn.Linear(FEATURES, classes)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, images: Tensor) -> Features:
        """uint8 [n, C, H, W] => features [n, 64], after the ReLU and in units of `scale`, and logits [n, classes]."""
        features = F.relu(self.features(self.convolutions(to_unit(images))))
        return Features(features / self.scale, self.logits(features))


def trained_classifier(
    dataset: Dataset, device: torch.device, *, recipe: Recipe = RECIPE, only_cached: bool = False
) -> Trained | None:
    """The data set's classifier, from its cache or trained now (minutes) and kept there.

    With `only_cached` None is returned where it would have to be trained.
    """
    image = dataset.manifest.image
    classes = len(dataset.manifest.classes)
    network = Classifier(image.channels, image.height, image.width, classes)
    return obtain(f"{dataset.manifest.name}-classifier", network, loss, scores, dataset, recipe, device, only_cached)


def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy; unlabelled images (-1) do not count."""
    return F.cross_entropy(network(images).logits, labels, ignore_index=-1)


@torch.inference_mode()
def scores(network: nn.Module, reader: Reader) -> dict[str, Any]:
    """{"accuracy": share of the labelled images that it reads right, "images": how many those are}."""
    right = labelled = 0
    for images, labels in batches(reader):
        right += int((network(images).logits.argmax(dim=1) == labels).sum())
        labelled += int((labels >= 0).sum())
    return {"accuracy": right / max(labelled, 1), "images": labelled}
