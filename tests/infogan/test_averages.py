"""The moving average counts in images, and BatchNorm's statistics are those of stated inputs."""

import copy

import pytest
import torch
from torch import nn

from infogan.batchnorm import BatchNorm1d, BatchNorm2d, estimate_statistics
from infogan.ema import EmaGenerator


def scalar(value: float) -> nn.Module:
    module = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(module.weight, value)
    return module


@pytest.mark.parametrize("batch", [10, 50, 500])
def test_a_weight_counts_half_after_the_half_life_whatever_the_batch(batch: int) -> None:
    """A weight that jumps from 0 to 1: after n images the average is 1 - 2^(-n / half-life)."""
    trained = scalar(0.0)
    ema = EmaGenerator(trained, half_life_kimg=1.0, rampup=1000.0)
    nn.init.constant_(trained.weight, 1.0)  # type: ignore[arg-type]
    for images in range(batch, 2001, batch):
        ema.update(images, batch)
        assert ema.module.weight.item() == pytest.approx(1 - 0.5 ** (images / 1000), rel=1e-12)  # type: ignore[union-attr, operator]


def test_a_young_average_has_a_half_life_in_proportion_to_its_age() -> None:
    """With rampup r and updates of b images, update k keeps 2^(-b / (r k b)) = 2^(-1 / (r k)) of what there was."""
    trained = scalar(0.0)
    ema = EmaGenerator(trained, half_life_kimg=1e9, rampup=0.05)
    nn.init.constant_(trained.weight, 1.0)  # type: ignore[arg-type]
    kept = 1.0
    for k in range(1, 30):
        ema.update(k * 64, 64)
        kept *= 0.5 ** (1 / (0.05 * k))
        assert ema.module.weight.item() == pytest.approx(1 - kept, rel=1e-12)  # type: ignore[union-attr, operator]


def test_the_average_starts_as_the_first_weights_and_never_trains() -> None:
    generator = nn.Sequential(nn.Linear(3, 3), BatchNorm1d(3))
    ema = EmaGenerator(generator, 1.0, 0.05)
    assert all(torch.equal(a, b) for a, b in zip(ema.module.parameters(), generator.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in ema.module.parameters())
    assert not ema.module.training


def test_while_training_a_norm_uses_its_batch_and_remembers_nothing() -> None:
    for ours, theirs, shape in (
        (BatchNorm1d(4), nn.BatchNorm1d(4), (8, 4)),
        (BatchNorm2d(4), nn.BatchNorm2d(4), (8, 4, 3, 3)),
    ):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 1
        before = copy.deepcopy(ours.state_dict())
        torch.testing.assert_close(ours.train()(x), theirs.train()(x), rtol=0, atol=0)
        assert before.keys() == ours.state_dict().keys()
        assert all(torch.equal(before[key], value) for key, value in ours.state_dict().items())


def test_a_saved_norm_is_read_back_from_its_tensors_alone() -> None:
    """safetensors keeps tensors, not torch's version marks, without which torch looks for a counter."""
    first, second = BatchNorm2d(4), BatchNorm2d(4)
    nn.init.normal_(first.weight)
    first.running_mean.fill_(3.0)  # type: ignore[union-attr]
    assert sorted(first.state_dict()) == ["bias", "running_mean", "running_var", "weight"]
    second.load_state_dict(dict(first.state_dict()))
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_statistics_are_the_means_of_the_batches_own() -> None:
    """Two norms in a row: what the second sees is the first's output under the statistics of its batch."""
    module = nn.Sequential(BatchNorm2d(3), nn.ReLU(), BatchNorm2d(3)).double().eval()
    batches = [
        torch.randn(16, 3, 2, 2, generator=torch.Generator().manual_seed(i), dtype=torch.float64) * (i + 1)
        for i in range(5)
    ]
    estimate_statistics(module, iter(batches), module)
    inputs = [batches, [torch.relu(nn.BatchNorm2d(3, affine=False).double()(batch)) for batch in batches]]
    for layer, seen in zip((module[0], module[2]), inputs, strict=True):
        mean = torch.stack([x.mean(dim=(0, 2, 3)) for x in seen]).mean(0)
        var = torch.stack([x.var(dim=(0, 2, 3), correction=1) for x in seen]).mean(0)
        torch.testing.assert_close(layer.running_mean, mean)
        torch.testing.assert_close(layer.running_var, var)


def test_an_estimate_forgets_the_one_before_and_leaves_the_mode_as_it_was() -> None:
    module = nn.Sequential(BatchNorm1d(2)).eval()
    x, y = torch.randn(64, 2) + 5, torch.randn(64, 2) - 5
    estimate_statistics(module, [x], module)
    estimate_statistics(module, [y], module)
    torch.testing.assert_close(module[0].running_mean, y.mean(0))
    assert not module.training
    frozen = module(x)
    torch.testing.assert_close(frozen[:3], module(x[:3]))  # one image's output does not depend on its neighbours
    with pytest.raises(ZeroDivisionError):
        estimate_statistics(module, [x], lambda batch: 1 / 0)
    torch.testing.assert_close(module(x[:3]), module(x)[:3])
