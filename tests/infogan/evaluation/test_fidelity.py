"""Distances between sets of features, against closed forms and against torch-fidelity itself."""

import numpy as np
import pytest
import torch
import torch_fidelity
from scipy.linalg import sqrtm
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from infogan.evaluation import fidelity
from infogan.evaluation.classifier import trained_classifier
from infogan.evaluation.trained import Recipe, Trained
from shards import Dataset
from shards.errors import UserError


class Listed(TorchDataset):  # type: ignore[type-arg]
    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


@pytest.fixture(scope="module")
def classifier(digits: Dataset) -> Trained:
    recipe = Recipe(version=1, images_per_epoch_of=1, fewest_images=1_000, most_images=1_000, threads=1)
    trained = trained_classifier(digits, torch.device("cpu"), recipe=recipe)
    assert trained is not None
    return trained


def with_moments(mean: np.ndarray, covariance: np.ndarray, n: int, seed: int) -> Tensor:
    """Samples [n, d] whose own mean and covariance are exactly the ones given."""
    x = np.random.default_rng(seed).standard_normal((n, len(mean)))
    x -= x.mean(axis=0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False)).T)
    return torch.from_numpy(white @ np.linalg.cholesky(covariance).T + mean)


def test_frechet_distance_of_gaussians_with_diagonal_covariances() -> None:
    a = with_moments(np.zeros(4), np.diag([1.0, 4.0, 9.0, 0.25]), 200, 0)
    b = with_moments(np.array([1.0, 0, 0, 2.0]), np.diag([4.0, 4.0, 1.0, 1.0]), 300, 1)
    expected = 5.0 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2 + (0.5 - 1) ** 2
    assert fidelity.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_gaussians_whose_covariances_do_not_commute() -> None:
    rng = np.random.default_rng(4)
    one, two = (m @ m.T + np.eye(5) for m in rng.standard_normal((2, 5, 5)))
    a, b = with_moments(np.zeros(5), one, 400, 2), with_moments(np.ones(5), two, 400, 3)
    expected = 5.0 + np.trace(one + two - 2 * sqrtm(one @ two).real)
    assert fidelity.frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_of_a_set_to_itself_is_zero(images: Tensor) -> None:
    features = images.flatten(1)[:, :20].float()
    assert fidelity.frechet_distance(features, features) == pytest.approx(0, abs=1e-6)


def test_floor_compares_disjoint_halves() -> None:
    features = torch.arange(21, dtype=torch.float64)[:, None] ** torch.tensor([1.0, 2.0])
    floor, half = fidelity.frechet_floor(features)
    assert half == 10
    assert floor > 0  # halves that shared their images would have distance 0 only by chance
    assert floor == fidelity.frechet_floor(features)[0]


def test_numbers_equal_torch_fidelitys_own_on_the_same_images(
    classifier: Trained, digits: Dataset, images: Tensor
) -> None:
    fake = images
    real = fake.roll(3, dims=3) // 2
    theirs = torch_fidelity.calculate_metrics(
        input1=Listed(fake), input2=Listed(real), cuda=False, fid=True, kid=True, isc=True,
        kid_subset_size=100, feature_extractor=classifier.name, batch_size=37, cache=False, verbose=False,
        save_cpu_ram=True,
    )  # fmt: skip
    ours = [fidelity.extract(classifier, lambda a, b, x=x: x[a:b], len(x)) for x in (fake, real)]  # type: ignore[misc]
    assert fidelity.frechet_distance(ours[0].features, ours[1].features) == pytest.approx(
        theirs["frechet_inception_distance"], rel=1e-4
    )
    mean, std = fidelity.kernel_distance(ours[0].features, ours[1].features, 100)
    assert mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-4)
    assert ours[0].logits is not None
    score, spread = fidelity.class_score(ours[0].logits)
    assert score == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert spread == pytest.approx(theirs["inception_score_std"], rel=1e-4)


def test_the_batch_size_does_not_change_the_number(
    classifier: Trained, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def distance(chunk: int) -> float:
        monkeypatch.setattr(fidelity, "CHUNK", chunk)
        a, b = images[:150], images[150:] // 2
        read = [fidelity.extract(classifier, lambda s, e, x=x: x[s:e], len(x)).features for x in (a, b)]  # type: ignore[misc]
        return fidelity.frechet_distance(*read)

    assert distance(7) == pytest.approx(distance(150), rel=1e-4)


def test_kernel_distance_with_too_few_images_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"80 images are fewer than its subset size of 100.*--samples"):
        fidelity.kernel_distance(torch.randn(80, 4), torch.randn(500, 4), 100)


def test_kernel_subsets_shrink_with_the_split_and_end() -> None:
    assert fidelity.kernel_subset_size(10_000) == 1000
    assert fidelity.kernel_subset_size(360) == 180
    assert fidelity.kernel_subset_size(99) is None


def test_classifier_score_is_the_number_of_classes_for_sure_and_even_predictions() -> None:
    logits = 50.0 * torch.eye(4).repeat(250, 1)
    score, _ = fidelity.class_score(logits)
    assert score == pytest.approx(4.0, rel=0.02)  # splits are not exactly even
    assert fidelity.class_score(torch.zeros(1000, 4))[0] == pytest.approx(1.0)
