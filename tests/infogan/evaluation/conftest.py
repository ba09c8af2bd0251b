"""A small data set with labels, one without, and models that are cheap to run."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from infogan.codes import CategoricalCode, ContinuousCode, Noise
from infogan.config import RunConfig
from infogan.evaluation import autoencoder, classifier, context
from infogan.evaluation.trained import Recipe
from infogan.model import Model, Origin, snapshot
from infogan.networks import Critic, Network
from shards import Dataset, build, open_dataset, open_reader, open_source

QUICK = Recipe(version=1, images_per_epoch_of=1, fewest_images=5_000, most_images=5_000, batch=50, threads=1)


@dataclass(frozen=True)
class TinyNetwork(Network):
    """28x28 grey, two small layers each."""

    name: ClassVar[str] = "tiny"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 1, 28, 28

    @property
    def image_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    def generator(self, input_width: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(input_width, 32),
            nn.ReLU(),
            nn.Linear(32, 784),
            nn.Sigmoid(),
            nn.Unflatten(1, (1, 28, 28)),
        )

    def critic(self, q_width: int) -> Critic:
        trunk = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU())
        return Critic(trunk, nn.Linear(32, 1), nn.Linear(32, q_width))

    def initialise(self, module: nn.Module, generator: torch.Generator) -> None:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """scikit-learn's digits."""
    path = tmp_path_factory.mktemp("data") / "digits"
    build(open_source("digits"), path, progress=False)
    return open_dataset(path)


@pytest.fixture(scope="session")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """120 grey pictures of random bars, without classes."""
    raw = tmp_path_factory.mktemp("raw")
    rng = np.random.default_rng(0)
    for number in range(120):
        picture = np.zeros((28, 28), np.uint8)
        picture[:, rng.integers(4, 24)] = 255
        picture[rng.integers(4, 24)] = rng.integers(80, 255)
        Image.fromarray(picture).save(raw / f"{number:03d}.png")
    path = tmp_path_factory.mktemp("data") / "folder"
    build(
        open_source("folder", path=str(raw), size="28", color="grey", validation=0.25, test=0.25),
        path,
        progress=False,
    )
    return open_dataset(path)


@pytest.fixture(scope="session")
def digits_model(digits: Dataset) -> Model:
    return tiny_model(digits)


@pytest.fixture(scope="session")
def unlabelled_model(unlabelled: Dataset) -> Model:
    return tiny_model(unlabelled)


def tiny_model(dataset: Dataset) -> Model:
    """An untrained model that fits the data set, its weights drawn with a fixed seed."""
    codes = {"digit": CategoricalCode(10), "c1": ContinuousCode(), "c2": ContinuousCode(std="learned")}
    config = RunConfig(codes=codes, network=TinyNetwork(), noise=Noise(size=6), batch=32)
    latent = config.latent_codes()
    generator, critic = config.network.generator(latent.input_width), config.network.critic(latent.q_width)
    config.network.initialise(generator, torch.Generator().manual_seed(1))
    config.network.initialise(critic, torch.Generator().manual_seed(2))
    manifest = dataset.manifest
    origin = Origin("tiny-seed0", 64.0, 500, "c" * 64, manifest.name, manifest.digest, tuple(manifest.classes))
    reader = open_reader(dataset, "train")
    return snapshot(config, generator, critic, reader, origin, torch.device("cpu"))


@pytest.fixture
def quick_extractors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let an evaluation train its extractor for seconds rather than minutes."""
    monkeypatch.setattr(context, "trained_classifier", partial(classifier.trained_classifier, recipe=QUICK))
    monkeypatch.setattr(context, "trained_autoencoder", partial(autoencoder.trained_autoencoder, recipe=QUICK))
    yield


@pytest.fixture
def quick() -> Recipe:
    return QUICK


@pytest.fixture
def images() -> Tensor:
    """uint8 [300, 1, 28, 28], noise."""
    return torch.randint(0, 256, (300, 1, 28, 28), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


@pytest.fixture
def report_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
