"""The bench compares like with like: the plain loop plays the same game, and ratios are taken within a round."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from click.testing import CliRunner
from torch import nn

from infogan import settings
from infogan.config import RunConfig
from infogan.engine import Engine
from infogan.learner import Learner
from infogan.networks import to_network_range
from infogan.phases import Players, critic_loss
from infogan.randomness import generator as draws
from launch import bench
from launch.plain_loop import PlainDataset, PlainLoop, as_plain, plain_loader
from launch.turns import Turn, take_turns
from shards.errors import UserError

NETWORKS = ("mnist", "fashion_mnist", "colour32")
BATCH = 8


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> None:
    """accelerate keeps the first precision that a process asks for."""
    AcceleratorState._reset_state(reset_partial_state=True)


def learner_of(*overrides: str) -> Learner:
    chosen = settings.load("paper/mnist", ["device=cpu", f"batch={BATCH}", "threads=1", *overrides])
    engine = Engine(chosen.config)
    return Learner(engine.config, engine)


def plain_loop_of(learner: Learner) -> PlainLoop:
    # The steps are called by hand, so the loop has nothing to load.
    loader: Any = []
    return PlainLoop(learner.config, learner.generator, learner.critic, loader, learner.engine.device)


def images_of(config: RunConfig, number: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randint(256, (BATCH, *config.network.image_shape), generator=generator, dtype=torch.uint8)


def latents_of(learner: Learner, phase: str, images: int) -> Any:
    drawn = learner.codes.sample(BATCH, draws(learner.config.seed, f"latents/{phase}", images))
    return drawn.to(learner.engine.device, learner.engine.dtype)


def generators_total(learner: Learner, found: dict[str, torch.Tensor]) -> float:
    """The generator's loss, from what is logged: adversarial - sum of lambda * L_I."""
    information = sum(code.weight * float(found[f"mi/{name}"]) for name, code in learner.codes.codes.items())
    return float(found["loss/generator"]) - information


@pytest.mark.parametrize(("name", "mi_gradient"), [*((name, "critic") for name in NETWORKS), ("mnist", "head")])
def test_first_losses_are_those_of_our_learner(name: str, mi_gradient: str) -> None:
    learner = learner_of("precision=fp32", f"network.name={name}", f"objective.mi_gradient={mi_gradient}")
    plain, images = plain_loop_of(learner), images_of(learner.config)
    real = to_network_range(images, learner.config.network.image_range)
    players = Players(learner.generator, learner.critic, learner.generator, learner.critic)
    latents = latents_of(learner, "critic", 0)
    expected, _ = critic_loss(players, learner.codes, learner.config.objective, real, latents, None, 1.0)
    found = learner.update([images], 0)

    assert plain.critic_step(real.contiguous(), latents) == pytest.approx(expected.item(), rel=1e-5)
    total = plain.generator_step(latents_of(learner, "generator", 0))
    assert total == pytest.approx(generators_total(learner, found), rel=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_plain_loop_trains_as_our_learner_does(name: str) -> None:
    """In float64, where rounding cannot hide a different gradient: losses and weights after three updates."""
    learner = learner_of("precision=fp64", f"network.name={name}")
    plain = plain_loop_of(learner)
    for number in range(3):
        images = images_of(learner.config, number)
        real = to_network_range(images, learner.config.network.image_range, torch.float64)
        found = learner.update([images], number * BATCH)
        plain.critic_step(real.contiguous(), latents_of(learner, "critic", number * BATCH))
        total = plain.generator_step(latents_of(learner, "generator", number * BATCH))
        assert total == pytest.approx(generators_total(learner, found), rel=1e-9)

    with torch.no_grad():
        vector = latents_of(learner, "generator", 0).vector
        torch.testing.assert_close(plain.generator(vector), learner.generator(vector), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_plain_networks_have_nothing_of_ours_and_the_same_parameters(name: str) -> None:
    learner = learner_of("precision=fp32", f"network.name={name}")
    before = [parameter.clone() for parameter in learner.generator.parameters()]
    plain = plain_loop_of(learner)
    ours = [*learner.generator.parameters(), *learner.critic.parameters()]
    parts = nn.ModuleList([plain.generator, plain.trunk, plain.d_head, plain.q_head])
    assert sorted(p.shape for p in parts.parameters()) == sorted(p.shape for p in ours)
    assert all(parameter.is_contiguous() for parameter in parts.parameters())
    assert all(type(module).__module__.startswith("torch.nn.") for module in parts.modules())
    assert any(isinstance(module, nn.BatchNorm2d) and module.track_running_stats for module in parts.modules())

    plain.generator_step(latents_of(learner, "generator", 0))
    assert all(torch.equal(a, b) for a, b in zip(before, learner.generator.parameters(), strict=True))


def test_the_generators_phase_leaves_gradients_on_the_critic_as_plain_loops_do() -> None:
    learner = learner_of("precision=fp32")
    plain = plain_loop_of(learner)
    weights = [parameter.clone() for parameter in plain.trunk.parameters()]
    plain.generator_step(latents_of(learner, "generator", 0))
    assert all(parameter.grad is not None for parameter in plain.trunk.parameters())
    assert all(torch.equal(a, b) for a, b in zip(weights, plain.trunk.parameters(), strict=True))


def test_a_layer_without_a_plain_counterpart_is_refused() -> None:
    class Squash(nn.Module):
        pass

    with pytest.raises(UserError, match="no counterpart of its Squash"):
        as_plain(nn.Sequential(Squash()))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_the_plain_data_set_gives_the_same_pixels(channels: int, image_range: tuple[float, float]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 7, channels)).astype(np.uint8)
    data = PlainDataset(pixels, [3, 1, 4, 1, 5], image_range)
    expected = to_network_range(torch.from_numpy(pixels).permute(0, 3, 1, 2), image_range)
    images, labels = zip(*(data[index] for index in range(len(data))), strict=True)
    torch.testing.assert_close(torch.stack(images), expected.contiguous())
    assert labels == (3, 1, 4, 1, 5)
    with pytest.raises(UserError, match="say batch=5 or less"):
        plain_loader(data, 6, 0)


def test_contestants_take_turns_and_each_warms_up_untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], list[tuple[str, int]]()
    monkeypatch.setattr("launch.turns.time", SimpleNamespace(perf_counter=lambda: now[0]))

    class Runner:
        def __init__(self, name: str, seconds: float) -> None:
            self.name, self.seconds = name, seconds

        def advance(self, updates: int) -> float:
            calls.append((self.name, updates))
            now[0] += self.seconds * updates
            return 0.25 * updates

    rounds = list[int]()
    found = take_turns(
        {"a": Runner("a", 1.0), "b": Runner("b", 2.0)}, 2, 4, lambda: None, lambda number, done: rounds.append(number)
    )
    assert calls == [("a", 1), ("a", 4), ("b", 1), ("b", 4)] * 2
    assert found == {"a": [(4.0, 1.0)] * 2, "b": [(8.0, 1.0)] * 2}
    assert rounds == [1, 2]


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that is three times slower in its second round changes no ratio."""
    timings = {
        "plain": [Turn(4.0, 1.0), Turn(12.0, 3.0), Turn(4.0, 1.0)],
        "ours": [Turn(2.0, 0.0), Turn(6.0, 0.6), Turn(2.0, 0.0)],
        "limit": [Turn(1.0, 0.0), Turn(3.0, 0.0), Turn(2.0, 0.0)],
    }
    found = bench.summary(timings, 120, {name: {"what": name} for name in timings})
    assert found["ratios"]["ours/plain"] == {"median": 2.0, "min": 2.0, "max": 2.0, "rounds": [2.0] * 3}
    assert found["ratios"]["ours/limit"] == {"median": 0.5, "min": 0.5, "max": 1.0, "rounds": [0.5, 0.5, 1.0]}
    assert found["contestants"]["plain"]["images_per_s"] == {"median": 30, "min": 10, "max": 30, "rounds": [30, 10, 30]}
    assert found["contestants"]["plain"]["data_wait"]["median"] == 0.25
    assert found["contestants"]["ours"]["data_wait"]["max"] == pytest.approx(0.1)
    assert found["contestants"]["ours"]["what"] == "ours"


def test_the_verb_prints_a_table_and_writes_the_same_as_json(make_data: Callable[..., Path], tmp_path: Path) -> None:
    data, file = make_data(28), tmp_path / "bench.json"
    arguments = ["train", "batch=16", "device=cpu", "threads=1", "--data", str(data)]
    found = CliRunner().invoke(bench.command, [*arguments, "--updates", "1", "--rounds", "2", "--json", str(file)])
    assert found.exception is None, found.output
    result = json.loads(file.read_bytes())
    assert (result["format"], result["bench"], result["preset"], result["batch"]) == (1, "train", "paper/mnist", 16)
    assert list(result["contestants"]) == ["plain", "ours", "limit"]
    assert {"device", "threads", "precision", "packages", "cores", "native_bf16"} <= result["environment"].keys()
    plain = result["contestants"]["plain"]
    assert sorted(plain["workers_tried"]) == ["0", "2"]
    assert plain["workers_tried"][str(plain["workers"])] == max(plain["workers_tried"].values())
    for name, row in result["contestants"].items():
        assert len(row["images_per_s"]["rounds"]) == 2
        assert f"{name:7}{row['images_per_s']['median']:>9,.0f}" in found.stdout
        assert 0 <= row["data_wait"]["max"] < 1
    for name, ratio in result["ratios"].items():
        assert f"{name:12} {ratio['median']:.2f}" in found.stdout
    assert result["environment"]["device"] in found.stdout
    assert "round 2 of 2" in found.stderr
    assert multiprocessing.active_children() == []


def test_without_a_data_set_the_command_that_builds_one_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "mnist"
    error = CliRunner().invoke(bench.command, ["train", "--data", str(missing)]).exception
    assert isinstance(error, UserError)
    assert f"infogan shards build mnist --out {missing}" in str(error)


def test_a_precision_that_the_plain_loop_lacks_is_refused(tiny_data: Path) -> None:
    error = CliRunner().invoke(bench.command, ["train", "precision=fp64", "--data", str(tiny_data)]).exception
    assert isinstance(error, UserError)
    assert "use fp32, bf16 or auto" in str(error)


@pytest.mark.parametrize("override", ["objective.r1=1", "augment.mirror=true"])
def test_what_the_plain_loop_does_not_do_is_refused(tiny_data: Path, override: str) -> None:
    error = CliRunner().invoke(bench.command, ["train", override, "--data", str(tiny_data)]).exception
    assert isinstance(error, UserError)
    assert override.partition("=")[0].partition(".")[0] in str(error)
    assert "the plain loop" in str(error)


def test_a_data_set_that_does_not_fit_the_network_is_refused(tiny_data: Path) -> None:
    error = CliRunner().invoke(bench.command, ["train", "--data", str(tiny_data)]).exception
    assert isinstance(error, UserError)
    assert "8x8" in str(error)
    assert "28x28" in str(error)


def test_one_preset_at_a_time() -> None:
    found = CliRunner().invoke(bench.command, ["train", "demo", "own"])
    assert found.exit_code == 2
    assert "one preset at a time, not demo, own" in found.output
