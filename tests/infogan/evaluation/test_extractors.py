"""Which extractor a number comes from, and that none is opened before it is known."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from infogan.evaluation import extractors
from infogan.evaluation.autoencoder import Autoencoder, trained_autoencoder
from infogan.evaluation.classifier import Classifier, trained_classifier
from infogan.evaluation.trained import Recipe, shifted
from shards import Dataset
from shards.errors import UserError

CPU = torch.device("cpu")


class Trap:
    """A pickle that writes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_weights_with_a_foreign_hash_are_refused_before_they_are_opened(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    weights = tmp_path / "weights-inception-2015-12-05-6726825d.pth"
    weights.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(UserError, match="sha256 does not begin with 6726825d"):
        extractors.InceptionExtractor(weights, CPU)
    assert not sprung.exists()


def test_missing_weights_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pth.*--weights"):
        extractors.InceptionExtractor(tmp_path / "nowhere.pth", CPU)


def test_other_weights_carry_their_hash_in_the_name_and_grey_images_are_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:  # the constructor insists on weights; these are its random ones
        patched.setattr(torch, "load", lambda *_, **__: {})
        patched.setattr(nn.Module, "load_state_dict", lambda *_: None)
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], "none")
    path = tmp_path / "other.safetensors"
    save_file(network.state_dict(), path)
    extractor = extractors.InceptionExtractor(path, CPU)
    digest = extractors.sha256_of(path)
    assert extractor.name == f"inception@{digest[:6]}"
    grey = torch.arange(2 * 28 * 28).remainder(256).to(torch.uint8).view(2, 1, 28, 28)
    features, logits = extractor(grey)
    assert features.shape == (2, 2048)
    assert logits is not None and logits.shape == (2, 1008)
    assert torch.allclose(features, extractor(grey.repeat(1, 3, 1, 1)).features)


def test_tensors_that_are_not_inception_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "wrong.safetensors")
    with pytest.raises(UserError, match="do not fit"):
        extractors.InceptionExtractor(tmp_path / "wrong.safetensors", CPU)


def test_the_original_weights_leave_the_name_bare() -> None:
    genuine = object.__new__(extractors.InceptionExtractor)
    genuine.genuine, genuine._digest = True, "6726825d" + "0" * 56
    assert genuine.name == ""


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(1, 16, 16), (1, 28, 28), (3, 32, 32), (3, 64, 48), (3, 17, 33)]
)
def test_networks_take_any_side_from_16_on(channels: int, height: int, width: int) -> None:
    images = torch.zeros(2, channels, height, width, dtype=torch.uint8)
    features, logits = Classifier(channels, height, width, 7)(images)
    assert features.shape == (2, 64)
    assert logits.shape == (2, 7)
    autoencoder = Autoencoder(channels, height, width)
    assert autoencoder(images).features.shape == (2, 64)
    assert autoencoder.reconstruct(images).shape == images.shape


def test_training_is_deterministic_and_learns(digits: Dataset, tmp_path: Path, quick: Recipe) -> None:
    copies = []
    for place in ("a", "b"):
        torch.manual_seed(len(place) + len(copies))  # the global generator must not matter
        torch.set_num_threads(1)
        elsewhere = Dataset(tmp_path / place, digits.manifest)
        _link(digits, elsewhere)
        copies.append(trained_classifier(elsewhere, CPU, recipe=quick))
    assert copies[0] is not None and copies[1] is not None
    assert copies[0].name == copies[1].name
    assert copies[0].name.startswith("digits-classifier@")
    assert copies[0].scores["test"]["accuracy"] > 0.8
    assert torch.get_num_threads() == 1


def test_a_trained_extractor_is_kept_and_a_damaged_one_is_passed_over(
    digits: Dataset, tmp_path: Path, quick: Recipe
) -> None:
    dataset = Dataset(tmp_path, digits.manifest)
    _link(digits, dataset)
    assert trained_classifier(dataset, CPU, recipe=quick, only_cached=True) is None
    first = trained_classifier(dataset, CPU, recipe=quick)
    assert first is not None
    again = trained_classifier(dataset, CPU, recipe=quick, only_cached=True)
    assert again is not None and again.record == first.record
    other = Recipe(version=2, images_per_epoch_of=1, fewest_images=100, most_images=100)
    assert trained_classifier(dataset, CPU, recipe=other, only_cached=True) is None
    (weights,) = (tmp_path / "derived" / "extractors").glob("*/weights.safetensors")
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    assert trained_classifier(dataset, CPU, recipe=quick, only_cached=True) is None


def test_an_autoencoder_serves_a_set_without_labels(unlabelled: Dataset, quick: Recipe) -> None:
    extractor = trained_autoencoder(unlabelled, CPU, recipe=quick)
    assert extractor is not None
    assert extractor.name.startswith("folder-autoencoder@")
    assert extractor(torch.zeros(3, 1, 28, 28, dtype=torch.uint8)).logits is None
    assert extractor.scores["test"]["rmse"] < 60  # the mean image leaves about 80


def test_shifts_move_whole_images_and_repeat_their_edges(images: Tensor) -> None:
    moved = shifted(images, 0.07, torch.Generator().manual_seed(0))
    for before, after in zip(images[:20], moved[:20], strict=True):
        padded = nn.functional.pad(before[None].float(), (2, 2, 2, 2), mode="replicate")[0].to(torch.uint8)
        windows = [padded[:, y : y + 28, x : x + 28] for y in range(5) for x in range(5)]
        assert any(torch.equal(window, after) for window in windows)


def _link(source: Dataset, target: Dataset) -> None:
    """The same shards under another root, without the extractors that were trained there."""
    target.root.mkdir(exist_ok=True)
    for path in source.root.iterdir():
        if path.name != "derived":
            (target.root / path.name).symlink_to(path)
