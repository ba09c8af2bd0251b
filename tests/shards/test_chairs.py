"""The rendered chairs are read as published, the tar or the folder, and what they lack is said."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards.sources import open_source
from shards.sources.chairs import azimuth


def test_chairs_are_the_same_from_the_tar_and_unpacked(tmp_path: Path, originals: Any) -> None:
    originals.write("chairs", tmp_path / "tar", 40)
    for name, data in originals.chair_members(10, 2):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    places = ["tar", "tar/rendered_chairs.tar", "folder", "folder/rendered_chairs"]
    opened = [open_source("chairs", path=str(tmp_path / place)) for place in places]
    for source in opened:
        assert source.splits == {"train": 32, "validation": 4, "test": 4}
        assert source.fingerprint == opened[0].fingerprint
        for split in source.splits:
            np.testing.assert_array_equal(source.sample(split, 3).image, opened[0].sample(split, 3).image)
    angles = [(opened[0].sample("test", i).factors or {}).values() for i in range(4)]
    assert [tuple(pair) for pair in angles] == [(0.0, 20.0), (360 * 15 / 31, 20.0), (0.0, 30.0), (360 * 15 / 31, 30.0)]


def test_names_of_chairs_tell_the_angle_that_was_rendered() -> None:
    named = "000 011 023 034 046 058 069 081 092 104 116 127 139 150 162 174 185 197 209 220 232 243 255 267 278 290 "
    named += "301 313 325 336 348"  # the 31 of the original's file names
    for step, text in enumerate(named.split()):
        assert azimuth(int(text)) == pytest.approx(step * 360 / 31, abs=1e-9)
    assert azimuth(45) == 45.0  # none of them: taken as it is


def test_no_chair_is_in_two_splits(tmp_path: Path, originals: Any) -> None:
    chairs = open_source("chairs", **originals.write("chairs", tmp_path, 40))
    models = {
        split: {chairs._models[position] for position in chairs._positions[split]}  # type: ignore[attr-defined]
        for split in chairs.splits
    }
    assert [len(models[split]) for split in ("train", "validation", "test")] == [8, 1, 1]
    assert len(set.union(*models.values())) == 10


def test_the_crop_of_chairs_is_120_to_480(tmp_path: Path) -> None:
    marked = np.zeros((600, 600, 3), np.uint8)
    marked[120:480, 120:480] = 255
    for model in range(10):
        folder = tmp_path / "rendered_chairs" / f"model{model}" / "renders"
        folder.mkdir(parents=True)
        Image.fromarray(marked).save(folder / "image_000_p020_t011_r096.png")
    assert (open_source("chairs", path=str(tmp_path)).sample("train", 0).image == 255).all()
    wider = open_source("chairs", path=str(tmp_path), crop=362, size=362).sample("train", 0).image
    assert (wider[0] == 0).all()


@pytest.mark.parametrize("share", [0.999, 0.5, 0.1])
def test_a_torn_tar_is_never_a_smaller_data_set(tmp_path: Path, originals: Any, share: float, refused: Any) -> None:
    options = originals.write("chairs", tmp_path / "raw", 20)
    tar = tmp_path / "raw" / "rendered_chairs.tar"
    data = tar.read_bytes()
    whole = (len(data) - 1) // 512 - 40
    tar.write_bytes(data[: int(whole * share) * 512 + 100])  # in a member, a header or the end's padding
    refused(r"rendered_chairs\.tar (is no readable tar|ends without the mark)", "chairs", **options)


def test_a_tar_cut_between_two_members_is_found(tmp_path: Path, originals: Any, refused: Any) -> None:
    import tarfile

    options = originals.write("chairs", tmp_path / "raw", 20)
    tar = tmp_path / "raw" / "rendered_chairs.tar"
    with tarfile.open(tar) as archive:
        middle = archive.getmembers()[9].offset
    tar.write_bytes(tar.read_bytes()[:middle])
    refused(r"rendered_chairs\.tar .*(unexpected end|ends without the mark)", "chairs", **options)


def test_a_compressed_tar_is_named(tmp_path: Path, originals: Any, refused: Any) -> None:
    options = originals.write("chairs", tmp_path / "raw", 20)
    tar = tmp_path / "raw" / "rendered_chairs.tar"
    tar.write_bytes(gzip.compress(tar.read_bytes(), 1))
    refused(r"rendered_chairs\.tar is no readable tar .* or unpack it", "chairs", **options)


def test_chairs_that_are_none_are_named(tmp_path: Path, refused: Any) -> None:
    refused(r"lacks rendered_chairs\.tar .*fetch from http", "chairs", path=str(tmp_path))
    renders = tmp_path / "rendered_chairs" / "a" / "renders"
    renders.mkdir(parents=True)
    refused(r"holds no <model>/renders/image", "chairs", path=str(tmp_path))
    (renders / "image_000_p070_t011_r096.png").write_bytes(b"")
    refused(r"image_000_p070_t011_r096\.png: .*elevation 70 is none", "chairs", path=str(tmp_path))
    (renders / "image_000_p070_t011_r096.png").rename(renders / "image_000_p020_t011_r096.png")
    refused(r"image_000_p020_t011_r096\.png cannot be read as an image", "chairs", path=str(tmp_path))


def test_check_names_a_chair_that_lacks_views(tmp_path: Path, originals: Any) -> None:
    chairs = open_source("chairs", **originals.write("chairs", tmp_path, 40))
    assert chairs.lacks()[0] == "10 models instead of the 1,393 published"
    assert "has 4 images instead of 62" in chairs.lacks()[2]
