"""A whole evaluation: what it measures, what it refuses, and what it writes."""

import json
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from infogan.codes import CategoricalPosterior, ContinuousPosterior, Posterior
from infogan.evaluation import Options, comparable, evaluate_run, read_json, refresh, validation_score, write
from infogan.evaluation.agreement import agreement
from infogan.evaluation.information import bounds
from infogan.evaluation.metrics import Metric
from infogan.evaluation.samples import draw
from infogan.evaluation.variation import variation
from infogan.model import Model
from shards import Dataset, open_reader
from shards.errors import UserError

SAMPLES = 400
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Oracle(Model):
    """A model whose Q knows what it was asked: categories surely, continuous codes with an error of 0.1."""

    def __init__(self, model: Model, values: dict[str, Tensor]) -> None:
        super().__init__(**vars(model))
        object.__setattr__(self, "truth", values)

    def with_critic_statistics_of(self, images: Tensor) -> Model:
        return self

    def encode(self, images: Tensor, chunk: int = 500) -> dict[str, Posterior]:
        truth: dict[str, Tensor] = vars(self)["truth"]
        return {
            "digit": CategoricalPosterior(100.0 * nn.functional.one_hot(truth["digit"], 10).float()),
            "c1": ContinuousPosterior(truth["c1"] + 0.1, torch.ones(len(images))),
            "c2": ContinuousPosterior(truth["c2"] + 0.1, torch.full((len(images),), 0.1)),
        }


def test_information_of_a_perfect_q_is_at_its_ceiling(digits_model: Model) -> None:
    drawn = draw(digits_model, 50, 0, "test")
    found = bounds(Oracle(digits_model, drawn.values), drawn.images, drawn.values)
    assert found["mi/digit"] == pytest.approx(math.log(10), abs=1e-4)
    assert found["mi/c1"] == pytest.approx(math.log(2) - math.log(2 * math.pi) / 2 - 0.005, abs=1e-5)
    best = math.log(2) - math.log(2 * math.pi * math.e * 0.01) / 2
    assert found["mi/c2"] == pytest.approx(best, abs=1e-4)
    assert found["mi_best_std/c1"] == pytest.approx(best, abs=1e-4)
    assert found["mi_best_std/c2"] == pytest.approx(best, abs=1e-4)


def test_the_first_images_drawn_do_not_depend_on_how_many_follow(digits_model: Model) -> None:
    few, many = draw(digits_model, 30, 0, "test"), draw(digits_model, 600, 0, "test")
    assert torch.equal(few.images, many.images[:30])
    assert torch.equal(few.values["c1"], many.values["c1"][:30])
    assert not torch.equal(few.images, draw(digits_model, 30, 1, "test").images)


def test_agreement_counts_claims_only() -> None:
    read = torch.tensor([3, 3, 5, 5, 0])
    categories = torch.tensor([0, 0, 0, 1, 2])
    share, per_class = agreement(read, categories, {0: 3, 1: 5}, classes=6)
    assert share == pytest.approx(3 / 4)  # category 2 is matched to nothing
    assert per_class[3] == (pytest.approx(2 / 3), 3)
    assert per_class[5] == (1.0, 1)
    assert per_class[0] == (None, 0)


def test_a_code_that_the_generator_ignores_changes_nothing(digits_model: Model) -> None:
    deaf = replace(digits_model, generator=digits_model.generator)
    first = deaf.generator[0]
    before = first.weight.clone()
    with torch.no_grad():
        first.weight[:, -1] = 0  # c2 is the last input
    try:
        assert variation(deaf, "c2", 0).max() == 0
        assert variation(deaf, "c1", 0).min() > 0
    finally:
        with torch.no_grad():
            first.weight.copy_(before)


def test_an_evaluation_measures_states_its_protocol_and_repeats_to_the_bit(
    digits: Dataset, digits_model: Model, quick_extractors: None, report_folder: Path
) -> None:
    report = evaluate_run(digits_model, digits, Options(samples=SAMPLES))
    again = evaluate_run(digits_model, digits, Options(samples=SAMPLES))
    assert report.as_json() == again.as_json()
    names = [metric.name.partition("[")[0] for metric in report.metrics]
    for name in (
        "mi/digit", "mi_best_std/c1", "accuracy_test/digit", "accuracy_test_fitted_on_test/digit",
        "nmi_test/digit", "ari_test/digit", "agreement/digit", "frechet400_test", "kernel400_test", "score400",
        "variation/c2",
    ):  # fmt: skip
        assert name in names
    assert any(name.startswith("frechet") and name.endswith("_floor") for name in names)
    assert not any(name.startswith(("fid", "kid", "is")) for name in names)  # these names belong to Inception
    for metric in report.metrics:
        assert math.isfinite(metric.value)
        assert metric.protocol["checkpoint_digest"] == "c" * 64
        assert metric.protocol["data_digest"] == digits.manifest.digest
    write(report, report_folder)
    content = read_json(report_folder / "report")
    assert content["format"] == 1
    assert [metric["name"] for metric in content["metrics"]] == [metric.name for metric in report.metrics]
    for picture in content["pictures"]:
        assert (report_folder / "report" / picture["path"]).read_bytes().startswith(b"\x89PNG")


class Page(HTMLParser):
    """Checks that tags close in order; collects text, and addresses that the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_one_file_with_every_number_and_needs_no_network(
    digits: Dataset, digits_model: Model, quick_extractors: None, report_folder: Path
) -> None:
    report_folder.mkdir()
    rows = [
        {
            "kimg": float(k),
            "update": k,
            "loss/generator": 1.0,
            "loss/critic": 0.5,
            "mi/digit": 2.0,
            "mi/c1": -0.3,
            "mi/c2": 1.0,
        }
        for k in range(1, 900)
    ]
    (report_folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    report = evaluate_run(digits_model, digits, Options(samples=SAMPLES))
    text = write(report, report_folder).read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.tags.isdisjoint({"script", "iframe", "link", "object"})
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    for metric in report.metrics:
        assert metric.name in page.text
    assert text.count("<svg") == 2
    assert len(text) < 5_000_000


def test_names_from_data_cannot_become_markup(digits: Dataset, digits_model: Model, report_folder: Path) -> None:
    hostile = replace(digits_model, origin=replace(digits_model.origin, run="<script>alert(1)</script>"))
    text = write(evaluate_run(hostile, digits, Options(samples=50, only=("variation",))), report_folder).read_text()
    assert "<script" not in text


def test_a_set_without_labels_is_measured_without_accuracy(
    unlabelled: Dataset, unlabelled_model: Model, quick_extractors: None, report_folder: Path
) -> None:
    report = evaluate_run(unlabelled_model, unlabelled, Options(samples=SAMPLES))
    names = " ".join(metric.name for metric in report.metrics)
    assert "accuracy" not in names and "agreement" not in names
    assert "frechet400_test[folder-autoencoder@" in names
    assert any("no labels" in note for note in report.notes)
    assert any("kernel distance" in note for note in report.notes)  # 30 test images are too few
    write(report, report_folder)
    with pytest.raises(UserError, match=r"accuracy.*no labels"):
        evaluate_run(unlabelled_model, unlabelled, Options(samples=SAMPLES, only=("accuracy",)))


def test_another_data_set_is_refused(unlabelled: Dataset, digits_model: Model) -> None:
    with pytest.raises(UserError, match="was trained on digits"):
        evaluate_run(digits_model, unlabelled)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (Options(split="holdout"), "no such split"),
        (Options(samples=1), "at least 2"),
        (Options(only=("fid",)), "no such metric family; there are: information"),
    ],
)
def test_bad_options_are_one_line(digits: Dataset, digits_model: Model, options: Options, rule: str) -> None:
    with pytest.raises(UserError, match=rule) as caught:
        evaluate_run(digits_model, digits, options)
    assert "\n" not in str(caught.value)


def test_numbers_of_two_trainings_of_one_extractor_are_not_set_side_by_side() -> None:
    def report(name: str, metric: str, data: str = "d") -> dict[str, object]:
        return {"run": {"name": name}, "data": {"digest": data}, "metrics": [Metric(metric, 1.0).as_json()]}

    first = report("a", "frechet10k_test[mnist-classifier@aaaaaa]")
    comparable([first, report("b", "frechet10k_test[mnist-classifier@aaaaaa]"), report("c", "mi/digit")])
    with pytest.raises(UserError, match=r"a was measured with mnist-classifier@a+, b with mnist-classifier@b+:"):
        comparable([first, report("b", "frechet10k_test[mnist-classifier@bbbbbb]")])
    with pytest.raises(UserError, match="different data sets"):
        comparable([first, report("b", "mi/digit", data="e")])


def test_validation_scores_are_deterministic_and_take_the_extractor_only_if_it_is_there(
    digits: Dataset, digits_model: Model, report_folder: Path
) -> None:
    readers = {split: open_reader(digits, split) for split in ("train", "validation")}
    scores = validation_score(digits_model, digits, readers)
    assert scores == validation_score(digits_model, digits, readers)
    assert {"validation/accuracy/digit", "validation/nmi/digit", "validation/mi/digit"} <= scores.keys()
    assert not any("frechet" in name for name in scores)
    page = refresh(digits_model, digits, scores, report_folder)
    assert "Taken while training" in page.read_text(encoding="utf-8")
    assert not (report_folder / "report" / "report.json").exists()


def test_validation_works_without_labels(unlabelled: Dataset, unlabelled_model: Model) -> None:
    readers = {split: open_reader(unlabelled, split) for split in ("train", "validation")}
    assert set(validation_score(unlabelled_model, unlabelled, readers)) >= {
        "validation/mi/digit",
        "validation/mi_best_std/c1",
    }
