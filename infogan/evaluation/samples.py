"""Images for measurements: generated ones, with the code values that they were made from, and which real ones."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from infogan.evaluation.progress import progress
from infogan.model import Model
from infogan.pictures import generate
from infogan.randomness import generator

CHUNK = 250  # images drawn from one random generator


@dataclass(frozen=True)
class Drawn:
    """images: uint8 [n, C, H, W]. values: per code, int64 [n] (categorical) or float32 [n] (continuous)."""

    images: Tensor
    values: dict[str, Tensor]


def draw(model: Model, n: int, seed: int, purpose: str) -> Drawn:
    """Generate n images from the prior. The first ones are the same for every n."""
    images, values = [], []
    for start in progress(range(0, n, CHUNK), "generating"):
        latents = model.codes.sample(CHUNK, generator(seed, f"latents/{purpose}", start))[: n - start]
        images.append(generate(model.generator, latents, model.image_range, chunk=CHUNK))
        values.append(latents.values)
    return Drawn(torch.cat(images), {name: torch.cat([part[name] for part in values]) for name in model.codes.codes})


def some(samples: int, most: int, seed: int, purpose: str) -> npt.NDArray[np.int64]:
    """A fixed choice of at most `most` of a split's images, in order: int64 [n]."""
    order = torch.randperm(samples, generator=generator(seed, purpose))
    chosen: npt.NDArray[np.int64] = order[:most].sort().values.numpy()
    return chosen
