"""`portraits`: heads of a morphable model in colour, with attributes known. Stands in for CelebA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.renderers import hair
from shards.renderers.face_model import FaceModel
from shards.renderers.face_paint import eye_parts, regions
from shards.renderers.heads import Heads, cell_of, continuous, identity_weights
from shards.renderers.mesh import Camera, Floats, Hits, cast, gloss, unit, vertex_normals
from shards.renderers.rendered import to_uint8
from shards.sources import register
from shards.sources.base import Sample

CONTINUOUS = {
    "azimuth": (-40.0, 40.0),
    "elevation": (-12.0, 12.0),
    "light": (-70.0, 70.0),
    "warmth": (0.0, 1.0),
    "skin": (0.0, 1.0),
    "background": (0.0, 1.0),
}
CATEGORICAL = {"smiling": 2, "mouth_open": 2, "brows_raised": 2, "beard": 2, "hair": 3, "hair_colour": 4}
CROPPED, FULL, LONG = range(3)
_HAIRLINE = {CROPPED: 0.0, FULL: 1.0, LONG: 0.5}  # how far it comes down, in centimetres
_THICKNESS = {CROPPED: 0.25, FULL: 1.5, LONG: 0.9}  # of the hair on the scalp, in centimetres, times 0.7 to 1.3
_DISTANCE, _EXTENT, _TARGET = 70.0, 25.0, (0.0, 2.2, 2.0)
_LIGHT_ELEVATION = 25.0
# Colours as on a screen (sRGB), from 0 to 1.
_SKINS = ((0.98, 0.84, 0.76), (0.91, 0.72, 0.60), (0.76, 0.55, 0.42), (0.55, 0.37, 0.27), (0.33, 0.21, 0.16))
_HAIRS = ((0.06, 0.05, 0.05), (0.27, 0.16, 0.09), (0.78, 0.63, 0.42), (0.62, 0.61, 0.60))  # black, brown, blond, grey
_IRISES = ((0.28, 0.17, 0.09), (0.35, 0.50, 0.65), (0.35, 0.42, 0.28), (0.45, 0.35, 0.20))
_COOL, _WARM = (0.84, 0.94, 1.12), (1.14, 0.98, 0.76)  # factors on light, not colours
_SCLERA, _TEETH, _GUMS, _LIPS = (0.88, 0.87, 0.86), (0.90, 0.88, 0.84), (0.22, 0.07, 0.07), (0.72, 0.33, 0.33)
_GAMMA = 2.2


@dataclass(frozen=True)
class Look:
    """What is random in a portrait but no factor."""

    weights: Floats  # [K]
    smile: float
    frown: float
    jaw: float
    brows: float
    thickness: float
    redness: float
    iris: int
    ground: Floats  # [2, 3], hue of the background at two ends, around 1
    slope: float  # radians, from which of these ends to which


@register("portraits")
class Portraits(Heads):
    """Colour portraits of random people with twelve attributes known; needs ICT-FaceKit (MIT).

    Factors, uniform and independent: pose `azimuth` and `elevation` and direction of `light` in degrees, as in
    `faces3d`; `warmth` of the light; `skin` from light to dark; `background` from dark to light; yes or no: `smiling`,
    `mouth_open`, `brows_raised`, `beard`; `hair` (cropped, full, long) and `hair_colour` (black, brown, blond, grey).
    """

    channels = 3
    version = 1

    def prepare(self, model: FaceModel) -> None:
        bare = model.coarsened(cell_of(self.options.size, _EXTENT), apart="jawOpen")
        self._model, self._curtain = hair.with_curtain(bare)
        self._regions = regions(self._model.neutral)
        self._caps = {style: hair.cap(self._model, lower) for style, lower in _HAIRLINE.items()}
        self._upper_lip = _upper_lip(self._model)
        self.factors = {
            **continuous(CONTINUOUS),
            **{name: {"kind": "categorical", "values": values} for name, values in CATEGORICAL.items()},
        }

    def draw(self, split: str, i: int, rng: np.random.Generator) -> Sample:
        factors: dict[str, Any] = {name: float(rng.uniform(*ends)) for name, ends in CONTINUOUS.items()}
        factors |= {name: int(rng.integers(values)) for name, values in CATEGORICAL.items()}
        look = Look(
            weights=identity_weights(rng, self._model),
            smile=float(rng.uniform(0.7, 1.1)),
            frown=float(rng.uniform(0.0, 0.3)),
            jaw=float(rng.uniform(0.25, 0.5)),
            brows=float(rng.uniform(1.1, 1.7)),
            thickness=float(rng.uniform(0.7, 1.3)),
            redness=float(rng.normal(0.0, 0.02)),
            iris=int(rng.integers(len(_IRISES))),
            ground=rng.uniform(0.7, 1.3, (2, 3)).astype(np.float32),
            slope=float(rng.uniform(0.0, 2.0 * np.pi)),
        )
        return Sample(i, to_uint8(self.picture(look, **factors)), None, factors)

    def picture(self, look: Look, **factors: Any) -> Floats:
        """[size, size, 3] float32 in [0, 1]: a portrait with these factors."""
        model, size = self._model, self.options.size
        vertices = model.head(look.weights, self._expression(look, factors))
        triangles = model.triangles
        _, outwards = self._caps[factors["hair"]]
        vertices += np.float32(look.thickness * _THICKNESS[factors["hair"]]) * outwards
        if factors["hair"] != LONG:
            triangles = triangles[~self._curtain]  # the curtain's triangles are the last: the others keep their index
        camera = Camera(factors["azimuth"], factors["elevation"], _DISTANCE, _EXTENT, _TARGET)
        hits = cast(vertices, triangles, camera, size, samples=3 if size <= 64 else 2)
        normals = unit(hits.interpolate(vertex_normals(vertices, triangles)))
        normals[model.mouth[hits.triangles]] = camera.axes[2]  # its back stands for teeth and gums: no shape of its own
        light = camera.towards(factors["light"], _LIGHT_ELEVATION)
        colours = self._colours(hits, look, factors) ** _GAMMA
        tint = _between((_COOL, _WARM), factors["warmth"])
        shown = (
            colours * _illumination(normals, light, tint) + self._shine(hits, normals, light, camera, factors) * tint
        )
        ground = _ground(look, factors["background"], hits.size * hits.samples)
        return np.asarray(hits.picture(np.minimum(shown, 1.0), ground) ** (1.0 / _GAMMA), np.float32)

    def _expression(self, look: Look, factors: dict[str, Any]) -> dict[str, float]:
        mouth = {"mouthSmile": look.smile} if factors["smiling"] else {"mouthFrown": look.frown}
        brows = {"browInnerUp": look.brows, "eyeWide": 1.0} if factors["brows_raised"] else {"browDown": 0.3}
        jaw = {"jawOpen": look.jaw} if factors["mouth_open"] else {}
        return {f"{name}_{side}": weight for name, weight in (mouth | brows).items() for side in "LR"} | jaw

    def _colours(self, hits: Hits, look: Look, factors: dict[str, Any]) -> Floats:
        """[N, 3] float32: the surface's own colour at every hit, as on a screen."""
        skin = np.clip(_between(_SKINS, factors["skin"]) + look.redness * np.array([1.0, -0.5, -0.5]), 0.0, 1.0)
        strands = np.array(_HAIRS[factors["hair_colour"]], np.float32)
        cover = self._caps[factors["hair"]][0]
        colours = np.tile(skin.astype(np.float32), (len(hits.rays), 1))
        for mask, colour in (
            (self._regions.lips * 0.8, 0.5 * skin + 0.5 * np.array(_LIPS)),
            (self._regions.beard * (0.75 * factors["beard"]), strands * 0.8),
            (self._regions.brows * 0.8, strands * 0.8),
            (cover, strands),
        ):
            _lay(colours, hits.interpolate(mask), colour)
        neutral = hits.interpolate(self._model.neutral)
        eyes, mouth = self._model.eyes[hits.triangles], self._model.mouth[hits.triangles]
        iris, pupil = eye_parts(neutral[eyes])
        ball = np.tile(np.array(_SCLERA, np.float32), (len(iris), 1))
        _lay(ball, iris, _IRISES[look.iris])
        _lay(ball, pupil, (0.03, 0.03, 0.03))
        colours[eyes] = ball
        inside = np.tile(np.array(_GUMS, np.float32), (int(mouth.sum()), 1))
        teeth = (hits.interpolate(self._upper_lip)[mouth] > 0.2) & (np.abs(neutral[mouth, 0]) < 1.6)
        inside[teeth] = _TEETH
        colours[mouth] = inside
        hairy = np.maximum(hits.interpolate(cover), self._curtain[hits.triangles])
        colours[self._curtain[hits.triangles]] = strands
        return colours * (1.0 + hairy * (hair.strands(neutral) - 1.0))[:, None]

    def _shine(self, hits: Hits, normals: Floats, light: Floats, camera: Camera, factors: dict[str, Any]) -> Floats:
        """[N, 1] float32: highlights, soft on skin and hair, sharp on the eyes, none in the mouth."""
        strength = np.full(len(normals), 0.05, np.float32)
        strength[self._model.mouth[hits.triangles]] = 0.0
        shine = strength * gloss(normals, light, camera.axes[2], 14.0)
        eyes = self._model.eyes[hits.triangles]
        shine[eyes] = 0.8 * gloss(normals[eyes], light, camera.axes[2], 150.0)
        return shine[:, None]


def _illumination(normals: Floats, light: Floats, tint: NDArray[np.float64]) -> Floats:
    """[N, 3] float32: light on a surface; red reaches a little around the edge of the shadow, as it does in skin."""
    wrap = np.array([0.30, 0.15, 0.10], np.float32)
    facing = (normals @ light)[:, None]
    key = np.maximum((facing + wrap) / (1.0 + wrap), 0.0) * tint
    sky = 0.75 + 0.25 * normals[:, 1:2]
    return np.asarray(0.85 * key + 0.22 * sky, np.float32)


def _ground(look: Look, level: float, side: int) -> Floats:
    """[side, side, 3] float32, linear: a background that runs from one hue to another."""
    steps = np.linspace(-1.0, 1.0, side, dtype=np.float32)
    along = 0.5 + 0.35 * (np.cos(look.slope) * steps[None, :] + np.sin(look.slope) * steps[:, None])
    hues = look.ground[0] + (look.ground[1] - look.ground[0]) * along[..., None]
    return np.asarray(np.clip((0.08 + 0.84 * level) * hues, 0.0, 1.0) ** _GAMMA, np.float32)


def _between(colours: tuple[tuple[float, ...], ...], at: float) -> NDArray[np.float64]:
    """The colour at a place between 0 (the first) and 1 (the last)."""
    places = np.linspace(0.0, 1.0, len(colours))
    return np.array([np.interp(at, places, channel) for channel in zip(*colours, strict=True)])


def _lay(colours: Floats, amount: Floats, colour: Any) -> None:
    """Paints `colour` [3] over `colours` [N, 3], in place, as thick as `amount` [N]."""
    colours += (np.asarray(colour, np.float32) - colours) * amount[:, None]


def _upper_lip(model: FaceModel) -> Floats:
    """[V] float32: 1 for the upper half of the mouth's rim, which the jaw leaves in place; teeth hang below it."""
    upper = np.zeros(len(model.neutral), np.float32)
    rim = np.unique(model.triangles[model.mouth])
    if len(rim):
        drop = -model.expressions["jawOpen"][rim, 1]
        upper[rim] = drop < 0.3 * drop.max()
    return upper
