"""Triangle meshes to pixels: rays cast by Intel's Embree, then shading with NumPy.

Right-handed axes, y up. From azimuth 0 and elevation 0 the camera looks along -z: x goes right, y up, and z towards
it. A triangle's front is the side from which its corners run anticlockwise; triangles seen from behind are not drawn.

    camera = Camera(azimuth=30.0, elevation=10.0, distance=40.0, extent=4.0)
    hits = cast(vertices, triangles, camera, size=64)
    normals = unit(hits.interpolate(vertex_normals(vertices, triangles)))
    image = hits.picture(lambert(normals, camera.towards(45.0, 20.0), ambient=0.2), background=0.0)

Every pixel is the mean of `samples` x `samples` rays, so edges are smooth and a covered area is right to within a ray.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.errors import UserError

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Camera:
    """A perspective camera that circles a point.

    Attributes:
        azimuth: degrees; at 90 it stands on the +x axis.
        elevation: degrees above the horizon, between -90 and 90.
        distance: from the target, in the mesh's units.
        extent: side of the square that fills the image, at the target's distance.
        target: what the middle of the image shows.
    """

    azimuth: float
    elevation: float
    distance: float
    extent: float
    target: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def axes(self) -> Floats:
        """[3, 3]: unit vectors to the image's right, to its top, and from the target to the camera, in rows."""
        azimuth, elevation = np.radians(self.azimuth), np.radians(self.elevation)
        sin_a, cos_a, sin_e, cos_e = np.sin(azimuth), np.cos(azimuth), np.sin(elevation), np.cos(elevation)
        right = (cos_a, 0.0, -sin_a)
        top = (-sin_a * sin_e, cos_e, -cos_a * sin_e)
        return np.array([right, top, (sin_a * cos_e, sin_e, cos_a * cos_e)], np.float32)

    @property
    def position(self) -> Floats:
        """[3]: where the camera is."""
        return np.asarray(self.target, np.float32) + np.float32(self.distance) * self.axes[2]

    def towards(self, azimuth: float, elevation: float) -> Floats:
        """[3]: the unit vector at these angles as the camera sees them: (0, 0) to the camera, (90, 0) to its right."""
        return np.asarray(Camera(azimuth, elevation, 1.0, 1.0).axes[2] @ self.axes, np.float32)


@dataclass(frozen=True)
class Hits:
    """What each ray of an image meets first.

    Attributes:
        size: side of the image in pixels.
        samples: rays per pixel along each axis.
        rays: [N] intp, which rays met something: flat positions in [size * samples, size * samples], row by row.
        corners: [N, 3] int32, the vertices of the triangle that each of these met.
        weights: [N, 3] float32, barycentric weights of the corners; they sum to 1.
        triangles: [N] int32, index of the triangle.
    """

    size: int
    samples: int
    rays: NDArray[np.intp]
    corners: NDArray[np.int32]
    weights: Floats
    triangles: NDArray[np.int32]

    def interpolate(self, values: Floats) -> Floats:
        """Values of the vertices, [V, C] or [V], at every hit: [N, C] or [N]."""
        corners = values[self.corners]  # [N, 3] or [N, 3, C]
        return np.asarray(np.einsum("nk...,nk->n...", corners, self.weights), np.float32)

    def picture(self, values: Floats, background: float | Floats = 0.0) -> Floats:
        """Averages rays over pixels.

        Args:
            values: [N] or [N, C], one for every hit.
            background: what the other rays see: a number, [C], or anything that broadcasts to
                [size * samples, size * samples, C].

        Returns:
            [size, size, C] float32; C is 1 for values of shape [N].
        """
        channels = values.shape[1] if values.ndim == 2 else 1
        side = self.size * self.samples
        canvas = np.empty((side, side, channels), np.float32)
        canvas[...] = background
        canvas.reshape(-1, channels)[self.rays] = values.reshape(-1, channels)
        blocks = canvas.reshape(self.size, self.samples, self.size, self.samples, channels)
        return np.asarray(blocks.mean(axis=(1, 3)), np.float32)


def cast(vertices: Floats, triangles: NDArray[np.int32], camera: Camera, size: int, samples: int = 3) -> Hits:
    """Finds what is seen through each of `samples` x `samples` rays of each of `size` x `size` pixels.

    The same arguments give the same hits, in any process and for any number of processes.

    Args:
        vertices: [V, 3] float32.
        triangles: [T, 3] int32, anticlockwise from outside.
    """
    scene_type, mesh_type = _embree()
    kept = _in_view(vertices, triangles, camera)
    used = np.zeros(len(vertices), bool)
    used[triangles[kept]] = True
    place = np.cumsum(used, dtype=np.int32) - np.int32(1)
    scene = scene_type()
    mesh = mesh_type(scene, vertices[used], place[triangles[kept]]) if len(kept) else None
    found = scene.run(*_rays(camera, size * samples), output=True)
    del mesh  # it had to outlive the run
    rays = np.flatnonzero(found["primID"] >= 0)
    chosen = kept[found["primID"][rays]]
    u, v = found["u"][rays], found["v"][rays]
    return Hits(
        size=size,
        samples=samples,
        rays=rays,
        corners=triangles[chosen],
        weights=np.stack([1.0 - u - v, u, v], axis=1).astype(np.float32),
        triangles=chosen.astype(np.int32),
    )


def unit(vectors: Floats) -> Floats:
    """Vectors [..., 3] at length 1; zeros stay zeros."""
    length = np.sqrt(np.einsum("...c,...c->...", vectors, vectors))[..., None]
    return vectors / np.maximum(length, np.float32(1e-12))


def face_normals(vertices: Floats, triangles: NDArray[np.int32]) -> Floats:
    """[T, 3] float32: normals of the triangles' fronts, twice the triangle's area long."""
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    return _cross(b - a, c - a)


def vertex_normals(vertices: Floats, triangles: NDArray[np.int32]) -> Floats:
    """[V, 3] float32: mean of the normals of the triangles around each vertex, weighted by area; not of unit length."""
    faces = face_normals(vertices, triangles)
    corners = triangles.ravel()
    sums = [np.bincount(corners, np.repeat(faces[:, axis], 3), len(vertices)) for axis in range(3)]
    return np.stack(sums, axis=1).astype(np.float32)


def lambert(normals: Floats, light: Floats, ambient: float = 0.0) -> Floats:
    """Brightness of a matt surface, [N] float32 in [0, 1]: `ambient` in the shadow, 1 where it faces the light.

    Args:
        normals: [N, 3], of unit length.
        light: [3], unit vector towards the light.
    """
    return np.float32(ambient) + np.float32(1.0 - ambient) * np.maximum(normals @ light, np.float32(0.0))


def gloss(normals: Floats, light: Floats, eye: Floats, exponent: float) -> Floats:
    """Blinn and Phong's highlight, [N] float32 in [0, 1]: (normal . half)^exponent, half-way between light and eye."""
    half = unit(light + eye)
    return np.maximum(normals @ half, np.float32(0.0)) ** np.float32(exponent)


def _cross(a: Floats, b: Floats) -> Floats:
    """Cross products of [N, 3] arrays; several times as fast as np.cross for these shapes."""
    x = a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1]
    y = a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2]
    z = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return np.stack([x, y, z], axis=1)


def _in_view(vertices: Floats, triangles: NDArray[np.int32], camera: Camera) -> NDArray[np.intp]:
    """Indices of the triangles that show their front and reach into the image: Embree's work grows with their number.

    Mostly a scene's cost is building it, so this halves it or better.
    """
    seen = np.asarray((vertices - camera.position) @ camera.axes.T, np.float32)  # [V, 3]: right, top, back
    x, y, ahead = seen[:, 0], seen[:, 1], -seen[:, 2]
    reach = np.float32(0.5 * camera.extent / camera.distance) * ahead  # half the image's side, at that distance
    sides = (x < -reach, x > reach, y < -reach, y > reach, ahead <= 0.0)
    # One bit per side that a vertex is beyond (Cohen and Sutherland): a triangle whose corners share a bit is not seen.
    beyond = np.packbits(np.stack(sides), axis=0)[0]
    a, b, c = beyond[triangles.T]
    kept = np.flatnonzero((a & b & c) == 0)
    corners = triangles[kept]
    facing = np.einsum("tc,tc->t", face_normals(seen, corners), seen[corners[:, 0]]) < 0.0
    return kept[facing]


def _rays(camera: Camera, side: int) -> tuple[Floats, Floats]:
    """Origins and unit directions [side * side, 3] of the rays through the middles of a grid's cells, row by row."""
    steps = ((np.arange(side, dtype=np.float32) + 0.5) / side - 0.5) * np.float32(camera.extent)
    right, top, back = camera.axes
    rays = steps[None, :, None] * right - steps[:, None, None] * top - np.float32(camera.distance) * back
    directions = np.ascontiguousarray(unit(rays.reshape(-1, 3)), np.float32)
    return np.tile(camera.position, (side * side, 1)), directions


@functools.cache
def _embree() -> tuple[type, type]:
    """Embree's scene and mesh, limited to one thread per process.

    Its thread pool (TBB) takes the number of threads from the CPUs that the process may use at the first scene. One
    thread is what we want: samples are drawn by many processes, and a pool does not survive a fork.
    """
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError:
        raise UserError(
            "rendering needs the package embreex, which has no build for Linux on ARM; where it has one, "
            "pip install embreex, else build the data set on another machine and copy it"
        ) from None
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    try:
        if allowed:
            os.sched_setaffinity(0, {min(allowed)})
        scene = EmbreeScene()
        mesh = TriangleMesh(scene, np.zeros((1, 3, 3), np.float32))
        scene.run(np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32))
        del mesh
    finally:
        if allowed:
            os.sched_setaffinity(0, allowed)
    return EmbreeScene, TriangleMesh
