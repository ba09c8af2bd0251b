"""From the bytes of an image file to uint8 pixels of the shape asked for: what all sources of pictures share.

Every image is turned as its EXIF data says, brought to grey or RGB, cropped and resized. What that means for
the less common kinds: transparency is laid over white; CMYK and palettes become RGB; 16-bit grey keeps its
upper 8 bits; animated and floating-point images are refused by name, since which frame or which range is
meant cannot be known.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from shards.sources.base import UnreadableImage
from shards.sources.damage import reason

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".avif")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "AVIF")


def read(file: Path | bytes, where: str, shape: tuple[int, int, int], crop: str | int) -> NDArray[np.uint8]:
    """Reads one image file, given by its path or its content.

    Args:
        where: what an error calls it.
        shape: (height, width, channels) of the result; 1 channel is grey, 3 are RGB.
        crop: as in `fitted`.

    Returns:
        uint8 [height, width, channels].

    Raises:
        UnreadableImage: damaged, no image, animated, of a kind whose range is unknown, or smaller than the crop.
    """
    height, width, channels = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata and large images
            with Image.open(file if isinstance(file, Path) else io.BytesIO(file), formats=_FORMATS) as picture:
                frames = getattr(picture, "n_frames", 1)
                if frames > 1 and picture.format != "MPO":  # an MPO's further frames are the same view, for 3D
                    raise UnreadableImage(
                        f"{where} is animated or has several pages ({frames} frames): extract the one you want"
                    )
                if crop == "center":
                    # A JPEG can be decoded at a fraction of its size; twice the target is kept, for a clean
                    # reduction.
                    reach = 2 * max(height, width)
                    picture.draft(None, (reach, reach))
                plain = _plain(picture, where, "RGB" if channels == 3 else "L")
    except UnidentifiedImageError:  # whose own words hold an address in memory
        raise UnreadableImage(
            f"{where} cannot be read as an image (it begins as none of {', '.join(_FORMATS)} does): repair or remove it"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"{where} cannot be read as an image ({reason(error)}): repair or remove it") from None
    return fitted(plain, where, shape, crop)


def fitted(picture: Image.Image, where: str, shape: tuple[int, int, int], crop: str | int) -> NDArray[np.uint8]:
    """Crops and resizes (Lanczos, so without aliasing) a picture of mode L or RGB: uint8 [height, width, channels].

    Args:
        crop: `center` cuts the largest middle part of the target's proportions, `none` squeezes the whole picture
            into it, a number cuts a square of that side from the middle.

    Raises:
        UnreadableImage: the picture is smaller than the square to cut, or so thin that one colour would be left of it.
    """
    height, width, _ = shape
    if min(picture.size) < min(2, height, width):
        raise UnreadableImage(
            f"{where} is {picture.width}x{picture.height}: one colour is all that it could show; remove it"
        )
    if crop == "center":
        small = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    elif crop == "none":
        small = picture.resize((width, height), Image.Resampling.LANCZOS)
    else:
        side = int(crop)
        if min(picture.size) < side:
            raise UnreadableImage(
                f"{where} is {picture.width}x{picture.height}, too small for the crop of {side}x{side}: "
                "lower --crop, or fetch the original images"
            )
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        # Cut before resizing: resize's own `box` would let pixels from outside bleed in.
        square = picture.crop((left, top, left + side, top + side))
        small = square.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(small, np.uint8).reshape(shape)


def _plain(picture: Image.Image, where: str, mode: str) -> Image.Image:
    """Upright, 8 bits, without transparency, in mode L or RGB."""
    picture.load()
    upright = ImageOps.exif_transpose(picture)
    if upright.mode == "F":
        raise UnreadableImage(f"{where} holds floating-point values of unknown range: convert it to 8 bits")
    if upright.mode.startswith("I"):
        values = np.asarray(upright).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UnreadableImage(f"{where} holds 32-bit values of unknown range: convert it to 8 bits")
        upright = Image.fromarray((values >> 8).astype(np.uint8))
    if upright.has_transparency_data:
        layered = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return upright if upright.mode == mode else upright.convert(mode)
