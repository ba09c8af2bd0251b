"""The baseline of `infogan bench train`: the same game as a user would write it in plain PyTorch.

The networks have the same weights, the losses are the same, and so is the order of the phases, each with fresh
latents. What differs is only how it is done, which is what most scripts do: a map-style data set of PIL images
with ToTensor behind a DataLoader, float32 in torch's default layout, nn.BatchNorm with running averages, Adam as
it comes, real and fake images in passes of their own, a fake that is made with its graph and then detached,
gradients of the generator's phase that also reach the critic's weights and are zeroed later, and `.item()` of both
losses in every update.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from shards.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

    from infogan.codes import Latents
    from infogan.config import RunConfig
    from infogan.networks import Critic

MOST_BYTES = 2**29
"""Of pixels that the baseline's data set holds; what an item costs does not depend on how many there are."""


class PlainDataset:
    """A map-style data set like torchvision's MNIST: pixels in memory, a transformed PIL image per item.

    Items are (float32 [C, H, W] in `image_range`, label).
    """

    def __init__(self, images: NDArray[np.uint8], labels: list[int], image_range: tuple[float, float]) -> None:
        """`images`: uint8 [N, H, W, C]."""
        from shards.torchvision_ops import ensure_importable

        ensure_importable()
        from torchvision import transforms

        self.images, self.labels = images.squeeze(3) if images.shape[3] == 1 else images, labels
        low, high = image_range
        steps: list[Any] = [transforms.ToTensor()]
        if image_range != (0.0, 1.0):
            steps.append(transforms.Normalize((-low / (high - low),), (1 / (high - low),)))
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


class PlainLoop:
    """The training loop on copies of `generator` and `critic`, which stay as they are.

    `loader` yields (images [n, C, H, W] in the network's range, labels).

    Raises:
        UserError: a layer of ours that plain PyTorch has no counterpart of here.
    """

    def __init__(
        self, config: RunConfig, generator: nn.Module, critic: Critic, loader: DataLoader[Any], device: torch.device
    ) -> None:
        import torch

        self.codes, self.objective, self.batch, self.device = (
            config.latent_codes(),
            config.objective,
            config.batch,
            device,
        )
        self.generator, _ = as_plain(generator)
        self.trunk, flattened = as_plain(critic.trunk)
        self.d_head, _ = as_plain(critic.d_head, flattened)
        self.q_head, _ = as_plain(critic.q_head, flattened)
        adam = config.optimizer
        critic_parameters = [*self.trunk.parameters(), *self.d_head.parameters(), *self.q_head.parameters()]
        self.critic_optimizer = torch.optim.Adam(critic_parameters, adam.critic.lr, adam.betas)
        self.generator_optimizer = torch.optim.Adam(self.generator.parameters(), adam.generator.lr, adam.betas)
        self._batches = _endless(loader)

    def advance(self, updates: int) -> float:
        """Train on the next batches; seconds spent waiting for data."""
        from infogan.devices import keep_freed_memory

        keep_freed_memory(False)  # the process is shared with our own loop, which asks for more
        waited = 0.0
        for _ in range(updates):
            begun = time.perf_counter()
            images, _labels = next(self._batches)
            waited += time.perf_counter() - begun
            self.critic_step(images.to(self.device), self._latents())
            self.generator_step(self._latents())
        return waited

    def critic_step(self, real: Tensor, latents: Latents) -> float:
        """One update of trunk, D head and Q head; the value of their loss."""
        self.critic_optimizer.zero_grad()
        real_logit = self.d_head(self.trunk(real)).squeeze(1)
        fake = self.generator(latents.vector).detach()
        features = self.trunk(fake)
        fake_logit = self.d_head(features).squeeze(1)
        q = self.q_head(features.detach() if self.objective.mi_gradient == "head" else features)
        loss = self.objective.critic_loss(real_logit, fake_logit) + self._information_loss(q, latents)
        loss.backward()
        self.critic_optimizer.step()
        return loss.item()

    def generator_step(self, latents: Latents) -> float:
        """One update of the generator; the value of its loss."""
        self.generator_optimizer.zero_grad()
        features = self.trunk(self.generator(latents.vector))
        fake_logit = self.d_head(features).squeeze(1)
        loss = self.objective.generator_loss(fake_logit) + self._information_loss(self.q_head(features), latents)
        loss.backward()
        self.generator_optimizer.step()
        return loss.item()

    def _information_loss(self, q: Tensor, latents: Latents) -> Tensor | float:
        from infogan.objectives import information_loss

        return information_loss(self.codes, self.codes.bounds(self.codes.split(q), latents.values))

    def _latents(self) -> Latents:
        import torch

        return self.codes.sample(self.batch, torch.default_generator).to(self.device)


def plain_loader(dataset: PlainDataset, batch: int, workers: int) -> DataLoader[Any]:
    """torch's DataLoader as it is mostly used for training.

    Raises:
        UserError: a data set smaller than one batch.
    """
    from torch.utils.data import DataLoader

    if len(dataset) < batch:
        raise UserError(
            f"batch: {batch}: the plain loop leaves out a last, smaller batch, and {len(dataset)} images make "
            f"no whole one; say batch={len(dataset)} or less"
        )
    return DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True, num_workers=workers)  # type: ignore[arg-type]


def as_plain(network: nn.Module, flattened: int | None = None) -> tuple[nn.Module, int | None]:
    """A copy of a network, made of torch's own modules only and in torch's default memory layout.

    Our fully connected layers order the features of a volume height, width, channel, torch's Flatten and Unflatten
    channel, height, width: their weights are put into that order, so that the copy computes the same.

    `flattened`: the channels of the volume whose features the network's first layer reads, where it reads such.
    Also returns this for whatever reads the network's own output.
    """
    import torch
    from torch import nn

    from infogan.networks.layers import ToFeatures, ToVolume

    layers: list[nn.Module] = []
    channels = None
    for layer in deepcopy(list(network) if isinstance(network, nn.Sequential) else [network]):
        if isinstance(layer, ToVolume):
            start = max(i for i, before in enumerate(layers) if isinstance(before, nn.Linear))
            for parameter in (p for before in layers[start:] for p in before.parameters(recurse=False)):
                parameter.data = _channels_first(parameter.data, layer.channels, dim=0)
            channels = layer.channels
            layer = nn.Unflatten(1, (layer.channels, layer.height, layer.width))
        elif isinstance(layer, ToFeatures):
            flattened, layer = channels, nn.Flatten()
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer = _plain_batch_norm(layer)
        elif isinstance(layer, nn.Linear) and flattened is not None:
            layer.weight.data = _channels_first(layer.weight.data, flattened, dim=1)
            flattened = None
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            channels = layer.out_channels
        elif type(layer).__module__.partition(".")[0] != "torch":
            raise UserError(
                f"network: the plain loop has no counterpart of its {type(layer).__name__}; choose another network"
            )
        layers.append(layer)
    plain = nn.Sequential(*layers)
    return plain.to(memory_format=torch.contiguous_format), flattened  # type: ignore[call-overload]  # not in torch's stubs


def _channels_first(weights: Tensor, channels: int, dim: int) -> Tensor:
    """Reorders a dimension that counts (height, width, channel) to (channel, height, width)."""
    import torch

    order = torch.arange(weights.shape[dim], device=weights.device).view(-1, channels).T.reshape(-1)
    return weights.index_select(dim, order)


def _plain_batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    from torch import nn

    plain = (nn.BatchNorm1d if isinstance(layer, nn.BatchNorm1d) else nn.BatchNorm2d)(layer.num_features)
    plain.to(layer.weight.device, layer.weight.dtype)
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain


def _endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader
