"""What stands in a sweep's table means what it says."""

import csv
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shards.errors import UserError
from slurm import collect, runfolder, submissions
from slurm import sweep as sweeps
from slurm.ranking import better_of
from slurm.runfolder import report_of
from slurm.spec import Evaluation, Shape
from slurm.sweep import Run, Sweep

FRECHET = "frechet10k_test[mnist-classifier@{}]"


@pytest.fixture
def made(tmp_path: Path) -> Sweep:
    """Two values of three seeds each, all finished."""
    runs = tuple(
        Run(f"{batch}{seed}" * 5, {"batch": batch, "seed": seed}, Shape(), f"{seed:064d}", "40 updates")
        for batch in (1, 2)
        for seed in range(3)
    )
    sweep = Sweep(tmp_path / "mine", "mine", runs, Evaluation(when="array"))
    sweeps.save(sweep)
    for run in runs:
        finish(sweep, run)
    return sweep


def finish(sweep: Sweep, run: Run) -> None:
    folder = sweep.run_folder(run)
    (folder / ".lease").mkdir(parents=True)
    holder = {"host": "node", "table": "t", "pid": 1, "started": 0.0, "job": None, "restart": 0}
    facts = {"state": "finished", "time": 1000.0, "stop": run.stop, "images": 320, "stop_images": 320}
    (folder / ".lease" / "000001.json").write_text(json.dumps({"format": 1, "holder": holder, "facts": facts}))
    checkpoint(folder, "kimg-000000.320", run.id)


def checkpoint(folder: Path, name: str, content: str) -> str:
    """Its digest."""
    path = folder / "checkpoints" / name / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    return hashlib.sha256(content.encode()).hexdigest()


def report(folder: Path, digest: str, numbers: dict[str, float], data: str = "d", **protocol: Any) -> None:
    metrics = [{"name": name, "value": value, "protocol": protocol} for name, value in numbers.items()]
    content = {
        "format": 1, "run": {"name": folder.name}, "data": {"digest": data}, "checkpoint": {"digest": digest},
        "metrics": metrics,
    }  # fmt: skip
    (folder / "report").mkdir(exist_ok=True)
    (folder / "report" / "report.json").write_text(json.dumps(content))


def digest_of(run: Run) -> str:
    return hashlib.sha256(run.id.encode()).hexdigest()


def test_numbers_of_other_extractors_or_data_are_left_out_of_a_mean_and_named(made: Sweep) -> None:
    for run, extractor, data in zip(made.runs, ("aa", "aa", "bb", "bb", "bb", "bb"), "dddddx", strict=True):
        report(made.run_folder(run), digest_of(run), {FRECHET.format(extractor): 2.0, "mi/digit": 1.5}, data)
    table = collect.gather(made, {"metric": "mi/digit"})
    assert [group.metrics["mi/digit"].n for group in table.groups] == [2, 2]
    assert [set(group.metrics) & {FRECHET.format("aa"), FRECHET.format("bb")} for group in table.groups] == [
        {FRECHET.format("aa")}, {FRECHET.format("bb")},
    ]  # fmt: skip
    told = collect.markdown(table)
    assert f"Run {made.runs[2].id}: its report is left out: frechet10k_test: " in told
    assert f"Run {made.runs[5].id}: its report is left out: reports of different data sets" in told


def test_a_damaged_run_costs_only_its_own_numbers(made: Sweep) -> None:
    for run in made.runs:
        report(made.run_folder(run), digest_of(run), {"mi/digit": 1.5})
    torn, odd, whole = (made.run_folder(run) for run in made.runs[:3])
    (torn / "report" / "report.json").write_text('{"format": 1, "metr')
    (odd / "report" / "report.json").write_text('{"format": 1, "metrics": [{"name": "x"}]}')
    (whole / "checkpoints" / "kimg-000000.640").mkdir()
    table = collect.gather(made, None)
    assert {group.name: group.metrics["mi/digit"].n for group in table.groups} == {"batch=1": 1, "batch=2": 3}
    told = collect.markdown(table)
    for run in made.runs[:2]:
        assert f"Run {run.id}: report.json cannot be read: it counts as absent." in told
    assert f"Run {made.runs[2].id}: kimg-000000.640 has no manifest.json: it counts as absent." in told


def test_a_report_is_that_of_the_checkpoint_and_the_options_asked_for(made: Sweep) -> None:
    folder = made.run_folder(made.runs[0])
    first = digest_of(made.runs[0])
    report(folder, first, {"mi/digit": 1.5}, split="test", latent_seed=0, generated_images=500)
    assert report_of(folder, Evaluation()) is not None
    assert report_of(folder, Evaluation(samples=500)) is not None
    for other in (Evaluation(split="train"), Evaluation(seed=1), Evaluation(samples=100), Evaluation(which="0.1")):
        assert report_of(folder, other) is None
    report(folder, first, {"mi/digit": 1.5}, generated_images=7 * 1000, draws=7)  # of L_I, which draws as it likes
    assert report_of(folder, Evaluation(samples=500)) is not None
    newer = checkpoint(folder, "kimg-000000.640", "new")
    assert report_of(folder, Evaluation()) is None  # though the report was written just now
    assert report_of(folder, Evaluation(which="0.32")) is not None
    (folder / "checkpoints" / "kimg-000000.640" / "state.json").write_text('{"best": {"folder": "kimg-000000.320"}}')
    assert report_of(folder, Evaluation(which="best")) is not None
    report(folder, newer, {"mi/digit": 1.5})
    assert report_of(folder, Evaluation()) is not None
    assert report_of(folder, Evaluation(which="best")) is None


@pytest.mark.parametrize(
    ("made_with", "wanted", "found"),
    [
        ({"weights": None, "only": ["information"]}, Evaluation(only=("fidelity",)), False),
        ({"weights": None, "only": ["information"]}, Evaluation(only=("information", "fidelity")), False),
        ({"weights": None, "only": ["information"]}, Evaluation(), False),
        ({"weights": None, "only": ["information", "fidelity"]}, Evaluation(only=("fidelity",)), True),
        ({"weights": None, "only": []}, Evaluation(only=("fidelity",)), True),
        ({"weights": None, "only": []}, Evaluation(weights="w.pth"), False),
        ({"weights": "w.pth", "only": []}, Evaluation(weights="./w.pth"), True),
        ({"weights": "w.pth", "only": []}, Evaluation(), False),
        ({}, Evaluation(weights="w.pth", only=("fidelity",)), True),
    ],
)
def test_a_report_is_that_of_the_weights_and_the_families_asked_for(
    made: Sweep, made_with: dict[str, Any], wanted: Evaluation, found: bool
) -> None:
    folder = made.run_folder(made.runs[0])
    report(folder, digest_of(made.runs[0]), {"mi/digit": 1.5})
    path = folder / "report" / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"options": made_with}))
    assert (report_of(folder, wanted) is not None) is found


@pytest.mark.parametrize(
    ("metric", "better"),
    [
        ("fid10k_test", "lower"),
        ("kid10k_test", "lower"),
        (FRECHET.format("aa"), "lower"),
        ("kernel10k_test[x@aa]", "lower"),
        ("log/loss/critic", "lower"),
        ("log/validation/frechet2k[x@aa]", "lower"),
        ("log/mse/c1", "lower"),
        ("is10k", "higher"),
        ("score10k[x@aa]", "higher"),
        ("spearman_best_test/azimuth[pca]", "higher"),
        ("ami_test/c1/azimuth", "higher"),
        ("agreement/digit[x@aa]", "higher"),
        ("log/mi/c1/best_std", "higher"),
        ("mi_best_std/c1", "higher"),
        ("mi/digit", "higher"),
        ("log/validation/accuracy/digit", "higher"),
        ("accuracy_test/digit", "higher"),
        ("accuracy_my_split_fitted_on_my_split/digit", "higher"),
        ("fid10k_my_split", "lower"),
    ],
)
def test_which_end_of_a_metric_is_better_is_known(metric: str, better: str) -> None:
    assert better_of(metric) == better


@pytest.mark.parametrize(
    "metric",
    [
        "spearman_test/c1/azimuth", "log/score/fake", "score/real", "log/mi/digit/ceiling", "isabel", "variation/digit",
        "score_test_real[x@aa]", "frechet5k_test_floor[x@aa]", "log/kimg",
    ],
)  # fmt: skip
def test_a_number_without_a_good_end_is_not_said_to_have_one(metric: str) -> None:
    with pytest.raises(UserError, match="its name does not say which end is better"):
        better_of(metric)


def test_a_metric_whose_name_does_not_tell_demands_the_word(made: Sweep) -> None:
    run = made.runs[0]
    report(made.run_folder(run), digest_of(run), {"mystery": 1.0})
    with pytest.raises(UserError, match="say --better higher or lower"):
        collect.gather(made, {"metric": "mystery"})
    assert collect.gather(made, {"metric": "mystery", "better": "lower"}).better == "lower"


def test_the_lowest_distance_is_the_best(made: Sweep) -> None:
    for number, run in enumerate(made.runs):
        report(made.run_folder(run), digest_of(run), {"fid10k_test": 10.0 - number})
    best = collect.gather(made, {"metric": "fid10k_test"}).best
    assert best is not None
    assert best.run == made.runs[-1]


def test_a_metric_that_no_run_has_is_refused_only_once_all_have_ended(made: Sweep) -> None:
    with pytest.raises(UserError, match=r"metric 'fid10k_test': no run has it"):
        collect.gather(made, {"metric": "fid10k_test"})
    (made.run_folder(made.runs[0]) / ".lease" / "000001.json").unlink()
    table = collect.gather(made, {"metric": "fid10k_test"})
    assert table.best is None
    assert "No run has fid10k_test yet: there is no rank." in collect.markdown(table)


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("kimg", "Nothing is ranked: metric 'kimg': no run has it; there are mi/digit."),
        ("fid10k_test", "Nothing is ranked: metric 'fid10k_test': no run has it; there are mi/digit."),
        ("mi/digit/x", "Nothing is ranked: metric 'mi/digit/x': no run has it"),
    ],
)
def test_a_sweep_that_cannot_be_ranked_as_its_file_says_has_a_table_all_the_same(
    made: Sweep, metric: str, said: str
) -> None:
    for run in made.runs:
        report(made.run_folder(run), digest_of(run), {"mi/digit": 1.5})
        log(made.run_folder(run), {"kimg": 0.32, "update": 40, "loss/other": 1.0})
    sweep = replace(made, best={"metric": metric, "better": None})
    text = collect.markdown(collect.gather(sweep, None))
    assert said in text
    assert "| batch=1 | 3 of 3 | 1.5 ± 0 (3) |" in text


def log(folder: Path, *rows: dict[str, Any], more: str = "") -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + more)


def test_the_format_of_reports_is_that_of_the_evaluation() -> None:
    from infogan.evaluation.evaluate import FORMAT

    assert runfolder.REPORT_FORMAT == FORMAT


def test_a_report_of_another_format_is_left_out_and_named(made: Sweep) -> None:
    run = made.runs[0]
    path = made.run_folder(run) / "report" / "report.json"
    report(made.run_folder(run), digest_of(run), {"mi/digit": 1.5})
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    told = collect.markdown(collect.gather(made, None))
    assert f"Run {run.id}: report.json is of format 2, and this version reads 1: evaluate again: it counts" in told


def test_numbers_that_are_none_have_no_mean_and_no_curve(made: Sweep) -> None:
    nan = float("nan")
    for run, value in zip(made.runs, (nan, 1.0, 2.0, float("inf"), 1.0, 1.0), strict=True):
        report(made.run_folder(run), digest_of(run), {"mi/digit": value})
    rows = [{"kimg": kimg, "loss/critic": 1.0, "mi/digit": kimg} for kimg in (1.0, 2.0)]
    log(
        made.run_folder(made.runs[0]),
        *rows,
        {"kimg": 3.0, "loss/critic": nan, "mi/digit": "high"},
    )
    log(
        made.run_folder(made.runs[1]),
        *rows,
        {"kimg": 3.0, "loss/critic": 1.0, "mi/digit": 3.0},
        more='{"kimg": 4',
    )
    log(
        made.run_folder(made.runs[2]),
        *rows,
        {"kimg": "x", "loss/critic": 1.0},
        rows[0] | {"kimg": 3.0},
        more="[1]\n",
    )
    table = collect.gather(made, {"metric": "mi/digit"})
    assert {group.name: group.metrics["mi/digit"].n for group in table.groups} == {
        "batch=1": 2,
        "batch=2": 2,
    }
    assert table.curves["mi/digit"]["batch=1"] == [(1.0, 1.0), (2.0, 2.0)]
    assert table.curves["loss/critic"]["batch=1"] == [(1.0, 1.0), (2.0, 1.0)]
    collect.write(table, made.folder / "table")


def test_runs_of_nearly_the_same_value_are_groups_of_their_own(made: Sweep) -> None:
    near = [replace(run, values={"lr": lr, "seed": 0}) for run, lr in zip(made.runs, (1.0, 1.0000001), strict=False)]
    for run in near:
        report(made.run_folder(run), digest_of(run), {"mi/digit": 1.5})
    table = collect.gather(replace(made, runs=tuple(near)), None)
    assert [(group.name, group.metrics["mi/digit"].n) for group in table.groups] == [("lr=1", 1), ("lr=1.0000001", 1)]


def test_rows_of_an_older_training_are_no_part_of_a_curve(made: Sweep) -> None:
    folder = made.run_folder(made.runs[0])
    log(
        folder,
        *({"kimg": kimg, "loss/critic": loss} for kimg, loss in ((1.0, 9.0), (5.0, 9.0), (1.0, 2.0), (2.0, 2.0))),
    )
    assert [(row["kimg"], row["loss/critic"]) for row in runfolder.rows(folder)] == [
        (1.0, 9.0),
        (1.0, 2.0),
        (2.0, 2.0),
    ]
    assert collect.gather(made, None).curves["loss/critic"]["batch=1"] == [
        (1.0, 2.0),
        (2.0, 2.0),
    ]


def test_hours_of_gpus_and_of_cpus_alone_are_not_added_up(made: Sweep) -> None:
    gpu, cpu = (
        {"event": "begin", "time": 0.0, "job": job, "cpus": 8, "gpus": gpus} for job, gpus in (("1", 2), ("2", 0))
    )
    end = {"event": "end", "time": 3600.0, "outcome": "finished"}
    path = made.folder / "attempts" / f"{made.runs[0].id}.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(line) + "\n" for line in (gpu, end | {"job": "1"}, cpu, end | {"job": "2"})))
    table = collect.gather(made, None)
    assert "2 GPU-hours, 0 of them wasted; 8 CPU-hours, 0 of them wasted." in collect.markdown(table)
    row = next(csv.DictReader(collect.as_csv(table).splitlines()))
    assert (row["GPU_hours"], row["CPU_hours"]) == ("2.000000", "8.000000")
    assert "GPU-hours" in collect.write(table, made.folder / "table")
    page = (made.folder / "table" / "sweep.html").read_text()
    assert '<th class="num">GPU-hours</th><th class="num">wasted</th><th class="num">CPU-hours</th>' in page
    path.write_text("".join(json.dumps(line) + "\n" for line in (gpu, end | {"job": "1"})))
    assert "CPU" not in collect.markdown(collect.gather(made, None))


def test_a_table_that_cannot_be_written_is_told_where_else_it_may_go(made: Sweep, tmp_path: Path) -> None:
    (tmp_path / "table" / "sweep.md").mkdir(parents=True)
    with pytest.raises(UserError, match=r"sweep.md: .*; --out FOLDER puts the table elsewhere"):
        collect.write(collect.gather(made, None), tmp_path / "table")


def test_a_page_says_which_curves_it_leaves_out_and_a_note_names_few_runs(
    tmp_path: Path,
) -> None:
    runs = tuple(Run(f"{n:010d}", {"batch": n, "seed": 0}, Shape(), f"{n:064d}", "40 updates") for n in range(12))
    sweep = Sweep(tmp_path / "mine", "mine", runs, Evaluation())
    sweeps.save(sweep)
    for run in runs:
        sweep.run_folder(run).mkdir(parents=True)
        log(
            sweep.run_folder(run),
            {"kimg": 1.0, "loss/critic": 1.0},
            {"kimg": 2.0, "loss/critic": 1.0},
        )
    text = collect.write(collect.gather(sweep, None), tmp_path)
    page = (tmp_path / "sweep.html").read_text()
    assert "The first 10 of the 12 rows above." in page
    assert page.count("<polyline") == 10
    assert f"{runs[9].id} (waiting) and 2 more." in text


def test_a_run_that_is_evaluated_or_waits_for_it_is_in_the_mean_and_one_that_was_dropped_is_named(made: Sweep) -> None:
    """An evaluation was sent by a process of this machine that lives."""
    for run in made.runs:
        log(made.run_folder(run), {"kimg": 0.3, "loss/critic": 1.0, "mi/digit": 2.0})
    with submissions.turn(made.folder) as turn:
        ids = ["dropped000", *(run.id for run in made.runs)]
        turn.intend(kind="evaluate", cluster="local", code=dict.fromkeys(ids[1:], "c"))
        turn.note(dict.fromkeys(ids[1:], f"local-{os.getppid()}"))
    train = json.loads(next((made.folder / "submissions").glob("*.json")).read_bytes())
    train |= {"kind": "train", "time": 1.0, "code": {"dropped000": "c"}, "jobs": {"dropped000": "local-1"}}
    (made.folder / "submissions" / "0.json").write_text(json.dumps(train))
    table = collect.gather(made, {"metric": "log/mi/digit"})
    assert {run.status.state for run in table.runs} == {"evaluating"}
    assert [group.metrics["log/mi/digit"].n for group in table.groups] == [3, 3]
    assert table.best is not None
    told = collect.markdown(table)
    assert "| batch=1 | 3 of 3 |" in told
    assert "Left out, since the sweep's file asks for them no more: dropped000." in told


def test_curves_of_runs_that_logged_one_row_are_dots(tmp_path: Path) -> None:
    run = Run("0" * 10, {"batch": 1, "seed": 0}, Shape(), "0" * 64, "40 updates")
    sweep = Sweep(tmp_path / "mine", "mine", (run,), Evaluation())
    sweeps.save(sweep)
    sweep.run_folder(run).mkdir(parents=True)
    log(sweep.run_folder(run), {"kimg": 2.56, "loss/critic": 1.32142, "mi/c1": -0.256394})
    collect.write(collect.gather(sweep, None), tmp_path)
    page = (tmp_path / "sweep.html").read_text()
    assert page.count("<svg") == page.count("<circle") == 2
