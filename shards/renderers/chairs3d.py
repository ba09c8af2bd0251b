"""`chairs3d`: parametric chairs on white from 62 views, made for what is asked of the Chairs of Aubry et al. (2014).

As there: 1,393 training models, each seen from 31 azimuths at elevations of 20 and 30 degrees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from shards.errors import UserError
from shards.renderers.chair_model import ARMS, BACKS, LEGS, SEATS, WIDTHS, Chair, draw_chair
from shards.renderers.chair_parts import solids
from shards.renderers.mesh import Camera, cast, lambert, unit, vertex_normals
from shards.renderers.rendered import SPLITS, Rendered, RenderedOptions, to_uint8
from shards.sources import register
from shards.sources.base import Sample, option
from shards.sources.chairs import AZIMUTHS

Floats = NDArray[np.float32]

ELEVATIONS = (20.0, 30.0)
VIEWS = AZIMUTHS * len(ELEVATIONS)

_SLOPE = 0.21  # tangent of half the angle of view
_MARGIN = 0.96  # share of the image's side that a chair may fill
_KEY = (0.0, 0.77, 0.64)  # towards the main light, which stands with the chair: in front of it and above
_AMBIENT, _KEY_SHARE, _EYE_SHARE = 0.26, 0.46, 0.30


@dataclass(frozen=True)
class Chairs3dOptions(RenderedOptions):
    """How many chairs, and how many pictures of them."""

    samples: int = option(1393 * VIEWS, "training images; validation and test get a tenth as many each")
    models: int = option(
        1393, "training models, each with up to 62 views; validation and test get a tenth of their own"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.models <= 10_000_000:
            raise UserError(f"models is {self.models}: between 1 and 10,000,000 can be made")
        if self.samples > self.models * VIEWS:
            raise UserError(
                f"samples is {self.samples}, but {self.models} models have {self.models * VIEWS} views: "
                "raise models, or lower samples"
            )


@register("chairs3d")
class Chairs3d(Rendered):
    """Parametric chairs on white, grey, from 31 azimuths at 2 elevations.

    Sample `i` shows model `i` modulo the number of models, so every model is seen equally often; a model's views
    follow in an order of their own, none of them twice. The default, every model from each of its views, is the
    original's 86,366 images.
    """

    Options = Chairs3dOptions
    channels: ClassVar[int] = 1
    version: ClassVar[int] = 1

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        tenth = -(-options.models // 10)
        self.models = {"train": options.models, "validation": tenth, "test": tenth}
        self.factors = {
            "azimuth": {"kind": "continuous", "range": [0.0, 360.0], "periodic": True},
            "elevation": {"kind": "continuous", "range": list(ELEVATIONS), "periodic": False},
            "width": {"kind": "continuous", "range": list(WIDTHS), "periodic": False},
            "seat": {"kind": "categorical", "values": len(SEATS)},
            "legs": {"kind": "categorical", "values": len(LEGS)},
            "back": {"kind": "categorical", "values": len(BACKS)},
            "arms": {"kind": "categorical", "values": len(ARMS)},
        }

    def chair(self, split: str, model: int) -> Chair:
        """A split's model; those of two splits have random numbers of their own."""
        return draw_chair(np.random.default_rng((self.options.seed, SPLITS.index(split), 1, model)))

    def draw(self, split: str, i: int, rng: np.random.Generator) -> Sample:
        turn, model = divmod(i, self.models[split])
        order = np.random.default_rng((self.options.seed, SPLITS.index(split), 2, model)).permutation(VIEWS)
        level, step = divmod(int(order[turn]), AZIMUTHS)
        azimuth, elevation = step * 360.0 / AZIMUTHS, ELEVATIONS[level]
        chair = self.chair(split, model)
        factors = {
            "azimuth": azimuth,
            "elevation": elevation,
            "width": chair.width,
            "seat": SEATS.index(chair.seat),
            "legs": LEGS.index(chair.legs),
            "back": BACKS.index(chair.back),
            "arms": ARMS.index(chair.arms),
        }
        return Sample(i, to_uint8(render(chair, azimuth, elevation, self.options.size)), None, factors)


def render(chair: Chair, azimuth: float, elevation: float, size: int) -> Floats:
    """A chair on white.

    Args:
        azimuth: degrees; the chair faces us at 0, and from 90 we see the side at its own left hand.
        elevation: degrees above the horizon.

    Returns:
        [size, size, 1] float32 in [0, 1].
    """
    vertices, triangles, tones = _mesh(chair)
    camera = frame(vertices, azimuth, elevation)
    hits = cast(vertices, triangles, camera, size)
    normals = unit(hits.interpolate(vertex_normals(vertices, triangles)))
    light = np.float32(_AMBIENT) + np.float32(_KEY_SHARE) * lambert(normals, np.array(_KEY, np.float32))
    light += np.float32(_EYE_SHARE) * lambert(normals, camera.axes[2])
    return hits.picture(tones[hits.corners[:, 0]] * light, background=1.0)


def _mesh(chair: Chair) -> tuple[Floats, NDArray[np.int32], Floats]:
    """A chair's vertices [V, 3], triangles [T, 3] and the grey level of each vertex [V]."""
    parts = solids(chair)
    counts = [len(part.vertices) for part in parts]
    starts = np.cumsum([0, *counts[:-1]])
    return (
        np.concatenate([part.vertices for part in parts]).astype(np.float32),
        np.concatenate([part.triangles + start for part, start in zip(parts, starts, strict=True)]).astype(np.int32),
        np.repeat([part.tone for part in parts], counts).astype(np.float32),
    )


def frame(vertices: Floats, azimuth: float, elevation: float) -> Camera:
    """The camera that turns about a chair's middle, as close as all views of it allow.

    The distance is the same for every azimuth and both elevations: a turning chair keeps its size. It follows from
    the circle that each vertex runs through: a point `right` and `up` of the target and `near` it towards the camera
    is inside the image if max(|right|, |up|) <= slope * (distance - near).
    """
    low, high = vertices.min(0), vertices.max(0)
    target = (low + high) / 2.0  # [3]
    x, y, z = (vertices - target).astype(np.float64).T
    radius = np.hypot(x, z)
    slope = _SLOPE * _MARGIN
    distance = 0.0
    for level in np.radians(ELEVATIONS):
        sin, cos = np.sin(level), np.cos(level)
        beside = np.hypot(radius / slope, radius * cos) + y * sin
        upper = y * cos / slope + y * sin + radius * np.abs(cos - sin / slope)
        lower = -y * cos / slope + y * sin + radius * (cos + sin / slope)
        distance = max(distance, beside.max(), upper.max(), lower.max())
    return Camera(
        azimuth, elevation, distance, 2.0 * _SLOPE * distance, (float(target[0]), float(target[1]), float(target[2]))
    )
