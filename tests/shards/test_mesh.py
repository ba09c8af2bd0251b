"""Rays meet what geometry says they meet, whatever is left out before they are cast."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shards.renderers.mesh import (
    Camera,
    Hits,
    cast,
    face_normals,
    gloss,
    lambert,
    unit,
    vertex_normals,
)

SQUARE = np.array([[0, 1, 2], [0, 2, 3]], np.int32)


def coverage(hits: Hits) -> np.ndarray:
    """[size, size]: the fraction of each pixel that the mesh covers."""
    return hits.picture(np.ones(len(hits.rays), np.float32))[..., 0]


def square(left: float, bottom: float, side: float, z: float = 0.0) -> np.ndarray:
    corners = [[left, bottom, z], [left + side, bottom, z], [left + side, bottom + side, z], [left, bottom + side, z]]
    return np.array(corners, np.float32)


def sphere(rows: int = 60, columns: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """A unit sphere; its triangles run anticlockwise from outside."""
    down, around = np.meshgrid(np.linspace(0, np.pi, rows), np.linspace(0, 2 * np.pi, columns), indexing="ij")
    x, y, z = np.sin(down) * np.sin(around), np.cos(down), np.sin(down) * np.cos(around)
    first = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    a, b, c, d = first, first + columns, first + columns + 1, first + 1
    triangles = np.concatenate([np.column_stack([a, b, c]), np.column_stack([a, c, d])])
    return np.stack([x, y, z], axis=-1).reshape(-1, 3).astype(np.float32), triangles.astype(np.int32)


def moeller_trumbore(
    vertices: np.ndarray, triangles: np.ndarray, origin: np.ndarray, rays: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each ray, the nearest triangle seen from its front (or -1), the distance, and how near to an edge it was hit.

    Möller and Trumbore, 1997, in double precision, every ray against every triangle.
    """
    a, b, c = (vertices[triangles[:, k]].astype(np.float64) for k in range(3))
    e1, e2, t = b - a, c - a, origin - a
    p = np.cross(rays[:, None], e2[None])
    det = np.einsum("rtk,tk->rt", p, e1)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = np.einsum("rtk,tk->rt", p, t) / det
        q = np.cross(t, e1)
        v = np.einsum("rk,tk->rt", rays, q) / det
        distance = np.einsum("tk,tk->t", q, e2) / det
    margin = np.minimum(np.minimum(u, v), 1.0 - u - v)
    distance = np.where((det > 0) & (margin >= 0) & (distance > 0), distance, np.inf)
    nearest = distance.argmin(axis=1)
    rows = np.arange(len(rays))
    best = distance[rows, nearest]
    edge = np.abs(np.where(det > 0, margin, np.inf)).min(axis=1)
    return np.where(np.isfinite(best), nearest, -1), best, edge


@pytest.mark.parametrize("seed", range(4))
def test_hits_agree_with_testing_every_ray_against_every_triangle(seed: int) -> None:
    dice = np.random.default_rng(seed)
    middles = dice.uniform(-2.5, 2.5, (150, 1, 3))  # some out of the image, some behind the camera
    vertices = (middles + dice.normal(0.0, 0.7, (150, 3, 3))).reshape(-1, 3).astype(np.float32)
    triangles = np.arange(450, dtype=np.int32).reshape(150, 3)
    camera = Camera(dice.uniform(-180, 180), dice.uniform(-80, 80), 2.2, 1.6, (0.3, -0.2, 0.1))
    hits = cast(vertices, triangles, camera, size=16, samples=2)
    steps = (np.arange(32) + 0.5) / 32 - 0.5
    right, top, back = camera.axes.astype(np.float64)
    rays = steps[None, :, None] * 1.6 * right - steps[:, None, None] * 1.6 * top - 2.2 * back
    rays = rays.reshape(-1, 3) / np.linalg.norm(rays.reshape(-1, 3), axis=1, keepdims=True)
    position = np.array(camera.target) + 2.2 * back
    wanted, distance, edge = moeller_trumbore(vertices, triangles, position, rays)
    found = np.full(32 * 32, -1)
    found[hits.rays] = hits.triangles
    sure = edge > 1e-4  # a ray through an edge may go either way
    assert sure.mean() > 0.9
    assert 0.2 < (wanted >= 0).mean() < 0.99
    np.testing.assert_array_equal(found[sure], wanted[sure])
    same = found[hits.rays] == wanted[hits.rays]
    points = position + rays[hits.rays] * distance[hits.rays][:, None]
    np.testing.assert_allclose(hits.interpolate(vertices)[same], points[same], atol=2e-4)


def test_a_square_covers_its_pixels_and_no_others() -> None:
    camera = Camera(0.0, 0.0, 10.0, 2.0)
    covered = coverage(cast(square(-0.5, -0.5, 1.0), SQUARE, camera, size=16))
    wanted = np.zeros((16, 16))
    wanted[4:12, 4:12] = 1.0
    np.testing.assert_array_equal(covered, wanted)


def test_a_pixel_covered_in_part_is_grey_in_proportion() -> None:
    camera = Camera(0.0, 0.0, 10.0, 2.0)
    third = 2.0 / 16 / 3  # the square is moved right by a third of a pixel
    covered = coverage(cast(square(-0.5 + third, -0.5, 1.0), SQUARE, camera, size=16, samples=3))
    np.testing.assert_allclose(covered[8, 3:14], [0, 2 / 3, *[1] * 7, 1 / 3, 0], atol=1e-6)


def test_a_sphere_has_the_silhouette_and_the_normals_of_a_sphere() -> None:
    vertices, triangles = sphere()
    camera = Camera(25.0, 40.0, 4.0, 3.0)
    hits = cast(vertices, triangles, camera, size=64)
    radius = 4.0 / np.sqrt(4.0**2 - 1.0)  # of its outline, on the plane through its middle
    area = coverage(hits).sum() * (3.0 / 64) ** 2
    assert area == pytest.approx(np.pi * radius**2, rel=0.004)
    points = hits.interpolate(vertices)
    normals = unit(hits.interpolate(vertex_normals(vertices, triangles)))
    assert np.einsum("nc,nc->n", normals, unit(points)).min() > 0.999
    flat = unit(face_normals(vertices, triangles)[hits.triangles])
    assert np.einsum("nc,nc->n", flat, unit(points)).min() > 0.995
    assert np.linalg.norm(points - camera.position, axis=1).min() == pytest.approx(3.0, abs=0.003)


def test_what_is_nearer_hides_what_is_behind_and_backs_are_not_drawn() -> None:
    vertices = np.concatenate([square(-1, -1, 2.0), square(-0.5, -0.5, 1.0, z=1.0), square(-0.2, -0.2, 0.4, z=2.0)])
    triangles = np.concatenate([SQUARE, SQUARE + 4, SQUARE[:, ::-1] + 8]).astype(np.int32)
    hits = cast(vertices, triangles, Camera(0.0, 0.0, 10.0, 2.0), size=8, samples=1)
    seen = np.full(64, -1)
    seen[hits.rays] = hits.triangles // 2
    assert seen.reshape(8, 8)[4, 4] == 1  # the third square shows its back, the first is behind
    assert set(seen) == {0, 1}


def test_directions_are_as_documented() -> None:
    marks = {"right": square(0.5, 0.0, 0.2), "top": square(0.0, 0.5, 0.2)}
    for name, at in (("right", (slice(None), slice(8, None))), ("top", (slice(None, 8), slice(None)))):
        covered = coverage(cast(marks[name], SQUARE, Camera(0.0, 0.0, 10.0, 2.0), size=16))
        assert covered.sum() > 0
        assert covered.sum() == pytest.approx(covered[at].sum())
    np.testing.assert_allclose(Camera(90.0, 0.0, 5.0, 1.0, (1.0, 2.0, 3.0)).position, [6.0, 2.0, 3.0], atol=1e-5)
    np.testing.assert_allclose(Camera(0.0, 90.0, 5.0, 1.0).position, [0.0, 5.0, 0.0], atol=1e-5)
    camera = Camera(33.0, -20.0, 5.0, 1.0)
    np.testing.assert_allclose(camera.axes @ camera.axes.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(camera.towards(0.0, 0.0), camera.axes[2], atol=1e-6)
    np.testing.assert_allclose(camera.towards(90.0, 0.0), camera.axes[0], atol=1e-6)
    np.testing.assert_allclose(camera.towards(0.0, 90.0), camera.axes[1], atol=1e-6)


def test_shading_follows_its_formulas() -> None:
    light = np.array([0.0, 0.0, 1.0], np.float32)
    angles = np.radians([0.0, 60.0, 120.0])
    normals = np.stack([np.sin(angles), 0 * angles, np.cos(angles)], axis=1).astype(np.float32)
    np.testing.assert_allclose(lambert(normals, light, ambient=0.2), [1.0, 0.2 + 0.8 * 0.5, 0.2], atol=1e-6)
    eye = np.array([1.0, 0.0, 0.0], np.float32)  # half-way to the light is 45 degrees
    np.testing.assert_allclose(
        gloss(normals, light, eye, 2.0), np.maximum(np.cos(angles - np.pi / 4), 0) ** 2, atol=1e-6
    )


def test_nothing_in_view_is_all_background() -> None:
    hits = cast(square(50.0, 50.0, 1.0), SQUARE, Camera(0.0, 0.0, 10.0, 2.0), size=8)
    assert len(hits.rays) == 0
    picture = hits.picture(np.zeros((0, 3), np.float32), background=np.array([0.1, 0.2, 0.3], np.float32))
    np.testing.assert_allclose(picture, np.broadcast_to([0.1, 0.2, 0.3], (8, 8, 3)), rtol=1e-6)


def _weights(queue: object) -> None:
    queue.put(cast(*sphere(), Camera(10.0, 20.0, 4.0, 3.0), size=32).weights.tobytes())  # type: ignore[attr-defined]


def test_a_forked_process_draws_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    here = cast(*sphere(), Camera(10.0, 20.0, 4.0, 3.0), size=32).weights.tobytes()  # the parent has used Embree
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_weights, args=(queue,))
    process.start()
    there = queue.get(timeout=60)
    process.join(60)
    assert process.exitcode == 0
    assert here == there
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads through /proc")
def test_rays_are_cast_by_one_thread() -> None:
    code = (
        "import os, numpy as np\n"
        "from shards.renderers.mesh import Camera, cast\n"
        "before, allowed = len(os.listdir('/proc/self/task')), os.sched_getaffinity(0)\n"
        "dice = np.random.default_rng(0)\n"
        "vertices = dice.normal(size=(60000, 3)).astype(np.float32)\n"
        "cast(vertices, np.arange(60000, dtype=np.int32).reshape(-1, 3), Camera(0, 0, 9, 4), 64)\n"
        "print(len(os.listdir('/proc/self/task')) - before, os.sched_getaffinity(0) == allowed)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["0", "True"]
    assert done.stderr == ""
