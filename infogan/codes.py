"""Latent codes: how each is drawn, fed to the generator, read back by Q, and scored in nats.

The generator's input is the noise followed by every code in the order of the config: a categorical code as a one-hot
vector, a continuous code as one number. Q's output is cut in the same order. For a code c with prior p(c) and a
posterior Q(c|x) the mutual-information lower bound is (paper, Eq. 4-5)

    L_I = E[log Q(c|x)] + H(c)  <=  I(c; G(z, c)),

in nats. A categorical code of K ways has H(c) = ln K, which is also its ceiling. A continuous code ~ Unif(-1, 1) has
the differential entropy h(c) = ln 2, which is no ceiling: what a Gaussian Q of standard deviation s can reach is
ln 2 - ln(2 pi s^2) / 2, so -0.226 at s = 1, and there is no ceiling at all where s is learned freely.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from infogan.checks import at_least, one_of
from infogan.devices import sent

LN_2 = math.log(2.0)
LN_2PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class CategoricalPosterior:
    """Q(c|x) of a categorical code: `logits` [n, ways], float32."""

    logits: Tensor

    @property
    def mode(self) -> Tensor:
        """The likeliest category, int64 [n]."""
        return self.logits.argmax(dim=1)


@dataclass(frozen=True)
class ContinuousPosterior:
    """Q(c|x) of a continuous code, a Gaussian: `mean` and `std`, float32 [n] each."""

    mean: Tensor
    std: Tensor


Posterior = CategoricalPosterior | ContinuousPosterior


@dataclass(frozen=True)
class CategoricalCode:
    """A categorical code, uniform over `ways` categories; `weight` is lambda of its term in both losses."""

    kind: ClassVar[str] = "categorical"
    ways: int = 10
    weight: float = 1.0

    def __post_init__(self) -> None:
        at_least("ways", self.ways, 2, below=100_001)
        at_least("weight", self.weight, 0)

    @property
    def input_width(self) -> int:
        return self.ways

    @property
    def q_width(self) -> int:
        return self.ways

    @property
    def ceiling(self) -> float | None:
        return math.log(self.ways)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n values: int64 [n]."""
        return torch.randint(self.ways, (n,), generator=generator)

    def encode(self, values: Tensor) -> Tensor:
        """int64 [n] => one-hot float32 [n, ways]."""
        return F.one_hot(values, self.ways).float()

    def posterior(self, q: Tensor) -> CategoricalPosterior:
        return CategoricalPosterior(q)

    def bound(self, posterior: Posterior, values: Tensor) -> Tensor:
        """L_I per sample, [n] in nats: ln K - cross-entropy."""
        assert isinstance(posterior, CategoricalPosterior)
        return math.log(self.ways) - F.cross_entropy(posterior.logits, values, reduction="none")


@dataclass(frozen=True)
class ContinuousCode:
    """A continuous code ~ Unif(-1, 1) with a Gaussian Q.

    `std` says where Q's standard deviation comes from: `fixed` at `sigma` (the paper's presets: 1, which makes the
    loss half a squared error), `learned` by Q's head, or `clamped`: learned, but always above `sigma`, which keeps the
    bound from running away as the deviation collapses.
    """

    kind: ClassVar[str] = "continuous"
    weight: float = 1.0
    std: str = "fixed"
    sigma: float = 1.0

    def __post_init__(self) -> None:
        one_of("std", self.std, ("fixed", "learned", "clamped"))
        at_least("sigma", self.sigma, 1e-6, below=1e6)
        at_least("weight", self.weight, 0)

    @property
    def input_width(self) -> int:
        return 1

    @property
    def q_width(self) -> int:
        return 1 if self.std == "fixed" else 2

    @property
    def ceiling(self) -> float | None:
        return None if self.std == "learned" else LN_2 - (LN_2PI + 2 * math.log(self.sigma)) / 2

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n values: float32 [n] in [-1, 1)."""
        return torch.rand(n, generator=generator) * 2 - 1

    def encode(self, values: Tensor) -> Tensor:
        """float32 [n] => [n, 1]."""
        return values[:, None]

    def posterior(self, q: Tensor) -> ContinuousPosterior:
        mean = q[:, 0]
        if self.std == "fixed":
            return ContinuousPosterior(mean, torch.full_like(mean, self.sigma))
        log_std = q[:, 1]
        if self.std == "clamped":
            floor = math.log(self.sigma)
            log_std = floor + F.softplus(log_std - floor)  # a hard clamp would have no gradient back up
        return ContinuousPosterior(mean, log_std.exp())

    def bound(self, posterior: Posterior, values: Tensor) -> Tensor:
        """L_I per sample, [n] in nats: ln 2 + log N(c; mean, std^2)."""
        assert isinstance(posterior, ContinuousPosterior)
        error = (values - posterior.mean) / posterior.std
        return LN_2 - LN_2PI / 2 - posterior.std.log() - error.square() / 2


Code = CategoricalCode | ContinuousCode
KINDS: dict[str, type[CategoricalCode] | type[ContinuousCode]] = {
    CategoricalCode.kind: CategoricalCode,
    ContinuousCode.kind: ContinuousCode,
}


def bound_at_best_std(mean_squared_error: float) -> float:
    """The bound of a Gaussian Q at the standard deviation that is best for this error: ln 2 - ln(2 pi e MSE) / 2.

    Comparable across fixed, learned and clamped deviations, in nats.
    """
    return LN_2 - (LN_2PI + 1 + math.log(max(mean_squared_error, 1e-12))) / 2


@dataclass(frozen=True)
class Noise:
    """The incompressible part z of the generator's input: `size` numbers from Unif(-1, 1) or N(0, 1)."""

    size: int = 62
    prior: str = "uniform"

    def __post_init__(self) -> None:
        at_least("size", self.size, 0, below=1_000_001)
        one_of("prior", self.prior, ("uniform", "normal"))

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n vectors: float32 [n, size]."""
        if self.prior == "normal":
            return torch.randn(n, self.size, generator=generator)
        return torch.rand(n, self.size, generator=generator) * 2 - 1


@dataclass(frozen=True)
class Latents:
    """A batch of the generator's inputs: `vector` float32 [n, input width]; `values` per code, see `Code.draw`."""

    vector: Tensor
    values: dict[str, Tensor]

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> "Latents":
        values = {
            name: sent(value, device, dtype if value.is_floating_point() else value.dtype)
            for name, value in self.values.items()
        }
        return Latents(sent(self.vector, device, dtype), values)

    def __getitem__(self, rows: slice) -> "Latents":
        return Latents(self.vector[rows], {name: value[rows] for name, value in self.values.items()})


class Codes:
    """All latent codes of a model, by name, with the noise; the order is the order in the generator's input."""

    def __init__(self, codes: Mapping[str, Code], noise: Noise) -> None:
        self.codes: dict[str, Code] = dict(codes)
        self.noise = noise
        self.input_width = noise.size + sum(code.input_width for code in self.codes.values())
        self.q_width = sum(code.q_width for code in self.codes.values())

    @property
    def categorical(self) -> list[str]:
        return [name for name, code in self.codes.items() if isinstance(code, CategoricalCode)]

    @property
    def continuous(self) -> list[str]:
        return [name for name, code in self.codes.items() if isinstance(code, ContinuousCode)]

    def sample(self, n: int, generator: torch.Generator) -> Latents:
        """Draw n latents from the prior, on the CPU."""
        noise = self.noise.draw(n, generator)
        values = {name: code.draw(n, generator) for name, code in self.codes.items()}
        return self.assemble(noise, values)

    def assemble(self, noise: Tensor, values: Mapping[str, Tensor]) -> Latents:
        """Put noise [n, noise size] and one value tensor per code together into the generator's input."""
        parts = [noise, *(code.encode(values[name]) for name, code in self.codes.items())]
        return Latents(torch.cat(parts, dim=1), dict(values))

    def split(self, q: Tensor) -> dict[str, Posterior]:
        """Cut Q's output [n, q width] into one posterior per code."""
        chunks = q.split([code.q_width for code in self.codes.values()], dim=1)
        return {name: code.posterior(part) for (name, code), part in zip(self.codes.items(), chunks, strict=True)}

    def bounds(self, posteriors: Mapping[str, Posterior], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mutual-information lower bound L_I of each code, per sample: [n] in nats."""
        return {name: code.bound(posteriors[name], values[name]) for name, code in self.codes.items()}

    def ceilings(self) -> dict[str, float | None]:
        """What each code's L_I can reach at most, in nats; None where nothing bounds it."""
        return {name: code.ceiling for name, code in self.codes.items()}
