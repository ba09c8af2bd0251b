"""Every game with every network: finite updates, gradients to whom they belong, and losses that are their formulas."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from infogan.augment import Augment
from infogan.codes import CategoricalCode, Code, Codes, ContinuousCode, Noise
from infogan.config import RunConfig
from infogan.engine import Engine
from infogan.learner import Learner
from infogan.networks import NETWORKS, Critic, to_network_range
from infogan.networks.critic import NoCodes
from infogan.networks.paper import MNIST
from infogan.objectives import OBJECTIVES, Hinge, Objective, r1_penalty
from infogan.phases import Players, build_phases

CODES: dict[str, Code] = {"k": CategoricalCode(3), "c": ContinuousCode(std="clamped")}
SMALL = {"spectral": {"base": 4, "features": 16}, "residual": {"base": 4, "features": 16}}


@pytest.fixture(params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> Any:
    """Every registered network, as small as its options allow."""
    return NETWORKS.get(request.param)(**SMALL.get(request.param, {}))


def test_every_network_plays_every_game(network: Any, engine_of: Callable[[RunConfig], Engine]) -> None:
    """One finite update of each game, with and without R1, whose gradients go where they belong."""
    config = RunConfig(codes=CODES, network=network, batch=2, precision="fp32", device="cpu", threads=1)
    learner = Learner(config, engine_of(config))
    players = Players(learner.generator, learner.critic, learner.generator, learner.critic)
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, *network.image_shape), dtype=torch.uint8, generator=draw)
    real = to_network_range(images, network.image_range)
    for name, r1 in ((name, r1) for name in OBJECTIVES for r1 in (0.0, 1.0)):
        for phase in build_phases(players, learner.codes, OBJECTIVES.get(name)(r1=r1)):
            loss, statistics = phase.loss(real, learner.codes.sample(2, draw), None, 1.0)
            assert ("penalty/r1" in statistics) == (r1 > 0 and phase.name == "critic")
            loss.backward()
            for owner, module in learner.modules.items():
                for parameter in module.parameters():
                    assert (parameter.grad is not None) == (owner == phase.name), (name, phase.name, owner)
            learner.optimizers[phase.name].step()
            for parameter in phase.module.parameters():
                assert parameter.isfinite().all()
                assert parameter.grad is not None
                assert parameter.grad.isfinite().all()
            phase.module.zero_grad()


def test_the_hinge_is_a_hinge() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, -0.5, 1.0])
    by_hand = (0 + 0.5 + 2) / 3 + (0 + 0.5 + 2) / 3
    assert Hinge().critic_loss(real, fake).item() == pytest.approx(by_hand)
    assert Hinge().generator_loss(fake).item() == pytest.approx((3 + 0.5 - 1) / 3)
    beyond = torch.tensor([1.5], requires_grad=True)
    Hinge().critic_loss(beyond, -beyond.detach()).backward()
    assert beyond.grad is not None
    assert beyond.grad.item() == 0


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_every_game_pulls_the_logits_where_it_should(name: str) -> None:
    game = OBJECTIVES.get(name)()
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    game.critic_loss(real, fake).backward()
    assert real.grad is not None
    assert fake.grad is not None
    assert real.grad.lt(0).all()
    assert fake.grad.gt(0).all()
    lifted = torch.zeros(4, requires_grad=True)
    game.generator_loss(lifted).backward()
    assert lifted.grad is not None
    assert lifted.grad.lt(0).all()


# ---- R1 -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OnlyPenalty(Objective):
    """A game of which nothing is left but the penalty."""

    def critic_loss(self, real_logit: Tensor, fake_logit: Tensor) -> Tensor:
        return (real_logit.sum() + fake_logit.sum()) * 0.0

    def generator_loss(self, fake_logit: Tensor) -> Tensor:
        return fake_logit.sum() * 0.0


@pytest.fixture
def linear() -> Iterator[Critic]:
    """d(x) = w x + b, whose gradient by x is w everywhere."""
    critic = Critic(nn.Flatten(), nn.Linear(12, 1), NoCodes())
    weight: Any = critic.d_head.weight
    weight.data.normal_(generator=torch.Generator().manual_seed(0))
    yield critic


@pytest.mark.parametrize("augment", [None, Augment(mirror=True)])
def test_r1_of_a_linear_critic_is_the_square_of_its_weight(linear: Critic, augment: Augment | None) -> None:
    """And adds gamma w to the gradient of w, and nothing to b's; mirroring only permutes the pixels."""
    generator = nn.Sequential(nn.Linear(2, 12), nn.Unflatten(1, (1, 3, 4)))
    players = Players(generator, linear, generator, linear)
    codes = Codes({}, Noise(2))
    phase = build_phases(players, codes, OnlyPenalty(r1=10.0))[0]
    draw = torch.Generator().manual_seed(1)
    real, latents = torch.rand(5, 1, 3, 4, generator=draw), codes.sample(5, draw)
    augmentation = augment.draw(5, (0.0, 1.0), draw) if augment else None
    loss, statistics = phase.loss(real, latents, augmentation, 1.0)
    weight: Any = linear.d_head.weight
    squared = weight.detach().square().sum()
    torch.testing.assert_close(statistics["penalty/r1"].detach(), squared)
    torch.testing.assert_close(loss.detach(), 5.0 * squared)
    loss.backward()
    torch.testing.assert_close(weight.grad, 10.0 * weight.detach())
    bias: Any = linear.d_head.bias
    assert not bias.grad.any()
    assert not real.requires_grad


def test_r1_is_the_mean_of_every_images_own_gradient() -> None:
    """For a critic that is not linear: against each image by itself, with derivatives taken by differences."""
    network = NETWORKS.get("residual")(height=28, width=28, base=2, features=4)  # type: ignore[call-arg]
    critic = network.critic(2).double()
    network.initialise(critic, torch.Generator().manual_seed(0))
    real = torch.rand(3, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = r1_penalty(critic(real, None).real_logit, real)
    squares = []
    with torch.no_grad():
        for image in real:
            steps = 1e-6 * torch.eye(784, dtype=torch.float64).view(784, 1, 28, 28)
            slopes = (critic(image + steps, None).real_logit - critic(image - steps, None).real_logit) / 2e-6
            squares.append(slopes.square().sum())
    torch.testing.assert_close(found.detach(), torch.stack(squares).mean(), rtol=1e-5, atol=0)


def test_r1_is_taken_of_real_images_alone(linear: Critic) -> None:
    real = torch.rand(4, 1, 3, 4).requires_grad_()
    out = linear(real, torch.rand(4, 1, 3, 4))
    assert out.real_logit is not None
    alone = r1_penalty(linear(real, None).real_logit, real)
    torch.testing.assert_close(r1_penalty(out.real_logit, real), alone)


def test_lambda_rises_over_the_ramp_and_then_stays_whole() -> None:
    game = OBJECTIVES.get("non_saturating")(ramp_kimg=2.0)
    assert [game.lambda_share(images) for images in (0, 500, 2000, 9000)] == [0.0, 0.25, 1.0, 1.0]
    assert OBJECTIVES.get("non_saturating")().lambda_share(0) == 1.0
    with pytest.raises(ValueError, match="ramp_kimg"):
        OBJECTIVES.get("non_saturating")(ramp_kimg=-1.0)


def test_both_losses_take_that_share_of_lambda(engine_of: Callable[[RunConfig], Engine]) -> None:
    config = RunConfig(codes=CODES, network=MNIST(), batch=4, precision="fp32", device="cpu", threads=1)
    learner = Learner(config, engine_of(config))
    players = Players(learner.generator, learner.critic, learner.generator, learner.critic)
    draw = torch.Generator().manual_seed(0)
    real = torch.rand(4, 1, 28, 28, generator=draw)
    latents = learner.codes.sample(4, draw)
    for phase in build_phases(players, learner.codes, config.objective):
        none, half, whole = (phase.loss(real, latents, None, share)[0].item() for share in (0.0, 0.5, 1.0))
        assert none != pytest.approx(whole, rel=1e-3)
        assert half == pytest.approx((none + whole) / 2, rel=1e-4)
