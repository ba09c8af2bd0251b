"""Small raw data in exactly the formats that its authors publish, drawn so that one sees what it stands for.

`write(name, folder)` makes the files of one source and returns the options for `open_source`. Every file is put
together here from the format's description, never by the code that reads it.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import runpy
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

IMAGES = 60
ATTRIBUTES = [
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
]
AZIMUTHS = [int(360 * step / 31) for step in range(31)]  # 0, 11, 23, 34, ... 348, as in the names of the original
DSPRITES = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
_WRITERS: dict[str, Callable[..., dict[str, Any]]] = {}


def write(name: str, folder: Path, images: int = IMAGES) -> dict[str, Any]:
    """Writes about `images` images for the source `name` into `folder`; the options that open them."""
    folder.mkdir(parents=True, exist_ok=True)
    return _WRITERS[name](folder, images)


def _writer(*names: str) -> Callable[[Callable[..., dict[str, Any]]], Callable[..., dict[str, Any]]]:
    def add(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        _WRITERS.update(dict.fromkeys(names, function))
        return function

    return add


def glyph(text: str, side: int, ink: Any, paper: Any, mode: str = "L", dx: float = 0.0) -> Image.Image:
    """A character in the middle of a square."""
    picture = Image.new(mode, (side, side), paper)
    font = ImageFont.load_default(size=0.8 * side)
    ImageDraw.Draw(picture).text((side / 2 + dx, side / 2), text, fill=ink, font=font, anchor="mm")
    return picture


@_writer("digits")
def digits(folder: Path, images: int) -> dict[str, Any]:
    """Built in."""
    return {}


def write_idx(path: Path, array: np.ndarray, packed: bool = False) -> None:
    """An idx file of bytes: zeros, the type 8, the number of dimensions, each as big-endian u32, the data."""
    data = b"\x00\x00\x08" + bytes([array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    data += array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if packed else data)


@_writer("mnist", "fashion_mnist")
def mnist(folder: Path, images: int) -> dict[str, Any]:
    """The four idx files."""
    dice = np.random.RandomState(0)
    for part, count in (("train", images - images // 5), ("t10k", images // 5)):
        labels = np.arange(count) % 10
        pictures = [glyph(str(label), 28, 255, 0).rotate(dice.uniform(-15, 15), 3) for label in labels]
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", np.stack([np.asarray(p) for p in pictures]), packed=True)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels, packed=True)
    return {"path": str(folder)}


@_writer("svhn")
def svhn(folder: Path, images: int) -> dict[str, Any]:
    """train_32x32.mat and test_32x32.mat, MATLAB 5, compressed: X [32, 32, 3, N] uint8, y [N, 1] with 10 for 0."""
    svhn_file(folder / "train_32x32.mat", images - images // 5, 0)
    svhn_file(folder / "test_32x32.mat", images // 5, 1)
    return {"path": str(folder)}


def svhn_file(path: Path, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One of the files; X and the digits 0..9."""
    from scipy.io import savemat

    dice = np.random.RandomState(seed)
    labels = dice.randint(0, 10, count)
    pictures = []
    for label in labels:
        paper, ink = (tuple(map(int, dice.randint(low, low + 110, 3))) for low in dice.permutation([20, 140]))
        picture = glyph(str(label), 32, ink, paper, "RGB")
        for side, dx in ((-1, -20), (1, 20)):  # half a neighbour on each side
            half = glyph(str(dice.randint(10)), 32, ink, paper, "RGB", dx)
            box = (0, 0, 8, 32) if side < 0 else (24, 0, 32, 32)
            picture.paste(half.crop(box), box)
        pictures.append(np.asarray(picture.filter(ImageFilter.GaussianBlur(0.6))))
    x = np.stack(pictures, axis=3)
    y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
    savemat(path, {"X": x, "y": y}, do_compression=True)
    return x, labels


def _celeba_face(flags: dict[str, int], dice: np.random.RandomState) -> Image.Image:
    """178x218: a drawn face that shows some of its attributes."""
    picture = Image.new("RGB", (178, 218), tuple(map(int, dice.randint(60, 200, 3))))
    draw = ImageDraw.Draw(picture)
    hair = (225, 195, 110) if flags["Blond_Hair"] else (30, 25, 25) if flags["Black_Hair"] else (105, 65, 35)
    skin = tuple(int(v) for v in np.array([224, 180, 150]) * dice.uniform(0.6, 1.0))
    draw.rectangle((30, 180, 148, 218), fill=(40, 60, 100) if flags["Male"] else (150, 50, 80))
    draw.ellipse((36, 38, 142, 196 if not flags["Male"] else 150), fill=hair)
    draw.ellipse((45, 58, 133, 182), fill=skin)
    if flags["Bangs"]:
        draw.pieslice((43, 50, 135, 140), 190, 350, fill=hair)
    for eye in (70, 108):
        draw.ellipse((eye - 8, 106, eye + 8, 116), fill="white")
        draw.ellipse((eye - 4, 107, eye + 4, 115), fill=(50, 40, 30))
        if flags["Eyeglasses"]:
            draw.ellipse((eye - 15, 98, eye + 15, 124), outline="black", width=3)
    draw.line((89, 118, 86, 138, 93, 138), fill=tuple(int(v * 0.7) for v in skin), width=2)
    mouth = (70, 140, 108, 162) if flags["Smiling"] else (72, 148, 106, 154)
    draw.chord(mouth, 0, 180, fill=(190, 40, 50) if flags["Wearing_Lipstick"] else (150, 80, 75))
    return picture.filter(ImageFilter.GaussianBlur(1.0))


@_writer("celeba")
def celeba(folder: Path, images: int) -> dict[str, Any]:
    """img_align_celeba.zip with its folder inside, list_eval_partition.txt and list_attr_celeba.txt."""
    names, flags, parts = celeba_lists(images)
    (folder / "list_eval_partition.txt").write_text("".join(f"{n} {p}\n" for n, p in zip(names, parts, strict=True)))
    rows = [f"{name} {' '.join(f'{2 * v - 1:2d}' for v in row)}" for name, row in zip(names, flags, strict=True)]
    text = "\n".join([str(images), " ".join(ATTRIBUTES) + " ", *rows, ""])
    (folder / "list_attr_celeba.txt").write_text(text)
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("img_align_celeba/", "")
        for name, data in celeba_images(names, flags):
            archive.writestr(f"img_align_celeba/{name}", data)
    return {"path": str(folder)}


def celeba_repackaged(folder: Path, images: int = IMAGES) -> dict[str, Any]:
    """The same as it is repackaged: CSV files with a header, and a folder in a folder of its own name."""
    names, flags, parts = celeba_lists(images)
    inner = folder / "img_align_celeba" / "img_align_celeba"
    inner.mkdir(parents=True)
    for name, data in celeba_images(names, flags):
        (inner / name).write_bytes(data)
    with open(folder / "list_eval_partition.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([("image_id", "partition"), *zip(names, parts, strict=True)])
    with open(folder / "list_attr_celeba.csv", "w", newline="") as stream:
        table = [[name, *(2 * row - 1)] for name, row in zip(names, flags, strict=True)]
        csv.writer(stream).writerows([["image_id", *ATTRIBUTES], *table])
    return {"path": str(folder)}


def celeba_lists(images: int) -> tuple[list[str], np.ndarray, list[int]]:
    """Names from 000001.jpg on, attributes [N, 40] in {0, 1}, and parts: four fifths, a tenth and a tenth."""
    names = [f"{number:06d}.jpg" for number in range(1, images + 1)]
    parts = [0] * (images - 2 * (images // 10)) + [1] * (images // 10) + [2] * (images // 10)
    return names, np.random.RandomState(0).randint(0, 2, (images, len(ATTRIBUTES))), parts


def celeba_images(names: list[str], flags: np.ndarray) -> Any:
    """Pairs of a name and a JPEG file's content."""
    for number, (name, row) in enumerate(zip(names, flags, strict=True)):
        stream = io.BytesIO()
        face = _celeba_face(dict(zip(ATTRIBUTES, row.tolist(), strict=True)), np.random.RandomState(number))
        face.save(stream, "JPEG", quality=90)
        yield name, stream.getvalue()


def chair_image(model: int, elevation: int, azimuth: float) -> Image.Image:
    """600x600, RGB on white: a chair of five boxes, far ones drawn first."""
    dice = np.random.RandomState(model)
    wide, seat, back = dice.uniform(75, 115), dice.uniform(-30, 10), dice.uniform(90, 140)
    grey = dice.randint(90, 190)
    boxes = [(-wide, wide, -wide, wide, seat, seat + 14), (-wide, wide, wide - 12, wide, seat + 14, seat + back)]
    legs = [(-wide, -wide), (-wide, wide - 10), (wide - 10, -wide), (wide - 10, wide - 10)]
    boxes += [(x, x + 10, y, y + 10, -120, seat) for x, y in legs]
    turn, tilt = math.radians(azimuth), math.radians(elevation)
    faces = []
    for x0, x1, y0, y1, z0, z1 in boxes:
        corner = np.array([[x, y, z] for x in (x0, x1) for y in (y0, y1) for z in (z0, z1)], float)
        for side, shade in (((0, 1, 3, 2), 0.7), ((4, 5, 7, 6), 0.7), ((0, 1, 5, 4), 0.85), ((2, 3, 7, 6), 0.85),
                            ((1, 3, 7, 5), 1.0), ((0, 2, 6, 4), 0.5)):  # fmt: skip
            points = corner[list(side)]
            across = points[:, 0] * math.cos(turn) - points[:, 1] * math.sin(turn)
            away = points[:, 0] * math.sin(turn) + points[:, 1] * math.cos(turn)
            up = points[:, 2] * math.cos(tilt) + away * math.sin(tilt)
            depth = away * math.cos(tilt) - points[:, 2] * math.sin(tilt)
            shape = [(300 + u, 300 - v) for u, v in zip(across, up, strict=True)]
            faces.append((depth.mean(), shape, int(grey * shade)))
    picture = Image.new("RGB", (600, 600), "white")
    for _, shape, shade in sorted(faces, key=lambda face: -face[0]):
        ImageDraw.Draw(picture).polygon(shape, fill=(shade, shade, int(0.9 * shade)))
    return picture


def chair_members(models: int, views: int) -> Any:
    """Names below rendered_chairs/ and PNG files: `views` of the 31 azimuths at 20 degrees, then at 30."""
    for model in range(models):
        name = f"{(model + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}"
        order = [(e, view * 31 // views) for e in (20, 30) for view in range(views)]
        for number, (elevation, step) in enumerate(order):
            stream = io.BytesIO()
            chair_image(model, elevation, 360 * step / 31).save(stream, "PNG", compress_level=1)
            file = f"image_{number:03d}_p{elevation:03d}_t{AZIMUTHS[step]:03d}_r096.png"
            yield f"rendered_chairs/{name}/renders/{file}", stream.getvalue()


@_writer("chairs")
def chairs(folder: Path, images: int) -> dict[str, Any]:
    """rendered_chairs.tar, with the list of models beside the models as in the original."""
    with tarfile.open(folder / "rendered_chairs.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        files = [("rendered_chairs/all_chair_names.mat", b"MATLAB 5.0 MAT-file")]
        for name, data in [*files, *chair_members(10, max(1, images // 20))]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return {"path": str(folder)}


def face_render(azimuth: float, elevation: float, side: int = 64) -> np.ndarray:
    """uint8 [side, side]: a lit head on black, turned by two angles in degrees."""
    v, u = np.mgrid[1.2 : -1.2 : side * 1j, -1.2 : 1.2 : side * 1j]
    inside = 1 - (u / 0.8) ** 2 - v**2
    depth = np.sqrt(np.maximum(inside, 0))
    light = np.clip(0.35 + 0.6 * depth + 0.2 * u, 0, 1) * (inside > 0)
    across, up = math.sin(math.radians(azimuth)) * 0.8, math.sin(math.radians(elevation))
    for du, dv, wide, dark in ((-0.28, 0.2, 0.012, 0.6), (0.28, 0.2, 0.012, 0.6), (0.0, -0.15, 0.01, 0.25),
                               (0.0, -0.5, 0.02, 0.5)):  # fmt: skip
        stretch = 5 if dv == -0.5 else 1
        light *= 1 - dark * np.exp(-(((u - across - du) ** 2) / stretch + (v - up - dv) ** 2) / wide)
    return np.rint(255 * light).astype(np.uint8)


def face_factors(images: int) -> dict[str, np.ndarray]:
    """Azimuth and elevation in degrees, [N]."""
    dice = np.random.RandomState(0)
    return {"azimuth": dice.uniform(-60, 60, images), "elevation": dice.uniform(-20, 20, images)}


@_writer("faces")
def faces(folder: Path, images: int) -> dict[str, Any]:
    """An .npz of images [N, 64, 64] and two factors."""
    factors = face_factors(images)
    renders = np.stack([face_render(a, e) for a, e in zip(*factors.values(), strict=True)])
    np.savez_compressed(folder / "faces.npz", images=renders, **factors)
    return {"path": str(folder / "faces.npz")}


def sprite(shape: int, scale: float, turn: float, x: float, y: float) -> np.ndarray:
    """uint8 [64, 64] of 0 and 1: square, ellipse or heart."""
    rows, columns = np.mgrid[0:64, 0:64]
    u, v = (columns - 16 - 32 * x) / (12 * scale), (rows - 16 - 32 * y) / (12 * scale)
    u, v = u * math.cos(turn) + v * math.sin(turn), v * math.cos(turn) - u * math.sin(turn)
    if shape == 0:
        return (np.maximum(abs(u), abs(v)) < 0.75).astype(np.uint8)
    if shape == 1:
        return (u**2 + (2 * v) ** 2 < 1).astype(np.uint8)
    return ((u**2 + v**2 - 0.6) ** 3 + u**2 * v**3 < 0).astype(np.uint8)


@_writer("dsprites")
def dsprites(folder: Path, images: int) -> dict[str, Any]:
    """The .npz with its three arrays, the description pickled as in the original; some of the combinations."""
    sizes = np.array([1, 3, 6, 40, 32, 32])
    chosen = np.sort(np.random.RandomState(0).choice(int(sizes.prod()), images, replace=False))
    classes = np.stack(np.unravel_index(chosen, sizes), axis=1)
    scale, turn, places = 0.5 + 0.1 * classes[:, 2:3], 2 * np.pi / 39 * classes[:, 3:4], classes[:, 4:] / 31
    values = np.concatenate([np.ones((images, 1)), classes[:, 1:2] + 1.0, scale, turn, places], axis=1)
    pictures = np.stack([sprite(int(s) - 1, *rest) for _, s, *rest in values])
    np.savez_compressed(
        folder / DSPRITES,
        metadata=np.array({"title": "dSprites dataset", "latents_sizes": sizes}, dtype=object),
        imgs=pictures, latents_classes=classes, latents_values=values,
    )  # fmt: skip
    return {"path": str(folder)}


@_writer("folder")
def folder_of_pictures(folder: Path, images: int) -> dict[str, Any]:
    """Drawn faces of several sizes in two subfolders."""
    names, flags, _ = celeba_lists(images)
    for number, (name, data) in enumerate(celeba_images(names, flags)):
        path = folder / ("first", "second")[number % 2] / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return {"path": str(folder)}


@_writer("sprites", "housenumbers", "chairs3d")
def drawn(folder: Path, images: int) -> dict[str, Any]:
    """A renderer needs no files."""
    return {"samples": max(20, images - images // 5)}


@_writer("faces3d", "portraits")
def of_a_face_model(folder: Path, images: int) -> dict[str, Any]:
    """A face model of a few vertices."""
    beside = runpy.run_path(str(Path(__file__).with_name("small_face_model.py")))
    beside["write_packed"](folder / "ict_face_light.npz")
    return {"path": str(folder / "ict_face_light.npz"), **drawn(folder, images)}
