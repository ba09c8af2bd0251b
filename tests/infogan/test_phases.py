"""Who teaches whom: the gradients of each phase end where they should, and an update is the textbook's."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from infogan.codes import CategoricalCode, Codes, ContinuousCode, Noise
from infogan.config import Adam, Ema, Optimizers, RunConfig
from infogan.engine import Engine
from infogan.learner import Learner
from infogan.networks import Critic
from infogan.networks.paper import MNIST
from infogan.objectives import NonSaturating, Objective, information_loss
from infogan.phases import Players, build_phases
from infogan.randomness import generator as draws
from shards import Plan


@dataclass(frozen=True)
class OnlyInformation(Objective):
    """A game without a game: what is left of the losses is the mutual-information term."""

    def critic_loss(self, real_logit: Tensor, fake_logit: Tensor) -> Tensor:
        return (real_logit.sum() + fake_logit.sum()) * 0.0

    def generator_loss(self, fake_logit: Tensor) -> Tensor:
        return fake_logit.sum() * 0.0


@dataclass
class Stage:
    """Generator, critic, and a batch of images and latents."""

    generator: nn.Module
    critic: Critic
    codes: Codes
    real: Tensor
    latents: Any

    def play(self, phase: str, objective: Objective) -> dict[str, Tensor]:
        """The gradients of one phase; the statistics that it logs."""
        self.critic.detach_q = objective.mi_gradient == "head"
        for player in (self.generator, self.critic):
            player.zero_grad()
        players = Players(self.generator, self.critic, self.generator, self.critic)
        phases = {phase.name: phase for phase in build_phases(players, self.codes, objective)}
        loss, statistics = phases[phase].loss(self.real, self.latents, None, 1.0)
        loss.backward()
        return statistics


@pytest.fixture
def stage(tiny_config: Callable[..., RunConfig]) -> Stage:
    config = tiny_config()
    codes = config.latent_codes()
    generator, critic = config.network.generator(codes.input_width), config.network.critic(codes.q_width)
    for number, player in enumerate((generator, critic)):
        config.network.initialise(player, torch.Generator().manual_seed(number))
    real = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    return Stage(generator, critic, codes, real, codes.sample(8, torch.Generator().manual_seed(3)))


def touched(module: nn.Module) -> list[bool]:
    """For each parameter, whether it has a gradient that is not zero."""
    return [p.grad is not None and bool(p.grad.any()) for p in module.parameters()]


@pytest.mark.parametrize("mi_gradient", ["critic", "head"])
def test_the_generators_phase_leaves_nothing_on_the_critic(stage: Stage, mi_gradient: str) -> None:
    stage.play("generator", NonSaturating(mi_gradient))
    assert all(parameter.grad is None for parameter in stage.critic.parameters())
    assert all(parameter.requires_grad for parameter in stage.critic.parameters())
    assert all(touched(stage.generator))


@pytest.mark.parametrize("mi_gradient", ["critic", "head"])
def test_the_generator_learns_from_the_information_term(stage: Stage, mi_gradient: str) -> None:
    stage.play("generator", OnlyInformation(mi_gradient))
    assert all(touched(stage.generator))


@pytest.mark.parametrize("mi_gradient", ["critic", "head"])
def test_the_critics_phase_leaves_nothing_on_the_generator(stage: Stage, mi_gradient: str) -> None:
    stage.play("critic", NonSaturating(mi_gradient))
    assert all(parameter.grad is None for parameter in stage.generator.parameters())
    assert all(touched(stage.critic))


def test_the_information_term_teaches_trunk_and_q_head_as_in_the_official_code(stage: Stage) -> None:
    stage.play("critic", OnlyInformation("critic"))
    assert all(touched(stage.critic.trunk))
    assert all(touched(stage.critic.q_head))
    assert not any(touched(stage.critic.d_head))


def test_mi_gradient_head_keeps_the_information_term_off_the_trunk(stage: Stage) -> None:
    stage.play("critic", OnlyInformation("head"))
    assert not any(touched(stage.critic.trunk))
    assert all(touched(stage.critic.q_head))


def test_the_information_term_weighs_each_code_by_its_lambda() -> None:
    codes = Codes({"a": CategoricalCode(4, weight=2.0), "b": ContinuousCode(weight=0.5)}, Noise(1))
    bounds = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([-1.0, -3.0])}
    assert float(information_loss(codes, bounds)) == pytest.approx(-(2.0 * 2 + 0.5 * -2))
    assert information_loss(Codes({}, Noise(1)), {}) == 0.0


def test_the_losses_are_those_of_goodfellow() -> None:
    real, fake = torch.tensor([2.0, -1.0, 30.0]), torch.tensor([0.5, -40.0, 1.0])
    game = NonSaturating()
    critic = -(real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean())
    torch.testing.assert_close(game.critic_loss(real, fake), critic)
    by_hand = (0.474077 + 40.0 + 0.313262) / 3  # -log sigmoid(0.5), -log sigmoid(-40), -log sigmoid(1)
    assert game.generator_loss(fake).item() == pytest.approx(by_hand, abs=1e-5)


def test_statistics_say_what_they_are_called(stage: Stage) -> None:
    found = stage.play("generator", NonSaturating())
    fake = stage.generator(stage.latents.vector)
    out = stage.critic(None, fake)
    posterior = stage.codes.split(out.q)["c2"]
    error = (posterior.mean - stage.latents.values["c2"]).square().mean()  # type: ignore[union-attr]
    torch.testing.assert_close(found["mse/c2"], error)
    assert found["mi/c2"].item() == pytest.approx(-0.225791 - error.item() / 2, abs=1e-5)
    torch.testing.assert_close(found["diversity/fake"], fake.detach().std(dim=0, correction=0).mean())
    found = stage.play("critic", NonSaturating())
    both = stage.critic(stage.real, fake)
    torch.testing.assert_close(found["score/real"], torch.sigmoid(both.real_logit).mean())  # type: ignore[arg-type]
    torch.testing.assert_close(found["score/fake"], torch.sigmoid(both.fake_logit).mean())  # type: ignore[arg-type]


# ---- an update against plain PyTorch ------------------------------------------------------------------------------


def flat(x: Tensor) -> Tensor:
    """Features in the order height, width, channel."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1)


class PlainMNIST:
    """Table 1 with torch's own functions on a dict of weights: nothing of ours."""

    def __init__(self, generator: nn.Module, critic: nn.Module) -> None:
        self.g = {name: p.detach().clone().requires_grad_() for name, p in generator.named_parameters()}
        self.d = {name: p.detach().clone().requires_grad_() for name, p in critic.named_parameters()}

    def norm(self, w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, w[f"{name}.weight"], w[f"{name}.bias"], True, 0.0, 1e-5)

    def generate(self, vector: Tensor) -> Tensor:
        w = self.g
        x = F.relu(self.norm(w, "1", vector @ w["0.weight"].T))
        x = F.relu(self.norm(w, "4", x @ w["3.weight"].T))
        x = x.reshape(-1, 7, 7, 128).permute(0, 3, 1, 2)
        x = F.relu(self.norm(w, "8", F.conv_transpose2d(x, w["7.weight"], stride=2, padding=1)))
        return torch.sigmoid(F.conv_transpose2d(x, w["10.weight"], w["10.bias"], stride=2, padding=1))

    def criticise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        w = self.d
        x = F.leaky_relu(F.conv2d(x, w["trunk.0.weight"], w["trunk.0.bias"], stride=2, padding=1), 0.1)
        x = F.leaky_relu(self.norm(w, "trunk.3", F.conv2d(x, w["trunk.2.weight"], stride=2, padding=1)), 0.1)
        x = F.leaky_relu(self.norm(w, "trunk.7", flat(x) @ w["trunk.6.weight"].T), 0.1)
        logit = (x @ w["d_head.weight"].T + w["d_head.bias"])[:, 0]
        q = F.leaky_relu(self.norm(w, "q_head.1", x @ w["q_head.0.weight"].T), 0.1)
        return logit, q @ w["q_head.3.weight"].T + w["q_head.3.bias"]

    def information(self, q: Tensor, latents: Any) -> Tensor:
        """L_I of one code of 10 ways (weight 1) and one continuous code of std 1 (weight 0.5)."""
        categorical = np.log(10) - F.cross_entropy(q[:, :10], latents.values["digit"])
        squared = (latents.values["c1"] - q[:, 10]).square().mean()
        continuous = np.log(2) - 0.5 * np.log(2 * np.pi) - 0.5 * squared
        return categorical + 0.5 * continuous

    def critic_loss(self, real: Tensor, latents: Any) -> Tensor:
        fake = self.generate(latents.vector).detach()
        real_logit, _ = self.criticise(real)
        fake_logit, q = self.criticise(fake)
        ones, zeros = torch.ones_like(real_logit), torch.zeros_like(real_logit)
        adversarial = F.binary_cross_entropy_with_logits(real_logit, ones) + F.binary_cross_entropy_with_logits(
            fake_logit, zeros
        )
        return adversarial - self.information(q, latents)

    def generator_loss(self, latents: Any) -> Tensor:
        logit, q = self.criticise(self.generate(latents.vector))
        return F.binary_cross_entropy_with_logits(logit, torch.ones_like(logit)) - self.information(q, latents)


class PlainAdam:
    """Kingma and Ba 2015, Algorithm 1, betas 0.5 and 0.999."""

    def __init__(self, weights: dict[str, Tensor], lr: float) -> None:
        self.weights, self.lr, self.step_number = weights, lr, 0
        self.m = {name: torch.zeros_like(w) for name, w in weights.items()}
        self.v = {name: torch.zeros_like(w) for name, w in weights.items()}

    def step(self, loss: Tensor) -> None:
        self.step_number += 1
        gradients = torch.autograd.grad(loss, list(self.weights.values()))
        for (name, w), g in zip(self.weights.items(), gradients, strict=True):
            self.m[name] = 0.5 * self.m[name] + 0.5 * g
            self.v[name] = 0.999 * self.v[name] + 0.001 * g * g
            m, v = self.m[name] / (1 - 0.5**self.step_number), self.v[name] / (1 - 0.999**self.step_number)
            with torch.no_grad():
                w -= self.lr * m / (v.sqrt() + 1e-8)


@pytest.mark.parametrize(("precision", "updates", "tolerance"), [("fp64", 2, 1e-9), ("fp32", 1, 1e-3)])
def test_updates_are_those_of_a_plain_loop(
    engine_of: Callable[[RunConfig], Engine], precision: str, updates: int, tolerance: float
) -> None:
    """Updates of the MNIST networks: weights, Adam's moments and the moving average; in float64 to the ninth place."""
    config = RunConfig(
        codes={"digit": CategoricalCode(10), "c1": ContinuousCode(weight=0.5)}, network=MNIST(), batch=8, seed=3,
        optimizer=Optimizers(Adam(1e-3), Adam(2e-4)), precision=precision, device="cpu", threads=1,
        ema=Ema(half_life_kimg=0.024, rampup=1.0),
    )  # fmt: skip
    learner = Learner(config, engine_of(config))
    plain = PlainMNIST(learner.generator, learner.critic)
    average = {name: w.detach().clone() for name, w in plain.g.items()}
    optimizers = {"critic": PlainAdam(plain.d, 2e-4), "generator": PlainAdam(plain.g, 1e-3)}
    dtype = torch.float64 if precision == "fp64" else torch.float32
    for update in range(updates):
        images = torch.randint(
            0, 256, (8, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(update)
        )
        statistics = learner.update([images], update * 8)
        latents = {
            phase: learner.codes.sample(8, draws(3, f"latents/{phase}", update * 8)).to(torch.device("cpu"), dtype)
            for phase in ("critic", "generator")
        }
        loss = plain.critic_loss(images.to(dtype) / 255, latents["critic"])
        optimizers["critic"].step(loss)
        generator_loss = plain.generator_loss(latents["generator"])
        optimizers["generator"].step(generator_loss)
        half_life = min(24, (update + 1) * 8)
        for name, w in plain.g.items():
            average[name] += (w.detach() - average[name]) * (1 - 0.5 ** (8 / half_life))
        adversarial = statistics["loss/generator"] - statistics["mi/digit"] - 0.5 * statistics["mi/c1"]
        torch.testing.assert_close(adversarial, generator_loss.detach(), rtol=1e-4, atol=1e-5)
    state = {**learner.tensors()[1]}
    moments = {
        f"{phase}/{name}/{what}": value
        for phase, optimizer in optimizers.items()
        for what, values in (("exp_avg", optimizer.m), ("exp_avg_sq", optimizer.v))
        for name, value in values.items()
    }
    assert {key for key in state if not key.endswith("/step")} == moments.keys()
    found = {f"generator/{k}": v for k, v in learner.generator.named_parameters()}
    found |= {f"critic/{k}": v for k, v in learner.critic.named_parameters()}
    found |= {f"ema/{k}": v for k, v in learner.ema.module.named_parameters()}
    expected = {f"generator/{k}": v for k, v in plain.g.items()} | {f"critic/{k}": v for k, v in plain.d.items()}
    expected |= {f"ema/{k}": v for k, v in average.items()}
    assert found.keys() == expected.keys()
    for name, value in found.items():
        # Adam's first steps are as long as the learning rate and of the gradient's sign, so that a gradient which is
        # zero but for rounding may go either way: in float32 so few entries may.
        far = (value.detach() - expected[name].detach()).abs() > (1e-7 if precision == "fp64" else 2e-5)
        assert far.double().mean().item() <= (0 if precision == "fp64" else 0.005), name
    for name, value in moments.items():
        scale = value.abs().max().item()
        torch.testing.assert_close(state[name], value, rtol=tolerance, atol=tolerance * max(scale, 1e-6), msg=name)


# ---- randomness ---------------------------------------------------------------------------------------------------


def test_the_same_arguments_give_the_same_draws_and_any_other_do_not() -> None:
    def drawn(*arguments: Any) -> list[float]:
        return torch.rand(4, generator=draws(*arguments)).tolist()  # type: ignore[no-any-return]

    torch.manual_seed(0)
    first = drawn(1, "latents/critic", 128)
    torch.manual_seed(1)
    assert drawn(1, "latents/critic", 128) == first
    others = [
        (2, "latents/critic", 128),
        (1, "latents/generator", 128),
        (1, "latents/critic", 256),
        (1, "latents/critic"),
    ]
    assert len({tuple(drawn(*other)) for other in others} | {tuple(first)}) == 5


def fake_engine(rank: int, world: int) -> Any:
    return SimpleNamespace(
        rank=rank, world=world, device=torch.device("cpu"), dtype=torch.float32, prepare=lambda phase, module, _: module
    )


@pytest.mark.parametrize("accumulation", [1, 2, 4])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_split_of_the_work_sees_the_same_latents_beside_the_same_images(
    tiny_config: Callable[..., RunConfig], world: int, accumulation: int
) -> None:
    from shards import BatchStream

    config = replace(tiny_config(batch=16), accumulation=accumulation)
    whole = config.latent_codes().sample(16, draws(0, "latents/critic", 48))
    plan = Plan([20, 20, 10], seed=0)
    numbers: Any = SimpleNamespace(
        samples=50,
        prefetch=False,
        gather=lambda indices: SimpleNamespace(indices=indices.copy()),
        expect=lambda plan, position, stop: None,
    )
    latents: dict[tuple[int, int], Any] = {}
    images: dict[tuple[int, int], Any] = {}
    for rank in range(world):
        parts = Learner(config, fake_engine(rank, world))._latents("critic", 48)
        stream = BatchStream(numbers, plan, batch=16, rank=rank, world=world, accumulation=accumulation, start=48)
        for micro, part in enumerate(parts):
            latents[micro, rank], images[micro, rank] = part, next(stream).indices
    order = sorted(latents)
    assert len(order) == world * accumulation
    assert torch.equal(torch.cat([latents[key].vector for key in order]), whole.vector)
    for name, values in whole.values.items():
        assert torch.equal(torch.cat([latents[key].values[name] for key in order]), values)
    assert np.concatenate([images[key] for key in order]).tolist() == plan.indices(48, 16).tolist()
