"""What encoders read in the same real images, for measures that hold codes against known factors.

Four encoders. `trained`: Q of the run, its mean for a continuous code and its likeliest category for a categorical
one. `untrained`: Q at weights freshly drawn with the run's seed, so what it finds is what the architecture finds by
itself. `pca`: principal components of the pixels. `kmeans`: clusters of the pixels, in the space of their first 50
principal components, as many as a categorical code has ways. The last three are what a trained code has to beat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor

from infogan.batchnorm import estimate_statistics
from infogan.codes import CategoricalPosterior
from infogan.evaluation.progress import progress
from infogan.evaluation.samples import CHUNK, some
from infogan.model import Model, statistics_images
from infogan.randomness import generator
from shards import Reader
from shards.errors import UserError

if TYPE_CHECKING:
    from infogan.evaluation.context import Context

MOST_READ = 10_000  # held-out images, and those that PCA and k-means are fitted on
MOST_PIXELS = 2**27  # that PCA is fitted on, 512 MiB in float32: of large images it takes fewer
FEWEST_COMPONENTS = 5
# Of k-means: a tenth of the time that it takes on the pixels, or less, for clusters that know as much. Their AMI with
# the label, here and on the pixels with two seeds: digits 0.754, 0.755 and 0.753; MNIST 0.466, 0.483 and 0.467.
CLUSTERED_COMPONENTS = 50
RESTARTS = 10  # of k-means

Columns = dict[str, npt.NDArray[Any]]  # by code: float64 [n] where it is continuous, int64 [n] where categorical
Encoder = Callable[[Tensor], Columns]  # of uint8 [n, C, H, W] on the CPU


@dataclass(frozen=True)
class Representation:
    """What one encoder reads in n images, and how it came by it."""

    encoder: str
    columns: Columns
    protocol: dict[str, Any]

    @property
    def continuous(self) -> dict[str, npt.NDArray[np.float64]]:
        """The continuous codes alone, float64 [n] each."""
        return {name: column for name, column in self.columns.items() if column.dtype.kind == "f"}


@dataclass(frozen=True)
class HeldOut:
    """Images of the evaluated split: what each encoder reads in them, and their factors, float64 [n, F].

    Sorted by these values, so that nothing computed from them depends on the order of the data.
    """

    representations: list[Representation]
    factors: npt.NDArray[np.float64]


def read_held_out(context: Context) -> HeldOut:
    """Read at most 10,000 images of the evaluated split with every encoder."""
    split, seed = context.options.split, context.options.seed
    reader = context.reader(split)
    encoders = _encoders(context)
    indices = some(reader.samples, MOST_READ, seed, "evaluation/held-out")
    parts: dict[str, list[Columns]] = {name: [] for name in encoders}
    factors = []
    for start in progress(range(0, len(indices), CHUNK), f"reading {split} images"):
        batch = reader.gather(indices[start : start + CHUNK])
        assert batch.factors is not None
        factors.append(batch.factors.double().cpu().numpy())
        for name, (encode, _) in encoders.items():
            parts[name].append(encode(batch.images.cpu()))
    values = np.concatenate(factors)
    columns = {name: {code: np.concatenate([part[code] for part in read]) for code in read[0]}
               for name, read in parts.items()}  # fmt: skip
    _refuse_non_finite(context.model, columns["trained"])
    order = np.lexsort([*columns["trained"].values(), *values.T])
    found = [
        Representation(name, {code: column[order] for code, column in columns[name].items()}, protocol)
        for name, (_, protocol) in encoders.items()
    ]
    return HeldOut(found, values[order])


def _encoders(context: Context) -> dict[str, tuple[Encoder, dict[str, Any]]]:
    """Every encoder that has a say about this model's codes, with the protocol of its numbers."""
    model, train = context.model, context.reader("train")
    codes, seed = model.codes, context.options.seed
    q = {
        "reads": "Q's mean of a continuous code, its likeliest category of a categorical one",
        "batchnorm": "evaluation mode; the critic's statistics estimated afresh on training images",
        "precision": "float32",
    }
    found: dict[str, tuple[Encoder, dict[str, Any]]] = {
        "trained": (partial(read_codes, model), q | {"critic": "weights of the checkpoint"}),
        "untrained": (
            partial(read_codes, untrained(model, train)),
            q | {"critic": f"weights freshly drawn with the run's seed, {model.config.seed}"},
        ),
    }
    most = max(2, min(MOST_READ, MOST_PIXELS // int(np.prod(model.image_shape))))
    images = train.gather(some(train.samples, most, seed, "evaluation/pca")).images.cpu()
    fitted = {"fitted_on": f"{len(images):,} train images"}
    if codes.continuous:
        components = Components(images, max(FEWEST_COMPONENTS, len(codes.continuous)), seed)
        about = {"components": components.number, "reads": "principal components of the pixels"}
        found["pca"] = components, fitted | about
    if codes.categorical:
        ways = sorted({codes.codes[name].input_width for name in codes.categorical})
        components = Components(images, CLUSTERED_COMPONENTS, seed)
        about = {"components": components.number, "reads": "k-means clusters of the components", "restarts": RESTARTS}
        found["kmeans"] = Clusters(components, images, ways, seed), fitted | about
    return found


def read_codes(model: Model, images: Tensor) -> Columns:
    """Q's mean of every continuous code, its likeliest category of every categorical one."""
    return {
        name: p.mode.numpy() if isinstance(p, CategoricalPosterior) else p.mean.double().numpy()
        for name, p in model.encode(images).items()
    }


def untrained(model: Model, train: Reader) -> Model:
    """The model with a critic freshly drawn with its run's seed, BatchNorm statistics estimated like the trained one's.

    The run began with that critic too, unless it began with another run's weights (`--from`).
    """
    config = model.config
    critic = config.network.critic(model.codes.q_width)
    config.network.initialise(critic, generator(config.seed, "init/critic"))
    critic = critic.to(model.device, torch.float32).eval().requires_grad_(False)
    estimate_statistics(critic, statistics_images(config, train, model.device), lambda images: critic(None, images))
    return replace(model, critic=critic)


class Components:
    """Principal components of the pixels, fitted on `images`, uint8 [n, C, H, W]: codes `pca1`, `pca2`, ...

    As many as asked for, or as the images allow. Values are in units of the pixels, 0 to 1.
    """

    def __init__(self, images: Tensor, number: int, seed: int) -> None:
        pixels = _pixels(images)
        self.number = min(number, *pixels.shape)
        solver = "arpack" if self.number < min(pixels.shape) else "full"  # exact; the default is not, on flat spectra
        self._pca = PCA(self.number, svd_solver=solver, random_state=seed % 2**32, copy=False).fit(pixels)

    def __call__(self, images: Tensor) -> Columns:
        return {f"pca{place}": column for place, column in enumerate(self.project(images).T, start=1)}

    def project(self, images: Tensor) -> npt.NDArray[np.float64]:
        """float64 [n, number]."""
        projected: npt.NDArray[np.float64] = self._pca.transform(_pixels(images)).astype(np.float64)
        return projected


class Clusters:
    """k-means on principal components, once for each number of ways: codes `kmeans10`, ..."""

    def __init__(self, components: Components, images: Tensor, ways: list[int], seed: int) -> None:
        self._components = components
        points = np.concatenate([components.project(part) for part in images.split(CHUNK)])
        points = points[np.lexsort(points.T)]  # the first centres are drawn by position: not by the data's order
        self._found = {
            k: KMeans(k, n_init=RESTARTS, random_state=seed % 2**32).fit(points) for k in ways if k <= len(points)
        }

    def __call__(self, images: Tensor) -> Columns:
        points = self._components.project(images)
        return {f"kmeans{k}": found.predict(points).astype(np.int64) for k, found in self._found.items()}


def _pixels(images: Tensor) -> npt.NDArray[np.float32]:
    """uint8 [n, C, H, W] => float32 [n, C * H * W] in [0, 1]."""
    pixels: npt.NDArray[np.float32] = images.flatten(1).float().div_(255).numpy()
    return pixels


def _refuse_non_finite(model: Model, columns: Columns) -> None:
    for name, column in columns.items():
        if not np.isfinite(column).all():
            raise UserError(
                f"factors: Q of {model.origin.run} at {model.origin.kimg:g} kimg reads code {name} as a number that is"
                " not finite; its weights are broken: evaluate another checkpoint with --which"
            )
