"""Grids of images: samples, and traversals that move one code while the rest stays as it is."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from infogan.codes import CategoricalCode, Codes, Latents
from infogan.networks import to_uint8
from infogan.randomness import generator as draws

TRAVERSAL_RANGE = 2.0  # the paper's figures move a continuous code from -2 to 2, beyond the prior's (-1, 1)


@torch.no_grad()
def generate(generator: nn.Module, latents: Latents, image_range: tuple[float, float], chunk: int = 256) -> Tensor:
    """Images of `latents`, in chunks: uint8 [n, C, H, W] on the CPU."""
    first = next(generator.parameters())
    vectors = latents.vector.to(first.device, first.dtype)
    return torch.cat([to_uint8(generator(part), image_range).cpu() for part in vectors.split(chunk)])


def fixed_latents(codes: Codes, n: int, seed: int) -> Latents:
    """The latents of a run's sample grid; where there is a categorical code, column k of 10 shows category k."""
    latents = codes.sample(n, draws(seed, "latents/pictures"))
    if not codes.categorical:
        return latents
    name = codes.categorical[0]
    code = codes.codes[name]
    assert isinstance(code, CategoricalCode)
    values = latents.values | {name: torch.arange(n) % 10 % code.ways}
    return codes.assemble(latents.vector[:, : codes.noise.size], values)


def traversal_latents(codes: Codes, name: str, rows: int, seed: int, columns: int = 10) -> tuple[Latents, list[str]]:
    """Latents whose code `name` changes along a row while all else is fixed, with the columns' captions.

    A categorical code goes through its categories (at most 20), a continuous one from -2 to 2 in `columns` steps.
    Row-major: [rows * columns, input width].
    """
    code = codes.codes[name]
    if isinstance(code, CategoricalCode):
        steps = torch.arange(min(code.ways, 20))
        captions = [str(int(step)) for step in steps]
    else:
        steps = torch.linspace(-TRAVERSAL_RANGE, TRAVERSAL_RANGE, columns)
        captions = [f"{float(step):+.1f}" for step in steps]
    base = codes.sample(rows, draws(seed, "latents/traversal"))
    if isinstance(code, CategoricalCode) or not codes.categorical:
        first = base.values
    else:
        shown = codes.categorical[0]
        ways = codes.codes[shown].input_width
        first = base.values | {shown: torch.arange(rows) % ways}
    values = {key: value.repeat_interleave(len(steps)) for key, value in first.items()}
    values[name] = steps.repeat(rows)
    noise = base.vector[:, : codes.noise.size].repeat_interleave(len(steps), dim=0)
    return codes.assemble(noise, values), captions


def grid(images: Tensor, columns: int, *, gap: int = 2, least_side: int = 0) -> Image.Image:
    """Tile uint8 [n, C, H, W] (C 1 or 3), row by row, on white.

    Images are enlarged by a whole factor until their height is `least_side` or more.
    """
    n, channels, height, width = images.shape
    scale = max(1, -(-least_side // height))
    tiles = images.permute(0, 2, 3, 1).numpy().repeat(scale, 1).repeat(scale, 2)
    height, width = height * scale, width * scale
    rows = -(-n // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 255, np.uint8)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top, left = row * (height + gap), column * (width + gap)
        canvas[top : top + height, left : left + width] = tile
    return Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)


def png(image: Image.Image) -> bytes:
    """An image as the bytes of a PNG file."""
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def run_pictures(generator: nn.Module, codes: Codes, image_range: tuple[float, float], seed: int) -> dict[str, bytes]:
    """A run's fixed pictures as PNG files, by name: `samples`, and `traversal-<code>` for every code."""
    latents = fixed_latents(codes, 100, seed)
    pictures = {"samples": png(grid(generate(generator, latents, image_range), 10, least_side=56))}
    for name in codes.codes:
        moving, captions = traversal_latents(codes, name, 10, seed)
        pictures[f"traversal-{name}"] = png(
            grid(generate(generator, moving, image_range), len(captions), least_side=56)
        )
    return pictures


def curves(rows: Sequence[Mapping[str, float]], ceilings: Mapping[str, float | None]) -> bytes:
    """Losses of generator and critic, and each code's L_I with its ceiling, over images seen: a PNG file."""
    from matplotlib.figure import Figure

    kimg = [row["kimg"] for row in rows]
    look: dict[str, Any] = {"linewidth": 1.2, "marker": "." if len(rows) == 1 else None}  # a line needs two points
    figure = Figure(figsize=(11, 4), layout="constrained", dpi=110)
    losses, information = figure.subplots(1, 2)
    for player in ("generator", "critic"):
        losses.plot(kimg, [row[f"loss/{player}"] for row in rows], label=player, **look)
    losses.set(title="Adversarial losses", xlabel="images seen (thousands)", ylabel="nats")
    for name, ceiling in ceilings.items():
        (line,) = information.plot(kimg, [row[f"mi/{name}"] for row in rows], label=name, **look)
        if ceiling is not None:
            information.axhline(ceiling, color=line.get_color(), linestyle=":", linewidth=1)
    information.set(
        title="Mutual-information lower bound $L_I$ (dotted: its ceiling)",
        xlabel="images seen (thousands)",
        ylabel="nats",
    )
    for axes in (losses, information):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:  # a run without codes has no line on the right
            axes.legend(frameon=False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
