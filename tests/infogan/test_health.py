"""A run says in words what goes wrong, and is silent while nothing does."""

from typing import Any

import pytest
import torch

from infogan.codes import CategoricalCode, CategoricalPosterior, Codes, ContinuousCode, ContinuousPosterior, Noise
from infogan.health import complaints, overlaps
from infogan.objectives import Hinge, NonSaturating

CODES = Codes({"digit": CategoricalCode(10), "c1": ContinuousCode(), "loose": ContinuousCode(weight=0.0)}, Noise(4))

HEALTHY: dict[str, Any] = {
    "kimg": 100.0, "lambda_share": 1.0, "score/real": 0.7, "score/fake": 0.3, "diversity/real": 0.3,
    "diversity/fake": 0.28,
    "mi/digit": 2.2, "mi/c1": -0.28, "mi/c1/best_std": 0.6, "mi/loose": -3.0, "mi/loose/best_std": 0.0,
}  # fmt: skip


def test_a_healthy_run_is_not_complained_about() -> None:
    assert complaints(HEALTHY, CODES, NonSaturating()) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"score/real": 0.995, "score/fake": 0.004},
            "critic saturated (score 0.99 for real images, 0.00 for generated ones): try optimizer.critic.lr at half",
        ),
        ({"mi/digit": 0.05}, "code digit ignored (L_I 0.05 of 2.30 nats): try codes.digit.weight=2"),
        ({"mi/c1/best_std": 0.02}, "code c1 ignored (L_I 0.02 nats at the best std): try codes.c1.weight=2"),
        (
            {"diversity/fake": 0.12},
            "diversity falling (generated images vary 40% as much as real ones): try optimizer.generator.lr at half",
        ),
        (
            {"diversity/fake": 0.03},
            "diversity falling (generated images vary 10% as much as real ones): "
            "try a lambda that grows, objective.ramp_kimg=100",
        ),
    ],
)
def test_each_trouble_is_named_with_its_number_and_the_override_to_try(changed: dict[str, Any], said: str) -> None:
    assert complaints(HEALTHY | changed, CODES, NonSaturating()) == [said]
    assert complaints(HEALTHY | changed | {"kimg": 10.0}, CODES, NonSaturating()) == []


def test_each_game_has_its_own_scores_of_a_saturated_critic() -> None:
    beyond_the_margin = {"score/real": 0.953, "score/fake": 0.047}  # sigmoids of 3 and -3
    assert complaints(HEALTHY | beyond_the_margin, CODES, NonSaturating()) == []
    (said,) = complaints(HEALTHY | beyond_the_margin, CODES, Hinge())
    assert said.startswith("critic saturated (score 0.95 for real images, 0.05 for generated ones)")
    assert complaints(HEALTHY | beyond_the_margin | {"score/fake": 0.4}, CODES, Hinge()) == []


def test_a_code_is_not_called_ignored_while_its_lambda_still_rises() -> None:
    ignored = HEALTHY | {"mi/digit": 0.05, "mi/c1/best_std": 0.02}
    assert complaints(ignored | {"lambda_share": 0.3}, CODES, NonSaturating()) == []
    assert len(complaints(ignored, CODES, NonSaturating())) == 2


def test_a_lambda_that_grows_is_suggested_only_where_it_does_not_yet() -> None:
    (said,) = complaints(HEALTHY | {"diversity/fake": 0.03}, CODES, NonSaturating(ramp_kimg=100.0))
    assert said.endswith("try optimizer.generator.lr at half")


def test_several_troubles_are_all_named() -> None:
    wrong = HEALTHY | {"mi/digit": 0.0, "diversity/fake": 0.0, "score/real": 1.0, "score/fake": 0.0}
    found = complaints(wrong, CODES, NonSaturating())
    assert [line.split(" (")[0] for line in found] == ["critic saturated", "code digit ignored", "diversity falling"]


def categorical(modes: torch.Tensor, ways: int) -> CategoricalPosterior:
    return CategoricalPosterior(torch.nn.functional.one_hot(modes, ways).float() * 5)


def continuous(mean: torch.Tensor) -> ContinuousPosterior:
    return ContinuousPosterior(mean, torch.ones_like(mean))


def test_codes_that_read_alike_are_two_codes_doing_one_thing() -> None:
    draw = torch.Generator().manual_seed(0)
    modes = torch.randint(5, (1000,), generator=draw)
    x = torch.rand(1000, generator=draw)
    posteriors = {
        "a": categorical(modes, 5), "b": categorical((modes + 2) % 5, 5), "x": continuous(x),
        "y": continuous(-x + 0.01 * torch.randn(1000, generator=draw)),
    }  # fmt: skip
    found = overlaps(posteriors)
    assert [line.partition(" do one thing")[0] for line in found] == ["codes a and b", "codes x and y"]
    assert "try codes.b=null" in found[0]


def test_codes_that_read_different_things_are_not_complained_about() -> None:
    draw = torch.Generator().manual_seed(0)
    modes = torch.randint(5, (1000,), generator=draw)
    half = torch.where(torch.rand(1000, generator=draw) < 0.5, modes, torch.randint(5, (1000,), generator=draw))
    x = torch.rand(1000, generator=draw)
    posteriors = {
        "a": categorical(modes, 5), "b": categorical(half, 5), "c": categorical(torch.zeros_like(modes), 3),
        "x": continuous(x), "y": continuous(x.square() - x), "z": continuous(torch.full((1000,), 0.5)),
    }  # fmt: skip
    assert overlaps(posteriors) == []
