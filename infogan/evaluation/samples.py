"""Generated images for measurements, with the code values that they were made from."""

from dataclasses import dataclass

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
