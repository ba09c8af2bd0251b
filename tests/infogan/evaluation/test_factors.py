"""Codes against true factors: the formulas, the encoders that they are compared with, and the family as a whole."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_mutual_info_score
from torch import Tensor, nn

from infogan.codes import CategoricalCode, Code, ContinuousCode
from infogan.evaluation import Options, evaluate_run, representations, write
from infogan.evaluation.context import Context
from infogan.evaluation.factors import ordered
from infogan.evaluation.heat import heats
from infogan.evaluation.rank_correlation import spearman
from infogan.evaluation.representations import Clusters, Components, read_codes, untrained
from infogan.evaluation.resampling import RESAMPLES, resamples
from infogan.evaluation.shared_information import BINS, adjusted_information, equal_frequency
from infogan.model import Model
from infogan.networks import CriticOutput
from shards import Batch, Dataset, Reader, open_reader
from shards.errors import UserError

ONLY = Options(only=("factors",))
TWO: dict[str, Code] = {"a": ContinuousCode(), "b": ContinuousCode()}
MIXED: dict[str, Code] = {"shade": CategoricalCode(3), "c1": ContinuousCode()}
Read = Callable[[np.ndarray], list[float]]  # an image's factors (x, direction, thick, shade) => Q's output


class Seer(nn.Module):
    """A critic that knows every image's factors, and whose Q answers `read` of them."""

    def __init__(self, dataset: Dataset, read: Read) -> None:
        super().__init__()
        batch = open_reader(dataset, "test").gather(np.arange(dataset.manifest.splits["test"].samples))
        assert batch.factors is not None
        pairs = zip(batch.images, batch.factors.numpy(), strict=True)
        self.known = {image.numpy().tobytes(): read(factors) for image, factors in pairs}

    def forward(self, real: Tensor | None, fake: Tensor) -> CriticOutput:
        pixels = (fake * 255).round().to(torch.uint8)
        return CriticOutput(None, None, torch.tensor([self.known[image.numpy().tobytes()] for image in pixels]))


def seeing(model: Model, dataset: Dataset, read: Read) -> Model:
    return replace(model, critic=Seer(dataset, read))  # type: ignore[arg-type]


def measured(model: Model, dataset: Dataset) -> dict[str, float]:
    return {metric.name: metric.value for metric in evaluate_run(model, dataset, ONLY).metrics}


@pytest.fixture
def some_columns() -> tuple[np.ndarray, np.ndarray]:
    """Codes [500, 3], one of them with ties, and factors [500, 3], one of them of two values."""
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(500, 3))
    codes[:, 2] = np.round(codes[:, 2])
    factors = np.stack([codes[:, 0] ** 3, codes[:, 1] + rng.normal(size=500), codes[:, 2] > 0.2], axis=1)
    return codes, factors.astype(np.float64)


def test_rank_correlation_is_scipys_with_ties_and_in_every_resample(
    some_columns: tuple[np.ndarray, np.ndarray],
) -> None:
    codes, factors = some_columns
    expected = spearmanr(np.hstack([codes, factors])).statistic[:3, 3:]
    np.testing.assert_allclose(spearman(codes, factors)[0], expected, atol=1e-12)
    draws = resamples(500, seed=0)
    found = spearman(codes, factors, draws)
    for number in (0, RESAMPLES - 1):
        drawn = np.repeat(np.arange(500), draws[number])
        expected = spearmanr(np.hstack([codes, factors])[drawn]).statistic[:3, 3:]
        np.testing.assert_allclose(found[number], expected, atol=1e-12)


def test_rank_correlation_by_hand() -> None:
    codes = np.array([[1.0, 7.0], [2.0, 7.0], [3.0, 7.0], [4.0, 7.0]])
    factors = np.array([[10.0, 2.0], [20.0, 1.0], [40.0, 4.0], [30.0, 3.0]])
    # 1 - 6 sum d^2 / (n (n^2 - 1)): d^2 adds up to 2, then to 4; a code that never varies follows nothing
    assert spearman(codes, factors)[0].tolist() == [[pytest.approx(0.8), pytest.approx(0.6)], [0.0, 0.0]]


def test_rank_correlation_does_not_depend_on_the_order_of_the_images_to_the_bit(
    some_columns: tuple[np.ndarray, np.ndarray],
) -> None:
    codes, factors = some_columns
    order = np.random.default_rng(1).permutation(500)
    assert np.array_equal(spearman(codes, factors), spearman(codes[order], factors[order]))


def test_adjusted_information_is_scikit_learns_with_the_smaller_entropy() -> None:
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 10, 400), rng.integers(0, 3, 400)]
    factors = [codes[0] // 5, rng.integers(0, 7, 400), np.where(rng.random(400) < 0.7, codes[1], 0)]
    found = adjusted_information(codes, factors)[0]
    for c, code in enumerate(codes):
        for f, factor in enumerate(factors):
            expected = adjusted_mutual_info_score(code, factor, average_method="min")
            assert found[c, f] == pytest.approx(expected, abs=1e-9)
    assert found[0, 0] == pytest.approx(1.0)  # ten categories that decide two values
    assert abs(found[0, 1]) < 0.03
    assert adjusted_information(codes, [np.zeros(400, np.int64)])[0].tolist() == [[0.0], [0.0]]


def test_the_spread_of_adjusted_information_is_that_of_fresh_images() -> None:
    def fresh(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        code = rng.integers(0, 4, 400)
        return code, np.where(rng.random(400) < 0.6, code, rng.integers(0, 4, 400))

    code, factor = fresh(0)
    spread = adjusted_information([code], [factor], resamples(400, 0))[:, 0, 0].std()
    real = np.std([adjusted_information([c], [f])[0, 0, 0] for c, f in map(fresh, range(1, 200))])
    assert spread == pytest.approx(real, rel=0.25)


def test_bins_are_of_equal_frequency_and_never_part_equal_values() -> None:
    values = np.random.default_rng(0).exponential(size=1000)
    assert np.bincount(equal_frequency(values)).tolist() == [1000 // BINS] * BINS
    assert len(set(equal_frequency(np.repeat([0.1, 0.2], [990, 10])))) == 2
    assert equal_frequency(np.zeros(50)).min() == equal_frequency(np.zeros(50)).max()


def test_a_factor_of_many_values_has_no_order_and_a_periodic_one_has_sine_and_cosine() -> None:
    specs: dict[str, dict[str, Any]] = {
        "tilt": {"kind": "continuous", "range": [-90, 90], "periodic": True},
        "kind": {"kind": "categorical", "values": 3},
        "glasses": {"kind": "categorical", "values": 2},
    }
    tilt = np.array([-90.0, -45.0, 0.0, 45.0])
    found = ordered(specs, {"tilt": tilt, "kind": np.arange(4.0) % 3, "glasses": np.arange(4.0) % 2})
    assert list(found) == ["tilt", "sin(tilt)", "cos(tilt)", "glasses"]
    np.testing.assert_allclose(found["sin(tilt)"], [0, -1, 0, 1], atol=1e-12)  # of a period of 180
    np.testing.assert_allclose(found["cos(tilt)"], [-1, 0, 1, 0], atol=1e-12)


def test_a_perfect_encoder_scores_one_and_its_sign_is_kept(arrows: Dataset, model_of: Callable[..., Model]) -> None:
    model = seeing(model_of(arrows, TWO), arrows, lambda f: [4 * f[0], -f[2]])
    found = measured(model, arrows)
    assert found["spearman_test/a/x"] == pytest.approx(1.0, abs=1e-3)  # a pixel apart, two arrows look alike
    assert found["spearman_test/b/thick"] == pytest.approx(-1.0)
    assert found["spearman_best_test/thick"] == pytest.approx(1.0)
    assert found["ami_test/a/x"] == pytest.approx(1.0, abs=0.02)
    assert found["ami_test/b/thick"] == pytest.approx(1.0)
    assert abs(found["spearman_test/a/thick"]) < 0.2
    assert "spearman_test/a/shade" not in found  # three shades without an order...
    assert "ami_test/a/shade" in found  # ...that the other measure takes


def test_a_category_that_decides_a_factor_knows_it_wholly(arrows: Dataset, model_of: Callable[..., Model]) -> None:
    model = seeing(model_of(arrows, MIXED), arrows, lambda f: [*(9.0 * np.eye(3)[(int(f[3]) + 1) % 3]), f[0] ** 2])
    found = measured(model, arrows)
    assert found["ami_test/shade/shade"] == pytest.approx(1.0)
    assert abs(found["ami_test/shade/x"]) < 0.1
    # a square follows nothing, in rank, but what it knows of x is all but the sign
    assert abs(found["spearman_test/c1/x"]) < 0.2
    assert found["ami_test/c1/x"] > 0.5


def test_a_random_encoder_scores_about_zero(arrows: Dataset, model_of: Callable[..., Model]) -> None:
    rng = np.random.default_rng(0)
    found = measured(seeing(model_of(arrows, TWO), arrows, lambda f: list(rng.normal(size=2))), arrows)
    for name, value in found.items():
        if name.startswith(("spearman_test", "ami_test")):
            assert abs(value) < 4 / np.sqrt(300)


def test_a_direction_shows_in_the_sine_and_cosine_of_its_angle(arrows: Dataset, model_of: Callable[..., Model]) -> None:
    model = seeing(model_of(arrows, TWO), arrows, lambda f: [np.cos(np.radians(f[1])), np.sin(np.radians(f[1]))])
    found = measured(model, arrows)
    assert found["spearman_test/a/cos(direction)"] == pytest.approx(1.0, abs=1e-3)
    assert found["spearman_test/b/sin(direction)"] == pytest.approx(1.0, abs=1e-3)
    assert abs(found["spearman_test/a/direction"]) < 0.2
    assert abs(found["spearman_test/a/sin(direction)"]) < 0.2
    assert -0.95 < found["spearman_test/b/direction"] < -0.6  # a sine falls for most of 0 to 360 degrees


def test_baselines_stand_beside_and_owe_nothing_to_training(arrows: Dataset, model_of: Callable[..., Model]) -> None:
    first, second = (evaluate_run(model_of(arrows, MIXED, weights=w), arrows, ONLY) for w in (1, 5))
    tables = [{(t["measure"], t["encoder"]): t for t in report.tables} for report in (first, second)]
    assert set(tables[0]) == {
        ("spearman", "trained"), ("spearman", "untrained"), ("spearman", "pca"),
        ("ami", "trained"), ("ami", "untrained"), ("ami", "pca"), ("ami", "kmeans"),
    }  # fmt: skip
    for key in tables[0]:
        assert (tables[0][key] == tables[1][key]) == (key[1] != "trained")
    assert tables[0]["ami", "kmeans"]["codes"] == ["kmeans3"]
    assert tables[0]["spearman", "pca"]["codes"] == [f"pca{k}" for k in range(1, 6)]
    metrics = {metric.name: metric for metric in first.metrics}
    best = metrics["spearman_best_test/x"]
    assert best.protocol["best_of_pca"] == metrics["spearman_best_test/x[pca]"].value
    assert best.protocol["best_of_untrained"] == metrics["spearman_best_test/x[untrained]"].value
    assert best.protocol["real_images"] == 300 and best.protocol["code"] == "c1"
    assert best.uncertainty is not None and best.uncertainty.kind == "bootstrap" and best.uncertainty.std > 0


def test_an_untrained_critic_has_the_first_weights_of_its_run(arrows: Dataset, model_of: Callable[..., Model]) -> None:
    train = open_reader(arrows, "train")
    images = train.gather(np.arange(50)).images
    a, b, other = (read_codes(untrained(model_of(arrows, TWO, weights=w, seed=s), train), images)["a"]
                   for w, s in ((1, 0), (5, 0), (1, 1)))  # fmt: skip
    assert np.array_equal(a, b)
    assert not np.allclose(a, other)
    assert not np.allclose(a, read_codes(model_of(arrows, TWO), images)["a"])


def test_components_are_those_of_a_singular_value_decomposition(images: Tensor) -> None:
    components = Components(images[:200], 5, seed=0)
    pixels = images.flatten(1).double().numpy() / 255
    centred = pixels[:200] - pixels[:200].mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:5]
    expected = (pixels - pixels[:200].mean(axis=0)) @ directions.T
    np.testing.assert_allclose(np.abs(components.project(images)), np.abs(expected), atol=2e-2)
    assert Components(images[:3], 5, seed=0).number == 3


def test_clusters_find_what_lies_apart_whatever_the_order() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, 120)
    images = torch.from_numpy((80 * group[:, None, None, None] + rng.integers(0, 20, (120, 1, 8, 8))).astype(np.uint8))
    for order in (torch.arange(120), torch.randperm(120, generator=torch.Generator().manual_seed(0))):
        found = Clusters(Components(images[order], 5, 0), images[order], [3, 500], seed=0)(images)
        assert list(found) == ["kmeans3"]  # 500 clusters of 120 images are none
        assert adjusted_mutual_info_score(group, found["kmeans3"]) == pytest.approx(1.0)


class Shuffled:
    """A reader of the same images in another order."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self.samples = reader, reader.samples
        self._order = np.random.default_rng(0).permutation(reader.samples)

    def gather(self, indices: np.ndarray) -> Batch:
        return self._reader.gather(self._order[indices])


def test_neither_the_order_of_the_data_nor_the_batch_size_matters(
    arrows: Dataset, model_of: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    from infogan.evaluation.factors import measure

    model = model_of(arrows, MIXED)
    plain = measure(Context(model, arrows, ONLY))
    monkeypatch.setattr(representations, "CHUNK", 7)
    shuffled: Any = {"test": Shuffled(open_reader(arrows, "test"))}
    other = measure(Context(model, arrows, ONLY, shuffled))
    assert [metric.name for metric in plain.metrics] == [metric.name for metric in other.metrics]
    for a, b in zip(plain.metrics, other.metrics, strict=True):
        assert a.value == pytest.approx(b.value, abs=1e-6), a.name
        assert a.uncertainty is not None and b.uncertainty is not None
        assert a.uncertainty.std == pytest.approx(b.uncertainty.std, abs=1e-6), a.name


def test_no_more_images_are_read_than_it_says(
    arrows: Dataset, model_of: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(representations, "MOST_READ", 100)
    report = evaluate_run(model_of(arrows, TWO), arrows, ONLY)
    assert {metric.protocol["real_images"] for metric in report.metrics} == {100}
    assert {table["images"] for table in report.tables} == {100}


def test_the_page_shows_every_value_beside_its_baselines(
    arrows: Dataset, model_of: Callable[..., Model], tmp_path: Any
) -> None:
    report = evaluate_run(model_of(arrows, MIXED), arrows, ONLY)
    rank, shared = heats(report.tables)
    assert [name for name, _ in rank.groups] == ["this model", "untrained critic", "PCA"]
    assert [name for name, _ in shared.groups] == ["this model", "untrained critic", "PCA", "k-means"]
    assert [name for name, _ in rank.rows] == ["x", "direction", "sin(direction)", "cos(direction)", "thick"]
    for name, cells in rank.rows:
        value = next(m.value for m in report.metrics if m.name == f"spearman_test/c1/{name}")
        assert cells[0].text == f"{value:.2f}".replace("-", "−") or abs(value) < 0.005
        assert all(abs(float(cell.text.replace("−", "-"))) > 0.1 for cell in cells if cell.best)  # clear of chance
    place = dict(rank.rows)["x"]
    assert sum(cell.best for cell in place[-5:]) == 1  # of the five components the one that follows x
    page = write(report, tmp_path / "run").read_text(encoding="utf-8")
    assert page.count('class="matrix heat"') == 2
    assert "spearman_best_test/x<" in page and "spearman_test/c1/x<" not in page
    assert "Closest to a true factor" in page
    assert page.count("Sine and cosine of direction reach ±1 only if pictures tell the whole period.") == 1


def test_codes_keep_their_names_on_the_page_and_baselines_only_their_numbers() -> None:
    table = {"kind": "factors", "measure": "ami", "split": "test", "images": 9, "factors": ["x"], "best": [0]}
    columns = {"values": [[0.5]], "std": [[0.1]]}
    encoders = {"trained": "trained_digit", "untrained": "untrained_digit", "pca": "pca3", "kmeans": "kmeans10"}
    (heat,) = heats([table | columns | {"encoder": name, "codes": [code]} for name, code in encoders.items()])
    assert [codes for _, codes in heat.groups] == [("trained_digit",), ("untrained_digit",), ("3",), ("10",)]


def test_what_cannot_be_compared_is_left_out_with_a_reason(
    arrows: Dataset, digits: Dataset, digits_model: Model, model_of: Callable[..., Model]
) -> None:
    with pytest.raises(UserError, match="data set digits has no known factors"):
        evaluate_run(digits_model, digits, ONLY)
    with pytest.raises(UserError, match="the model has no codes"):
        evaluate_run(model_of(arrows, {}), arrows, ONLY)
    report = evaluate_run(model_of(arrows, {"k": CategoricalCode(4)}), arrows, ONLY)
    assert {table["measure"] for table in report.tables} == {"ami"}


def test_a_q_that_is_not_finite_is_refused_in_one_line(arrows: Dataset, model_of: Callable[..., Model]) -> None:
    with pytest.raises(UserError, match="code b as a number that is not finite") as caught:
        evaluate_run(seeing(model_of(arrows, TWO), arrows, lambda f: [f[0], float("nan")]), arrows, ONLY)
    assert "\n" not in str(caught.value)
