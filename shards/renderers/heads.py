"""What the renderers of heads share: the morphable model that they read, and who is drawn from it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from shards.renderers import face_files
from shards.renderers.face_model import FaceModel
from shards.renderers.mesh import Floats
from shards.renderers.rendered import Rendered, RenderedOptions
from shards.sources.base import option


@dataclass(frozen=True)
class HeadOptions(RenderedOptions):
    """How much to draw, from which model."""

    size: int = option(32, "side of the square images in pixels")
    path: str = option("", "ICT-FaceKit's folder, or its packed array file", identity=False)


class Heads(Rendered):
    """A renderer of heads; the model's digest is part of its fingerprint."""

    Options = HeadOptions

    def __init__(self, options: HeadOptions) -> None:
        model = face_files.read(options.path, self.kind)
        self._digest = model.digest
        super().__init__(options)
        self.prepare(model)

    @abstractmethod
    def prepare(self, model: FaceModel) -> None:
        """Keeps what is needed of the model, as read, for images of `options.size`."""

    def fingerprint_of(self, *parts: bytes) -> str:
        return super().fingerprint_of(self._digest, *parts)


def continuous(ranges: dict[str, tuple[float, float]]) -> dict[str, dict[str, Any]]:
    """Factors without a period as the manifest has them: name -> its two ends."""
    return {name: {"kind": "continuous", "range": list(ends), "periodic": False} for name, ends in ranges.items()}


def cell_of(size: int, extent: float) -> float:
    """How coarse a model may be for images of `size` pixels that are `extent` wide: 0.7 of a pixel."""
    return 0.7 * extent / size


def identity_weights(rng: np.random.Generator, model: FaceModel) -> Floats:
    """[K] float32 from N(0, 1), cut at 2.5: beyond it heads turn into caricatures and leave the frame."""
    return np.clip(rng.standard_normal(len(model.identity)), -2.5, 2.5).astype(np.float32)
