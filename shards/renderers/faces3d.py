"""`faces3d`: grey heads from a morphable model, with pose, light and width known. Stands in for the paper's Faces.

The paper's Faces are renders of the Basel Face Model (Paysan et al., 2009), which may not be passed on; these are
renders of ICT-FaceKit, which may.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shards.renderers.face_model import FaceModel
from shards.renderers.face_paint import eye_parts, regions
from shards.renderers.heads import Heads, cell_of, continuous, identity_weights
from shards.renderers.mesh import Camera, Floats, cast, gloss, lambert, unit, vertex_normals
from shards.renderers.rendered import to_uint8
from shards.sources import register
from shards.sources.base import Sample

RANGES = {"azimuth": (-75.0, 75.0), "elevation": (-25.0, 25.0), "light": (-80.0, 80.0), "width": (0.8, 1.25)}
DISTANCE, EXTENT, TARGET = 90.0, 23.5, (0.0, 2.8, 2.0)  # centimetres: a telephoto lens, the head fills the image
_LIGHT_ELEVATION, _AMBIENT = 15.0, 0.2
_SKIN, _BROWS, _LIPS, _SCLERA, _IRIS, _MOUTH = 0.86, 0.45, 0.62, 0.95, 0.25, 0.1  # grey levels under full light
_SHINE, _SHINE_EXPONENT = 0.12, 12.0


@register("faces3d")
class Faces3d(Heads):
    """Grey heads of random people with azimuth, elevation, light and width known; needs ICT-FaceKit (MIT).

    Factors, each uniform: `azimuth` and `elevation` in degrees, where the camera stands (from a positive azimuth the
    face looks to the image's left, from a positive elevation down); `light` in degrees, where it comes from, from the
    image's left (-) to its right (+) whatever the pose; `width`, the head's breadth as a multiple of its own.
    """

    channels = 1
    version = 1

    def prepare(self, model: FaceModel) -> None:
        self._model = model.coarsened(cell_of(self.options.size, EXTENT))
        self._grey = _greys(self._model)
        self.factors = continuous(RANGES)

    def draw(self, split: str, i: int, rng: np.random.Generator) -> Sample:
        factors: dict[str, Any] = {name: float(rng.uniform(*ends)) for name, ends in RANGES.items()}
        weights = identity_weights(rng, self._model)
        return Sample(i, to_uint8(self.picture(weights, **factors)), None, factors)

    def picture(self, weights: Floats, azimuth: float, elevation: float, light: float, width: float) -> Floats:
        """[size, size, 1] float32 in [0, 1]: the head with these identity weights [K], on black."""
        model = self._model
        vertices = model.head(weights) * np.array([width, 1.0, 1.0], np.float32)
        camera = Camera(azimuth, elevation, DISTANCE, EXTENT, TARGET)
        hits = cast(vertices, model.triangles, camera, self.options.size)
        normals = unit(hits.interpolate(vertex_normals(vertices, model.triangles)))
        direction = camera.towards(light, _LIGHT_ELEVATION)
        grey = hits.interpolate(self._grey)
        eyes = model.eyes[hits.triangles]
        iris, _ = eye_parts(hits.interpolate(model.neutral)[eyes])
        grey[eyes] = _SCLERA + (_IRIS - _SCLERA) * iris
        grey[model.mouth[hits.triangles]] = _MOUTH
        shine = _SHINE * gloss(normals, direction, camera.axes[2], _SHINE_EXPONENT)
        return hits.picture(grey * lambert(normals, direction, _AMBIENT) + shine, background=0.0)


def _greys(model: FaceModel) -> Floats:
    """[V] float32: grey levels of skin, brows and lips."""
    painted = regions(model.neutral)
    grey = np.full(len(model.neutral), _SKIN, np.float32)
    for level, region in ((_LIPS, painted.lips), (_BROWS, painted.brows)):
        grey += (np.float32(level) - grey) * region
    return grey
