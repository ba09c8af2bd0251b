"""What is sent: which runs, each with its own code and its own config; and what a dry run shows of it."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import infogan
from infogan.sections import read_yaml
from shards.errors import UserError
from slurm import sending, snapshot, submissions
from slurm import sweep as sweeps
from slurm.snapshot import Snapshot
from slurm.spec import Evaluation, Shape
from slurm.status import Look
from slurm.sweep import Run, Sweep

# ---- code ------------------------------------------------------------------------------------------------------


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the code that is submitted."""
    root = tmp_path / "site-packages"
    (root / "infogan").mkdir(parents=True)
    monkeypatch.setattr(infogan, "__file__", str(root / "infogan" / "__init__.py"))
    monkeypatch.setattr(snapshot.plugins, "known", list)

    def edit(text: str) -> None:
        (root / "infogan" / "__init__.py").write_text(text)

    return edit


def begun(sweep: Sweep, run: Run, code: Snapshot) -> None:
    (sweep.run_folder(run) / "checkpoints").mkdir(parents=True)
    with submissions.turn(sweep.folder) as turn:
        turn.intend(kind="train", cluster="c", code={run.id: code.digest})
        turn.note({run.id: "7"})


def test_each_run_goes_on_with_the_code_that_it_was_sent_with(tmp_path: Path, code: Callable[[str], None]) -> None:
    runs = tuple(Run(name, {"seed": n}, Shape(), name, "40 updates") for n, name in enumerate("abc"))
    sweep = Sweep(tmp_path / "sweep", "mine", runs, Evaluation())
    code("one = 1\n")
    first = snapshot.take(sweep.folder)
    begun(sweep, runs[0], first)
    code("one = 2\n")
    second = snapshot.take(sweep.folder)
    begun(sweep, runs[1], second)
    code("one = 3\n")
    with pytest.raises(UserError, match=r"changed since 2 of these runs began \(infogan/__init__.py\)"):
        sending.code_of(sweep, runs, None)
    with pytest.raises(UserError, match="changed since 2 of these runs began"):
        sending.check_code(sweep, runs, None)
    for choice in ("kept", "new"):
        sending.check_code(sweep, runs, choice)
    sending.check_code(sweep, runs[2:], None)
    fresh = snapshot.take(sweep.folder)
    assert sending.code_of(sweep, runs, "kept") == {"a": first, "b": second, "c": fresh}
    assert sending.code_of(sweep, runs, "new") == dict.fromkeys("abc", fresh)
    assert sending.code_of(sweep, runs[2:], None) == {"c": fresh}
    code("one = 4\n")
    sending.code_of(sweep, runs[:2], "kept")
    (line,) = sending.mixed(sweep, runs[2:], [fresh.digest])
    assert line == "2 other runs of sweep mine were sent with other code: its table will hold both"
    assert sending.mixed(sweep, runs[2:], [first.digest, second.digest]) == sending.mixed(sweep, runs, []) == []
    assert len(list((sweep.folder / "code").iterdir())) == 3  # where no run needs it, none is taken of the present code
    sending.check_code(sweep, runs, "new")
    assert len(list((sweep.folder / "code").iterdir())) == 3
    shutil.rmtree(first.folder)
    for check in (sending.check_code, sending.code_of):
        with pytest.raises(UserError, match=r"/code/.*, which they began with, is gone: --code new takes it as it is"):
            check(sweep, runs, None)
        with pytest.raises(UserError, match="is gone; say --code new"):
            check(sweep, runs, "kept")


def test_the_commit_of_a_project_that_we_are_installed_in_is_not_ours(
    tmp_path: Path, code: Callable[[str], None]
) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    code("one = 1\n")
    about = json.loads((snapshot.take(tmp_path / "sweep").folder / "CODE.json").read_bytes())
    assert (about["commit"], about["diff"], about["untracked"]) == (None, None, None)


def test_an_edit_of_the_sweep_changes_no_config_that_was_sent(desk: Any) -> None:
    desk()
    first = {name: Path(order.config) for name, order in desk.orders.items()}
    texts = {name: path.read_text() for name, path in first.items()}
    for name in first:
        desk.ends(name, "failed")
    desk.spec(stop="80 updates")
    desk()
    assert desk.orders.keys() == first.keys()
    for name, order in desk.orders.items():
        assert first[name].read_text() == texts[name]
        assert "80 updates" in Path(order.config).read_text()


def test_a_submission_that_is_refused_changes_nothing(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    desk()
    before = (desk.folder / "sweeps" / "mine" / "sweep.json").read_bytes()
    for name in desk.orders:
        desk.ends(name, "failed")

    def refuse(*_: Any) -> None:
        raise UserError("the code has changed")

    monkeypatch.setattr(sending, "code_of", refuse)
    desk.spec(stop="80 updates")
    assert desk(code=2) == "the code has changed"
    assert (desk.folder / "sweeps" / "mine" / "sweep.json").read_bytes() == before
    assert len(list((desk.folder / "sweeps" / "mine" / "configs").iterdir())) == 2


def test_a_hopeless_run_that_is_asked_for_again_is_not_ended_by_the_row_that_ended_it(desk: Any) -> None:
    desk()
    (hopeless, failed) = desk.orders
    desk.ends(hopeless, "hopeless")
    desk.ends(failed, "failed")
    desk("--rerun", "hopeless")
    assert {name: order.stop_if for name, order in desk.orders.items()} == {
        hopeless: (), failed: ("mi/digit < 1 after 1 kimg",),
    }  # fmt: skip


def test_a_run_that_is_named_and_not_sent_is_told(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    desk()
    one, other = desk.orders
    desk.ends(other, "failed")
    found = sending.status.look

    def living(sweep: Sweep) -> Look:
        seen = found(sweep)
        return replace(seen, runs=tuple(replace(s, state="running") if s.id == one else s for s in seen.runs))

    monkeypatch.setattr(sending.status, "look", living)
    assert f"run {one} is running, trains: it is not sent again" in desk("--rerun", one)
    assert list(desk.orders) == [other]


def test_a_dry_run_shows_what_would_be_sent_and_no_more(desk: Any) -> None:
    assert "2 runs in sweeps/mine, on cluster local" in desk("--dry-run")
    assert not (desk.folder / "sweeps").exists()
    desk()
    one, other = desk.orders
    desk.ends(one, "cancelled")
    desk.ends(other, "failed")
    said = desk("--dry-run")
    assert f"{other}  seed=1" in said
    assert f"{one}  seed=0" not in said
    assert "1 runs in sweeps/mine (1 more are not sent)" in said
    assert "2 runs in sweeps/mine, on" in desk("--dry-run", "--rerun", "cancelled")
    said = desk("--dry-run", "--cluster", "slurm_cpu")
    assert "at most 43 files and 5 by its job" in said
    assert "#SBATCH --nodes=1" in said


def test_time_partition_and_parallel_may_be_said_on_the_command_line(desk: Any) -> None:
    desk.spec(stop="40 updates", more="shape: {time: 99}\nshapes: [{when: {seed: 1}, time: 77, cpus_per_process: 2}]\n")
    said = desk("--dry-run", "--cluster", "slurm_cpu", "--time", "2:00:00", "--partition", "fast", "--parallel", "3")
    assert said.count("#SBATCH --time=120\n") == 2
    assert said.count("#SBATCH --partition=fast\n") == 2
    assert "must be minutes" in desk("--dry-run", "--time", "soon", code=2)


def test_a_path_that_slurm_reads_as_a_pattern_is_refused(desk: Any) -> None:
    said = desk("--dry-run", "--cluster", "slurm_cpu", "--out", "50%j", code=2)
    assert "SLURM reads % and \\ in a path as a pattern: say --out FOLDER without" in said


def test_a_sweep_of_another_version_is_not_written_over(desk: Any) -> None:
    desk()
    path = desk.folder / "sweeps" / "mine" / "sweep.json"
    newer = path.read_text().replace('"format": 1', '"format": 2')
    path.write_text(newer)
    for name in desk.orders:
        desk.ends(name, "failed")
    assert "of format 2, and this version of infogan reads and writes 1: use the version that made it" in desk(code=2)
    assert path.read_text() == newer


def test_a_damaged_sweep_is_written_anew_by_submitting_it_again(desk: Any) -> None:
    desk()
    path = desk.folder / "sweeps" / "mine" / "sweep.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    for name in desk.orders:
        desk.ends(name, "failed")
    desk()
    assert path.read_text() == whole


def test_a_hopeless_run_that_was_asked_for_again_stays_without_its_conditions(desk: Any) -> None:
    desk()
    run = next(iter(desk.orders))
    desk.ends(run, "hopeless")
    path = desk.folder / "sweeps" / "mine" / "attempts" / f"{run}.jsonl"
    once = [json.loads(line) for line in path.read_text().splitlines()]
    again = [{**line, "time": line["time"] + 2} for line in once]
    again[-1]["outcome"] = "stopped"
    path.write_text("".join(json.dumps(line) + "\n" for line in [*once, *again]))
    desk()
    assert desk.orders[run].stop_if == ()


def test_a_run_that_keeps_its_code_is_told_no_setting_that_newer_code_has_added(desk: Any) -> None:
    desk()
    sweep = sweeps.read(desk.folder / "sweeps" / "mine")
    run = sweep.runs[0]
    saved = read_yaml(sweep.config_file(run))
    del saved["patience"], saved["images"]["every_kimg"]
    (sweep.run_folder(run) / "checkpoints").mkdir(parents=True)
    (sweep.run_folder(run) / "config.yaml").write_text(yaml.safe_dump(saved))
    desk.ends(run.id, "failed")
    desk("--code", "kept")
    told = read_yaml(Path(desk.orders[run.id].config))
    assert told == saved
    desk.spec(stop="80 updates")
    desk("--code", "kept")
    assert read_yaml(Path(desk.orders[run.id].config)) == {**saved, "stop": "80 updates"}
