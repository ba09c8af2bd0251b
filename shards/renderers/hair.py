"""Hair for the head model, which has none: a cap that follows the scalp, and a curtain around the neck."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from shards.renderers.face_model import FaceModel
from shards.renderers.face_paint import regions
from shards.renderers.mesh import Floats, unit, vertex_normals

# The curtain's cross-section over height: half its width, and where it ends at the back and in front.
_HEIGHT = (-12.0, -9.0, -5.0, 0.0, 3.0, 6.0, 9.0)
_HALF_WIDTH = (9.3, 9.3, 9.0, 9.2, 9.3, 8.6, 6.6)
_BACK = (-9.5, -10.0, -10.5, -10.8, -10.8, -10.4, -9.0)
_FRONT = (6.0, 5.4, 4.4, 4.0, 4.4, 5.2, 6.0)
_ROWS, _COLUMNS = 15, 36
_OPENING = 62.0  # degrees to either side of straight ahead that the curtain leaves to the face
_NEIGHBOURS, _REACH = 400, 2.5  # it moves with the mean of this many vertices of the head, the nearer the more


def with_curtain(model: FaceModel) -> tuple[FaceModel, NDArray[np.bool_]]:
    """The model with long hair as a two-sided surface, which follows the head as the skin nearest to it does.

    Returns:
        The model, and [T] bool: the curtain's triangles.
    """
    from scipy.spatial import cKDTree

    heights = np.linspace(_HEIGHT[0], _HEIGHT[-1], _ROWS)
    angles = np.radians(np.linspace(_OPENING, 360.0 - _OPENING, _COLUMNS))  # from straight ahead, around the back
    y, angle = (grid.ravel() for grid in np.meshgrid(heights, angles, indexing="ij"))
    width, back, front = (np.interp(y, _HEIGHT, curve) for curve in (_HALF_WIDTH, _BACK, _FRONT))
    middle = (front / np.cos(np.radians(_OPENING)) * 0.5 + back) / 1.5
    depth = np.where(np.cos(angle) < 0.0, middle - back, (front - middle) / np.cos(np.radians(_OPENING)))
    points = np.column_stack([width * np.sin(angle), y, middle + depth * np.cos(angle)]).astype(np.float32)
    first = (np.arange(_ROWS - 1)[:, None] * _COLUMNS + np.arange(_COLUMNS - 1)).ravel()
    a, b, c, d = first, first + 1, first + _COLUMNS + 1, first + _COLUMNS
    outside = np.concatenate([np.column_stack([a, b, c]), np.column_stack([a, c, d])])
    # Each side has vertices of its own: shared ones would have no normal.
    curtain = np.concatenate([outside, outside[:, ::-1] + len(points)]) + len(model.neutral)
    distance, near = cKDTree(model.neutral).query(points, k=min(_NEIGHBOURS, len(model.neutral)))
    share = np.exp(-(distance**2) / (2.0 * _REACH**2) + distance[:, :1] ** 2 / (2.0 * _REACH**2))
    share = (share / share.sum(axis=1, keepdims=True)).astype(np.float32)
    moved = np.stack([np.einsum("pn,pnc->pc", share, mode[near]) for mode in model.identity])
    added = np.zeros(len(curtain), bool)
    return dataclasses.replace(
        model,
        neutral=np.concatenate([model.neutral, points, points]),
        triangles=np.concatenate([model.triangles, curtain.astype(np.int32)]),
        identity=np.concatenate([model.identity, moved, moved], axis=1),
        expressions={name: np.pad(delta, ((0, 2 * len(points)), (0, 0))) for name, delta in model.expressions.items()},
        eyes=np.concatenate([model.eyes, added]),
        mouth=np.concatenate([model.mouth, added]),
    ), np.concatenate([np.zeros(len(model.triangles), bool), ~added])


def cap(model: FaceModel, lower: float) -> tuple[Floats, Floats]:
    """Where hair is on the head, [V], and the scalp's way outwards under it, [V, 3], for hair one centimetre thick.

    Args:
        lower: how far the hairline is brought down, in centimetres.
    """
    cover = regions(model.neutral, lower).hair
    outwards = unit(vertex_normals(model.neutral, model.triangles))
    return cover, cover[:, None] * outwards


def strands(points: Floats) -> Floats:
    """Brightness of strands at points [N, 3] of the neutral head, [N] float32 around 1: they hang from the crown."""
    x, y, z = points.T
    around = np.arctan2(x, z + 1.0)
    waves = np.sin(31.0 * around + 2.0 * np.sin(0.9 * y)) + np.sin(53.0 * around - 1.5 * np.sin(0.6 * y))
    return np.asarray(1.0 + 0.08 * waves, np.float32)
