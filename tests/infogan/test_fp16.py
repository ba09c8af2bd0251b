"""fp16 with a loss scale for each optimizer: an update that overflows is skipped, counted, and tells only its own.

A GPU computes in fp16; here torch's own CPU does, past the refusal, so that the scales can be tested anywhere.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from infogan import launched, phases
from infogan.config import RunConfig
from infogan.engine import PHASES, Engine
from infogan.learner import MOST_SKIPPED, Learner


@pytest.fixture
def learner(
    monkeypatch: pytest.MonkeyPatch, engine_of: Callable[[RunConfig], Engine], tiny_config: Callable[..., RunConfig]
) -> Learner:
    monkeypatch.setattr(launched, "agreed_precision", lambda *arguments: "fp16")
    engine = engine_of(tiny_config())
    # the usual 65,536 is where the search for a scale begins: the first updates may overflow at it
    engine._scalers = {phase: torch.amp.GradScaler("cpu", init_scale=256.0) for phase in PHASES}
    return Learner(engine.config, engine)


@pytest.fixture
def overflowing(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Lets the critic's gradients overflow, or not."""
    loss, factor = phases.critic_loss, [1.0]

    def scaled(*arguments: Any) -> Any:
        value, found = loss(*arguments)
        return value * factor[0], found

    monkeypatch.setattr(phases, "critic_loss", scaled)
    return lambda whether: factor.__setitem__(0, 1e38 if whether else 1.0)


def images(learner: Learner) -> list[torch.Tensor]:
    shape = learner.config.network.image_shape
    drawn = torch.randint(256, (learner.config.batch, *shape), generator=torch.Generator().manual_seed(0))
    return [drawn.to(torch.uint8)]


def weights(learner: Learner, name: str) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in learner.modules[name].parameters()])


def scales(learner: Learner) -> dict[str, float]:
    return {phase: state["scale"] for phase, state in learner.engine.scaler_state().items()}


def test_an_overflow_skips_its_own_update_and_halves_its_own_scale(
    learner: Learner, overflowing: Callable[[bool], None]
) -> None:
    overflowing(True)
    critic, generator, before = weights(learner, "critic"), weights(learner, "generator"), scales(learner)
    statistics = learner.update(images(learner), 0)
    assert statistics["skipped"] == 1
    assert torch.equal(weights(learner, "critic"), critic)
    assert not torch.equal(weights(learner, "generator"), generator)
    assert all(state["step"] == 0 for state in learner.optimizers["critic"].state.values())
    assert scales(learner) == {"critic": before["critic"] / 2, "generator": before["generator"]}
    assert learner.failed_updates() == [-1, -1]
    overflowing(False)
    statistics = learner.update(images(learner), learner.config.batch)
    assert statistics["skipped"] == 0
    assert not torch.equal(weights(learner, "critic"), critic)


def test_scales_go_into_a_checkpoint_and_come_back(learner: Learner, overflowing: Callable[[bool], None]) -> None:
    overflowing(True)
    learner.update(images(learner), 0)
    state = learner.engine.scaler_state()
    other = learner.engine.alone()
    other._scalers = {phase: torch.amp.GradScaler("cpu") for phase in state}
    other.load_scaler_state(state)
    assert other.scaler_state() == state


def test_a_run_that_only_skips_has_failed(learner: Learner, overflowing: Callable[[bool], None]) -> None:
    overflowing(True)
    for update in range(MOST_SKIPPED):
        assert learner.failed_updates() == [-1, -1]
        learner.update(images(learner), update * learner.config.batch)
    assert learner.failed_updates() == [MOST_SKIPPED - 1, -1]
