"""Closed solids swept from one outline to the next: bars, tubes, boxes and cushions are all lofts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Point = Sequence[float] | Array


@dataclass(frozen=True)
class Solid:
    """A closed surface of one grey level.

    Attributes:
        vertices: [V, 3] float64. Smooth surfaces share their vertices; along a sharp edge each side has its own, so
            that normals averaged over a vertex' triangles are right for both.
        triangles: [T, 3] int64, anticlockwise seen from outside.
        tone: the grey level in 0..1.
    """

    vertices: Array
    triangles: NDArray[np.int64]
    tone: float


def loft(rings: Array, tone: float, sharp: bool = False) -> Solid:
    """The solid through a stack of outlines.

    Args:
        rings: [M, K, 3], M >= 2 convex outlines of K >= 3 points each, flat at both ends: they are capped.
        sharp: an edge runs along each of the K points, as on a bar of square section; else the surface is smooth.
    """
    stack, corners, _ = rings.shape
    if sharp:  # each of the K sides has points of its own
        sides = np.stack([rings, np.roll(rings, -1, axis=1)], axis=2)  # [M, K, 2, 3]
        index = np.arange(stack * corners * 2).reshape(stack, corners, 2)
        left, right = index[..., 0], index[..., 1]
    else:
        sides = rings
        left = np.arange(stack * corners).reshape(stack, corners)
        right = np.roll(left, -1, axis=1)
    quads = [a.ravel() for a in (left[:-1], right[:-1], right[1:], left[1:])]
    walls = np.concatenate([np.stack(quads[:3], 1), np.stack([quads[0], *quads[2:]], 1)])
    fan = np.stack([np.zeros(corners - 2, int), np.arange(1, corners - 1), np.arange(2, corners)], 1)
    start = sides.size // 3
    triangles = np.concatenate([walls, fan[:, ::-1] + start, fan + start + corners])
    vertices = np.concatenate([sides.reshape(-1, 3), rings[0], rings[-1]])
    if _volume(vertices, triangles) < 0.0:  # the outlines ran the other way round
        triangles = triangles[:, ::-1]
    return Solid(vertices, triangles, tone)


def _volume(vertices: Array, triangles: NDArray[np.int64]) -> float:
    """Six times the signed volume of a closed surface."""
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)))


def mirrored(solid: Solid) -> Solid:
    """The same solid on the other side of x = 0."""
    return Solid(solid.vertices * (-1.0, 1.0, 1.0), solid.triangles[:, ::-1], solid.tone)


def both_sides(solid: Solid) -> list[Solid]:
    """A solid and its mirror image."""
    return [solid, mirrored(solid)]


def circle(sides: int) -> Array:
    """A regular polygon of radius 1, one side level; [sides, 2]."""
    angle = (np.arange(sides) + 0.5) * (2.0 * np.pi / sides)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def superellipse(half_width: float, half_depth: float, power: float, sides: int = 24) -> Array:
    """|x / half_width|^power + |z / half_depth|^power = 1 as a polygon: 2 is an ellipse, 6 nearly a box; [sides, 2]."""
    unit = circle(sides)
    return np.sign(unit) * np.abs(unit) ** (2.0 / power) * (half_width, half_depth)


def bar(
    start: Point, end: Point, thick: float, thick_end: float | None = None, round_: bool = False, *, tone: float
) -> Solid:
    """A straight bar, tapering from `thick` to `thick_end`, of square or round section."""
    widths = np.array([thick, thick if thick_end is None else thick_end])
    return sweep(np.array([start, end], dtype=float), widths, round_, tone=tone)


def sweep(path: Array, thick: float | Array, round_: bool = True, *, tone: float) -> Solid:
    """A bar of square or round section along a path.

    Args:
        path: [M, 3]; its bends lie, but for little, in a plane x = const.
        thick: width of the section, one for all or one for each point.
    """
    steps = np.diff(path, axis=0)
    steps = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    tangent = _unit(np.concatenate([steps[:1], steps[:-1] + steps[1:], steps[-1:]]))
    across = np.array([0.0, 1.0, 0.0]) if np.abs(tangent[:, 0]).max() > 0.9 else np.array([1.0, 0.0, 0.0])
    first = _unit(across - (tangent @ across)[:, None] * tangent)
    second = np.cross(tangent, first)
    section = circle(8) * 0.5 if round_ else circle(4) * np.sqrt(0.5)
    widths = np.broadcast_to(thick, len(path))[:, None, None]
    offsets = first[:, None] * section[:, :1] + second[:, None] * section[:, 1:]
    return loft(path[:, None] + widths * offsets, tone, sharp=not round_)


def _unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def box(low: Point, high: Point, *, tone: float) -> Solid:
    """An upright box between two corners."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    outline = np.array([(x0, z0), (x1, z0), (x1, z1), (x0, z1)])
    return slab(outline, y0, y1, 0.0, tone=tone, sharp=True)


def slab(outline: Array, bottom: float, top: float, rounding: float, *, tone: float, sharp: bool = False) -> Solid:
    """A level slab.

    Args:
        outline: [K, 2], x and z, convex.
        rounding: radius of its upper and lower edge; below half its thickness and half its width.
    """
    if rounding:
        bend = np.linspace(0.0, np.pi / 2.0, 4)
        inset = rounding * (1.0 - np.sin(bend))
        rise = rounding * (1.0 - np.cos(bend))
        insets = np.concatenate([inset, inset[::-1]])
        heights = np.concatenate([bottom + rise, top - rise[::-1]])
    else:
        insets, heights = np.zeros(2), np.array([bottom, top])
    middle = (outline.max(0) + outline.min(0)) / 2.0
    half = (outline.max(0) - outline.min(0)) / 2.0
    flat = middle + (outline - middle) * (1.0 - insets[:, None, None] / half)  # [M, K, 2]
    rings = np.stack(np.broadcast_arrays(flat[..., 0], heights[:, None], flat[..., 1]), axis=-1)
    return loft(rings, tone, sharp)


def bent(corners: Sequence[Point], radius: float, steps: int = 4) -> Array:
    """A path through corners, each rounded off from `radius` before it to `radius` after it; [M, 3]."""
    points = np.array(corners, dtype=float)
    path = [points[:1]]
    t = np.linspace(0.0, 1.0, steps + 1)[:, None]
    for before, corner, after in zip(points[:-2], points[1:-1], points[2:], strict=True):
        start = corner + _unit(before - corner) * radius
        end = corner + _unit(after - corner) * radius
        path.append((1 - t) ** 2 * start + 2 * t * (1 - t) * corner + t**2 * end)
    return np.concatenate([*path, points[-1:]])
