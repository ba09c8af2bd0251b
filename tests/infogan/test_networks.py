"""The networks are those of the paper's tables: every layer, every shape, every parameter, and how they begin."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from infogan.codes import CategoricalCode, Codes, ContinuousCode, Noise
from infogan.networks import NETWORKS, Critic, Network, to_network_range, to_uint8
from infogan.networks.layers import Conv, UpConv, build
from infogan.networks.paper import MNIST, Chairs, Colour32, Faces, FashionMNIST

# Codes of each row of the paper's table of settings: name -> (noise, categorical widths, continuous).
CODES = {
    "mnist": (62, [10], 2), "fashion": (62, [10], 2), "svhn": (124, [10] * 4, 4), "celeba": (128, [10] * 10, 0),
    "faces": (128, [], 5), "chairs": (128, [20] * 3, 1),
}  # fmt: skip
NETWORK: dict[str, Network] = {
    "mnist": MNIST(), "fashion": FashionMNIST(), "svhn": Colour32(), "celeba": Colour32(), "faces": Faces(),
    "chairs": Chairs(),
}  # fmt: skip

# Appendix C, with the totals worked out by hand: no bias where BatchNorm follows, Q's std fixed.
PARAMETERS = {
    "mnist": {"generator": 6_645_121, "trunk": 6_556_992, "d_head": 1_025, "q_head": 132_876},
    "fashion": {"generator": 6_645_121, "trunk": 6_556_992, "d_head": 1_025, "q_head": 132_876},
    "svhn": {"generator": 2_798_787, "trunk": 659_264, "d_head": 4_097, "q_head": 530_220},
    "celeba": {"generator": 2_906_307, "trunk": 659_264, "d_head": 4_097, "q_head": 537_444},
    "faces": {"generator": 8_675_457, "trunk": 8_523_072, "d_head": 1_025, "q_head": 5_125},
    "chairs": {"generator": 19_760_513, "trunk": 19_534_656, "d_head": 1_025, "q_head": 62_525},
}

# What a batch of 2 is after each module, from input to output; "+b" where the layer has a bias.
MNIST_TRUNK = [
    ("Conv2d+b", 64, 14, 14), ("LeakyReLU", 64, 14, 14),
    ("Conv2d", 128, 7, 7), ("BatchNorm2d", 128, 7, 7), ("LeakyReLU", 128, 7, 7), ("ToFeatures", 6272),
    ("Linear", 1024), ("BatchNorm1d", 1024), ("LeakyReLU", 1024),
]  # fmt: skip
MNIST_GENERATOR = [
    ("Linear", 1024), ("BatchNorm1d", 1024), ("ReLU", 1024),
    ("Linear", 6272), ("BatchNorm1d", 6272), ("ReLU", 6272), ("ToVolume", 128, 7, 7),
    ("ConvTranspose2d", 64, 14, 14), ("BatchNorm2d", 64, 14, 14), ("ReLU", 64, 14, 14),
    ("ConvTranspose2d+b", 1, 28, 28), ("Sigmoid", 1, 28, 28),
]  # fmt: skip
FASHION_GENERATOR = [
    ("Linear", 1024), ("LeakyReLU", 1024), ("BatchNorm1d", 1024),
    ("Linear", 6272), ("LeakyReLU", 6272), ("BatchNorm1d", 6272), ("ToVolume", 128, 7, 7),
    ("ConvTranspose2d", 64, 14, 14), ("LeakyReLU", 64, 14, 14), ("BatchNorm2d", 64, 14, 14),
    ("ConvTranspose2d+b", 1, 28, 28), ("Tanh", 1, 28, 28),
]  # fmt: skip
COLOUR_TRUNK = [
    ("Conv2d+b", 64, 16, 16), ("LeakyReLU", 64, 16, 16),
    ("Conv2d", 128, 8, 8), ("BatchNorm2d", 128, 8, 8), ("LeakyReLU", 128, 8, 8),
    ("Conv2d", 256, 4, 4), ("BatchNorm2d", 256, 4, 4), ("LeakyReLU", 256, 4, 4), ("ToFeatures", 4096),
]  # fmt: skip
COLOUR_GENERATOR = [
    ("Linear", 1792), ("BatchNorm1d", 1792), ("ReLU", 1792), ("ToVolume", 448, 2, 2),
    ("ConvTranspose2d", 256, 4, 4), ("BatchNorm2d", 256, 4, 4), ("ReLU", 256, 4, 4),
    ("ConvTranspose2d+b", 128, 8, 8), ("ReLU", 128, 8, 8),
    ("ConvTranspose2d+b", 64, 16, 16), ("ReLU", 64, 16, 16),
    ("ConvTranspose2d+b", 3, 32, 32), ("Tanh", 3, 32, 32),
]  # fmt: skip
FACES_TRUNK = [
    ("Conv2d+b", 64, 16, 16), ("LeakyReLU", 64, 16, 16),
    ("Conv2d", 128, 8, 8), ("BatchNorm2d", 128, 8, 8), ("LeakyReLU", 128, 8, 8), ("ToFeatures", 8192),
    ("Linear", 1024), ("BatchNorm1d", 1024), ("LeakyReLU", 1024),
]  # fmt: skip
FACES_GENERATOR = [
    ("Linear", 1024), ("BatchNorm1d", 1024), ("ReLU", 1024),
    ("Linear", 8192), ("BatchNorm1d", 8192), ("ReLU", 8192), ("ToVolume", 128, 8, 8),
    ("ConvTranspose2d", 64, 16, 16), ("BatchNorm2d", 64, 16, 16), ("ReLU", 64, 16, 16),
    ("ConvTranspose2d+b", 1, 32, 32), ("Sigmoid", 1, 32, 32),
]  # fmt: skip
# A 4x4 layer of stride 1 keeps its 8x8 by padding 3 in all before, or by cropping 1 of a padding-1 layer's 9x9 after.
CHAIRS_TRUNK = [
    ("Conv2d+b", 64, 32, 32), ("LeakyReLU", 64, 32, 32),
    ("Conv2d", 128, 16, 16), ("BatchNorm2d", 128, 16, 16), ("LeakyReLU", 128, 16, 16),
    ("Conv2d", 256, 8, 8), ("BatchNorm2d", 256, 8, 8), ("LeakyReLU", 256, 8, 8),
    ("ZeroPad2d", 256, 11, 11), ("Conv2d", 256, 8, 8), ("BatchNorm2d", 256, 8, 8), ("LeakyReLU", 256, 8, 8),
    ("ZeroPad2d", 256, 11, 11), ("Conv2d", 256, 8, 8), ("BatchNorm2d", 256, 8, 8), ("LeakyReLU", 256, 8, 8),
    ("ToFeatures", 16384), ("Linear", 1024), ("BatchNorm1d", 1024), ("LeakyReLU", 1024),
]  # fmt: skip
CHAIRS_GENERATOR = [
    ("Linear", 1024), ("BatchNorm1d", 1024), ("ReLU", 1024),
    ("Linear", 16384), ("BatchNorm1d", 16384), ("ReLU", 16384), ("ToVolume", 256, 8, 8),
    ("ConvTranspose2d", 256, 9, 9), ("Crop", 256, 8, 8), ("BatchNorm2d", 256, 8, 8), ("ReLU", 256, 8, 8),
    ("ConvTranspose2d", 256, 9, 9), ("Crop", 256, 8, 8), ("BatchNorm2d", 256, 8, 8), ("ReLU", 256, 8, 8),
    ("ConvTranspose2d", 128, 16, 16), ("BatchNorm2d", 128, 16, 16), ("ReLU", 128, 16, 16),
    ("ConvTranspose2d", 64, 32, 32), ("BatchNorm2d", 64, 32, 32), ("ReLU", 64, 32, 32),
    ("ConvTranspose2d+b", 1, 64, 64), ("Sigmoid", 1, 64, 64),
]  # fmt: skip
GENERATORS = {
    "mnist": (74, MNIST_GENERATOR), "fashion": (74, FASHION_GENERATOR), "svhn": (168, COLOUR_GENERATOR),
    "celeba": (228, COLOUR_GENERATOR), "faces": (133, FACES_GENERATOR), "chairs": (189, CHAIRS_GENERATOR),
}  # fmt: skip
TRUNKS = {
    "mnist": MNIST_TRUNK, "fashion": MNIST_TRUNK, "svhn": COLOUR_TRUNK, "celeba": COLOUR_TRUNK, "faces": FACES_TRUNK,
    "chairs": CHAIRS_TRUNK,
}  # fmt: skip
Q_OUTPUTS = {"mnist": 12, "fashion": 12, "svhn": 44, "celeba": 100, "faces": 5, "chairs": 61}
SHARED_WHOLE = ("faces", "chairs")  # Q adds its output units to the trunk, and no layer between


def codes_of(name: str) -> Codes:
    noise, categorical, continuous = CODES[name]
    codes: dict[str, Any] = {f"k{i}": CategoricalCode(ways) for i, ways in enumerate(categorical)}
    return Codes(codes | {f"c{i}": ContinuousCode() for i in range(continuous)}, Noise(noise))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def passed_through(module: nn.Module, x: Tensor) -> list[tuple[Any, ...]]:
    """The modules that `x` passes, in order, each with the shape of one of its outputs."""
    passed: list[tuple[Any, ...]] = []

    def note(part: nn.Module, inputs: Any, output: Tensor) -> None:
        bias = (
            "+b"
            if not isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and getattr(part, "bias", None) is not None
            else ""
        )
        passed.append((type(part).__name__ + bias, *output.shape[1:]))

    hooks = [part.register_forward_hook(note) for part in module.modules() if not list(part.children())]
    module(x)
    for hook in hooks:
        hook.remove()
    return passed


@pytest.mark.parametrize("name", CODES)
def test_parameter_counts_are_the_tables(name: str) -> None:
    codes, network = codes_of(name), NETWORK[name]
    critic = network.critic(codes.q_width)
    found = {
        "generator": count(network.generator(codes.input_width)), "trunk": count(critic.trunk),
        "d_head": count(critic.d_head), "q_head": count(critic.q_head),
    }  # fmt: skip
    assert found == PARAMETERS[name]


@pytest.mark.parametrize("name", CODES)
def test_every_layer_is_the_tables(name: str) -> None:
    codes, network = codes_of(name), NETWORK[name]
    width, layers = GENERATORS[name]
    assert codes.input_width == width
    assert codes.q_width == Q_OUTPUTS[name]
    assert passed_through(network.generator(width), torch.randn(2, width)) == layers
    critic = network.critic(codes.q_width)
    assert passed_through(critic.trunk, torch.randn(2, *network.image_shape)) == TRUNKS[name]
    features = torch.randn(2, TRUNKS[name][-1][1])  # type: ignore[misc]
    assert passed_through(critic.d_head, features) == [("Linear+b", 1)]
    hidden = [] if name in SHARED_WHOLE else [("Linear", 128), ("BatchNorm1d", 128), ("LeakyReLU", 128)]
    assert passed_through(critic.q_head, features) == [*hidden, ("Linear+b", Q_OUTPUTS[name])]


@pytest.mark.parametrize("name", CODES)
def test_kernels_are_4x4_and_slopes_are_a_tenth(name: str) -> None:
    codes, network = codes_of(name), NETWORK[name]
    players = [network.generator(codes.input_width), network.critic(codes.q_width)]
    parts = [part for player in players for part in player.modules()]
    strides = []
    for part in parts:
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            strides.append(part.stride[0])
            assert part.kernel_size == (4, 4)
        if isinstance(part, nn.LeakyReLU):
            assert part.negative_slope == 0.1
    assert any(isinstance(part, nn.LeakyReLU) for part in parts)
    assert strides.count(1) == (4 if name == "chairs" else 0)
    assert set(strides) <= {1, 2}


def test_layers_of_stride_1_pad_and_crop_as_the_official_framework_does() -> None:
    """TensorFlow's "same" with a 4x4 kernel: 1 before, 2 after; worked out here in numpy, pixel by pixel."""
    rng = np.random.default_rng(0)
    image, kernel = rng.normal(size=(5, 5)), rng.normal(size=(4, 4))
    padded = np.zeros((8, 8))
    padded[1:6, 1:6] = image
    expected = [[(padded[y : y + 4, x : x + 4] * kernel).sum() for x in range(5)] for y in range(5)]
    conv, _ = build([Conv(1, norm=False, stride=1)], (1, 5, 5), nn.Identity)
    assert np.allclose(through(conv, image, kernel), expected, atol=1e-5)

    spread = np.zeros((8, 8))  # the transpose of the above: each pixel spreads the kernel, and the margin goes
    for y in range(5):
        for x in range(5):
            spread[y : y + 4, x : x + 4] += image[y, x] * kernel
    upconv, _ = build([UpConv(1, norm=False, stride=1)], (1, 5, 5), nn.Identity)
    assert np.allclose(through(upconv, image, kernel), spread[1:6, 1:6], atol=1e-5)


def through(module: nn.Module, image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """What a layer of one channel makes of `image` with the weights `kernel` and no bias."""
    layer = next(part for part in module.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(kernel)[None, None])
        layer.bias.zero_()  # type: ignore[union-attr]
        return module(torch.from_numpy(image).float()[None, None])[0, 0].numpy()


def test_the_critics_slope_is_a_setting() -> None:
    critic = MNIST(critic_slope=0.01).critic(12)
    assert {part.negative_slope for part in critic.modules() if isinstance(part, nn.LeakyReLU)} == {0.01}


@pytest.mark.parametrize("name", CODES)
def test_without_norm_every_layer_has_a_bias(name: str) -> None:
    codes = codes_of(name)
    network = type(NETWORK[name])(norm="none")  # type: ignore[call-arg]
    for player in (network.generator(codes.input_width), network.critic(codes.q_width)):
        for part in player.modules():
            assert not isinstance(part, nn.modules.batchnorm._BatchNorm)
            if isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                assert part.bias is not None


# ---- promises that every registered network keeps ---------------------------------------------------------------


def built(name: str, seed: int = 0) -> tuple[Network, nn.Module, Critic]:
    network: Network = NETWORKS.get(name)()
    generator, critic = network.generator(20), network.critic(12)
    for number, player in enumerate((generator, critic)):
        network.initialise(player, torch.Generator().manual_seed(seed + number))
    return network, generator, critic


@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_generator_makes_what_its_critic_reads(name: str) -> None:
    network, generator, critic = built(name)
    images = generator(torch.randn(4, 20) * 50)
    assert images.shape == (4, *network.image_shape)
    low, high = network.image_range
    assert low <= images.min()
    assert images.max() <= high
    out = critic(images, images)
    assert out.real_logit is not None
    assert out.q is not None
    assert (out.real_logit.shape, out.fake_logit.shape, out.q.shape) == ((4,), (4,), (4, 12))  # type: ignore[union-attr]
    (out.real_logit.sum() + out.fake_logit.sum() + out.q.sum()).backward()  # type: ignore[union-attr]
    for player in (generator, critic):
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in player.parameters())


@pytest.mark.parametrize("name", list(NETWORKS))
def test_first_weights_depend_on_the_seed_alone(name: str) -> None:
    torch.manual_seed(1)
    first = built(name)
    torch.manual_seed(2)
    again, other = built(name), built(name, seed=5)
    for position in (1, 2):
        for key, value in first[position].state_dict().items():  # type: ignore[union-attr]
            assert torch.equal(value, again[position].state_dict()[key])  # type: ignore[union-attr]
    assert not torch.equal(next(first[2].parameters()), next(other[2].parameters()))


@pytest.mark.parametrize("name", list(NETWORKS))
def test_real_and_fake_pass_the_critic_apart(name: str) -> None:
    """BatchNorm sees them apart: one call is to the bit what two calls are, not what a joined batch gives."""
    network, _, critic = built(name)
    real, fake = torch.rand(8, *network.image_shape), torch.rand(8, *network.image_shape) * 0.2 - 0.5
    both = critic(real, fake)
    assert torch.equal(both.real_logit, critic(real, None).real_logit)  # type: ignore[arg-type]
    alone = critic(None, fake)
    assert torch.equal(both.fake_logit, alone.fake_logit)  # type: ignore[arg-type]
    assert torch.equal(both.q, alone.q)  # type: ignore[arg-type]
    assert critic(real, None)[1:] == (None, None)
    assert alone.real_logit is None
    if not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in critic.modules()):
        return
    joined = critic(torch.cat([real, fake]), None).real_logit
    assert not torch.allclose(joined[:8], both.real_logit, rtol=1e-3, atol=1e-4)  # type: ignore[index, arg-type]


# ---- the paper's first weights, and the range of images -----------------------------------------------------------


def test_first_weights_are_normal_of_std_0_02_as_most_of_the_official_codes() -> None:
    for player in built("mnist")[1:]:
        assert isinstance(player, nn.Module)
        for part in player.modules():
            if isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                size = part.weight.numel()
                assert abs(part.weight.mean().item()) < 5 * 0.02 / size**0.5
                assert part.weight.std().item() == pytest.approx(0.02, rel=5 / (2 * size) ** 0.5)
                assert part.bias is None or not part.bias.any()
            elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                assert part.weight.mean().item() == pytest.approx(1, abs=5 * 0.02 / part.weight.numel() ** 0.5)
                assert part.weight.std().item() == pytest.approx(0.02, rel=5 / (2 * part.weight.numel()) ** 0.5)
                assert not part.bias.any()


@pytest.mark.parametrize(
    ("network", "expected"), [(MNIST(), (0.0, 1.0)), (FashionMNIST(), (-1.0, 1.0)), (Colour32(), (-1.0, 1.0))]
)
def test_the_image_range_is_that_of_the_last_activation(network: Network, expected: tuple[float, float]) -> None:
    assert network.image_range == expected
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    scaled = to_network_range(levels, network.image_range)
    assert scaled.dtype == torch.float32
    assert scaled.min().item() == pytest.approx(expected[0])
    assert scaled.max().item() == pytest.approx(expected[1])
    assert torch.equal(to_uint8(scaled, network.image_range), levels)


def test_images_beyond_the_range_are_clamped_when_they_become_bytes() -> None:
    assert to_uint8(torch.tensor([[[[-3.0, 0.0, 3.0]]]]), (-1.0, 1.0)).flatten().tolist() == [0, 128, 255]
