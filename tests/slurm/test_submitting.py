"""One submission at a time, remembered whatever interrupts it; each run with its own code and its own config."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import infogan
from infogan.lease import Holder
from infogan.sections import read_yaml
from shards.errors import UserError
from slurm import local, sending, snapshot, submissions
from slurm import sweep as sweeps
from slurm.order import Order, share
from slurm.snapshot import Snapshot
from slurm.spec import Evaluation, Shape
from slurm.status import Look
from slurm.supervisor import with_caches
from slurm.sweep import Run, Sweep
from slurm.verbs import sweep_group


def order_of(folder: Path, **more: Any) -> Order:
    facts: dict[str, Any] = {
        "run_id": "abc", "sweep": str(folder), "folder": str(folder), "config": "", "run": str(folder / "run"),
        "code": "c0de", "plugins": (), "nodes": 1, "processes": 1, "cpus": 0, "gpus": 0,
        "time_s": 3600, "notice_s": 60, "requeue": "none", "timeouts": 100, "stop_if": (), "evaluate": None,
        "train": True, "environment": {}, "scratch": None,
    }  # fmt: skip
    return Order(**(facts | more))


# ---- the record of submissions ---------------------------------------------------------------------------------


def test_of_two_submissions_at_once_one_is_refused(tmp_path: Path) -> None:
    with submissions.turn(tmp_path) as first:
        first.intend(kind="train", cluster="c", code={"a": "1", "b": "1"})
        first.note({"a": "7_0"})
        with (
            pytest.raises(UserError, match=rf"process {os.getpid()} on .* is submitting just now: wait for it"),
            submissions.turn(tmp_path),
        ):
            pass
        first.note({"b": "8_0"})
    with submissions.turn(tmp_path) as second:
        second.intend(kind="train", cluster="c", code={"a": "2"})
        second.note({"a": "9"})
    found = submissions.newest(tmp_path)
    assert (found.jobs, found.code) == ({"a": "9", "b": "8_0"}, {"a": "2", "b": "1"})
    assert len(list((tmp_path / "submissions").iterdir())) == 2


def test_a_submission_that_sends_nothing_leaves_nothing(tmp_path: Path) -> None:
    with submissions.turn(tmp_path):
        pass
    with pytest.raises(ZeroDivisionError), submissions.turn(tmp_path) as turn:
        turn.intend(kind="train", cluster="c", code={"a": "1"})
        raise ZeroDivisionError
    assert list((tmp_path / "submissions").iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from slurm import submissions
with submissions.turn(Path(sys.argv[1])) as turn:
    turn.intend(kind="train", cluster="c", code={"a": "1", "b": "1"})
    turn.note({"a": "7_0"})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_submission_that_was_killed_stops_nobody(tmp_path: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    assert killed.wait() == -signal.SIGKILL
    with submissions.turn(tmp_path) as turn:
        turn.intend(kind="train", cluster="c", code={"b": "1"})
        turn.note({"b": "8"})
    assert submissions.newest(tmp_path).jobs == {"a": "7_0", "b": "8"}


@pytest.mark.parametrize(("age", "refused"), [(0, True), (400, False)])
def test_a_submission_of_another_machine_counts_while_it_is_fresh(tmp_path: Path, age: int, refused: bool) -> None:
    turn = submissions.Turn(tmp_path)
    turn._facts["holder"] = asdict(replace(Holder.current(), host="elsewhere", table="another"))
    turn.intend(kind="train", cluster="c", code={"a": "1"})
    os.utime(turn._path, (os.stat(turn._path).st_mtime - age,) * 2)
    if refused:
        with pytest.raises(UserError, match="on elsewhere is submitting"), submissions.turn(tmp_path):
            pass
    else:
        with submissions.turn(tmp_path):
            pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_sending_and_noting_waits_and_spares_the_program_that_sends(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    came: list[int] = []
    before = signal.signal(number, lambda number, frame: came.append(number))
    try:
        with submissions.uninterrupted():
            sends = [sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(number)}); print('sent')"]
            os.kill(os.getpid(), number)
            said = subprocess.run(sends, capture_output=True, text=True, check=True).stdout
            assert (said, came) == ("sent\n", [])
        assert came == [number]
    finally:
        signal.signal(number, before)


def test_every_signal_between_sending_and_noting_arrives_and_what_is_ignored_stays_so() -> None:
    came: list[int] = []

    def ends(number: int, frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, ends)
        signal.signal(signal.SIGTERM, ends)
        with pytest.raises(KeyboardInterrupt), submissions.uninterrupted():
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert came == []
        assert sorted(came) == [signal.SIGINT, signal.SIGTERM]
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


# ---- the command -----------------------------------------------------------------------------------------------


class Desk:
    """`infogan sweep submit` of a sweep of two seeds, with what it would run here."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.orders = folder, dict[str, Order]()
        monkeypatch.chdir(folder)
        monkeypatch.setattr(local, "run_all", self._run_all)
        self.spec(stop="40 updates")

    def _run_all(self, sweep: Sweep, runs: Sequence[Run], where: Any, order: Any, say: Any, turn: Any) -> bool:
        self.orders = {run.id: order(run) for run in runs}
        turn.note({run.id: "local-1" for run in runs})
        turn.end()
        return True

    def spec(self, *, stop: str, more: str = "") -> None:
        text = f"base: paper/mnist\nfixed: {{stop: {stop}}}\nseeds: 2\nstop_if: ['mi/digit < 1 after 1 kimg']\n{more}"
        (self.folder / "mine.yaml").write_text(text)

    def __call__(self, *words: str, code: int = 0) -> str:
        where = ["--cluster", "local"] if "--cluster" not in words else []
        ended = CliRunner().invoke(sweep_group, ["submit", "mine.yaml", *where, *words])
        if isinstance(ended.exception, UserError):
            assert code == 2
            return str(ended.exception)
        assert ended.exit_code == code, (ended.output, ended.exception)
        return ended.output

    def ends(self, run: str, outcome: str) -> None:
        """Let a run's last job have ended so."""
        path = self.folder / "sweeps" / "mine" / "attempts" / f"{run}.jsonl"
        path.parent.mkdir(exist_ok=True)
        lines = [{"event": "begin", "job": "local-1"}, {"event": "end", "job": "local-1", "outcome": outcome}]
        path.write_text("".join(json.dumps({"time": n, **line}) + "\n" for n, line in enumerate(lines)))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def test_an_edit_of_the_sweep_changes_no_config_that_was_sent(desk: Desk) -> None:
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


def test_a_submission_that_is_refused_changes_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_hopeless_run_that_is_asked_for_again_is_not_ended_by_the_row_that_ended_it(desk: Desk) -> None:
    desk()
    (hopeless, failed) = desk.orders
    desk.ends(hopeless, "hopeless")
    desk.ends(failed, "failed")
    desk("--rerun", "hopeless")
    assert {name: order.stop_if for name, order in desk.orders.items()} == {
        hopeless: (), failed: ("mi/digit < 1 after 1 kimg",),
    }  # fmt: skip


def test_a_run_that_is_named_and_not_sent_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_dry_run_shows_what_would_be_sent_and_no_more(desk: Desk) -> None:
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


def test_time_partition_and_parallel_may_be_said_on_the_command_line(desk: Desk) -> None:
    desk.spec(stop="40 updates", more="shape: {time: 99}\nshapes: [{when: {seed: 1}, time: 77, cpus_per_process: 2}]\n")
    said = desk("--dry-run", "--cluster", "slurm_cpu", "--time", "2:00:00", "--partition", "fast", "--parallel", "3")
    assert said.count("#SBATCH --time=120\n") == 2
    assert said.count("#SBATCH --partition=fast\n") == 2
    assert "must be minutes" in desk("--dry-run", "--time", "soon", code=2)


def test_a_path_that_slurm_reads_as_a_pattern_is_refused(desk: Desk) -> None:
    said = desk("--dry-run", "--cluster", "slurm_cpu", "--out", "50%j", code=2)
    assert "SLURM reads % and \\ in a path as a pattern: say --out FOLDER without" in said


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_folder_that_cannot_be_made_and_a_run_that_lives_are_refused_at_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, dry: list[str]
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
def test_what_would_fail_in_every_job_is_refused(desk: Desk, more: str, said: str) -> None:
    settings = {"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": 128}
    (desk.folder / "mine.json").write_text(json.dumps(settings))
    desk.spec(stop="40 updates", more=more)
    found = desk("--cluster", "slurm_cpu", code=2)
    assert found.startswith("sweep mine.yaml: ")
    assert said in found
    assert not (desk.folder / "sweeps").exists()


def test_a_run_that_does_not_fit_the_data_that_are_there_is_refused(desk: Desk, tiny_data: Path) -> None:
    desk.spec(stop=f"40 updates, data.path: {tiny_data}")
    said = desk("--dry-run", code=2)
    assert f"data {tiny_data}: images of 8x8x1, but network mnist takes 28x28x1; choose another network" in said


@pytest.mark.parametrize("gpus", ["shape: {gpus_per_process: 1}", "shape: {processes: 2, gpus_per_process: 1}"])
def test_a_run_that_has_gpus_may_ask_for_them(desk: Desk, gpus: str) -> None:
    desk.spec(stop="40 updates, precision: fp16, device: cuda", more=gpus)
    assert "2 runs in" in desk("--dry-run", "--cluster", "slurm_cpu")


def test_a_number_of_a_family_of_ones_own_may_rank(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_number_that_a_run_can_have_may_rank(desk: Desk, metric: str) -> None:
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
def test_a_condition_on_a_number_that_no_log_has_is_refused(desk: Desk, metric: str, said: str) -> None:
    desk.spec(stop="40 updates")
    text = (desk.folder / "mine.yaml").read_text()
    (desk.folder / "mine.yaml").write_text(text.replace("mi/digit", metric))
    found = desk(code=2)
    assert f"stop_if.0: {metric}: the log of the run with seed=0 has no such number; " in found
    assert said in found


def test_a_condition_on_scores_that_are_switched_off_is_refused(desk: Desk) -> None:
    desk.spec(stop="40 updates, eval.every_kimg: null")
    text = (desk.folder / "mine.yaml").read_text()
    (desk.folder / "mine.yaml").write_text(text.replace("mi/digit", "validation/mi/digit"))
    assert "has no such number; it is scored where eval.every_kimg is set" in desk(code=2)


def test_a_split_that_the_data_does_not_have_is_refused(desk: Desk) -> None:
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


def test_a_sweep_of_another_version_is_not_written_over(desk: Desk) -> None:
    desk()
    path = desk.folder / "sweeps" / "mine" / "sweep.json"
    newer = path.read_text().replace('"format": 1', '"format": 2')
    path.write_text(newer)
    for name in desk.orders:
        desk.ends(name, "failed")
    assert "of format 2, and this version of infogan reads and writes 1: use the version that made it" in desk(code=2)
    assert path.read_text() == newer


def test_a_damaged_sweep_is_written_anew_by_submitting_it_again(desk: Desk) -> None:
    desk()
    path = desk.folder / "sweeps" / "mine" / "sweep.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    for name in desk.orders:
        desk.ends(name, "failed")
    desk()
    assert path.read_text() == whole


# ---- on this machine -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "said", "processes", "devices"),
    [
        ("0,1,2,3", {}, 1, ["0", "1", "2"]),
        ("4,5,6,7", {}, 2, ["4,5", "6,7", "4,5"]),  # three runs of two share four
        ("0", {}, 2, [None] * 3),
        ("", {}, 1, [None] * 3),
        ("0,1,2,3", {"CUDA_VISIBLE_DEVICES": "3"}, 1, ["3"] * 3),
    ],
)
def test_runs_side_by_side_get_devices_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    visible: str, said: dict[str, str], processes: int, devices: list[str | None],
) -> None:  # fmt: skip
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    (tmp_path / "config.yaml").write_text("batch: 8\nthreads: null\n")
    order = order_of(tmp_path, processes=processes, environment=said, config=str(tmp_path / "config.yaml"))
    found = [share(order, place, 3).environment.get("CUDA_VISIBLE_DEVICES") for place in range(3)]
    assert found == devices


def test_runs_side_by_side_share_the_cores_unless_their_config_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    config = tmp_path / "config.yaml"
    order = order_of(tmp_path, processes=2, config=str(config))
    config.write_text("batch: 8\nthreads: null\n")
    assert "threads=2" in share(order, 1, 4).training(launcher=True)
    assert "threads=1" in share(order, 1, 64).training(launcher=True)
    config.write_text("batch: 8\nthreads: 5\n")
    assert share(order, 1, 4).cpus == 5


def test_variables_in_an_environment_are_those_of_the_job(tmp_path: Path) -> None:
    order = order_of(
        tmp_path, environment={"X": "$TMPDIR/x", "Y": "${X}/y$NOWHERE", "PYTHONPATH": "/mine"}, code="c0de"
    )
    found = order.within({"TMPDIR": "/scratch", "PYTHONPATH": "/module"})
    assert (found["X"], found["Y"]) == ("/scratch/x", "/scratch/x/y")
    assert found["PYTHONPATH"] == f"{tmp_path}/code/c0de:/mine"
    assert order_of(tmp_path, code="c0de").within({"PYTHONPATH": "/module"})["PYTHONPATH"].endswith(":/module")


def test_what_an_environment_says_of_caches_holds() -> None:
    found = with_caches({"TRITON_CACHE_DIR": "/mine", "FAST": "/fast"}, "$FAST/caches")
    assert found["TRITON_CACHE_DIR"] == "/mine"
    assert found["TORCHINDUCTOR_CACHE_DIR"].startswith("/fast/caches/infogan-caches-")


def test_evaluations_that_every_job_would_refuse_are_not_sent(desk: Desk) -> None:
    desk()
    desk.spec(stop="40 updates", more="evaluate: {weights: nowhere.pth}")
    ended = CliRunner().invoke(sweep_group, ["evaluate", "mine.yaml", "--cluster", "local"])
    assert "evaluate.weights: nowhere.pth: no such file" in str(ended.exception)


def test_a_hopeless_run_that_was_asked_for_again_stays_without_its_conditions(desk: Desk) -> None:
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


def test_a_run_that_keeps_its_code_is_told_no_setting_that_newer_code_has_added(desk: Desk) -> None:
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
