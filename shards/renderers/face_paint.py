"""Where skin, brows, lips, hair and eyes are on the head model: fractions per vertex of the neutral head.

ICT-FaceKit's light model has a shape and no colours. Its neutral head is fixed and symmetric, so a region is a
curve in its coordinates (centimetres; x is taken as |x|): brows and lips follow the model's own 68 landmarks, the
hairline and the beard were laid out on the neutral head by eye.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.renderers.mesh import Floats

_BROW_X, _BROW_Y = (1.1, 2.4, 3.8, 4.9, 5.9), (5.75, 6.1, 6.15, 5.85, 5.1)
_BROW_HALF = (0.42, 0.45, 0.4, 0.33, 0.15)  # half its height
_LIP_X = (0.0, 0.73, 1.7, 2.35, 2.6)
_LIP_TOP, _LIP_BOTTOM = (-2.5, -2.42, -2.8, -3.3, -3.55), (-4.4, -4.3, -4.05, -3.7, -3.55)
_PUPIL_X, _PUPIL_Y, _IRIS, _PUPIL = 2.97, 3.6, 0.6, 0.27
# Height of the hairline over the depth z: nape, behind the ear, above it, sideburn, temple, forehead.
_HAIR_Z = (-9.0, -3.2, -2.4, -1.4, 1.8, 2.4, 3.6, 4.2, 6.0, 8.0, 10.0)
_HAIR_Y = (-5.5, -4.0, -2.0, 4.4, 4.6, 1.5, 1.2, 6.0, 8.8, 10.3, 10.8)
_BEARD_Z, _BEARD_Y = (2.0, 3.5, 5.0, 7.0, 9.0, 10.5, 11.5), (2.0, 1.2, -1.2, -3.2, -3.9, -4.4, -4.8)
_EAR_X = 7.9  # below 4.6 high, what is further out than this is ear


@dataclass(frozen=True)
class Regions:
    """Fractions in [0, 1] per vertex, [V] float32; lips and beard exclude each other by position."""

    brows: Floats
    lips: Floats
    hair: Floats
    beard: Floats


def regions(neutral: Floats, lower: float = 0.0) -> Regions:
    """The regions of a neutral head [V, 3], with its hairline brought down by `lower`."""
    x, y, z = np.abs(neutral[:, 0]), neutral[:, 1], neutral[:, 2]
    front = _rise(z, 4.5, 6.5)
    brow = _rise(np.interp(x, _BROW_X, _BROW_HALF) - np.abs(y - np.interp(x, _BROW_X, _BROW_Y)), -0.12, 0.18)
    brow *= _rise(x, 0.8, 1.3) * _rise(-x, -6.3, -5.6) * front
    within = np.minimum(np.interp(x, _LIP_X, _LIP_TOP) - y, y - np.interp(x, _LIP_X, _LIP_BOTTOM))
    lips = _rise(within, -0.1, 0.1) * _rise(-x, -2.65, -2.4) * _rise(z, 8.5, 9.5)
    ear = (x > _EAR_X) & (y < 4.6) & (z > -2.6)
    hair = np.where(ear, 0.0, _rise(y + lower - np.interp(z, _HAIR_Z, _HAIR_Y), -0.3, 0.3))
    jaw = _rise(np.interp(z, _BEARD_Z, _BEARD_Y) - y, -0.5, 0.9) * _rise(y - 0.35 * z, -12.0, -10.4)
    moustache = _rise(-y, 1.5, 2.0) * _rise(-x, -3.7, -2.9) * _rise(z, 8.0, 9.0)
    beard = np.where(ear, 0.0, np.maximum(jaw * _rise(z, 1.2, 2.6), moustache) * _rise(y, -9.0, -7.5) * (1.0 - lips))
    return Regions(*(np.asarray(region, np.float32) for region in (brow, lips, hair, beard)))


def eye_parts(neutral: Floats) -> tuple[Floats, Floats]:
    """Iris (with the pupil) and pupil, fractions [N] float32 at points [N, 3] of the neutral eyeballs."""
    radius = np.hypot(np.abs(neutral[:, 0]) - _PUPIL_X, neutral[:, 1] - _PUPIL_Y)
    iris, pupil = _rise(-radius, -_IRIS - 0.04, -_IRIS + 0.04), _rise(-radius, -_PUPIL - 0.03, -_PUPIL + 0.03)
    return np.asarray(iris, np.float32), np.asarray(pupil, np.float32)


def _rise(x: NDArray[np.floating], low: float, high: float) -> NDArray[np.float64]:
    """0 up to `low`, 1 from `high`, a smooth step between."""
    t = np.clip((np.asarray(x, np.float64) - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
