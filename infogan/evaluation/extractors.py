"""Feature extractors: what turns images into the vectors that distances are measured between.

Three kinds. The original Inception network, where its weights file is at hand; the data set's own small
classifier, where it has labels; its own small autoencoder, where it has none. The last two are trained
here, deterministically, and the hash of their weights is in the name of every number they make. All are
registered with torch-fidelity, so
`torch_fidelity.calculate_metrics(feature_extractor=extractor.name)` takes them too.
"""

import hashlib
import tempfile
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from shards.errors import UserError
from shards.torchvision_ops import ensure_importable

ensure_importable()  # torch-fidelity imports torchvision

import torch_fidelity  # noqa: E402
from torch_fidelity.feature_extractor_base import FeatureExtractorBase  # noqa: E402
from torch_fidelity.feature_extractor_inceptionv3 import (  # noqa: E402
    URL_INCEPTION_V3,
    FeatureExtractorInceptionV3,
)
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY  # noqa: E402

GENUINE_INCEPTION = "6726825d"  # how the sha256 of the original weights begins
HASH_LENGTH = 6  # hex digits of a weights hash in an extractor's name


class Features(NamedTuple):
    """features: float32 [n, d]. logits: float32 [n, classes], None from an extractor without classes."""

    features: Tensor
    logits: Tensor | None


class Extractor(Protocol):
    """What the distances need of an extractor."""

    @property
    def name(self) -> str:
        """As it stands in metric names, `mnist-classifier@1a2b3c`; empty for the genuine Inception."""

    @property
    def protocol(self) -> dict[str, Any]:
        """What a reader must know of it: kind, weights, resize, treatment of grey images, its own score."""

    def __call__(self, images: Tensor) -> Features:
        """uint8 [n, C, H, W] => features on the CPU."""


class InceptionExtractor:
    """torch-fidelity's InceptionV3 port: 2,048 pooled features and the logits without bias."""

    def __init__(self, weights: Path, device: torch.device) -> None:
        """Raises UserError where the file is missing, or is a pickle other than the original weights."""
        digest = sha256_of(weights)
        self.genuine = digest.startswith(GENUINE_INCEPTION)
        self._network = _open_inception(weights, self.genuine).to(device)
        self._device = device
        self._digest = digest

    @property
    def name(self) -> str:
        return "" if self.genuine else f"inception@{self._digest[:HASH_LENGTH]}"

    @property
    def protocol(self) -> dict[str, Any]:
        return {
            "extractor": "InceptionV3 (torch-fidelity), " + ("original weights" if self.genuine else "other weights"),
            "extractor_sha256": self._digest,
            "resize": "to 299x299, bilinear as TensorFlow 1 does it, inside the extractor",
            "grey_to_rgb": "one channel repeated three times",
        }

    def __call__(self, images: Tensor) -> Features:
        rgb = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        features, logits = self._network(rgb.to(self._device))
        return Features(features.cpu(), logits.cpu())


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex; the file is read as bytes, not interpreted."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{path}: cannot read the extractor's weights ({error.strerror}): give --weights PATH"
        ) from None


def find_inception_weights() -> Path | None:
    """Where torch-fidelity keeps the weights that it downloaded, if they are there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rsplit("/", 1)[-1]
    return path if path.is_file() else None


def _open_inception(weights: Path, genuine: bool) -> FeatureExtractorInceptionV3:
    layers = ["2048", "logits_unbiased"]
    if genuine:
        return FeatureExtractorInceptionV3("inception-v3-compat", layers, str(weights))
    if weights.suffix != ".safetensors":
        raise UserError(
            f"{weights}: its sha256 does not begin with {GENUINE_INCEPTION}: only the original weights are"
            " opened as a .pth, because such a file can run code; download them again, or give other"
            " weights as .safetensors"
        )
    # torch-fidelity's constructor loads a .pth and nothing else; this one is made here, of plain tensors.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.save(load_file(weights), path)
        try:
            return FeatureExtractorInceptionV3("inception-v3-compat", layers, str(path))
        except RuntimeError:
            raise UserError(
                f"{weights}: its tensors do not fit torch-fidelity's InceptionV3: give weights that it wrote"
            ) from None


def register(name: str, network: nn.Module, side: int) -> None:
    """Make `network` known to torch-fidelity as `name`, once per process.

    network: uint8 [n, C, H, W] => Features. torch-fidelity then calls it with any batch size and takes layer
    "features" for the distances and "logits" for the score.
    """
    if name in FEATURE_EXTRACTORS_REGISTRY:
        return

    class Registered(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **options: Any) -> None:
            super().__init__(name, features_list)
            self.network = network

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("features", "logits")

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        @staticmethod
        def get_dummy_input_for_compile() -> Tensor:
            return torch.zeros(1, 3, side, side, dtype=torch.uint8)

        def forward(self, images: Tensor) -> tuple[Tensor | None, ...]:
            features: Features = self.network(images)
            found = {"features": features.features, "logits": features.logits}
            return tuple(found[layer] for layer in self.features_list)

    torch_fidelity.register_feature_extractor(name, Registered)
