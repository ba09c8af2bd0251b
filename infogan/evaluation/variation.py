"""How much of the image does each code change? The spread of the pixels along its own traversal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from infogan.codes import CategoricalCode
from infogan.evaluation.metrics import Metric, Outcome, Uncertainty
from infogan.model import Model
from infogan.pictures import generate
from infogan.randomness import generator

if TYPE_CHECKING:
    from infogan.evaluation.context import Context

BASES = 100  # latents around which a code is moved
STEPS = 9


def measure(context: Context) -> Outcome:
    """`variation/<code>`: grey levels of 0..255, root mean square over pixels and latents."""
    outcome = Outcome()
    for name, code in context.model.codes.codes.items():
        each = variation(context.model, name, context.options.seed)
        along = "all its categories" if isinstance(code, CategoricalCode) else f"{STEPS} steps from -1 to 1"
        protocol = context.sampling_protocol(along=along, unit="grey levels of 0..255, RMS over pixels")
        protocol["generated_images"] = BASES * (code.ways if isinstance(code, CategoricalCode) else STEPS)
        for unused in ("split", "real_images"):
            del protocol[unused]
        value = float(each.square().mean().sqrt())
        error = float(each.square().std() / (2 * max(value, 1e-9) * BASES**0.5))  # of a root, to first order
        outcome.metrics.append(Metric(f"variation/{name}", value, Uncertainty("latent draws", error, BASES), protocol))
    return outcome


def variation(model: Model, name: str, seed: int) -> torch.Tensor:
    """RMS over pixels of their standard deviation along the code's traversal, per latent: float32 [bases]."""
    code = model.codes.codes[name]
    steps = torch.arange(code.ways) if isinstance(code, CategoricalCode) else torch.linspace(-1, 1, STEPS)
    base = model.codes.sample(BASES, generator(seed, "latents/variation"))
    noise = base.vector[:, : model.codes.noise.size].repeat_interleave(len(steps), dim=0)
    values = {key: value.repeat_interleave(len(steps)) for key, value in base.values.items()}
    values[name] = steps.repeat(BASES)
    images = generate(model.generator, model.codes.assemble(noise, values), model.image_range)
    along = images.float().unflatten(0, (BASES, len(steps)))  # [bases, steps, C, H, W]
    return along.var(dim=1, correction=0).mean(dim=(1, 2, 3)).sqrt()
