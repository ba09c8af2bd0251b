"""What stands in a sweep's table means what it says."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from shards.errors import UserError
from slurm import collect, runfolder
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
    ("metric", "better"),
    [
        ("fid10k_test", "lower"),
        ("kid10k_test", "lower"),
        (FRECHET.format("aa"), "lower"),
        ("kernel10k_test[x@aa]", "lower"),
        ("log/loss/critic", "lower"),
        ("validation/frechet", "lower"),
        ("is10k", "higher"),
        ("mi/digit", "higher"),
        ("log/validation/accuracy/digit", "higher"),
        ("accuracy_test/digit", "higher"),
    ],
)
def test_which_end_of_a_metric_is_better_is_known(metric: str, better: str) -> None:
    assert better_of(metric) == better


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


def test_curves_of_runs_that_logged_one_row_are_dots(tmp_path: Path) -> None:
    run = Run("0" * 10, {"batch": 1, "seed": 0}, Shape(), "0" * 64, "40 updates")
    sweep = Sweep(tmp_path / "mine", "mine", (run,), Evaluation())
    sweeps.save(sweep)
    sweep.run_folder(run).mkdir(parents=True)
    log(sweep.run_folder(run), {"kimg": 2.56, "loss/critic": 1.32142, "mi/c1": -0.256394})
    collect.write(collect.gather(sweep, None), tmp_path)
    page = (tmp_path / "sweep.html").read_text()
    assert page.count("<svg") == page.count("<circle") == 2
