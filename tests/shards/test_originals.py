"""SVHN, CelebA, Chairs, Faces and dSprites are read as published; what is wrong with a download is said in one line."""

from __future__ import annotations

import gzip
import io
import math
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards.errors import DataError, UserError
from shards.sources import open_source
from shards.sources.chairs import azimuth
from shards.sources.checking import check
from shards.verify import verify
from shards.writer import build


def refused(message: str, name: str, **options: Any) -> None:
    """Opening and building `name` must fail with one line that matches."""
    with pytest.raises(DataError, match=message) as caught:
        build(open_source(name, **options), Path(options["path"]).parent / "refused", progress=False)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def truncate(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


# --- SVHN


def test_svhn_has_the_pixels_and_digits_of_its_files(tmp_path: Path, originals: Any) -> None:
    x, digits = originals.svhn_file(tmp_path / "train_32x32.mat", 24, 0)
    originals.svhn_file(tmp_path / "test_32x32.mat", 5, 1)
    svhn = open_source("svhn", path=str(tmp_path))
    assert svhn.splits == {"train": 22, "validation": 2, "test": 5}
    assert [svhn.sample("validation", i).key for i in range(2)] == [11, 23]
    for i in (0, 10, 11, 21):
        sample = svhn.sample("train", i)
        np.testing.assert_array_equal(sample.image, x[..., sample.key])
        assert sample.label == digits[sample.key]
    assert 0 in digits  # which the file writes as 10


def test_the_extra_digits_follow_those_of_the_training_file(tmp_path: Path, originals: Any) -> None:
    (tmp_path / "svhn").mkdir()
    originals.svhn_file(tmp_path / "svhn" / "train_32x32.mat", 24, 0)
    originals.svhn_file(tmp_path / "svhn" / "test_32x32.mat", 5, 1)
    refused(r"lacks extra_32x32\.mat: fetch from http.*--download", "svhn", path=str(tmp_path), extra=True)
    x, digits = originals.svhn_file(tmp_path / "svhn" / "extra_32x32.mat", 7, 2)
    svhn = open_source("svhn", path=str(tmp_path), extra=True)
    assert svhn.splits == {"train": 29, "validation": 2, "test": 5}
    sample = svhn.sample("train", 28)
    assert (sample.key, sample.label) == (24 + 6, digits[6])
    np.testing.assert_array_equal(sample.image, x[..., 6])
    assert any("531,131" in line for line in svhn.lacks())


def _torn(path: Path) -> None:
    truncate(path, 0.6)


def _text(path: Path) -> None:
    path.write_text("<html>404 Not Found</html>" * 20)


def _newer(path: Path) -> None:
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))


def _saved(**content: Any) -> Callable[[Path], None]:
    from scipy.io import savemat

    return lambda path: savemat(path, content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_torn, "cannot be read .* cut off"),
        (_text, "cannot be read"),
        (_newer, "is of MATLAB 7.3.* save it with -v7"),
        (lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file Pl"), "cannot be read"),  # IndexError in scipy
        (_saved(X=np.zeros((32, 32, 3, 4), np.uint8)), "holds no array 'y'"),
        (_saved(X=np.zeros((32, 32, 3, 4), np.uint8), y=np.ones((5, 1))), r"\(32, 32, 3, 4\) and 5 labels"),
        (_saved(X=np.zeros((4, 32, 32, 3), np.uint8), y=np.ones((4, 1))), r"not uint8 \(32, 32, 3, N\)"),
        (_saved(X=np.zeros((32, 32, 3, 4)), y=np.ones((4, 1))), "float64"),
        (_saved(X=np.zeros((32, 32, 3, 4), bool), y=np.ones((4, 1))), "X of true and false"),
        *[
            (
                _saved(X=np.zeros((32, 32, 3, 4), np.uint8), y=np.array([[1], [2], [3], [label]])),
                "labels other than 1 to",
            )
            for label in (11, 0, 1.5, np.nan, 1e30, 1j)
        ],
    ],
)
def test_a_spoiled_matlab_file_is_named(
    tmp_path: Path, originals: Any, spoil: Callable[[Path], None], message: str
) -> None:
    options = originals.write("svhn", tmp_path / "raw", 20)
    warnings.simplefilter("error")
    spoil(tmp_path / "raw" / "test_32x32.mat")
    refused(rf"raw/test_32x32\.mat .*{message}", "svhn", **options)


# --- CelebA


def test_celeba_is_the_same_from_the_zip_the_folder_and_repackaged_lists(tmp_path: Path, originals: Any) -> None:
    originals.write("celeba", tmp_path / "zip", 20)
    originals.celeba_repackaged(tmp_path / "csv", 20)
    folder = shutil.copytree(tmp_path / "zip", tmp_path / "folder" / "celeba", ignore=shutil.ignore_patterns("*.zip"))
    zipfile.ZipFile(tmp_path / "zip" / "img_align_celeba.zip").extractall(folder)
    opened = [open_source("celeba", path=str(tmp_path / where)) for where in ("zip", "csv", "folder")]
    names, flags, _ = originals.celeba_lists(20)
    for source in opened:
        assert source.splits == {"train": 16, "validation": 2, "test": 2}
        assert source.fingerprint == opened[0].fingerprint
        assert list(source.factors) == originals.ATTRIBUTES
        for split, first in (("train", 0), ("validation", 16), ("test", 18)):
            sample = source.sample(split, 1)
            assert sample.key == first + 1
            assert list((sample.factors or {}).values()) == flags[first + 1].tolist()
            np.testing.assert_array_equal(sample.image, opened[0].sample(split, 1).image)
    assert len(names) == 20


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_square_in_the_middle_of_a_face_is_cut(tmp_path: Path, originals: Any, size: int) -> None:
    originals.celeba_repackaged(tmp_path, 10)
    marked = np.zeros((218, 178, 3), np.uint8)
    marked[..., 0] = 255
    marked[35:183, 15:163] = (0, 0, 255)  # 148 pixels of 178 and of 218, by hand
    for path in (tmp_path / "img_align_celeba" / "img_align_celeba").iterdir():
        Image.fromarray(marked).save(path, "PNG")  # lossless; the content decides, not the name
    cut = open_source("celeba", path=str(tmp_path), size=size).sample("train", 0).image
    assert cut.shape == (size, size, 3)
    assert (cut == (0, 0, 255)).all()
    full = open_source("celeba", path=str(tmp_path), size=size, crop=178).sample("train", 0).image
    assert full[0, :, 0].min() > 200  # red, but for what the filter brings from the blue next to it


def test_the_png_edition_with_the_lists_of_the_jpegs_is_read(tmp_path: Path, originals: Any) -> None:
    options = originals.celeba_repackaged(tmp_path, 10)
    (tmp_path / "img_align_celeba" / "img_align_celeba" / "no_image_of_ours.jpg").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "img_align_celeba" / "img_align_celeba").glob("0*"):
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    assert open_source("celeba", **options).splits["train"] == 8


def _zip_of(folder: Path) -> Path:
    return folder / "img_align_celeba.zip"


def _torn_zip(folder: Path) -> None:
    truncate(_zip_of(folder), 0.7)


def _flipped(folder: Path) -> None:
    data = bytearray(_zip_of(folder).read_bytes())
    at = data.index(b"000001.jpg") + 2000
    data[at : at + 40] = bytes(40)
    _zip_of(folder).write_bytes(data)


def _absent(folder: Path) -> None:
    with zipfile.ZipFile(_zip_of(folder)) as old, zipfile.ZipFile(folder / "new", "w") as new:
        for name in old.namelist():
            if not name.endswith("000007.jpg"):
                new.writestr(name, old.read(name))
    (folder / "new").replace(_zip_of(folder))


def _no_image(folder: Path) -> None:
    with zipfile.ZipFile(_zip_of(folder)) as old, zipfile.ZipFile(folder / "new", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"not a JPEG" if name.endswith("000003.jpg") else old.read(name))
    (folder / "new").replace(_zip_of(folder))


def _edited(file: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))

    return edit


def _added(name: str) -> Callable[[Path], None]:
    def add(folder: Path) -> None:
        with warnings.catch_warnings(), zipfile.ZipFile(_zip_of(folder), "a") as archive:
            warnings.simplefilter("ignore")  # of the name that is there already
            archive.writestr(name, b"")

    return add


def _all_for_test(folder: Path) -> None:
    path = folder / "list_eval_partition.txt"
    path.write_text(re.sub(r"\d$", "2", path.read_text(), flags=re.MULTILINE))


def _misnamed(folder: Path) -> None:
    """The directory's last name is marked as UTF-8, which it is not."""
    data = bytearray(_zip_of(folder).read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 9] |= 8
    data[at + 46] = 0xFF
    _zip_of(folder).write_bytes(data)


def _tiny(folder: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (100, 100)).save(stream, "PNG")
    with zipfile.ZipFile(_zip_of(folder)) as old, zipfile.ZipFile(folder / "new", "w") as new:
        for name in old.namelist():
            new.writestr(name, stream.getvalue() if name.endswith(".jpg") else b"")
    (folder / "new").replace(_zip_of(folder))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_torn_zip, r"img_align_celeba\.zip is no readable zip .*fetch it again"),
        (_flipped, r"img_align_celeba\.zip: img_align_celeba/000001\.jpg is damaged in the zip"),
        (_absent, r"lacks 1 of the 20 images that list_eval_partition\.txt names, the first is 000007\.jpg"),
        (_no_image, r"000003\.jpg cannot be read as an image"),
        (_tiny, r"0000\d\d\.jpg is 100x100, too small for the crop of 148x148"),
        (
            lambda folder: _zip_of(folder).unlink(),
            r"raw lacks img_align_celeba\.zip \(or its folder\): fetch from http",
        ),
        (lambda folder: (folder / "list_attr_celeba.txt").unlink(), r"lacks list_attr_celeba\.txt: fetch from"),
        (_edited("list_attr_celeba.txt", "000005.jpg -1", "000005.jpg"), r"000005\.jpg: 39 values for 40 attributes"),
        (_edited("list_attr_celeba.txt", "000005.jpg -1", "000005.jpg  7"), r"000005\.jpg: the value '7' is neither"),
        (_edited("list_attr_celeba.txt", "000005.jpg", "000099.jpg"), r"has no row for 000005\.jpg"),
        (_edited("list_attr_celeba.txt", "Young", "Male"), "or one twice"),
        (_edited("list_eval_partition.txt", "000004.jpg 0", "000004.jpg 3"), r"row 4: '000004\.jpg 3' is not an image"),
        (_edited("list_eval_partition.txt", "000004.jpg", "000003.jpg"), r"names 000003\.jpg twice"),
        (_edited("list_attr_celeba.txt", "000005.jpg", "000004.jpg"), r"two rows for 000004\.jpg"),
        (_edited("list_attr_celeba.txt", "20\n", ""), "does not begin with the number of its images"),
        (
            lambda folder: truncate(folder / "list_eval_partition.txt", 0.5),
            r"names 10 images, .*attr_celeba\.txt has 20",
        ),
        (_all_for_test, "there are no training images, {'train': 0, 'validation': 0, 'test': 20}"),
        (_added("other/000003.jpg"), r"holds 000003\.jpg twice, as img_align_celeba/000003\.jpg and as other"),
        (_added("img_align_celeba/000003.jpg"), r"holds img_align_celeba/000003\.jpg twice"),
        (_misnamed, r"img_align_celeba\.zip is no readable zip"),
        (lambda folder: (folder / "list_eval_partition.txt").write_text(""), "names no image"),
        (lambda folder: (folder / "list_eval_partition.txt").write_bytes(b"\xff\xfe\x00"), "is no readable text"),
    ],
)
def test_a_spoiled_celeba_is_named(tmp_path: Path, originals: Any, spoil: Callable[[Path], None], message: str) -> None:
    options = originals.write("celeba", tmp_path / "raw", 20)
    (tmp_path / "raw" / "list_attr_celeba.txt").write_text(
        (tmp_path / "raw" / "list_attr_celeba.txt").read_text().replace("000005.jpg  1", "000005.jpg -1")
    )
    spoil(tmp_path / "raw")
    refused(message, "celeba", **options)


def test_damaged_faces_can_be_left_out(tmp_path: Path, originals: Any) -> None:
    options = originals.write("celeba", tmp_path / "raw", 20)
    _no_image(tmp_path / "raw")
    manifest = build(open_source("celeba", **options, skip_unreadable=True), tmp_path / "set", progress=False)
    assert (manifest.samples, manifest.source["skipped"]) == (19, 1)
    assert verify(tmp_path / "set", progress=False) == []


# --- Chairs


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
def test_a_torn_tar_is_never_a_smaller_data_set(tmp_path: Path, originals: Any, share: float) -> None:
    options = originals.write("chairs", tmp_path / "raw", 20)
    tar = tmp_path / "raw" / "rendered_chairs.tar"
    data = tar.read_bytes()
    whole = (len(data) - 1) // 512 - 40
    tar.write_bytes(data[: int(whole * share) * 512 + 100])  # in a member, a header or the end's padding
    refused(r"rendered_chairs\.tar (is no readable tar|ends without the mark)", "chairs", **options)


def test_a_tar_cut_between_two_members_is_found(tmp_path: Path, originals: Any) -> None:
    import tarfile

    options = originals.write("chairs", tmp_path / "raw", 20)
    tar = tmp_path / "raw" / "rendered_chairs.tar"
    with tarfile.open(tar) as archive:
        middle = archive.getmembers()[9].offset
    tar.write_bytes(tar.read_bytes()[:middle])
    refused(r"rendered_chairs\.tar .*(unexpected end|ends without the mark)", "chairs", **options)


def test_a_compressed_tar_is_named(tmp_path: Path, originals: Any) -> None:
    options = originals.write("chairs", tmp_path / "raw", 20)
    tar = tmp_path / "raw" / "rendered_chairs.tar"
    tar.write_bytes(gzip.compress(tar.read_bytes(), 1))
    refused(r"rendered_chairs\.tar is no readable tar .* or unpack it", "chairs", **options)


def test_chairs_that_are_none_are_named(tmp_path: Path) -> None:
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


# --- Faces


def test_faces_come_from_a_folder_or_an_array_with_the_same_factors(tmp_path: Path, originals: Any) -> None:
    factors = originals.face_factors(20)
    renders = np.stack([originals.face_render(a, e) for a, e in zip(*factors.values(), strict=True)])
    lines = [f"{a!r},{e!r}" for a, e in zip(*(column.tolist() for column in factors.values()), strict=True)]
    (tmp_path / "folder").mkdir()
    for number, render in enumerate(renders):
        Image.fromarray(render).save(tmp_path / "folder" / f"{number:02d}.png")
    named = [f"{number:02d}.png,{line}" for number, line in enumerate(lines)]
    (tmp_path / "folder" / "factors.csv").write_text("\n".join(["file,azimuth,elevation", *named[::-1]]))
    np.save(tmp_path / "faces.npy", renders[..., None])
    (tmp_path / "faces.csv").write_text("\n".join(["azimuth,elevation", *lines]))
    np.savez(tmp_path / "packed.npz", pictures=renders, **factors)
    for place in ("folder", "faces.npy", "packed.npz"):
        faces = open_source("faces", path=str(tmp_path / place))
        assert faces.splits == {"train": 16, "validation": 2, "test": 2}
        assert faces.shape == (32, 32, 1)
        expected = [float(factors["azimuth"].min()), float(factors["azimuth"].max())]
        assert faces.factors["azimuth"] == {"kind": "continuous", "range": expected, "periodic": False}
        sample = faces.sample("validation", 1)
        assert sample.factors == {name: float(column[sample.key]) for name, column in factors.items()}
        # Half the size is close to the mean of each 2x2, worked out by itself.
        mean = renders[sample.key].reshape(32, 2, 32, 2).mean((1, 3))
        assert abs(sample.image[..., 0].astype(float) - mean).mean() < 3


def test_colour_arrays_and_subfolders_of_faces_are_read(tmp_path: Path, originals: Any) -> None:
    colour = np.zeros((20, 8, 8, 3), np.uint8) + np.array([200, 10, 10], np.uint8)
    np.save(tmp_path / "faces.npy", colour)
    image = open_source("faces", path=str(tmp_path / "faces.npy"), color="rgb", size="4").sample("train", 0).image
    assert (image == (200, 10, 10)).all()
    people = open_source("faces", path=originals.write("folder", tmp_path / "people", 20)["path"])
    assert people.classes == ("first", "second")
    assert people.factors == {}


GREY = np.random.RandomState(0).randint(0, 256, (20, 8, 8)).astype(np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": GREY / 255.0}, r"images is of float64, whose range cannot be known: save it as uint8 .*np\.rint"),
        ({"images": GREY.astype(np.uint16)}, "images is of uint16"),
        ({"images": GREY[..., None].repeat(4, 3)}, r"\(20, 8, 8, 4\)"),
        ({"a": GREY, "b": GREY}, "holds 2 arrays of images"),
        ({"a": np.arange(20)}, "holds 0 arrays of images"),
        ({"images": GREY, "angle": np.arange(19)}, r"angle has the shape \(19,\) for 20 images"),
        ({"images": GREY, "angle": np.full(20, np.nan)}, "no finite numbers"),
        ({"images": GREY, "angle": np.ones(20)}, "the factor angle is 1 for every image: leave it out"),
        ({"images": GREY, "angle": np.array(["left"] * 20)}, "no finite numbers"),
        (
            {"images": GREY, "note": np.array([{"a": 1}] * 20, dtype=object)},
            "cannot be read .*pickled objects, which are never opened",
        ),
        ({"images": GREY[:0]}, r"images has the shape \(0, 8, 8\): there is nothing in it"),
        ({"images": GREY[:, :0, :0]}, r"\(20, 0, 0\): there is nothing in it"),
        ({"images": GREY[:, :1]}, r"image \d+ is 8x1: one colour is all"),
        ({"images": GREY[:1]}, "holds 1 images, 1 of them for training: at least 2 are needed; add images or lower"),
    ],
)
def test_an_array_that_is_no_faces_is_named(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "faces.npz", **content)
    refused(rf"faces\.npz.*{message}", "faces", path=str(tmp_path / "faces.npz"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("angle\n1\n2\n", "has 2 rows for 20 images"),
        ("angle,width\n" + "1,2\n" * 19 + "1\n", "line 21: 1 cells where the first row has 2"),
        ("angle\n" + "1\n" * 19 + "left\n", "line 21: 'left' is no number"),
        ("angle,angle\n" + "1,2\n" * 20, "must name each factor once"),
        ("1\n" * 20, "its first row must name the factors, and holds numbers"),
        ("", "must name each factor once"),
    ],
)
def test_a_table_of_factors_that_does_not_fit_is_named(tmp_path: Path, table: str, message: str) -> None:
    np.save(tmp_path / "faces.npy", GREY)
    (tmp_path / "faces.csv").write_text(table)
    refused(rf"faces\.csv.*{message}", "faces", path=str(tmp_path / "faces.npy"))


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("03.png,9\n", r"line 22: 03\.png has a row already, in line 5"),
        ("3.png,9\n", r"line 22: there is no image 3\.png"),
    ],
)
def test_a_table_of_factors_has_one_row_for_each_image_and_no_other(tmp_path: Path, added: str, message: str) -> None:
    for number, pixels in enumerate(GREY):
        Image.fromarray(pixels).save(tmp_path / f"{number:02d}.png")
    rows = "".join(f"{number:02d}.png,{number}\n" for number in range(20))
    (tmp_path / "factors.csv").write_text(f"file,angle\n{rows}{added}")
    refused(rf"factors\.csv, {message}", "faces", path=str(tmp_path))


def test_factors_that_float32_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    for low, high in ((-1e307, 1e307), (1e-60, 2e-60), (1e9, 1e9 + 1)):
        np.savez(tmp_path / "faces.npz", images=GREY, angle=np.linspace(low, high, 20))
        refused("the factor angle goes from .* no range in float32", "faces", path=str(tmp_path / "faces.npz"))


def test_an_array_file_is_read_whatever_its_name_and_holds_arrays_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "faces.npz", images=GREY)
    (tmp_path / "faces.npz").rename(tmp_path / "archive.npy")
    assert open_source("faces", path=str(tmp_path / "archive.npy")).splits["train"] == 16
    with zipfile.ZipFile(tmp_path / "archive.npy", "a") as archive:
        archive.writestr("README.txt", "hello")
    refused(r"holds 'README\.txt', which is no array", "faces", path=str(tmp_path / "archive.npy"))


def _in_directory(offset: int, value: int) -> Callable[[bytes], bytes]:
    """Sets a byte of every entry in a zip's directory."""

    def change(data: bytes) -> bytes:
        first, *entries = data.split(b"PK\x01\x02")
        rest = (entry[: offset - 4] + bytes([value]) + entry[offset - 3 :] for entry in entries)
        return b"PK\x01\x02".join([first, *rest])

    return change


@pytest.mark.parametrize("name", ["faces", "dsprites", "faces3d"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_in_directory(8, 1), "encrypted"),
        (_in_directory(10, 99), "compression method"),
        (lambda data: data.replace(b"), }", b"),  "), "EOF in multi-line statement"),
    ],
)
def test_a_damaged_array_file_is_one_short_line(
    tmp_path: Path, small: Any, name: str, spoil: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "arrays.npz"
    imgs, classes = np.eye(64, dtype=np.uint8)[None].repeat(20, 0), np.zeros((20, 6), np.int64)
    content = {"faces": {"images": GREY.repeat(9, 0)}, "dsprites": {"imgs": imgs, "latents_classes": classes}}
    np.savez(path, **(content | {"faces3d": small.arrays()})[name])
    path.write_bytes(spoil(path.read_bytes()))
    refused(rf"arrays\.npz cannot be read \(.*{message}", name, path=str(path))


def test_paths_that_hold_no_faces_say_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="faces: which ones"):
        open_source("faces")
    with pytest.raises(UserError, match="faces: color is 'red'"):
        open_source("faces", path=str(tmp_path), color="red")
    np.save(tmp_path / "faces.npy", GREY)
    refused(
        "missing.csv cannot be read", "faces", path=str(tmp_path / "faces.npy"), factors=str(tmp_path / "missing.csv")
    )
    truncate(tmp_path / "faces.npy", 0.5)
    refused(r"faces\.npy cannot be read", "faces", path=str(tmp_path / "faces.npy"))
    np.savez(tmp_path / "torn.npz", images=GREY)
    truncate(tmp_path / "torn.npz", 0.5)
    refused(r"torn\.npz cannot be read", "faces", path=str(tmp_path / "torn.npz"))


# --- dSprites


def test_dsprites_has_the_pixels_and_the_real_values_of_its_file(tmp_path: Path, originals: Any) -> None:
    sprites = open_source("dsprites", **originals.write("dsprites", tmp_path, 60))
    assert sprites.splits == {"train": 48, "validation": 6, "test": 6}
    with np.load(tmp_path / originals.DSPRITES, allow_pickle=False) as archive:
        images, values = archive["imgs"], archive["latents_values"]  # the values are read here only
    for split, i in (("train", 0), ("train", 47), ("validation", 3), ("test", 5)):
        sample = sprites.sample(split, i)
        np.testing.assert_array_equal(sample.image[..., 0], images[sample.key] * 255)
        _, shape, scale, orientation, x, y = values[sample.key]
        got = sample.factors or {}
        assert list(got) == ["shape", "scale", "orientation", "x", "y"]
        assert sample.label == got["shape"]
        np.testing.assert_allclose(list(got.values()), [shape - 1, scale, orientation, x, y], atol=1e-9)
    assert sprites.classes == ("square", "ellipse", "heart")
    assert sprites.factors["orientation"] == {"kind": "continuous", "range": [0.0, 2 * math.pi], "periodic": True}


class _Trap:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def test_the_pickled_description_of_dsprites_is_never_opened(tmp_path: Path) -> None:
    trap = np.array(_Trap(tmp_path / "sprung"), dtype=object)
    classes = np.zeros((20, 6), np.int64)
    path = tmp_path / "any_name.npz"
    np.savez(path, metadata=trap, imgs=np.eye(64, dtype=np.uint8)[None].repeat(20, 0), latents_classes=classes)
    build(open_source("dsprites", path=str(path)), tmp_path / "set", progress=False)
    assert not (tmp_path / "sprung").exists()
    np.savez(path, imgs=np.array([_Trap(tmp_path / "sprung")] * 20, dtype=object), latents_classes=classes)
    refused("imgs is of object", "dsprites", path=str(path))
    np.savez(path, imgs=np.zeros((1, 64, 64), np.uint8), latents_classes=np.array([trap], dtype=object))
    refused("cannot be read .*pickled objects", "dsprites", path=str(path))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imgs": None}, "it has no imgs"),
        ({"latents_classes": None}, "it has no latents_classes"),
        ({"imgs": np.full((20, 64, 64), 255, np.uint8)}, "imgs holds the value 255, only 0 and 1"),
        ({"imgs": np.zeros((20, 64, 64), np.float32)}, "imgs is of float32"),
        ({"imgs": np.zeros((20, 64), np.uint8)}, r"imgs is uint8 \(20, 64\)"),
        ({"latents_classes": np.zeros((19, 6), np.int64)}, r"latents_classes is \(19, 6\) for 20 images"),
        ({"latents_classes": np.full((20, 6), 3)}, "latents_classes go beyond the factors' 1, 3, 6, 40, 32, 32"),
    ],
)
def test_a_dsprites_file_of_another_content_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    whole = {"imgs": np.zeros((20, 64, 64), np.uint8), "latents_classes": np.zeros((20, 6), np.int64)}
    np.savez(tmp_path / "d.npz", **{name: array for name, array in (whole | changes).items() if array is not None})
    refused(
        rf"d\.npz cannot be read \({message}.*fetch dsprites_.* from http", "dsprites", path=str(tmp_path / "d.npz")
    )


def test_a_torn_dsprites_file_is_named(tmp_path: Path, originals: Any) -> None:
    options = originals.write("dsprites", tmp_path / "raw", 20)
    path = tmp_path / "raw" / originals.DSPRITES
    data = bytearray(path.read_bytes())
    at = data.index(b"imgs.npy") + 400
    data[at : at + 30] = bytes(30)
    path.write_bytes(data)
    refused(r"npz cannot be read", "dsprites", **options)
    path.write_bytes(data[:-100])
    refused(r"npz cannot be read", "dsprites", **options)


# --- all of them


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("celeba", {"crop": 200}, "celeba: crop is 200: between 8 and 178"),
        ("celeba", {"size": 178}, "celeba: size is 178: .*the crop's 148"),
        ("chairs", {"crop": 601}, "chairs: crop is 601"),
        ("chairs", {"size": 4}, "chairs: size is 4"),
    ],
)
def test_options_out_of_range_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_source(name, **options)


@pytest.mark.parametrize(("name", "dataset"), [("svhn", "SVHN"), ("celeba", "CelebA"), ("mnist", "MNIST")])
def test_a_download_that_fails_says_what_to_fetch_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, dataset: str
) -> None:
    from shards import torchvision_ops

    torchvision_ops.ensure_importable()
    import torchvision.datasets

    asked = []

    def offline(root: str, download: bool, **options: Any) -> None:
        asked.append((root, download))
        raise RuntimeError("no route to host\nand a second line")

    monkeypatch.setattr(torchvision.datasets, dataset, offline)
    with pytest.raises(UserError, match=r"failed \(no route to host\): fetch .* from http.* by hand") as caught:
        open_source(name, path=str(tmp_path), download=True)
    assert "\n" not in str(caught.value)
    assert asked == [(str(tmp_path), True)]


def test_check_finds_a_damaged_image_at_the_end(tmp_path: Path, originals: Any) -> None:
    from shards.sources import get

    options = originals.celeba_repackaged(tmp_path, 20)
    (tmp_path / "img_align_celeba" / "img_align_celeba" / "000020.jpg").write_bytes(b"\xff\xd8 torn")
    kind = get("celeba")
    _, lines = check(kind, kind.Options(**options))
    assert lines[0] == "20 images instead of the 202,599 published"
    assert "000020.jpg cannot be read as an image" in lines[-1]
