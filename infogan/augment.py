"""Augmentation of the images that D judges, so that a critic with few training images cannot learn them by heart.

`mirror` flips real images left to right: the generator then learns the mirrored set too. DiffAugment (Zhao et al.
2020, arXiv 2006.10738) changes real and generated images alike, differentiably, in both phases: the generator is
taught through it, and still learns the images as they are. Q reads generated images as they came out of the generator,
since what augmentation does to an image would otherwise leak into the codes.

What is drawn is a function of the seed and of the images seen, for the global batch, like the latents: see learner.py.
Amounts are stated in terms of the image range, so that they are the same for (0, 1) and for (-1, 1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from infogan.checks import one_of
from infogan.devices import sent

LARGEST_SHIFT = 0.125  # of a side
CUT = 0.5  # side of the square that is cut out, of the image's
BRIGHTNESS = 0.25  # largest change, of the image range

# Uniform numbers of an image, by column. All are drawn whatever is switched on, so that one does not depend on another.
FLIP, BRIGHTEN, SATURATE, CONTRAST, SHIFT_Y, SHIFT_X, CUT_Y, CUT_X = range(8)


@dataclass(frozen=True)
class Augment:
    """The config's `augment` section: `mirror`, and the `diffaugment` policies that are played, in their order here."""

    mirror: bool = False
    diffaugment: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for policy in self.diffaugment:
            one_of("diffaugment", policy, tuple(POLICIES))
            if self.diffaugment.count(policy) > 1:
                raise ValueError(
                    f"diffaugment: {list(self.diffaugment)}: must name each policy once, {policy} is twice"
                )

    def __bool__(self) -> bool:
        return self.mirror or bool(self.diffaugment)

    def draw(self, n: int, image_range: tuple[float, float], generator: torch.Generator) -> "Augmentation":
        """Draw how n real and n generated images are changed, on the CPU."""
        real, fake = torch.rand(2, n, 8, generator=generator)
        return Augmentation(self, image_range, real, fake)


@dataclass(frozen=True)
class Augmentation:
    """How a batch is changed: `real` and `fake`, float [n, 8] in [0, 1), one row for an image."""

    augment: Augment
    image_range: tuple[float, float]
    real: Tensor
    fake: Tensor

    def __getitem__(self, rows: slice) -> "Augmentation":
        return Augmentation(self.augment, self.image_range, self.real[rows], self.fake[rows])

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> "Augmentation":
        real, fake = (sent(drawn, device, dtype) for drawn in (self.real, self.fake))
        return Augmentation(self.augment, self.image_range, real, fake)

    def of_real(self, images: Tensor) -> Tensor:
        """Real images [n, C, H, W] as D is to see them."""
        if self.augment.mirror:
            images = mirror(images, self.real)
        return self._diffaugment(images, self.real)

    def of_fake(self, images: Tensor) -> Tensor:
        """Generated images [n, C, H, W] as D is to see them; the same tensor where only real images are changed."""
        return self._diffaugment(images, self.fake)

    def _diffaugment(self, images: Tensor, drawn: Tensor) -> Tensor:
        for name, policy in POLICIES.items():
            if name in self.augment.diffaugment:
                images = policy(images, drawn, self.image_range)
        return images


def mirror(images: Tensor, drawn: Tensor) -> Tensor:
    """Flip half of the images left to right."""
    return torch.where(_column(drawn, FLIP) < 0.5, images.flip(3), images)


def colour(images: Tensor, drawn: Tensor, image_range: tuple[float, float]) -> Tensor:
    """Brightness moved by up to a quarter of the range, saturation times 0 to 2, contrast times 0.5 to 1.5.

    Saturation is the distance from the mean of the channels, contrast that from the mean of the image.
    """
    low, high = image_range
    images = images + (_column(drawn, BRIGHTEN) - 0.5) * (2 * BRIGHTNESS * (high - low))
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (_column(drawn, SATURATE) * 2)
    level = images.mean(dim=(1, 2, 3), keepdim=True)
    return level + (images - level) * (_column(drawn, CONTRAST) + 0.5)


def translation(images: Tensor, drawn: Tensor, image_range: tuple[float, float]) -> Tensor:
    """Shift by whole pixels, up to an eighth of a side either way; what comes in is the middle of the range."""
    inside = torch.ones((), dtype=torch.bool, device=images.device)
    for dim, column in ((2, SHIFT_Y), (3, SHIFT_X)):
        side = images.shape[dim]
        most = _round_half_up(side * LARGEST_SHIFT)
        source = _positions(side, dim, images) - (_whole(drawn, column, 2 * most + 1) - most)
        inside = inside & (source >= 0) & (source < side)
        images = images.gather(dim, source.clamp(0, side - 1).expand_as(images))
    return torch.where(inside, images, _middle(image_range))


def cutout(images: Tensor, drawn: Tensor, image_range: tuple[float, float]) -> Tensor:
    """Put the middle of the range over a rectangle of half the sides, whose centre may be any pixel."""
    hidden = torch.ones((), dtype=torch.bool, device=images.device)
    for dim, column in ((2, CUT_Y), (3, CUT_X)):
        side = images.shape[dim]
        cut = _round_half_up(side * CUT)
        first = _whole(drawn, column, side + 1 - cut % 2) - cut // 2
        position = _positions(side, dim, images)
        hidden = hidden & (position >= first) & (position < first + cut)
    return torch.where(hidden, _middle(image_range), images)


POLICIES = {"color": colour, "translation": translation, "cutout": cutout}
"""DiffAugment's policies, by the names that its authors gave them."""


def _round_half_up(x: float) -> int:
    return int(x + 0.5)


def _column(drawn: Tensor, column: int) -> Tensor:
    """One number for each image, [n, 1, 1, 1]."""
    return drawn[:, column, None, None, None]


def _whole(drawn: Tensor, column: int, count: int) -> Tensor:
    """One of 0 to count - 1 for each image, int64 [n, 1, 1, 1]."""
    return (_column(drawn, column) * count).long().clamp(max=count - 1)


def _positions(side: int, dim: int, images: Tensor) -> Tensor:
    """0 to side - 1 along `dim`, int64, with four dimensions."""
    shape = [1, 1, 1, 1]
    shape[dim] = side
    return torch.arange(side, device=images.device).view(shape)


def _middle(image_range: tuple[float, float]) -> float:
    return (image_range[0] + image_range[1]) / 2
