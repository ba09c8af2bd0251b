"""Small data sets with labels, without, and with known factors, and models that are cheap to run."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from infogan.codes import CategoricalCode, Code, ContinuousCode, Noise
from infogan.config import RunConfig
from infogan.evaluation import autoencoder, classifier, context
from infogan.evaluation.trained import Recipe
from infogan.model import Model, Origin, snapshot
from infogan.networks import Critic, Network
from shards import Dataset, build, open_dataset, open_reader, open_source
from shards.renderers.rendered import Rendered, RenderedOptions
from shards.sources import Sample

QUICK = Recipe(version=1, images_per_epoch_of=1, fewest_images=5_000, most_images=5_000, batch=50, threads=1)


@dataclass(frozen=True)
class TinyNetwork(Network):
    """Square and grey, two small layers each."""

    name: ClassVar[str] = "tiny"
    side: int = 28

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 1, self.side, self.side

    @property
    def image_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    def generator(self, input_width: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(input_width, 32),
            nn.ReLU(),
            nn.Linear(32, self.side**2),
            nn.Sigmoid(),
            nn.Unflatten(1, self.image_shape),
        )

    def critic(self, q_width: int) -> Critic:
        trunk = nn.Sequential(nn.Flatten(), nn.Linear(self.side**2, 32), nn.ReLU())
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


class Arrows(Rendered):
    """Arrows of known place, direction, thickness and shade; the shade is their class where labels are wanted."""

    kind = "arrows"
    channels = 1
    version = 1
    factors: ClassVar[dict[str, dict[str, object]]] = {
        "x": {"kind": "continuous", "range": [-1, 1], "periodic": False},
        "direction": {"kind": "continuous", "range": [0, 360], "periodic": True},
        "thick": {"kind": "categorical", "values": 2},
        "shade": {"kind": "categorical", "values": 3},
    }

    def __init__(self, options: RenderedOptions, labels: bool) -> None:
        super().__init__(options)
        self.classes = ("dark", "middle", "bright") if labels else ()
        self.splits = dict.fromkeys(self.splits, self.options.samples)

    def draw(self, split: str, i: int, rng: np.random.Generator) -> Sample:
        x, direction = float(rng.uniform(-1, 1)), float(rng.uniform(0, 360))
        thick, shade = int(rng.integers(2)), int(rng.integers(3))
        side = self.options.size
        picture = Image.new("L", (side, side))
        centre, reach, angle = (side * (0.5 + 0.3 * x), side / 2), side / 3, math.radians(direction)
        tip = (centre[0] + reach * math.cos(angle), centre[1] - reach * math.sin(angle))
        pen = ImageDraw.Draw(picture)
        pen.line([centre, tip], fill=90 + 80 * shade, width=1 + 2 * thick)
        pen.circle(centre, side / 10, fill=90 + 80 * shade)
        factors = {"x": x, "direction": direction, "thick": thick, "shade": shade}
        return Sample(i, np.asarray(picture)[:, :, None], shade if self.classes else None, factors)


@pytest.fixture(scope="session")
def make_arrows(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Dataset]:
    """Builds a data set of `samples` arrows in every split."""

    def make(side: int = 28, labels: bool = False, samples: int = 300) -> Dataset:
        path = tmp_path_factory.mktemp("data") / f"arrows{side}"
        build(Arrows(RenderedOptions(samples, side), labels), path, workers=1, progress=False)
        return open_dataset(path)

    return make


@pytest.fixture(scope="session")
def arrows(make_arrows: Callable[..., Dataset]) -> Dataset:
    """300 arrows of 28x28 in every split."""
    return make_arrows()


@pytest.fixture
def model_of() -> Callable[..., Model]:
    return tiny_model


@pytest.fixture(scope="session")
def digits_model(digits: Dataset) -> Model:
    return tiny_model(digits)


@pytest.fixture(scope="session")
def unlabelled_model(unlabelled: Dataset) -> Model:
    return tiny_model(unlabelled)


def tiny_model(dataset: Dataset, codes: dict[str, Code] | None = None, weights: int = 1, seed: int = 0) -> Model:
    """An untrained model that fits the data set, its weights drawn with the seeds `weights` and the next."""
    usual: dict[str, Code] = {"digit": CategoricalCode(10), "c1": ContinuousCode(), "c2": ContinuousCode(std="learned")}
    network = TinyNetwork(side=dataset.manifest.image.height)
    chosen = usual if codes is None else codes
    config = RunConfig(codes=chosen, network=network, noise=Noise(size=6), batch=32, seed=seed)
    latent = config.latent_codes()
    generator, critic = config.network.generator(latent.input_width), config.network.critic(latent.q_width)
    config.network.initialise(generator, torch.Generator().manual_seed(weights))
    config.network.initialise(critic, torch.Generator().manual_seed(weights + 1))
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
