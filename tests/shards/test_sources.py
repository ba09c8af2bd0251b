"""Sources read what their authors publish, and say in one line what is wrong with it."""

from __future__ import annotations

import dataclasses
import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards import sources
from shards.errors import DataError, UserError
from shards.sources import open_source
from shards.verify import verify
from shards.writer import build


def write_idx(path: Path, array: np.ndarray, packed: bool = False) -> None:
    """An idx file, put together by hand from the format's description."""
    data = b"\x00\x00\x08" + bytes([array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape)
    data += array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if packed else data)


def write_mnist(folder: Path, packed: bool = False, train: int = 30, test: int = 7) -> dict[str, np.ndarray]:
    dice = np.random.RandomState(0)
    arrays = {
        "train-images-idx3-ubyte": dice.randint(0, 256, (train, 4, 3)),
        "train-labels-idx1-ubyte": dice.randint(0, 10, train),
        "t10k-images-idx3-ubyte": dice.randint(0, 256, (test, 4, 3)),
        "t10k-labels-idx1-ubyte": dice.randint(0, 10, test),
    }
    for name, array in arrays.items():
        write_idx(folder / (name + (".gz" if packed else "")), array, packed)
    return arrays


def write_photos(folder: Path, number: int = 12) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        pixels = np.random.RandomState(i).randint(0, 256, (20 + i % 15, 30 - i % 15, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"photo{i:02d}.png")


def test_every_option_of_every_source_is_explained() -> None:
    for name in sources.names():
        for field in dataclasses.fields(sources.get(name).Options):
            assert field.metadata["help"], f"{name}.{field.name}"
            assert field.default is not dataclasses.MISSING


def test_an_unknown_source_or_option_lists_the_valid_ones() -> None:
    with pytest.raises(UserError, match="unknown source 'mnits': choose one of digits, mnist, fashion_mnist, svhn"):
        sources.get("mnits")
    with pytest.raises(UserError, match="'folder' has no option colour: it takes path, size, color"):
        open_source("folder", colour="grey")


@pytest.mark.parametrize("name", ["a b/../c", "", "..", 5, ["list"], "-x", "name\n"])
def test_a_name_is_a_word(pattern: Any, name: Any) -> None:
    with pytest.raises(UserError, match="a name must be a text that begins with a letter"):
        sources.register(name)(type(pattern()))
    assert name not in sources.names()


def test_a_source_registered_from_outside_is_found(pattern: Any) -> None:
    kind = type(pattern())
    try:
        sources.register("outside")(kind)
        assert sources.get("outside") is kind
        assert "outside" in sources.names()
        with pytest.raises(UserError, match="the name is taken, by Pattern"):
            sources.register("outside")(sources.get("digits"))
    finally:
        sources._registry.pop("outside")
        kind.kind = "pattern"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", [".", "raw", "MNIST/raw"])
def test_idx_files_are_read_wherever_they_usually_lie(tmp_path: Path, packed: bool, place: str) -> None:
    arrays = write_mnist(tmp_path / place, packed)
    mnist = open_source("mnist", path=str(tmp_path))
    assert mnist.splits == {"train": 28, "validation": 2, "test": 7}
    assert mnist.shape == (4, 3, 1)
    # By hand: positions 11 and 23 of 30 are validation.
    assert [mnist.sample("validation", i).key for i in range(2)] == [11, 23]
    assert [mnist.sample("train", i).key for i in range(28)] == [i for i in range(30) if i not in (11, 23)]
    sample = mnist.sample("train", 11)
    assert sample.key == 12
    np.testing.assert_array_equal(sample.image[..., 0], arrays["train-images-idx3-ubyte"][12])
    assert sample.label == arrays["train-labels-idx1-ubyte"][12]
    np.testing.assert_array_equal(mnist.sample("test", 6).image[..., 0], arrays["t10k-images-idx3-ubyte"][6])


def _drop(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").unlink()


def _cut(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])


def _damage_gzip(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(gzip.compress(path.read_bytes())[:-20])


def _other_type(folder: Path) -> None:
    path = folder / "train-labels-idx1-ubyte"
    path.write_bytes(b"\x00\x00\x0d" + path.read_bytes()[3:])


def _shorter_labels(folder: Path) -> None:
    write_idx(folder / "train-labels-idx1-ubyte", np.zeros(29))


def _high_label(folder: Path) -> None:
    write_idx(folder / "t10k-labels-idx1-ubyte", np.full(7, 10))


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (_drop, "lacks t10k-labels-idx1-ubyte"),
        (_cut, r"holds 355 bytes, its header says 30x4x3"),
        (_damage_gzip, "is damaged"),
        (_other_type, "is no idx file of bytes"),
        (_shorter_labels, r"images of shape \(30, 4, 3\) but labels of shape \(29,\)"),
        (_high_label, "label 10 of 10 classes"),
    ],
)
def test_broken_idx_files_are_named(tmp_path: Path, breaks: Callable[[Path], None], message: str) -> None:
    write_mnist(tmp_path)
    breaks(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        open_source("mnist", path=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_missing_idx_files_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.*--path FOLDER, or add --download"):
        open_source("mnist", path=str(tmp_path))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_real_files_have_their_published_sizes(real_data: Path, name: str) -> None:
    real = open_source(name, path=str(real_data / name))
    assert real.splits == {"train": 55000, "validation": 5000, "test": 10000}
    assert real.shape == (28, 28, 1)
    if name == "mnist":
        first = [real.sample("train", i).label for i in range(10)]
        assert first == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # known to everyone who has looked at it


def test_digits_are_balanced_bright_and_centred() -> None:
    digits = open_source("digits")
    assert sum(digits.splits.values()) == 1797
    for split, count in digits.splits.items():
        labels = np.bincount([digits.sample(split, i).label for i in range(count)], minlength=10)  # type: ignore[misc]
        assert labels.min() >= 0.9 * count / 10
        assert labels.max() <= 1.1 * count / 10
    images = np.stack([digits.sample("train", i).image[..., 0] for i in range(300)]).astype(float)
    assert images[:, 0].max() == images[:, -1].max() == images[:, :, 0].max() == images[:, :, -1].max() == 0
    assert 20 < images.mean() < 60  # MNIST: 33
    assert np.percentile(images, 99) > 240
    middle = (images * np.arange(28)).sum(axis=(1, 2)) / images.sum(axis=(1, 2))
    assert abs(middle.mean() - 13.5) < 1.0


def test_a_folder_without_subfolders_has_no_classes(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", 40)
    (tmp_path / "in" / "readme.txt").write_text("not an image")
    (tmp_path / "in" / ".hidden.png").write_bytes(b"x")
    folder = open_source("folder", path=str(tmp_path / "in"), size="16")
    assert folder.classes == ()
    assert folder.splits == {"train": 32, "validation": 4, "test": 4}
    assert folder.sample("train", 0).label is None
    assert folder.shape == (16, 16, 3)
    assert open_source("folder", path=str(tmp_path / "in"), size="16x8", color="grey").shape == (16, 8, 1)


def test_subfolders_are_classes_and_each_is_in_every_split(tmp_path: Path) -> None:
    for name in ("cats", "dogs", "birds"):
        write_photos(tmp_path / name / "deeper", 20)
    folder = open_source("folder", path=str(tmp_path), size="8")
    assert folder.classes == ("birds", "cats", "dogs")
    for split, each in (("train", 16), ("validation", 2), ("test", 2)):
        labels = [folder.sample(split, i).label for i in range(folder.splits[split])]
        assert labels == sorted(labels)  # type: ignore[type-var]
        assert np.bincount(labels).tolist() == [each] * 3  # type: ignore[arg-type]


def test_the_middle_is_cut_or_the_whole_squeezed(tmp_path: Path) -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, :10], wide[:, 10:20], wide[:, 20:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    for i in range(10):
        Image.fromarray(wide).save(tmp_path / f"{i}.png")
    cut = open_source("folder", path=str(tmp_path), size="10").sample("train", 0).image
    assert (cut == (0, 255, 0)).all()
    squeezed = open_source("folder", path=str(tmp_path), size="30x30", crop="none").sample("train", 0).image
    assert (squeezed[:, 2] == (255, 0, 0)).all()
    assert (squeezed[:, 27] == (0, 0, 255)).all()


def _mixed(folder: Path) -> dict[str, tuple[int, ...]]:
    """Images of every kind that shows one plain colour; what each must come out as."""
    folder.mkdir()
    red = Image.new("RGB", (24, 16), (200, 10, 10))
    red.save(folder / "a_plain.png")
    Image.new("L", (16, 16), 90).save(folder / "b_grey.png")
    Image.new("1", (16, 16), 1).save(folder / "c_bits.png")
    Image.new("RGBA", (16, 16), (200, 10, 10, 0)).save(folder / "d_clear.png")
    Image.new("LA", (16, 16), (90, 255)).save(folder / "e_opaque.png")
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([0, 0, 0, 10, 200, 10])
    palette.save(folder / "f_palette.png")
    palette.save(folder / "g_clear_palette.png", transparency=1)
    Image.fromarray(np.full((16, 16), 0x8040, np.uint16)).save(folder / "h_deep.png")
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(folder / "i_cmyk.jpg", quality=95)
    Image.fromarray(np.full((16, 16), 0x4080, np.uint16)).save(folder / "j_deep.tif")
    return {
        "a": (200, 10, 10), "b": (90, 90, 90), "c": (255, 255, 255), "d": (255, 255, 255), "e": (90, 90, 90),
        "f": (10, 200, 10), "g": (255, 255, 255), "h": (128, 128, 128), "i": (255, 0, 0), "j": (64, 64, 64),
    }  # fmt: skip


def test_images_of_every_kind_come_out_as_they_look(tmp_path: Path) -> None:
    expected = _mixed(tmp_path / "in")
    folder = open_source("folder", path=str(tmp_path / "in"), size="8", validation=0.0, test=0.0)
    for i, (name, colour) in enumerate(expected.items()):
        image = folder.sample("train", i).image.astype(int)
        assert abs(image - colour).max() <= 3, name
    grey = open_source("folder", path=str(tmp_path / "in"), size="8", color="grey", validation=0.0, test=0.0)
    assert grey.sample("train", 1).image.ravel().tolist() == [90] * 64
    assert grey.sample("train", 7).image.ravel().tolist() == [128] * 64


def test_a_photograph_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    picture = np.zeros((20, 20, 3), np.uint8)
    picture[:10] = 255  # the upper half is white as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright: the right half is white
    for i in range(10):
        Image.fromarray(picture).save(tmp_path / f"{i}.jpg", exif=exif, quality=95)
    image = open_source("folder", path=str(tmp_path), size="20").sample("train", 0).image.astype(int)
    assert image[:, 15:].min() > 240
    assert image[:, :5].max() < 15


def _animation(path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (80 * i, 0, 0)) for i in range(3)]
    frames[0].save(path.with_suffix(".gif"), save_all=True, append_images=frames[1:], duration=50)


def _floats(path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(path.with_suffix(".tif"))


def _text(path: Path) -> None:
    path.with_suffix(".png").write_text("no image at all")


def _half(path: Path) -> None:
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)).save(
        path.with_suffix(".jpg")
    )
    data = path.with_suffix(".jpg").read_bytes()
    path.with_suffix(".jpg").write_bytes(data[: len(data) // 2])


def _nothing(path: Path) -> None:
    path.with_suffix(".png").write_bytes(b"")


@pytest.mark.parametrize("spoil", [_animation, _floats, _text, _half, _nothing])
def test_an_unreadable_image_is_named_or_left_out(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    write_photos(tmp_path / "in", 10)
    spoil(tmp_path / "in" / "spoiled")
    options = {"path": str(tmp_path / "in"), "size": "8", "validation": 0.0, "test": 0.0}
    with pytest.raises(DataError, match=r"in/spoiled\.(png|gif|jpg|tif) ") as caught:
        build(open_source("folder", **options), tmp_path / "strict", progress=False)
    assert "\n" not in str(caught.value)
    manifest = build(open_source("folder", **options, skip_unreadable=True), tmp_path / "set", progress=False)
    assert manifest.samples == 10
    assert manifest.source["skipped"] == 1
    assert "spoiled" in (tmp_path / "set" / "skipped.json").read_text()
    assert verify(tmp_path / "set", progress=False) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "32x"}, "size is '32x'"),
        ({"size": "big"}, "size is 'big'"),
        ({"size": "0"}, "between 1 and 4096"),
        ({"color": "blue"}, "color is 'blue': choose rgb or grey"),
        ({"crop": "left"}, "crop is 'left': choose center or none"),
        ({"test": 1.5}, "test is 1.5"),
        ({"test": 0.6, "validation": 0.4}, "leave nothing to train on"),
    ],
)
def test_folder_options_out_of_range_are_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_source("folder", path=str(tmp_path), **options)


def test_a_folder_that_is_no_data_set_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --path FOLDER"):
        open_source("folder")
    with pytest.raises(DataError, match="is not a folder"):
        open_source("folder", path=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="holds no images"):
        open_source("folder", path=str(tmp_path))
    write_photos(tmp_path, 1)
    with pytest.raises(DataError, match="holds 1 images, 1 of them for training: at least 2"):
        open_source("folder", path=str(tmp_path))
    write_photos(tmp_path / "cats", 3)
    with pytest.raises(DataError, match=r"both loose images \(photo00\.png\) and subfolders"):
        open_source("folder", path=str(tmp_path))


def test_another_image_in_the_folder_is_another_data_set(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", 10)
    options = {"path": str(tmp_path / "in"), "size": "8"}
    build(open_source("folder", **options), tmp_path / "set", progress=False)
    write_photos(tmp_path / "in", 11)
    with pytest.raises(UserError, match="differs in source"):
        build(open_source("folder", **options), tmp_path / "set", progress=False)
