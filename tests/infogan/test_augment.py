"""Augmentation: what it does to images, whom it is shown to, and that its draws are a function of the images seen."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from infogan import settings
from infogan.augment import POLICIES, Augment, cutout, mirror, translation
from infogan.config import RunConfig, digest, identity, to_plain
from infogan.learner import Learner
from infogan.objectives import NonSaturating
from infogan.phases import Players, build_phases
from infogan.randomness import generator as draws
from shards.errors import UserError

ALL = ("color", "translation", "cutout")
UNIT, SIGNED = (0.0, 1.0), (-1.0, 1.0)


def batch(n: int = 16, channels: int = 3, height: int = 12, width: int = 16) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.rand(n, channels, height, width, generator=draw, dtype=torch.float64), torch.rand(
        n, 8, generator=draw
    ).double()


# ---- what the policies do, image by image in numpy --------------------------------------------------------------


def by_hand_color(image: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    image = image + (drawn[1] - 0.5) * 0.5
    grey = image.mean(axis=0)
    image = np.stack([grey + (channel - grey) * drawn[2] * 2 for channel in image])
    return np.asarray(image.mean() + (image - image.mean()) * (drawn[3] + 0.5))


def by_hand_translation(image: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    _, height, width = image.shape
    down = int(drawn[4] * 5) - 2  # an eighth of 12 is 1.5, rounded 2
    right = int(drawn[5] * 5) - 2  # an eighth of 16 is 2
    out = np.full_like(image, 0.5)
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                out[:, y, x] = image[:, y - down, x - right]
    return out


def by_hand_cutout(image: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    top, left = int(drawn[6] * 13) - 3, int(drawn[7] * 17) - 4  # 6 x 8 pixels, whose centre is 0 to the side
    out = image.copy()
    out[:, max(top, 0) : top + 6, max(left, 0) : left + 8] = 0.5
    return out


@pytest.mark.parametrize("name", list(POLICIES))
def test_a_policy_does_what_it_is_said_to_do(name: str) -> None:
    by_hand = {"color": by_hand_color, "translation": by_hand_translation, "cutout": by_hand_cutout}[name]
    images, drawn = batch()
    found = POLICIES[name](images, drawn, UNIT)
    for image, row, changed in zip(images.numpy(), drawn.numpy(), found.numpy(), strict=True):
        np.testing.assert_allclose(changed, by_hand(image, row), atol=1e-12)


@pytest.mark.parametrize(("value", "at"), [(0.0, 0), (1 - 2**-24, 2)])
def test_the_furthest_draws_move_and_cut_as_far_as_they_may(value: float, at: int) -> None:
    """In float32, where the largest number below 1, times a count, is that count."""
    images = batch(2)[0].float()
    drawn = torch.full((2, 8), value)
    moved = translation(images, drawn, UNIT)
    expected = torch.full_like(images, 0.5)
    whole, ahead, behind = slice(None), slice(2, None), slice(None, -2)
    to, source = (ahead, behind) if at else (behind, ahead)
    expected[whole, whole, to, to] = images[whole, whole, source, source]
    assert torch.equal(moved, expected)
    expected = images.clone()  # centred on the first or just beyond the last pixel: a quarter of the rectangle is seen
    expected[(whole, whole, slice(-3, None), slice(-4, None)) if at else (whole, whole, slice(3), slice(4))] = 0.5
    assert torch.equal(cutout(images, drawn, UNIT), expected)


def test_mirroring_flips_whole_images_about_half_of_them() -> None:
    images, drawn = batch(64)
    found = mirror(images, drawn)
    flipped = [torch.equal(a, b.flip(2)) for a, b in zip(found, images, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(found, images, strict=True)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 20 < sum(flipped) < 44


@pytest.mark.parametrize("name", list(POLICIES))
def test_the_image_range_changes_nothing_in_what_is_seen(name: str) -> None:
    images, drawn = batch()
    found = POLICIES[name](images * 2 - 1, drawn, SIGNED)
    torch.testing.assert_close(found, POLICIES[name](images, drawn, UNIT) * 2 - 1)


def test_one_policy_does_not_depend_on_another_being_on() -> None:
    alone = Augment(diffaugment=("cutout",)).draw(8, UNIT, torch.Generator().manual_seed(3))
    together = Augment(mirror=True, diffaugment=ALL).draw(8, UNIT, torch.Generator().manual_seed(3))
    assert torch.equal(alone.real, together.real)
    assert torch.equal(alone.fake, together.fake)
    assert not torch.equal(alone.real, alone.fake)


# ---- who sees what ------------------------------------------------------------------------------------------------


class Spy:
    """The critic's inputs as it is called."""

    def __init__(self, critic: Any) -> None:
        self.critic, self.calls = critic, []  # type: ignore[var-annotated]

    def __call__(self, *arguments: Any) -> Any:
        self.calls.append(arguments)
        return self.critic(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.critic, name)


@pytest.fixture
def stage(tiny_config: Callable[..., RunConfig]) -> Callable[[Augment], Any]:
    """Plays both phases under an augmentation: the critic's calls, and what it was made of."""

    def play(augment: Augment) -> Any:
        config = tiny_config(augment=augment)
        codes = config.latent_codes()
        generator, critic = config.network.generator(codes.input_width), config.network.critic(codes.q_width)
        for number, player in enumerate((generator, critic)):
            config.network.initialise(player, torch.Generator().manual_seed(number))
        spy: Any = Spy(critic)
        draw = torch.Generator().manual_seed(2)
        real, latents = torch.rand(8, 1, 8, 8, generator=draw), codes.sample(8, draw)
        augmentation = augment.draw(8, config.network.image_range, draw) if augment else None
        for phase in build_phases(Players(generator, spy, generator, spy), codes, NonSaturating()):
            phase.loss(real, latents, augmentation, 1.0)[0].backward()
        return SimpleNamespace(
            critic=critic, generator=generator, calls=spy.calls, real=real, augmentation=augmentation,
            fake=generator(latents.vector),
        )  # fmt: skip

    return play


def test_d_sees_augmented_images_and_q_clean_ones(stage: Callable[[Augment], Any]) -> None:
    played = stage(Augment(diffaugment=ALL))
    (real, shown, clean), (nothing, shown_by_generator, clean_of_generator) = played.calls
    assert nothing is None
    torch.testing.assert_close(real, played.augmentation.of_real(played.real))
    for seen in (shown, shown_by_generator):
        torch.testing.assert_close(seen, played.augmentation.of_fake(played.fake))
    for seen in (clean, clean_of_generator):
        torch.testing.assert_close(seen, played.fake)
    assert not torch.allclose(shown, clean)


def test_the_generator_is_taught_through_the_augmentation(stage: Callable[[Augment], Any]) -> None:
    played = stage(Augment(diffaugment=ALL))
    assert all(parameter.grad.any() for parameter in played.generator.parameters())


def test_augmented_and_clean_images_pass_the_critic_apart(stage: Callable[[Augment], Any]) -> None:
    """BatchNorm sees them apart: to the bit what each is alone."""
    played = stage(Augment(diffaugment=ALL))
    real, shown, clean = played.calls[0]
    out = played.critic(real, shown, clean)
    assert torch.equal(out.real_logit, played.critic(real, None).real_logit)
    assert torch.equal(out.fake_logit, played.critic(None, shown).fake_logit)
    assert torch.equal(out.q, played.critic(None, clean).q)
    assert not torch.equal(out.q, played.critic(None, shown).q)


def test_mirroring_is_of_real_images_alone_and_costs_no_pass_more(stage: Callable[[Augment], Any]) -> None:
    played = stage(Augment(mirror=True))
    (real, shown, clean), (_, _, clean_of_generator) = played.calls
    assert clean is None
    assert clean_of_generator is None
    assert not torch.equal(real, played.real)
    torch.testing.assert_close(shown, played.fake)


def test_without_augmentation_the_critic_is_called_as_ever(stage: Callable[[Augment], Any]) -> None:
    played = stage(Augment())
    (real, _, clean), _ = played.calls
    assert clean is None
    assert real is played.real


# ---- draws --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_split_of_the_work_augments_an_image_alike(
    tiny_config: Callable[..., RunConfig], world: int, accumulation: int
) -> None:
    config = replace(tiny_config(batch=16, augment=Augment(diffaugment=ALL)), accumulation=accumulation)
    whole = config.augment.draw(16, UNIT, draws(0, "augment/critic", 48))
    parts: dict[tuple[int, int], Any] = {}
    for rank in range(world):
        engine: Any = SimpleNamespace(
            rank=rank,
            world=world,
            device=torch.device("cpu"),
            dtype=torch.float32,
            prepare=lambda phase, module, optimizer: module,
        )
        for micro, part in enumerate(Learner(config, engine)._augmentations("critic", 48)):
            parts[micro, rank] = part
    order = sorted(parts)
    assert torch.equal(torch.cat([parts[key].real for key in order]), whole.real)
    assert torch.equal(torch.cat([parts[key].fake for key in order]), whole.fake)


# ---- settings -----------------------------------------------------------------------------------------------------


def test_augmentation_is_part_of_what_a_run_is() -> None:
    plain = settings.load("paper/mnist").config
    for override in ("augment.mirror=true", "augment.diffaugment=[cutout]", "objective.r1=1"):
        changed = settings.load("paper/mnist", [override]).config
        assert digest(changed) != digest(plain)
        assert identity(changed).keys() - identity(plain).keys() == {override.partition("=")[0]}


def test_a_run_from_before_there_was_augmentation_is_still_the_same_run() -> None:
    """At the values that change nothing, the options do not enter the identity."""
    names = identity(settings.load("paper/mnist").config)
    assert not [path for path in names if path.startswith("augment") or path == "objective.r1"]


def test_policies_are_read_from_a_preset_and_saved_with_the_run() -> None:
    config = settings.load("paper/mnist", ["augment.diffaugment=[color,cutout]"]).config
    assert config.augment == Augment(diffaugment=("color", "cutout"))
    assert settings.from_plain(to_plain(config)) == config


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("augment.diffaugment=[color,color]", "must name each policy once, color is twice"),
        ("objective.r1=1e400", "objective.r1: inf: must be finite"),
        ("objective.ramp_kimg=.inf", "objective.ramp_kimg: inf: must be finite"),
        ("augment.diffaugment=[colour]", "augment.diffaugment: 'colour': must be one of color, translation, cutout"),
        ("augment.diffaugment=cutout", "augment.diffaugment: 'cutout': must be a list"),
        ("augment.mirror=2", "augment.mirror: 2: must be true or false"),
    ],
)
def test_a_policy_that_is_not_there_is_refused(override: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        settings.load("paper/mnist", [override])
    assert said in str(refused.value)
