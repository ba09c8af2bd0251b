"""What would fail in every job is refused before any is sent, in one line; what would not is let through."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from slurm import sending
from slurm.verbs import sweep_group


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_folder_that_cannot_be_made_and_a_run_that_lives_are_refused_at_once(
    desk: Any, monkeypatch: pytest.MonkeyPatch, dry: list[str]
) -> None:
    (desk.folder / "file").touch()
    for out in ("file", "file/sweep"):
        assert desk("--out", out, *dry, code=2).startswith(f"sweep {out}: {desk.folder}/file is no folder; say --out")
    with monkeypatch.context() as read_only:  # root may write all that is no file system of this kind
        read_only.setattr(sending.os, "access", lambda path, mode: path != desk.folder)
        said = desk("--out", "new/sweep", *dry, code=2)
        assert said == f"sweep new/sweep: the folder {desk.folder} may not be written; say --out FOLDER"
    for state in ("running", "queued", "evaluating"):
        assert f"{state}: such runs are under way" in desk("--rerun", state, *dry, code=2)
    assert not (desk.folder / "sweeps").exists()
    said = desk("--rerun", "canceld", *dry, code=2)
    assert "run 'canceld': no run has an id that begins so, and no state is called so (there are failed, " in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "shape: {processes: 3}",
            "the run with seed=0: batch: 128: must be a multiple of processes x accumulation = 3 x 1",
        ),
        ("evaluate: {only: [informaton]}", "evaluate.only: informaton: no such metric family; there are: information,"),
        ("limits: {hours: 1}", "limits.hours: 2 runs may take 8.0 hours"),
        (
            "grid: {device: [cuda]}",
            "device: cuda needs a GPU, and cluster slurm_cpu gives its processes none: say gpus_",
        ),
        ("grid: {precision: [fp16]}", "precision: fp16 needs a GPU, and cluster slurm_cpu gives its processes none: "),
        (
            "grid: {precision: [fp16], device: [cpu]}\nshape: {gpus_per_process: 1}",
            "precision: fp16 needs a GPU, and device is cpu: say device: auto, or precision: bf16 or fp32",
        ),
        (
            "grid: {deepspeed: [mine.json]}\nshape: {processes: 2}",
            "mine.json: train_micro_batch_size_per_gpu",
        ),
        (
            "evaluate: {which: 5000}",
            "evaluate.which: 5000: a run ends at 5.12 kimg (stop: 40 updates); say latest,",
        ),
        (
            "evaluate: {weights: nowhere.pth}",
            "evaluate.weights: nowhere.pth: no such file; name the Inception weights",
        ),
        (
            "data: {data/mnist: {source: mnits}}",
            "data.data/mnist.source: unknown source 'mnits': choose one of digits",
        ),
        (
            "data: {data/mnist: {source: mnist, pfad: x}}",
            "data.data/mnist.pfad: unknown setting; ",
        ),
        (
            "data: {data/mnist: {source: mnist, download: 3}}",
            "data.data/mnist.download: 3: must be true or false",
        ),
        (
            "data: {data/mnist: {path: x}}",
            "data.data/mnist: needs a source, as in {source: mnist, path: FOLDER}",
        ),
        (
            "data: {data/mnits: {source: mnist}}",
            "data.data/mnits: no run has this data.path; they have ",
        ),
        (
            "best: {metric: mi/digti}",
            "best.metric: mi/digti: no run can have such a number; did you mean mi/digit?",
        ),
        (
            "best: {metric: quality}",
            "best.metric: quality: no run can have such a number; there are epoch, lambda_share, ",
        ),
        ("best: {metric: kimg}", "best.metric: kimg: no run can have such a number; "),
        ("best: {metric: update}", "best.metric: update: no run can have such a number; "),
        (
            "best: {metric: log/time/images_per_s}",
            "best.metric: log/time/images_per_s: no run can have such a number; ",
        ),
        ("best: {metric: spearman_test/digit/azimuth}", "spearman_test/digit/azimuth: no run can have such a number; "),
        ("best: {metric: isabel}", "best.metric: isabel: no run can have such a number; "),
        (
            "best: {metric: log/mi/digti}",
            "best.metric: log/mi/digti: no run can have such a number; did you mean mi/digit?",
        ),
        (
            "best: {metric: fid10k_test}\nevaluate: {only: [information]}",
            "best.metric: fid10k_test: no run can have such a number; ",
        ),
        ("best: {metric: accuracy_train/digit}", "did you mean accuracy_test/digit?"),
        (
            "best: {metric: variation/digit}",
            "best.metric: metric 'variation/digit': its name does not say which end",
        ),
    ],
)
def test_what_would_fail_in_every_job_is_refused(desk: Any, more: str, said: str) -> None:
    settings = {"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": 128}
    (desk.folder / "mine.json").write_text(json.dumps(settings))
    desk.spec(stop="40 updates", more=more)
    found = desk("--cluster", "slurm_cpu", code=2)
    assert found.startswith("sweep mine.yaml: ")
    assert said in found
    assert not (desk.folder / "sweeps").exists()


def test_a_run_that_does_not_fit_the_data_that_are_there_is_refused(desk: Any, tiny_data: Path) -> None:
    desk.spec(stop=f"40 updates, data.path: {tiny_data}")
    said = desk("--dry-run", code=2)
    assert f"data {tiny_data}: images of 8x8x1, but network mnist takes 28x28x1; choose another network" in said


@pytest.mark.parametrize("gpus", ["shape: {gpus_per_process: 1}", "shape: {processes: 2, gpus_per_process: 1}"])
def test_a_run_that_has_gpus_may_ask_for_them(desk: Any, gpus: str) -> None:
    desk.spec(stop="40 updates, precision: fp16, device: cuda", more=gpus)
    assert "2 runs in" in desk("--dry-run", "--cluster", "slurm_cpu")


def test_a_number_of_a_family_of_ones_own_may_rank(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from infogan.evaluation.families import FAMILIES

    monkeypatch.setitem(FAMILIES, "own", FAMILIES["variation"])
    ranked = "best: {{metric: {}, better: higher}}\nevaluate: {{only: [{}]}}\n"
    desk.spec(stop="40 updates", more=ranked.format("quality", "own"))
    assert "2 runs in" in desk("--dry-run")
    desk.spec(stop="40 updates", more=ranked.format("quality", "variation"))
    assert "best.metric: quality: no run can have such a number" in desk("--dry-run", code=2)
    desk.spec(stop="40 updates", more=ranked.format("log/quality", "own"))
    assert "best.metric: log/quality: no run can have such a number" in desk("--dry-run", code=2)


@pytest.mark.parametrize(
    "metric",
    [
        "mi/digit",
        "log/loss/critic",
        "score/real",
        "accuracy_test/digit",
        "nmi_test/digit",
        "frechet10k_test[mnist-classifier@1a2b3c]",
        "fid10k_test",
        "validation/frechet2k[mnist-classifier@1a2b3c]",
    ],
)
def test_a_number_that_a_run_can_have_may_rank(desk: Any, metric: str) -> None:
    desk.spec(stop="40 updates", more=f"best: {{metric: '{metric}', better: higher}}\n")
    assert "2 runs in" in desk("--dry-run")


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("mi/digits", "did you mean mi/digit?"),
        ("quality", "there are kimg, update, "),
        ("penalty/r1", "has no such number; "),
        ("validation/nmi/digits", "did you mean validation/nmi/digit?"),
    ],
)
def test_a_condition_on_a_number_that_no_log_has_is_refused(desk: Any, metric: str, said: str) -> None:
    desk.spec(stop="40 updates")
    text = (desk.folder / "mine.yaml").read_text()
    (desk.folder / "mine.yaml").write_text(text.replace("mi/digit", metric))
    found = desk(code=2)
    assert f"stop_if.0: {metric}: the log of the run with seed=0 has no such number; " in found
    assert said in found


def test_a_condition_on_scores_that_are_switched_off_is_refused(desk: Any) -> None:
    desk.spec(stop="40 updates, eval.every_kimg: null")
    text = (desk.folder / "mine.yaml").read_text()
    (desk.folder / "mine.yaml").write_text(text.replace("mi/digit", "validation/mi/digit"))
    assert "has no such number; it is scored where eval.every_kimg is set" in desk(code=2)


def test_a_split_that_the_data_does_not_have_is_refused(desk: Any) -> None:
    splits = {name: {"samples": samples} for name, samples in (("train", 60000), ("test", 1))}
    (desk.folder / "set").mkdir()
    (desk.folder / "set" / "manifest.json").write_text(json.dumps({"splits": splits}))
    desk.spec(stop="40 updates, data.path: set", more="evaluate: {split: validation}")
    said = "has no such split of 2 images or more; it has train (60,000), test (1)"
    assert said in desk(code=2)
    desk.spec(stop="40 updates, data.path: set")
    assert f"evaluate.split: test: the data set {desk.folder / 'set'} {said}" in desk(code=2)
    desk.spec(stop="40 updates, data.path: set", more="evaluate: {split: train}")
    assert f"{desk.folder / 'set' / 'manifest.json'}: " in desk("--dry-run", code=2)  # which holds nothing else


def test_evaluations_that_every_job_would_refuse_are_not_sent(desk: Any) -> None:
    desk()
    desk.spec(stop="40 updates", more="evaluate: {weights: nowhere.pth}")
    ended = CliRunner().invoke(sweep_group, ["evaluate", "mine.yaml", "--cluster", "local"])
    assert "evaluate.weights: nowhere.pth: no such file" in str(ended.exception)
