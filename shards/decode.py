"""Decoders for the members of a shard: an allow-list, and nothing else is ever opened.

Names and bytes in a tar come from outside. A member whose extension is not listed here is refused by name;
none of these decoders can run code from the data.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, PngImagePlugin

from shards.errors import DataError
from shards.manifest import ImageSpec

EXTENSIONS = ("png", "jpg", "npy", "cls", "json")
SPELLINGS = {"jpeg": "jpg", "class": "cls"}  # of webdataset's users, and ours
# What webdataset, or a reader that guesses, would hand to a decoder that can run what it finds. Never read, never kept.
RUNNING_CODE = ("pyd", "pickle", "pkl", "pth", "pt", "ckpt", "joblib", "dill", "cloudpickle", "py", "so", "dll", "sh")
_MODES = {1: "L", 3: "RGB"}
_PLUGINS: dict[str, type[Any]] = {"png": PngImagePlugin.PngImageFile, "jpg": JpegImagePlugin.JpegImageFile}
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, zlib.error, Image.DecompressionBombError)


def split_name(name: str) -> tuple[str, str]:
    """`00000012.cls` -> ("00000012", "cls").

    Raises:
        DataError: the name has no key, or an extension outside the allow-list.
    """
    key, _, extension = name.partition(".")
    if not key or extension not in EXTENSIONS:
        raise DataError(f"member {name!r} is of a type that is never opened (allowed: {', '.join(EXTENSIONS)})")
    return key, extension


def split_adopted(name: str) -> tuple[str, str]:
    """`n01/img_1.seg.PNG` -> ("n01/img_1", "seg.png"), as webdataset takes a member's name apart."""
    folder, slash, file = name.rpartition("/")
    key, _, extension = file.partition(".")
    extension = extension.lower()
    return f"{folder}{slash}{key}", SPELLINGS.get(extension, extension)


def image(data: bytes, spec: ImageSpec) -> NDArray[np.uint8]:
    """Decodes an image: uint8 [height, width, channels].

    Raises:
        DataError: damaged, or of another shape or mode than `spec` says.
    """
    try:
        pixels = _IMAGE_DECODERS[spec.encoding](data, spec)
    except _DAMAGE as error:
        raise DataError(f"the {spec.encoding} image cannot be decoded ({error})") from None
    if pixels.shape != spec.shape or pixels.dtype != np.uint8:
        raise DataError(f"the image is {pixels.dtype} {pixels.shape}, not uint8 {spec.shape} as the manifest says")
    return pixels


def spec_of(data: bytes, encoding: str) -> ImageSpec:
    """Shape of an image that nobody has described yet.

    Raises:
        DataError: it cannot be decoded, or is neither grey nor RGB of 8 bits.
    """
    try:
        if encoding == "npy":
            pixels = np.load(io.BytesIO(data), allow_pickle=False)
            height, width, channels = (*pixels.shape, 1, 1, 1)[:3]
            if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels not in _MODES:
                raise DataError(f"the array is {pixels.dtype} {pixels.shape}, not uint8 [height, width, 1 or 3]")
        else:
            with _PLUGINS[encoding](io.BytesIO(data)) as picture:
                channels = next((count for count, mode in _MODES.items() if mode == picture.mode), 0)
                if not channels:
                    raise DataError(f"the image has mode {picture.mode}, not {' or '.join(_MODES.values())}")
                height, width = picture.height, picture.width
    except _DAMAGE as error:
        raise DataError(f"the {encoding} image cannot be decoded ({error})") from None
    return ImageSpec(height, width, channels, encoding)


def _pillow(plugin: type[Any]) -> Callable[[bytes, ImageSpec], NDArray[np.uint8]]:
    def decode(data: bytes, spec: ImageSpec) -> NDArray[np.uint8]:
        # The plugin itself, not Image.open: no other format can be smuggled in under the extension.
        with plugin(io.BytesIO(data)) as picture:
            if picture.mode != _MODES[spec.channels]:
                raise DataError(f"the image has mode {picture.mode}, not {_MODES[spec.channels]} as the manifest says")
            if (picture.height, picture.width) != (spec.height, spec.width):
                size = f"{picture.height}x{picture.width}"
                raise DataError(f"the image is {size}, not {spec.height}x{spec.width} as the manifest says")
            return np.asarray(picture).reshape(spec.shape)

    return decode


def _npy(data: bytes, spec: ImageSpec) -> NDArray[np.uint8]:
    header = npy_header(spec)
    if data.startswith(header) and len(data) == len(header) + spec.nbytes:  # what our own writer makes: no parsing
        return np.frombuffer(data, np.uint8, offset=len(header)).reshape(spec.shape)
    loaded: NDArray[np.uint8] = np.load(io.BytesIO(data), allow_pickle=False)
    return loaded[..., None] if loaded.shape == spec.shape[:2] and spec.channels == 1 else loaded


_headers: dict[ImageSpec, bytes] = {}


def npy_header(spec: ImageSpec) -> bytes:
    """The header that `np.save` writes before an image of this shape."""
    if spec not in _headers:
        stream = io.BytesIO()
        np.save(stream, np.zeros(spec.shape, np.uint8), allow_pickle=False)
        _headers[spec] = stream.getvalue()[: -spec.nbytes]
    return _headers[spec]


_IMAGE_DECODERS: dict[str, Callable[[bytes, ImageSpec], NDArray[np.uint8]]] = {
    **{encoding: _pillow(plugin) for encoding, plugin in _PLUGINS.items()},
    "npy": _npy,
}


def label(data: bytes, classes: int) -> int:
    """Decodes a label: an ASCII integer in [0, classes), or -1 for a sample without one.

    Raises:
        DataError: not an integer, or out of range.
    """
    try:
        value = int(data.decode("ascii"))
    except ValueError:
        raise DataError(f"the label {data[:20]!r} is not a whole number") from None
    if not -1 <= value < classes:
        raise DataError(f"the label {value} is out of range: there are {classes} classes")
    return value


def factors(data: bytes, specs: dict[str, dict[str, Any]]) -> list[float]:
    """Decodes a sample's factors, in the manifest's order (a categorical one as its index).

    Raises:
        DataError: not JSON, a factor missing, not a number or out of its range.
    """
    try:
        document = json.loads(data)
    except ValueError as error:
        raise DataError(f"the factors are not JSON ({error})") from None
    if not isinstance(document, dict) or list(document) != list(specs):
        raise DataError(f"the factors must be exactly {', '.join(specs)}, in this order")
    return [_factor(name, document[name], spec) for name, spec in specs.items()]


def _factor(name: str, value: Any, spec: dict[str, Any]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"the factor {name} is {value!r}, not a number")
    low, high = (0, spec["values"] - 1) if spec["kind"] == "categorical" else spec["range"]
    if not low <= value <= high or (spec["kind"] == "categorical" and value != int(value)):
        raise DataError(f"the factor {name} is {value}, outside [{low}, {high}]")
    return float(value)
