"""The modern families: any size that fits, no BatchNorm in the critic, and spectral normalisation that keeps step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from infogan import settings
from infogan.codes import ContinuousCode
from infogan.config import RunConfig
from infogan.engine import Engine
from infogan.learner import Learner
from infogan.networks import Critic
from infogan.networks.modern import ModernNetwork, fits
from infogan.networks.residual import Residual
from infogan.networks.spectral import Spectral
from infogan.networks.spectral_norm import SpectralConv2d, SpectralLinear, SpectralNorm, follow_weights
from shards.errors import UserError

# Worked out by hand, for 10 inputs and 5 outputs of Q in the first row, 20 and 4 in the others.
COUNTS: list[tuple[ModernNetwork, dict[str, int]]] = [
    (  # InfoGAN-CR's
        Spectral(),
        {
            "generator": 1_408 + 256 + 132_096 + 2_048 + 65_600 + 128 + 32_800 + 64 + 16_416 + 64 + 513,
            "trunk": 544 + 16_416 + 32_832 + 65_600 + 131_200, "d_head": 129, "q_head": 16_512 + 645,
        },
    ),
    (
        Spectral(height=28, width=36, channels=3, base=8, features=32),
        {
            "generator": 672 + 64 + 16_632 + 1_008 + 1_032 + 16 + 387,
            "trunk": 392 + 1_032 + 16_160, "d_head": 33, "q_head": 1_056 + 132,
        },
    ),
    (
        Residual(height=28, width=28, base=8, features=16),
        {
            "generator": 16_464 + (32 + 1_152 + 16 + 584 + 136) + (16 + 576 + 16 + 584) + 16 + 73,
            "trunk": (80 + 584 + 16) + (1_168 + 2_320 + 144) + 2 * 2_320 + 12_560, "d_head": 17, "q_head": 272 + 68,
        },
    ),
    (
        Residual(height=128, width=64, channels=3, base=4, features=8),
        {
            "generator": 21_504 + (64 + 4_608 + 32 + 2_320 + 528) + (32 + 1_152 + 16 + 584 + 136)
            + (16 + 288 + 8 + 148 + 36) + (8 + 144 + 8 + 148) + 8 + 111,
            "trunk": (112 + 148 + 16) + (296 + 584 + 40) + (1_168 + 2_320 + 144) + (4_640 + 9_248 + 544)
            + 2 * 9_248 + 8_200,
            "d_head": 9, "q_head": 72 + 36,
        },
    ),
]  # fmt: skip
WIDTHS = [(10, 5), (20, 4), (20, 4), (20, 4)]

# What a sample is after each layer or block that has weights.
SHAPES = [
    (
        [(128,), (1024,), (64, 8, 8), (32, 16, 16), (32, 32, 32), (1, 64, 64)],
        [(32, 32, 32), (32, 16, 16), (64, 8, 8), (64, 4, 4), (128,)],
    ),
    ([(32,), (504,), (8, 14, 18), (3, 28, 36)], [(8, 14, 18), (8, 7, 9), (32,)]),
    ([(784,), (8, 14, 14), (8, 28, 28), (1, 28, 28)], [(8, 14, 14), (16, 7, 7), (16, 7, 7), (16,)]),
    (
        [(1024,), (16, 16, 8), (8, 32, 16), (4, 64, 32), (4, 128, 64), (3, 128, 64)],
        [(4, 64, 32), (8, 32, 16), (16, 16, 8), (32, 8, 4), (32, 8, 4), (8,)],
    ),
]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shapes(layers: nn.Module, x: Tensor) -> list[tuple[int, ...]]:
    found = []
    for layer in layers.children():
        x = layer(x)
        if count(layer) and not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            found.append(tuple(x.shape[1:]))
    return found


@pytest.mark.parametrize("row", range(len(COUNTS)))
def test_parameters_and_shapes_are_those_worked_out_by_hand(row: int) -> None:
    (network, counts), (inputs, outputs) = COUNTS[row], WIDTHS[row]
    with torch.device("meta"):
        generator, critic = network.generator(inputs), network.critic(outputs)
        latents, images = torch.empty(2, inputs), torch.empty(2, *network.image_shape)
        assert (shapes(generator, latents), shapes(critic.trunk, images)) == SHAPES[row]
    found = {"generator": count(generator)}
    found |= {part: count(getattr(critic, part)) for part in ("trunk", "d_head", "q_head")}
    assert found == counts


@pytest.mark.parametrize("family", [Spectral, Residual])
@pytest.mark.parametrize("sides", [(28, 28), (32, 48), (64, 64), (96, 128), (128, 128), (112, 80)])
def test_every_size_that_fits_makes_images_of_that_size(family: type[Any], sides: tuple[int, int]) -> None:
    for channels in (1, 3):
        network = family(height=sides[0], width=sides[1], channels=channels, base=2, features=4)
        with torch.device("meta"):
            generator, critic = network.generator(6), network.critic(3)
            images = generator(torch.empty(2, 6))
            out = critic(images, images)
        assert images.shape == (2, channels, *sides)
        assert (out.real_logit.shape, out.q.shape) == ((2,), (2, 3))
        assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in critic.modules())


def test_exactly_these_squares_fit() -> None:
    assert [side for side in range(1, 200) if fits(side, side)] == [28, 32, 40, 48, 56, 64, 80, 96, 112, 128]


@pytest.mark.parametrize(
    ("sides", "nearest"),
    [
        ((50, 50), "48x48 and 56x56"), ((20, 20), "28x28 and 32x32"), ((256, 256), "128x128 and 112x112"),
        ((63, 64), "64x64 and 56x64"), ((64, 30), "64x28 and 64x32"), ((0, -1), "28x28 and 28x32"),
    ],
)  # fmt: skip
def test_sides_that_do_not_fit_are_refused_with_the_nearest(sides: tuple[int, int], nearest: str) -> None:
    with pytest.raises(UserError) as refused:
        settings.load("modern/sprites", [f"network.height={sides[0]}", f"network.width={sides[1]}"])
    assert str(refused.value).startswith(f"network.height, width: {sides[0]}x{sides[1]}: ")
    assert str(refused.value).endswith(f"the nearest that fit are {nearest}")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("network.channels=2", "network.channels: 2: must be 1 (grey) or 3 (colour)"),
        ("network.output=relu", "network.output: 'relu': must be one of sigmoid, tanh"),
        ("network.q_norm=batch", "network.q_norm: 'batch': must be one of spectral, none"),
        ("network.base=0", "network.base: 0: must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(override: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        settings.load("modern/sprites", [override])
    assert said in str(refused.value)


@pytest.mark.parametrize("family", [Spectral, Residual])
def test_the_image_range_follows_the_output(family: type[Any]) -> None:
    for output, low in (("sigmoid", 0.0), ("tanh", -1.0)):
        network = family(height=28, width=28, base=2, features=4, output=output)
        generator = network.generator(6)
        network.initialise(generator, torch.Generator().manual_seed(0))
        last: Any = [layer for layer in generator.children() if count(layer)][-1]
        last.weight.data *= 1000
        images = generator(torch.randn(16, 6))
        assert network.image_range == (low, 1.0)
        assert low <= images.min() < low + 0.2
        assert 0.8 < images.max() <= 1


# ---- spectral normalisation ---------------------------------------------------------------------------------------


def layers(module: nn.Module) -> list[SpectralNorm]:
    return [part for part in module.modules() if isinstance(part, SpectralNorm)]


def vectors(module: nn.Module) -> list[Tensor]:
    return [vector.clone() for layer in layers(module) for vector in (layer.u, layer.v)]


def small_critic(family: type[Any] = Residual, **options: Any) -> tuple[ModernNetwork, Critic]:
    network = family(**({"height": 28, "width": 28, "base": 4, "features": 16} | options))
    critic = network.critic(3)
    network.initialise(critic, torch.Generator().manual_seed(1))
    return network, critic


@pytest.mark.parametrize("family", [Spectral, Residual])
def test_every_layer_of_the_critic_is_normalised(family: type[Any]) -> None:
    for q_norm in ("spectral", "none"):
        _, critic = small_critic(family, q_norm=q_norm)
        for name, part in critic.named_modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                assert isinstance(part, SpectralNorm) == (q_norm == "spectral" or not name.startswith("q_head"))


@pytest.mark.parametrize("family", [Spectral, Residual])
def test_the_first_weights_are_divided_by_their_largest_singular_value(family: type[Any]) -> None:
    _, critic = small_critic(family)
    for layer in layers(critic):
        largest = torch.linalg.svdvals(layer.weight.detach().flatten(1))[0].item()
        assert 0.97 * largest <= layer.sigma().item() <= largest * (1 + 1e-5)


@pytest.mark.parametrize(("ours", "theirs"), [
    (SpectralLinear(6, 5), nn.Linear(6, 5)), (SpectralConv2d(3, 5, 4, 2, 1), nn.Conv2d(3, 5, 4, 2, 1)),
])  # fmt: skip
def test_a_layer_computes_what_torchs_spectral_norm_computes(ours: Any, theirs: nn.Module) -> None:
    draw = torch.Generator().manual_seed(0)
    ours.weight.data.normal_(generator=draw)
    ours.begin(draw)
    theirs.load_state_dict({"weight": ours.weight.data, "bias": ours.bias.data})
    theirs = spectral_norm(theirs).eval()
    parametrized: Any = theirs.parametrizations
    normed = parametrized.weight[0]
    normed._u.copy_(ours.u)
    v = ours.v if ours.weight.ndim == 2 else ours.v.view(4, 4, 3).permute(2, 0, 1).flatten()
    normed._v.copy_(v)
    x = torch.randn(2, *((6,) if ours.weight.ndim == 2 else (3, 8, 8)), generator=draw)
    out, expected = ours(x), theirs(x)
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    original = parametrized.weight.original
    torch.testing.assert_close(ours.weight.grad, original.grad)
    normed.train()
    theirs(x)  # torch iterates here, in a forward pass
    ours.iterate()
    v = ours.v if ours.weight.ndim == 2 else ours.v.view(4, 4, 3).permute(2, 0, 1).flatten()
    torch.testing.assert_close(v, normed._v)


def test_only_following_the_weights_moves_the_vectors() -> None:
    network, critic = small_critic()
    before = vectors(critic)
    images = torch.rand(4, *network.image_shape)
    for training in (True, False):
        critic.train(training)(images, images)
    assert all(map(torch.equal, before, vectors(critic)))
    with torch.no_grad():
        for layer in layers(critic):
            layer.weight.mul_(torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(2)))
    follow_weights(critic)
    for layer, u, v in zip(layers(critic), before[::2], vectors(critic)[1::2], strict=True):
        matrix = layer.weight.detach().permute(*((0, 2, 3, 1) if layer.weight.ndim == 4 else (0, 1))).flatten(1)
        torch.testing.assert_close(v, matrix.T @ u / (matrix.T @ u).norm())
        torch.testing.assert_close(layer.u, matrix @ v / (matrix @ v).norm())


def test_autocast_leaves_the_singular_value_in_full_precision() -> None:
    _, critic = small_critic()
    layer = layers(critic)[1]
    expected = layer.normalised_weight()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.normalised_weight(), expected)
        assert layer(torch.rand(1, layer.weight.shape[1], 8, 8)).dtype == torch.bfloat16


@pytest.mark.parametrize("family", [Spectral, Residual])
def test_an_image_is_judged_alike_in_any_batch(family: type[Any]) -> None:
    network, critic = small_critic(family)
    images = torch.rand(6, *network.image_shape)
    whole = critic(images, images)
    parts = [critic(part, part) for part in images.split(2)]
    torch.testing.assert_close(whole.real_logit, torch.cat([part.real_logit for part in parts]))
    torch.testing.assert_close(whole.q, torch.cat([part.q for part in parts]))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
def test_the_vectors_keep_step_with_the_weights(engine_of: Callable[[RunConfig], Engine], precision: str) -> None:
    """They move once for an update, and the estimate stays at the largest singular value as the weights change."""
    config = RunConfig(
        codes={"c": ContinuousCode()}, network=Residual(height=28, width=28, base=4, features=16), batch=8,
        precision=precision, device="cpu", threads=1,
    )  # fmt: skip
    learner = Learner(config, engine_of(config))
    dtype = torch.float64 if precision == "fp64" else torch.float32
    assert all(vector.dtype == dtype for vector in vectors(learner.critic))
    first, weights = vectors(learner.critic), [layer.weight.detach().clone() for layer in layers(learner.critic)]
    for update in range(10):
        images = torch.randint(256, (8, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(update))
        learner.update([images], update * 8)
    pairs = zip(first, vectors(learner.critic), strict=True)
    assert not any(torch.equal(old, new) for old, new in pairs if len(old) > 1)  # of one output, u is 1 or -1
    for layer, weight in zip(layers(learner.critic), weights, strict=True):
        assert not torch.equal(layer.weight, weight)
        largest = torch.linalg.svdvals(layer.weight.detach().flatten(1))[0].item()
        assert 0.98 * largest <= layer.sigma().item() <= largest * (1 + 1e-5)
