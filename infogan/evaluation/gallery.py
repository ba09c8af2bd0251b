"""The report's pictures: samples, one traversal per code, and samples per class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from infogan.codes import CategoricalCode
from infogan.evaluation.clustering import Matching
from infogan.model import Model
from infogan.pictures import TRAVERSAL_RANGE, fixed_latents, generate, grid, png, traversal_latents
from infogan.randomness import generator

TRAVERSAL_ROWS = 6
PER_CLASS = 12
SAMPLES = 100
TILE = 56  # pixels that a tile has at least, so that a page need not blur it
FEW_CODES = 6  # with more, tiles keep their own size, or the page would grow beyond a few megabytes


@dataclass(frozen=True)
class Picture:
    """A PNG with what it shows; `columns` and `rows` are the captions of its columns and rows."""

    name: str
    caption: str
    png: bytes
    kind: str
    columns: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Where it lies, relative to the report."""
        return f"pictures/{self.name}.png"

    def as_json(self) -> dict[str, Any]:
        """The object that report.json holds."""
        return {"name": self.name, "caption": self.caption, "path": self.path}


def gallery(model: Model, classes: Sequence[str], matchings: Mapping[str, Matching]) -> list[Picture]:
    """Everything that the report shows, at the scale that a page shows it."""
    side = TILE if len(model.codes.codes) <= FEW_CODES else 0
    pictures = [_samples(model)]
    pictures += [_traversal(model, name, side) for name in model.codes.codes]
    for name in model.codes.categorical[:1]:
        if name in matchings:
            pictures.append(_per_class(model, name, classes, matchings[name]))
    return pictures


def _samples(model: Model) -> Picture:
    latents = fixed_latents(model.codes, SAMPLES, model.config.seed)
    images = generate(model.generator, latents, model.image_range)
    first = next(iter(model.codes.categorical), None)
    caption = (
        "Generated images." if first is None else f"Generated images; each column holds one category of “{first}”."
    )
    return Picture("samples", caption, png(grid(images, 10, least_side=TILE)), "samples")


def _traversal(model: Model, name: str, side: int) -> Picture:
    code = model.codes.codes[name]
    latents, captions = traversal_latents(model.codes, name, TRAVERSAL_ROWS, model.config.seed)
    images = generate(model.generator, latents, model.image_range)
    if isinstance(code, CategoricalCode):
        caption = f"Categorical code “{name}”: category 0 to {len(captions) - 1} from left to right."
    else:
        limit = f"{TRAVERSAL_RANGE:g}"
        caption = f"Continuous code “{name}”: −{limit} to +{limit} from left to right (trained on −1 to 1)."
    caption += " Within a row all other latents stay fixed."
    columns = tuple(text.replace("-", "−") for text in captions)
    return Picture(
        f"traversal-{name}", caption, png(grid(images, len(captions), least_side=side)), "traversal", columns
    )


def _per_class(model: Model, name: str, classes: Sequence[str], matching: Matching) -> Picture:
    """One row per class: images of the category that was matched to it."""
    by_class = {label: category for category, label in matching.items()}
    shown = [label for label in range(len(classes)) if label in by_class]
    base = model.codes.sample(len(shown) * PER_CLASS, generator(model.config.seed, "latents/per-class"))
    categories = torch.tensor([by_class[label] for label in shown]).repeat_interleave(PER_CLASS)
    noise = base.vector[:, : model.codes.noise.size]
    latents = model.codes.assemble(noise, base.values | {name: categories})
    images = generate(model.generator, latents, model.image_range)
    return Picture(
        "classes",
        f"Images of the category of “{name}” that was matched to each class.",
        png(grid(images, PER_CLASS, least_side=TILE)),
        "classes",
        rows=tuple(classes[label] for label in shown),
    )
