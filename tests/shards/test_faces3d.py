"""Rendered heads: each factor does to the image what its name says, and a damaged model is named in one line."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from shards.errors import UserError
from shards.renderers import face_files
from shards.renderers.faces3d import Faces3d
from shards.renderers.mesh import Camera, cast
from shards.sources import open_source
from shards.verify import verify
from shards.writer import build


@pytest.fixture
def faces(packed: Path) -> Faces3d:
    source = open_source("faces3d", path=str(packed), samples=30, size=32)
    assert isinstance(source, Faces3d)
    return source


def draw(faces: Faces3d, **factors: float) -> np.ndarray:
    """The mean head, [size, size]."""
    still = {"azimuth": 0.0, "elevation": 0.0, "light": 0.0, "width": 1.0}
    return faces.picture(np.zeros(3, np.float32), **(still | factors))[..., 0]


def test_samples_are_reproducible_and_within_their_ranges(faces: Faces3d, packed: Path) -> None:
    again = open_source("faces3d", path=str(packed), samples=30, size=32)
    drawn = [faces.sample("train", i) for i in range(12)]
    for i in reversed(range(12)):
        sample = again.sample("train", i)
        assert sample.image.tobytes() == drawn[i].image.tobytes()
        assert sample.factors == drawn[i].factors
    for sample in drawn:
        assert sample.image.shape == (32, 32, 1)
        for name, value in (sample.factors or {}).items():
            low, high = faces.factors[name]["range"]
            assert low <= value <= high
    assert len({sample.image.tobytes() for sample in drawn}) == 12
    assert faces.sample("test", 0).image.tobytes() != drawn[0].image.tobytes()


def test_one_and_two_workers_build_the_same(faces: Faces3d, tmp_path: Path) -> None:
    faces.sample("train", 0)  # the parent has used the renderer before it forks
    made = []
    for workers in (1, 2):
        root = tmp_path / str(workers) / "faces"
        build(faces, root, shard_size=16, workers=workers, progress=False)
        assert verify(root, progress=False) == []
        made.append({p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()})
    assert made[0] == made[1]


def test_the_packed_array_and_facekits_own_files_hold_the_same_model(
    small: ModuleType, packed: Path, tmp_path: Path
) -> None:
    folder = small.write_facekit(tmp_path / "ICT-FaceKit" / "FaceXModel")
    one, other = face_files.read(str(packed), "faces3d"), face_files.read(str(folder.parent), "faces3d")
    np.testing.assert_array_equal(one.triangles, other.triangles)
    np.testing.assert_array_equal(one.eyes, other.eyes)
    np.testing.assert_array_equal(one.mouth, other.mouth)
    np.testing.assert_allclose(one.neutral, other.neutral, atol=1e-5)
    np.testing.assert_allclose(one.identity, other.identity, atol=1e-5)
    for name, delta in one.expressions.items():
        np.testing.assert_allclose(delta, other.expressions[name], atol=1e-5)
    assert one.digest != other.digest


def test_the_model_keeps_the_outer_eyes_and_closes_the_mouth(small: ModuleType, packed: Path) -> None:
    model = face_files.read(str(packed), "faces3d")
    edges = np.concatenate([model.triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    _, count = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    assert (count == 1).sum() == small.COLUMNS + 2 * 8  # the neck's end, and the balls' backs
    assert model.mouth.sum() == 6  # around two polygons
    eyes = model.neutral[np.unique(model.triangles[model.eyes])]
    np.testing.assert_allclose(np.linalg.norm(np.abs(eyes) - (3.1, 3.6, 9.6), axis=1), 1.6, atol=1e-3)
    assert len(eyes) == 2 * 48  # of 2 * 96
    vertices = model.head(np.zeros(3, np.float32), {"jawOpen": 1.0})
    hits = cast(vertices, model.triangles, Camera(0.0, 0.0, 90.0, 6.0, (0.0, -5.0, 0.0)), 32)
    assert len(hits.rays) == (32 * hits.samples) ** 2  # no hole through the head
    assert 0.05 < model.mouth[hits.triangles].mean() < 0.8


def test_a_coarser_model_has_the_same_outline_and_an_open_mouth(packed: Path) -> None:
    model = face_files.read(str(packed), "faces3d")
    coarse = model.coarsened(1.5, apart="jawOpen")
    assert len(coarse.triangles) < len(model.triangles)
    camera = Camera(30.0, 10.0, 90.0, 26.0, (0.0, 2.5, 1.0))
    areas = [len(cast(m.neutral, m.triangles, camera, 64).rays) for m in (model, coarse)]
    assert areas[1] == pytest.approx(areas[0], rel=0.03)
    assert coarse.mouth.any()
    assert coarse.eyes.any()


def test_a_head_turned_the_other_way_is_the_mirror_image(faces: Faces3d) -> None:
    one = draw(faces, azimuth=40.0, elevation=10.0, light=-50.0)
    other = draw(faces, azimuth=-40.0, elevation=10.0, light=50.0)
    difference = np.abs(one - other[:, ::-1])  # diagonals of four-cornered faces are not mirrored: not quite 0
    assert difference.mean() < 0.01
    assert np.abs(one - other).mean() > 10 * difference.mean()


def test_light_from_the_left_brightens_the_left(faces: Faces3d) -> None:
    for azimuth in (-30.0, 0.0, 30.0):  # whatever the pose
        dark_right = draw(faces, light=-60.0, azimuth=azimuth)
        assert dark_right[:, :16].mean() > 1.5 * dark_right[:, 16:].mean()
        dark_left = draw(faces, light=60.0, azimuth=azimuth)
        assert dark_left[:, 16:].mean() > 1.5 * dark_left[:, :16].mean()


def test_width_widens_the_head_in_proportion(faces: Faces3d) -> None:
    def breadth(width: float) -> float:
        return float((draw(faces, width=width)[12] > 0.02).sum())

    assert breadth(1.25) / breadth(0.8) == pytest.approx(1.25 / 0.8, rel=0.1)
    heights = [(draw(faces, width=width)[:, 16] > 0.02).sum() for width in (0.8, 1.25)]
    assert heights[0] == heights[1]


def test_a_positive_azimuth_shows_the_nose_on_the_left_and_a_positive_elevation_lower(packed: Path) -> None:
    model = face_files.read(str(packed), "faces3d")
    nose = model.neutral[model.neutral[:, 2].argmax()]

    def place(azimuth: float, elevation: float) -> np.ndarray:
        return Camera(azimuth, elevation, 90.0, 24.0, (0.0, 2.8, 2.0)).axes[:2] @ (nose - (0.0, 2.8, 2.0))

    assert place(50.0, 0.0)[0] < -3.0 < 3.0 < place(-50.0, 0.0)[0]
    assert place(0.0, 20.0)[1] < place(0.0, -20.0)[1]


def test_another_model_or_seed_is_another_set(small: ModuleType, packed: Path, tmp_path: Path) -> None:
    other = small.write_packed(tmp_path, vertices=small.arrays()["vertices"] * np.float32(1.01))
    options = {"samples": 40, "size": 32}
    prints = {
        open_source("faces3d", path=str(path), **options, seed=seed).fingerprint
        for path, seed in ((packed, 0), (packed, 1), (other, 0))
    }
    assert len(prints) == 3
    moved = shutil.copy(packed, tmp_path / "moved.npz")
    assert open_source("faces3d", path=str(moved), **options).fingerprint in prints


def _torn(path: Path, small: ModuleType) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _flipped(path: Path, small: ModuleType) -> None:
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("identity.npy").header_offset + 300
    data[at : at + 40] = bytes(40)
    path.write_bytes(data)


def _changed(**arrays: Any) -> Any:
    return lambda path, small: small.write_packed(path, **arrays)


def _scaled(by: Any) -> Any:
    return lambda path, small: small.write_packed(path, vertices=small.arrays()["vertices"] * np.array(by, np.float64))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_torn, "torn"),
        (_flipped, "torn"),
        (lambda path, small: path.write_bytes(b"not an array"), "no npz file"),
        (lambda path, small: path.write_bytes(b""), "no npz file"),
        (lambda path, small: np.save(path.open("wb"), np.zeros(3)), "no npz file"),
        (_changed(expression_names=np.array(["a", None], object)), "pickled"),
        (lambda path, small: zipfile.ZipFile(path, "w").writestr("vertices", "no array"), "no array 'vertices'"),
        (_changed(vertices=np.zeros((7, 2), np.float32)), "vertices is float32 (7, 2)"),
        (_changed(vertices=np.zeros((5, 3), np.float32)), "identity"),
        (_changed(triangles=np.full((4, 3), 60000, np.uint16)), "60000"),
        (_changed(expression_names=np.array([f"e{k}" for k in range(16)])), "jawOpen"),
        (_changed(eyeball_start=np.int64(-5)), "eyeball_start is -5"),
        (_changed(eyeball_start=np.int64(2**62)), "eyeball_start is 4611686018427387904"),
        (_changed(triangles=np.zeros((9, 3), np.uint16)), "span 0 x 0 x 0"),
        (_changed(triangles=np.array([[0, 1, 99]])), "centimetres"),
        *[(_scaled(by), "centimetres: it is damaged, or in another unit") for by in (0.0, 0.1, 10.0, 1e30, [1, 1, 0])],
        (_scaled(1e300), "not finite"),
        (_changed(identity=np.full((3, 5, 3), np.nan, np.float16)), "identity"),
    ],
)
def test_a_damaged_packed_file_is_named_in_one_line(damage: Any, words: str, small: ModuleType, tmp_path: Path) -> None:
    path = small.write_packed(tmp_path / "model.npz")
    damage(path, small)
    with pytest.raises(UserError) as caught:
        open_source("faces3d", path=str(path))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_coordinates_that_are_not_finite_are_named(small: ModuleType, tmp_path: Path) -> None:
    broken = small.arrays()["identity"]
    broken[1, 4, 2] = np.inf
    with pytest.raises(UserError, match="not finite"):
        open_source("faces3d", path=str(small.write_packed(tmp_path / "model.npz", identity=broken)))
    broken[1, 4, 2] = 999.0
    with pytest.raises(UserError, match="a mode moves the surface by 999 centimetres"):
        open_source("faces3d", path=str(small.write_packed(tmp_path / "model.npz", identity=broken)))


def test_corners_may_be_counted_backwards(small: ModuleType, tmp_path: Path) -> None:
    folder = small.write_facekit(tmp_path)
    path = folder / "generic_neutral_mesh.obj"
    forwards = face_files.read(str(folder), "faces3d").triangles
    text = path.read_text()
    path.write_text(re.sub(r"(?m)(?<= )(\d+)(?=/\d)", lambda n: str(int(n[1]) - 1 - small.FACEKIT_VERTICES), text))
    assert path.read_text().count("-") > 500
    np.testing.assert_array_equal(face_files.read(str(folder), "faces3d").triangles, forwards)


def test_a_missing_model_says_what_to_fetch(tmp_path: Path) -> None:
    for path in ("", str(tmp_path), str(tmp_path / "nowhere.npz")):
        with pytest.raises(UserError) as caught:
            open_source("faces3d", path=path)
        for word in ("ICT-FaceKit", "MIT", "--path", "FaceXModel"):
            assert word in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_damaged_facekit_folder_is_named_in_one_line(small: ModuleType, tmp_path: Path) -> None:
    whole = small.write_facekit(tmp_path / "whole")

    def refused(name: str, text: str | None) -> str:
        folder = tmp_path / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        (folder / name).unlink()
        if text is not None:
            (folder / name).write_text(text)
        with pytest.raises(UserError) as caught:
            open_source("faces3d", path=str(folder))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    neutral = (whole / "generic_neutral_mesh.obj").read_text()
    assert "jawOpen.obj" in refused("jawOpen.obj", None)
    assert "jawOpen.obj has 2 vertices" in refused("jawOpen.obj", "v 1 2 3\nv 1 2 3\n")
    assert "damaged vertex line" in refused("identity001.obj", neutral.replace("v 1 1", "v x 1", 1))
    assert "identity001.obj has 17 vertices" in refused("identity001.obj", neutral[:1000])
    assert "damaged polygon line" in refused("generic_neutral_mesh.obj", neutral.replace("\nf 1", "\nf one", 1))
    for line in ("f 1 2 0", "f 1 2", "f 1 2 99999999999999999999999"):
        assert "damaged polygon line" in refused("generic_neutral_mesh.obj", f"{neutral}{line}\n")
    for line in ("f 1 2 99999", "f 1 2 -99999"):
        assert "no polygons" in refused("generic_neutral_mesh.obj", f"{neutral}{line}\n")
    assert "24591 are needed" in refused("generic_neutral_mesh.obj", "v 1 2 3\nf 1 1 1\n")
