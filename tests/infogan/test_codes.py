"""Codes are drawn, fed and read back as stated, and their bounds are the formulas worked out by hand."""

import math

import pytest
import torch
from torch.distributions import Categorical, Normal, Uniform

from infogan.codes import CategoricalCode, Code, Codes, ContinuousCode, Noise, bound_at_best_std


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_categorical_bound_is_ln_k_less_the_cross_entropy() -> None:
    code = CategoricalCode(10)
    logits = torch.randn(64, 10, generator=seeded(), dtype=torch.float64)
    values = torch.randint(10, (64,), generator=seeded(1))
    expected = Categorical(logits=logits).log_prob(values) + Categorical(logits=torch.zeros(10)).entropy()
    torch.testing.assert_close(
        code.bound(code.posterior(logits), values), expected, check_dtype=False, rtol=0, atol=1e-6
    )


def test_a_categorical_bound_runs_from_nothing_known_to_all_known() -> None:
    code = CategoricalCode(4)
    unknown = code.bound(code.posterior(torch.zeros(1, 4)), torch.tensor([2]))
    known = code.bound(code.posterior(torch.tensor([[0.0, 0.0, 100.0, 0.0]])), torch.tensor([2]))
    assert unknown.item() == pytest.approx(0, abs=1e-6)
    assert known.item() == pytest.approx(math.log(4)) == pytest.approx(code.ceiling)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("std", ["fixed", "learned", "clamped"])
def test_a_continuous_bound_is_ln_2_plus_the_gaussian_log_likelihood(std: str, sigma: float) -> None:
    code = ContinuousCode(std=std, sigma=sigma)
    q = torch.randn(64, code.q_width, generator=seeded(), dtype=torch.float64)
    values = torch.rand(64, generator=seeded(1), dtype=torch.float64) * 2 - 1
    deviation = {
        "fixed": lambda: torch.full((64,), sigma, dtype=torch.float64),
        "learned": lambda: q[:, 1].exp(),
        "clamped": lambda: sigma + q[:, 1].exp(),  # ln sigma + softplus(x - ln sigma) = ln(sigma + e^x)
    }[std]()
    expected = Normal(q[:, 0], deviation).log_prob(values) + Uniform(-1.0, 1.0).entropy()
    torch.testing.assert_close(code.bound(code.posterior(q), values), expected, rtol=0, atol=1e-7, check_dtype=False)


def test_the_ceiling_of_the_papers_continuous_codes_is_minus_0_226() -> None:
    """ln 2 - ln(2 pi) / 2 by hand: 0.693147 - 0.918939 = -0.225791."""
    code = ContinuousCode()
    assert code.ceiling == pytest.approx(-0.225791, abs=1e-6)
    perfect = code.bound(code.posterior(torch.tensor([[0.25]])), torch.tensor([0.25]))
    assert perfect.item() == pytest.approx(-0.225791, abs=1e-6)
    off_by_one = code.bound(code.posterior(torch.tensor([[-0.75]])), torch.tensor([0.25]))
    assert off_by_one.item() == pytest.approx(-0.225791 - 0.5, abs=1e-6)


def test_ceilings_by_kind() -> None:
    assert CategoricalCode(20).ceiling == pytest.approx(2.995732, abs=1e-6)
    assert ContinuousCode(std="fixed", sigma=0.1).ceiling == pytest.approx(2.076794, abs=1e-6)
    assert ContinuousCode(std="clamped", sigma=0.1).ceiling == pytest.approx(2.076794, abs=1e-6)
    assert ContinuousCode(std="learned").ceiling is None


def test_a_learned_deviation_passes_the_ceiling_and_a_clamped_one_never_does() -> None:
    sure = torch.tensor([[0.5, -12.0]])
    values = torch.tensor([0.5])
    learned, clamped = ContinuousCode(std="learned", sigma=0.5), ContinuousCode(std="clamped", sigma=0.5)
    assert learned.bound(learned.posterior(sure), values).item() > 10
    assert clamped.bound(clamped.posterior(sure), values).item() == pytest.approx(clamped.ceiling, abs=1e-4)
    assert clamped.bound(clamped.posterior(sure), values).item() < clamped.ceiling
    assert clamped.posterior(sure).std.item() == pytest.approx(0.5, abs=1e-4)
    assert clamped.posterior(torch.tensor([[0.5, 1.0]])).std.item() == pytest.approx(0.5 + math.e)


def test_a_clamped_deviation_finds_its_way_back_up() -> None:
    q = torch.tensor([[1.8, -2.0]], requires_grad=True)
    code = ContinuousCode(std="clamped", sigma=0.3)
    code.bound(code.posterior(q), torch.tensor([0.0])).sum().backward()
    assert q.grad is not None and q.grad[0, 1] > 0  # a larger deviation would score this error better


def test_the_bound_at_the_best_deviation_is_the_best_there_is() -> None:
    errors = torch.tensor([0.5, -0.1, 0.2, 0.05])
    values, q = torch.zeros(4), -errors[:, None]
    mse = errors.square().mean().item()
    assert mse == pytest.approx(0.075625)
    found = bound_at_best_std(mse)
    assert found == pytest.approx(math.log(2) - 0.5 * math.log(2 * math.pi * math.e * 0.075625))
    tried = []
    for sigma in torch.linspace(0.05, 2, 2000).tolist():
        code = ContinuousCode(sigma=sigma)
        tried.append(code.bound(code.posterior(q), values).mean().item())
    assert max(tried) == pytest.approx(found, abs=1e-4)
    assert max(tried) <= found + 1e-6
    assert math.isfinite(bound_at_best_std(0.0))


def test_the_input_is_the_noise_and_then_every_code_in_order() -> None:
    codes = Codes({"c1": ContinuousCode(), "kind": CategoricalCode(3), "c2": ContinuousCode()}, Noise(2))
    assert codes.input_width == 2 + 1 + 3 + 1
    noise = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    values = {"kind": torch.tensor([2, 0]), "c2": torch.tensor([-1.0, 0.5]), "c1": torch.tensor([0.7, -0.7])}
    vector = codes.assemble(noise, values).vector
    expected = [[0.1, 0.2, 0.7, 0, 0, 1, -1.0], [0.3, 0.4, -0.7, 1, 0, 0, 0.5]]
    torch.testing.assert_close(vector, torch.tensor(expected))


def test_qs_output_is_cut_in_the_same_order() -> None:
    codes = Codes({"a": ContinuousCode(std="learned"), "kind": CategoricalCode(3), "b": ContinuousCode()}, Noise(4))
    assert codes.q_width == 2 + 3 + 1
    posteriors = codes.split(torch.tensor([[0.5, 0.0, 1.0, 2.0, 3.0, -0.25]]))
    a, kind, b = posteriors["a"], posteriors["kind"], posteriors["b"]
    assert (a.mean.item(), a.std.item()) == (0.5, 1.0)  # type: ignore[union-attr]
    assert kind.logits.tolist() == [[1.0, 2.0, 3.0]]  # type: ignore[union-attr]
    assert kind.mode.tolist() == [2]  # type: ignore[union-attr]
    assert (b.mean.item(), b.std.item()) == (-0.25, 1.0)  # type: ignore[union-attr]


def test_draws_follow_their_priors() -> None:
    codes = Codes({"kind": CategoricalCode(5), "c": ContinuousCode()}, Noise(3))
    latents = codes.sample(20_000, seeded())
    counts = torch.bincount(latents.values["kind"], minlength=5).double()
    assert ((counts - 4000).square() / 4000).sum() < 25  # chi-square, 4 degrees of freedom
    for drawn in (latents.values["c"], *latents.vector[:, :3].T):
        assert -1 <= drawn.min() < -0.99
        assert 0.99 < drawn.max() <= 1
        assert drawn.mean().abs() < 0.03
        assert drawn.var().item() == pytest.approx(1 / 3, abs=0.02)
    torch.testing.assert_close(latents.vector, codes.assemble(latents.vector[:, :3], latents.values).vector)


def test_normal_noise_is_normal() -> None:
    drawn = Noise(2, "normal").draw(20_000, seeded())
    assert drawn.std().item() == pytest.approx(1, abs=0.03)
    assert drawn.abs().max() > 3


@pytest.mark.parametrize(
    ("codes", "noise", "width"),
    [({}, 5, 5), ({"k": CategoricalCode(3)}, 0, 3)],
    ids=["no codes", "no noise"],
)
def test_either_part_of_the_input_may_be_absent(codes: dict[str, Code], noise: int, width: int) -> None:
    made = Codes(codes, Noise(noise))
    assert made.sample(4, seeded()).vector.shape == (4, width)
    assert made.split(torch.zeros(4, made.q_width)).keys() == codes.keys()


def test_a_slice_of_latents_slices_every_part() -> None:
    codes = Codes({"kind": CategoricalCode(5), "c": ContinuousCode()}, Noise(3))
    whole = codes.sample(8, seeded())
    part = whole[2:5]
    assert torch.equal(part.vector, whole.vector[2:5])
    assert all(torch.equal(part.values[name], whole.values[name][2:5]) for name in codes.codes)
