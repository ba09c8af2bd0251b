"""What became of each run is told truly, also where SLURM is silent; nothing is sent twice for want of an answer."""

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from infogan.lease import FOLDER, STALE_S, Heartbeat, Holder
from shards.errors import UserError
from slurm import scheduler, states, status, table
from slurm import sweep as sweeps
from slurm.attempts import Attempt, Record
from slurm.order import Order
from slurm.spec import Evaluation, Shape
from slurm.states import Evidence, Job, Seen, state_of
from slurm.sweep import Run, Sweep
from slurm.verbs import sweep_group

ELSEWHERE = Holder("node7", "another machine's", 12, 0.0, "7", 0)
JOB = Job("7_0", "train", 1000.0, ELSEWHERE)


def heart(state: str = "training", at: float = 2000.0, holder: Holder = ELSEWHERE, **facts: Any) -> Heartbeat:
    return Heartbeat(1, holder, {"state": state, "time": at, **facts})


def seen(final: str | None = None, living: tuple[str, str] | None = None, job: Job = JOB, **more: Any) -> Seen:
    return Seen(training=Evidence(job, more.pop("last", None), living, final), **more)


# ---- one run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("final", "attempted", "state"),
    [
        ("CANCELLED by 0", True, "cancelled"),
        ("CANCELLED", False, "cancelled"),
        ("TIMEOUT", True, "timed out"),
        ("NODE_FAIL", True, "killed"),
        ("OUT_OF_MEMORY", True, "killed"),
        ("FAILED", True, "killed"),
        ("FAILED", False, "failed"),
        ("COMPLETED", True, "stopped"),
    ],
)
def test_the_word_of_accounting_is_translated(final: str, attempted: bool, state: str) -> None:
    last = Attempt(1500.0, job="7_0") if attempted else None
    assert state_of(seen(final, last=last))[0] == state


@pytest.mark.parametrize(
    ("outcome", "message", "earlier", "state"),
    [
        ("failed", "rank 1: the training process was ended by SIGKILL", False, "killed"),
        ("killed", "rank 1: the training process was ended by SIGKILL", False, "killed"),
        ("", "rank 1: the training process was ended by SIGKILL", True, "killed"),
        ("failed", "rank 1: error: data: gone", True, "failed"),
        ("finished", "rank 1: error: of an earlier time", True, "stopped"),
    ],
)
def test_the_rank_that_failed_first_is_named(outcome: str, message: str, earlier: bool, state: str) -> None:
    """When one rank is killed the others fail too, a moment later or a moment earlier, by their own account."""
    last = Attempt(1500.0, job="7_0", outcome=outcome, message="rank 0: connection closed")
    last = replace(last, ended=1600.0 + (5 if earlier else -5)) if outcome else last
    found = state_of(seen(last=last, alone={"time": 1600.0, "message": message}))
    assert found[0] == state
    assert (found[1] == message) is (outcome != "finished")


def test_a_job_that_never_began_is_not_told_by_what_an_older_one_left() -> None:
    old = heart("failed", 900.0, message="of an older job")
    assert state_of(seen("FAILED", heart=old)) == ("failed", "it never began; see its log")
    assert state_of(seen("NODE_FAIL", heart=heart("failed", 1100.0, message="error: new"))) == ("failed", "error: new")
    assert state_of(seen(heart=old)) == ("lost", "its job is unknown to SLURM and never began")
    assert state_of(seen(heart=heart("stopped", 900.0)))[0] == "lost"


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({}, "unknown"),
        ({"heart": heart("stopped")}, "unknown"),
        ({"heart": heart()}, "unknown"),  # silent since 1970: its job may wait in the queue again
        ({"last": Attempt(1500.0, job="7_0", ended=1600.0, outcome="failed")}, "failed"),
        ({"heart": heart("finished"), "trained": True}, "finished"),
        ({"final": "CANCELLED"}, "cancelled"),
    ],
)
def test_where_slurm_does_not_answer_only_what_is_certain_is_told(more: dict[str, Any], state: str) -> None:
    found = state_of(seen(heard=False, **more))
    assert found[0] == state
    assert "unknown to SLURM" not in found[1]


def test_where_slurm_does_not_answer_a_heart_that_beats_is_believed() -> None:
    assert state_of(seen(heard=False, heart=heart(at=time.time() - STALE_S / 2)))[0] == "running"


@pytest.mark.parametrize(
    ("living", "more", "told"),
    [
        (("PENDING", "Priority"), {}, ("queued", "Priority")),
        (("COMPLETING", "None"), {}, ("ending", "")),
        (("COMPLETING", "None"), {"heart": heart("finished"), "trained": True}, ("ending", "")),
        (("RUNNING", "None"), {}, ("starting", "")),
        (("RUNNING", "None"), {"heart": heart(), "last": Attempt(1500.0, job="7_0")}, ("running", "")),
        (("RUNNING", "None"), {"heart": heart(), "last": Attempt(2500.0, job="7_0")}, ("starting", "")),
        (
            ("PENDING", "BeginTime"),
            {"last": Attempt(1500.0, job="7_0", ended=1600.0, outcome="preempted", requeued=True)},
            ("queued", "preempted and put back; BeginTime"),
        ),
    ],
)
def test_a_job_in_the_queue_is_told_by_what_the_queue_says(
    living: tuple[str, str], more: dict[str, Any], told: tuple[str, str]
) -> None:
    assert state_of(seen(living=living, **more)) == told


def test_a_trained_run_without_its_report_is_told_as_such() -> None:
    ended = Attempt(1500.0, job="7_0", ended=1600.0, outcome="finished")
    assert state_of(seen(last=ended))[1] == "finished at an earlier stop"
    trained = seen(last=ended, heart=heart("finished"), trained=True, evaluates=True)
    assert state_of(trained) == (
        "stopped",
        "trained, without the report that evaluate asks for: infogan sweep evaluate",
    )
    measuring = Job("9_0", "evaluate", 3000.0, ELSEWHERE)
    waits = replace(trained, evaluation=Evidence(measuring, living=("PENDING", "Priority")))
    assert state_of(waits) == ("evaluating", "queued: Priority")
    failed = Attempt(3100.0, "evaluate", "9_0", ended=3200.0, outcome="failed", message="error: no weights")
    broke = replace(trained, evaluates=False, evaluation=Evidence(measuring, failed))
    assert state_of(broke) == ("finished", "its evaluation failed: error: no weights")
    assert state_of(replace(broke, reported=True)) == ("finished", "")


# ---- attempts ----------------------------------------------------------------------------------------------------


def order_of(folder: Path, *, train: bool = True) -> Order:
    return Order(
        "abc", str(folder), str(folder), "", str(folder / "run"), "c0de", (), 1, 1, 1, 0, 3600, 60, "none", 100, (),
        None, train, {}, None,
    )  # fmt: skip


def test_jobs_that_train_and_evaluate_one_run_at_once_end_only_themselves(tmp_path: Path) -> None:
    training, evaluating = Record(tmp_path, "abc"), Record(tmp_path, "abc")
    training.begin(order_of(tmp_path), "7_0", 0, tmp_path / "train.log")
    evaluating.begin(order_of(tmp_path, train=False), "9_0", 0, tmp_path / "evaluate.log")
    training.end("7_0", 0, outcome="finished")
    evaluating.end("9_0", 0, outcome="failed", message="no weights")
    found = [(one.kind, one.job, one.outcome, one.message) for one in Record(tmp_path, "abc").attempts()]
    assert found == [("train", "7_0", "finished", ""), ("evaluate", "9_0", "failed", "no weights")]


def test_a_torn_line_swallows_nothing_that_follows(tmp_path: Path) -> None:
    record = Record(tmp_path, "abc")
    record.begin(order_of(tmp_path), "7_0", 0, tmp_path / "log")
    with record.path.open("ab") as file:
        file.write(b'{"event": "end", "ti')
    again = Record(tmp_path, "abc")
    again.begin(order_of(tmp_path), "8_0", 0, tmp_path / "log")
    again.end("8_0", 0, outcome="finished")
    assert [(one.job, one.outcome) for one in again.attempts()] == [("7_0", ""), ("8_0", "finished")]
    assert b"\n\n" not in record.path.read_bytes()


# ---- a sweep -----------------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path, slurm: Any, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A sweep of three runs, of which nothing was sent yet."""
    monkeypatch.chdir(tmp_path)
    runs = tuple(Run(f"{n}" * 10, {"seed": n}, Shape(), f"{n:064d}", "40 updates") for n in range(3))
    sweep = Sweep(tmp_path / "sweeps" / "mine", "mine", runs, Evaluation())
    sweeps.save(sweep)
    return sweep


def sent(sweep: Sweep, jobs: dict[str, str], kind: str = "train", at: float = 1000.0, holder: Any = None) -> None:
    """A submission of a past day."""
    folder = sweep.folder / "submissions"
    folder.mkdir(exist_ok=True)
    entry = {
        "format": 1, "time": at, "holder": asdict(holder or ELSEWHERE), "open": False, "kind": kind, "cluster": "c",
        "code": dict.fromkeys(jobs, "c0de"), "jobs": jobs,
    }  # fmt: skip
    (folder / f"{at}-{kind}.json").write_text(json.dumps(entry))


def begun(sweep: Sweep, run: Run, job: str) -> Record:
    record = Record(sweep.folder, run.id)
    record.begin(replace(order_of(sweep.folder), run_id=run.id), job, 0, sweep.folder / f"{job}.log")
    return record


def beat(sweep: Sweep, run: Run, found: Heartbeat) -> None:
    folder = sweep.run_folder(run) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": 1, "holder": asdict(found.holder), "facts": found.facts}
    (folder / "000001.json").write_text(json.dumps(content))


def infogan(*words: object) -> str:
    """What `infogan sweep WORDS` prints; its error is raised."""
    ended: Result = CliRunner().invoke(sweep_group, list(map(str, words)))
    if ended.exit_code != 0:
        raise ended.exception or AssertionError(ended.output)
    return ended.output


def state(sweep: Sweep) -> list[str]:
    return [run.state for run in status.look(sweep).runs]


def test_where_the_queue_does_not_answer_nothing_is_sent_or_cancelled_and_status_says_so(
    made: Sweep, slurm: Any
) -> None:
    sent(made, {made.runs[0].id: "7_0", made.runs[1].id: "7_1"})
    beat(made, made.runs[1], heart(at=time.time(), images=80, stop_images=160))
    slurm.says("squeue", code=1, error="Unable to contact slurm controller")
    slurm.says("sacct", "7_0|NODE_FAIL")  # of a job that is back in the queue, perhaps
    assert state(made) == ["unknown", "running", "waiting"]
    assert not (made.folder / "final.json").exists()
    told = infogan("status", made.folder)
    assert told.count("SLURM does not answer (squeue: Unable to contact slurm controller)") == 1
    assert json.loads(infogan("status", made.folder, "--json"))["slurm"].startswith("squeue: ")
    from slurm.verbs_send import _to_send

    with pytest.raises(UserError, match=r"^SLURM does not answer \(squeue: Unable .*\): nothing was sent; try again"):
        _to_send(made, ())
    with pytest.raises(UserError, match=r"nothing was cancelled; try again"):
        infogan("cancel", made.folder)
    assert slurm.calls("scancel") == []


def test_a_sweep_without_slurm_asks_nobody(made: Sweep, slurm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm.absent(monkeypatch)
    me = Holder.current()
    sent(made, {run.id: f"local-{me.pid}-5" for run in made.runs}, holder=me)
    found = status.look(made)
    assert found.unheard == ""
    assert [run.state for run in found.runs] == ["queued"] * 3


def test_what_accounting_said_once_is_kept_unless_the_queue_holds_the_job(made: Sweep, slurm: Any) -> None:
    sent(made, {made.runs[0].id: "7_0", made.runs[1].id: "7_1"})
    slurm.says("squeue", "7_1|PENDING|BeginTime")
    slurm.says("sacct", "7_0|CANCELLED by 0", "7_1|NODE_FAIL")
    assert state(made) == ["cancelled", "queued", "waiting"]
    assert slurm.calls("sacct")[-1].endswith("-j 7_0")
    slurm.says("sacct")
    assert state(made) == ["cancelled", "queued", "waiting"]
    assert json.loads((made.folder / "final.json").read_text()) == {"7_0": "CANCELLED by 0"}


def test_cancelling_reaches_waiting_runs_evaluations_and_runs_that_left_the_sweep(made: Sweep, slurm: Any) -> None:
    gone = "f" * 10
    sent(made, {made.runs[0].id: "5_0", gone: "5_1"})
    sent(made, {made.runs[0].id: "7_0", made.runs[1].id: "7_1"}, at=2000.0)
    sent(made, {made.runs[2].id: "9"}, kind="evaluate", at=3000.0)
    living = ["5_1|RUNNING|None", "7_0|PENDING|Priority", "7_1|RUNNING|None", "9|PENDING|Priority"]
    slurm.says("squeue", *living)
    assert state(made) == ["queued", "starting", "evaluating"]
    from slurm.verbs_send import _to_send

    runner = CliRunner()
    with runner.isolation() as outputs:
        assert _to_send(made, ()) == []
        said = outputs[0].getvalue().decode()
    assert f"1 runs are no part of the sweep any more and live on ({gone}): infogan sweep cancel" in said
    assert f"1 runs cancelled: {made.runs[0].id}" in infogan("cancel", made.folder, "000")
    assert slurm.calls("scancel") == ["--quiet 7_0"]
    slurm.says("squeue", *living[:1], *living[2:])
    assert state(made) == ["cancelled", "starting", "evaluating"]  # though accounting says nothing of it
    assert "3 runs cancelled" in infogan("cancel", made.folder)
    assert slurm.calls("scancel")[-1] == "--quiet 5_1 7_1 9"


def test_a_cancellation_that_failed_is_told_and_not_remembered(
    made: Sweep, slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(made, {made.runs[0].id: "7_0"})
    slurm.says("squeue", "7_0|RUNNING|None")
    slurm.says("scancel", code=1, error="scancel: error: Kill job error on job id 7_0: Access/permission denied")
    with pytest.raises(UserError, match=r"may not have ended all of it \(scancel: .*permission denied\)"):
        infogan("cancel", made.folder)
    monkeypatch.setattr(scheduler, "ANSWER_S", 0.2)
    with pytest.raises(scheduler.NoAnswer, match=r"scancel: no answer in 0.2 s"):
        slurm.says("scancel", wait=5)
        scheduler.cancel(["7_0"])
    assert not (made.folder / "final.json").exists()


def test_the_log_of_a_job_that_never_began_is_what_slurm_wrote(made: Sweep, slurm: Any) -> None:
    run = made.runs[0]
    record = begun(made, run, "5_0")
    record.end("5_0", 0, outcome="failed", message="of an older job")
    sent(made, {run.id: "5_0"}, at=time.time() - 100)
    sent(made, {run.id: "7_0"}, at=time.time() + 100)
    slurm.says("sacct", "7_0|FAILED")
    log = made.folder / "jobs" / "7_0_0_log.out"
    log.parent.mkdir(parents=True)
    log.write_text("bash: module: command not found\n")
    (found, *_) = status.look(made).runs
    assert (found.state, found.message, found.log) == ("failed", "it never began; see its log", str(log))
    told = infogan("why", made.folder, run.id).splitlines()
    assert told[1].startswith("log ")
    assert "  bash: module: command not found" in told


def test_runs_that_wait_for_their_turn_on_this_machine_are_queued_while_their_process_lives(made: Sweep) -> None:
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    import psutil

    holder = replace(Holder.current(), pid=started.pid, started=psutil.Process(started.pid).create_time())
    sent(made, {run.id: f"local-{started.pid}-5" for run in made.runs}, holder=holder)
    assert state(made) == ["queued"] * 3
    with pytest.raises(UserError, match=rf"process {started.pid} on .* runs it already: wait for it, or end it"):
        status.refuse_beside_local(made)
    started.kill()
    started.wait()
    assert state(made) == ["waiting"] * 3
    status.refuse_beside_local(made)


def test_a_process_elsewhere_counts_as_alive_while_it_gives_signs(made: Sweep) -> None:
    sent(made, {run.id: "local-12-5" for run in made.runs}, at=time.time() - 3600)
    assert state(made) == ["waiting"] * 3
    begun(made, made.runs[0], "local-12-5")
    beat(made, made.runs[0], heart(at=time.time() + 1))
    assert state(made) == ["running", "queued", "queued"]


def test_a_table_begins_with_what_wants_a_look_and_tells_silence(made: Sweep, slurm: Any) -> None:
    sent(made, {run.id: f"7_{n}" for n, run in enumerate(made.runs)})
    slurm.says("squeue", "7_0|PENDING|Priority", "7_1|RUNNING|None")
    slurm.says("sacct", "7_2|OUT_OF_MEMORY")
    begun(made, made.runs[1], "7_1")
    beat(made, made.runs[1], heart(at=time.time() + 1))
    lines = infogan("status", made.folder).splitlines()
    assert lines[0].startswith("sweep mine: 1 killed, 1 running, 1 queued")
    assert [line.split()[0] for line in lines[2:]] == [made.runs[n].id for n in (2, 1, 0)]
    assert "silent" not in "".join(lines)
    (found,) = [run for run in status.look(made).runs if run.state == "running"]
    assert any("running, silent for 1 min" in cell for cell in table._row(replace(found, silent_s=75.0)))
    only = infogan("status", made.folder, "--state", "queued", "--state", "failed").splitlines()
    assert [line.split()[0] for line in only[2:]] == [made.runs[0].id]
    assert (
        "there are failed, killed"
        in CliRunner().invoke(sweep_group, ["status", str(made.folder), "--state", "x"]).output
    )


def test_waiting_for_a_sweep_looks_once_per_round_and_tells_scripts_how_it_went(
    made: Sweep, slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(made, {run.id: f"7_{n}" for n, run in enumerate(made.runs)})
    slurm.says("squeue", "7_0|PENDING|Priority")
    slurm.says("sacct", *(f"7_{n}|CANCELLED" for n in range(3)))
    rounds: list[float] = []

    def pause(seconds: float) -> None:
        rounds.append(seconds)
        slurm.says("squeue")

    monkeypatch.setattr("slurm.verbs_look.time", SimpleNamespace(sleep=pause))
    for words in (["--wait"], ["--watch", "--every", "7"]):
        slurm.says("squeue", "7_0|PENDING|Priority")
        ended = CliRunner().invoke(sweep_group, ["status", str(made.folder), *words])
        assert ended.exit_code == (words == ["--wait"]), ended.output  # cancelled runs have not finished
    assert rounds == [30.0, 7.0]
    assert len(slurm.calls("squeue")) == 4
    (made.folder / "final.json").write_text(json.dumps({"7_0": "CANCELLED", "7_1": "FAILED", "7_2": "CANCELLED"}))
    ended = CliRunner().invoke(sweep_group, ["status", str(made.folder), "--wait"])
    assert ended.exit_code == 1
    assert "1 failed, 2 cancelled" in ended.output


def test_a_run_is_as_finished_as_its_newest_checkpoint_is_whole(made: Sweep) -> None:
    from slurm.runfolder import damage, newest_checkpoint

    folder = made.run_folder(made.runs[0]) / "checkpoints"
    (folder / "kimg-000001.000").mkdir(parents=True)
    (folder / "kimg-000001.000" / "manifest.json").write_text("{}")
    (folder / "kimg-000002.000").mkdir()
    assert newest_checkpoint(folder.parent)[0] == 1000
    assert damage(folder.parent) == ["kimg-000002.000 has no manifest.json"]
    assert state(made) == ["waiting"] * 3


def test_a_folder_without_a_sweep_says_where_else_one_may_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not submitted yet: .* or give the folder of --out"):
        sweeps.read(tmp_path)


def test_every_state_is_live_or_ended() -> None:
    assert set(states.LIVE) | set(states.SETTLED) | set(states.BAD) | {"stopped", "waiting"} == set(states.STATES)


def test_what_is_trained_and_has_no_report_is_evaluated_once(
    made: Sweep, slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine.yaml").write_text("base: paper/mnist\nevaluate: {when: run, samples: 20}\ncluster: slurm_cpu\n")
    delivered: list[list[str]] = []
    monkeypatch.setattr(
        "slurm.verbs_send._deliver", lambda sweep, runs, *rest, **more: delivered.append([r.id for r in runs])
    )
    monkeypatch.setattr("slurm.snapshot.take", lambda folder: None)
    trained = made.runs[:2]
    sent(made, {run.id: f"7_{n}" for n, run in enumerate(made.runs)})
    for n, run in enumerate(trained):
        beat(made, run, heart("finished", stop=run.stop))
        begun(made, run, f"7_{n}").end(f"7_{n}", 0, outcome="failed", message="error: no weights")
    infogan("evaluate", "mine.yaml")
    assert delivered.pop() == [run.id for run in trained]
    assert sweeps.read(made.folder).evaluate == Evaluation(when="run", samples=20)
    sent(made, {run.id: f"9_{n}" for n, run in enumerate(trained)}, kind="evaluate", at=3000.0)
    slurm.says("squeue", "9_0|PENDING|Priority", "9_1|COMPLETING|None")
    assert "no finished run is without a report; 2 are being evaluated" in infogan("evaluate", "mine.yaml")
    slurm.says("squeue", "9_1|RUNNING|None")
    infogan("evaluate", "mine.yaml")
    assert delivered.pop() == [trained[0].id]
    slurm.says("squeue", code=1, error="Unable to contact slurm controller")
    with pytest.raises(UserError, match=r"nothing was sent; try again"):
        infogan("evaluate", "mine.yaml")
    assert delivered == []


# ---- what lies damaged ------------------------------------------------------------------------------------------


def test_damaged_records_cost_only_themselves_and_are_told_once(
    made: Sweep, slurm: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other, third = made.runs
    sent(made, {run.id: f"7_{n}" for n, run in enumerate(made.runs)})
    record = begun(made, one, "7_0")
    with record.path.open("a") as file:
        file.write('[1]\n{}\n{"event": "begin", "time": 1, "images": "many"}\n{"event": "en\n')
    record.end("7_0", 0, outcome="failed", message="error: its own")
    (record.path.parent / f"{one.id}.rank1.json").write_text("[1")
    (record.path.parent / f"{one.id}.rank2.json").write_text("{}")
    begun(made, other, "7_1")
    (made.folder / "final.json").write_text('{"7_1": "CANC')
    slurm.says("sacct", "7_1|NODE_FAIL", "7_2|NODE_FAIL")
    beat(made, third, Heartbeat(1, ELSEWHERE, {"state": "training"}))
    told = [(run.state, run.message) for run in status.look(made).runs]
    assert told == [
        ("failed", "error: its own"),
        ("killed", "its node failed"),
        ("killed", "its node failed"),
    ]
    status.look(made)
    said = capsys.readouterr().err.splitlines()
    attempts, final = made.folder / "attempts", made.folder / "final.json"
    lease = made.run_folder(third) / FOLDER / "000001.json"
    files = [
        attempts / f"{one.id}.jsonl",
        attempts / f"{one.id}.rank1.json",
        attempts / f"{one.id}.rank2.json",
    ]
    assert len(said) == len(files) + 2
    for path in (*files, final, lease):
        assert sum(line.startswith(f"warning: {path}: ") for line in said) == 1
    assert all(line.endswith(": it counts as absent") for line in said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "damaged (Expecting value"),
        ("[1]", "damaged (sweep: [1]: must be a mapping"),
        ('{"format": 1}', "damaged (name: None: must be a text)"),
        ('{"format": "x"}', "damaged (format: 'x': must be 1)"),
        (
            '{"format": 1, "name": "a", "runs": [{"id": "a"}]}',
            "damaged (runs.0.digest: None: must be a text)",
        ),
        ('{"format": 1, "name": "a", "runs": 3}', "damaged (runs: 3: must be a list)"),
        (
            '{"format": 1, "name": "a", "runs": [], "evaluate": {"when": "soon"}}',
            "damaged (evaluate.when: 'soon'",
        ),
        (
            '{"format": 2}',
            "of format 2, and this version of infogan reads and writes 1",
        ),
    ],
)
def test_a_sweep_that_cannot_be_read_is_one_line_with_its_remedy(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(UserError) as caught:
        sweeps.read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'sweep.json'}: {said}")
    assert "submit SPEC writes it anew" in str(caught.value) or "the version that made it" in str(caught.value)


def test_values_of_a_run_must_be_a_mapping(made: Sweep) -> None:
    path = made.folder / "sweep.json"
    plain = json.loads(path.read_text())
    plain["runs"][1]["values"] = 3
    path.write_text(json.dumps(plain))
    with pytest.raises(
        UserError,
        match=r"damaged \(runs.1.values: 3: must be a mapping from settings to values\)",
    ):
        sweeps.read(made.folder)


def test_a_sweep_that_cannot_be_written_can_be_looked_at(
    made: Sweep, slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(made, {made.runs[0].id: "7_0"})
    slurm.says("sacct", "7_0|CANCELLED")

    def refuse(*_: Any) -> None:
        raise UserError("cannot write final.json: the file system is read-only")

    monkeypatch.setattr(status.atomic, "write_json", refuse)
    assert state(made) == ["cancelled", "waiting", "waiting"]


def test_a_run_that_saved_and_left_is_not_told_twice(made: Sweep) -> None:
    last = Attempt(1500.0, job="7_0", ended=1600.0, outcome="stopped")
    assert state_of(seen(last=last)) == ("stopped", "")
    assert state_of(seen(last=replace(last, outcome="preempted"))) == (
        "stopped",
        "preempted",
    )


def test_a_file_in_place_of_a_runs_folder_is_told(made: Sweep) -> None:
    first, second, _ = made.runs
    made.run_folder(first).parent.mkdir()
    made.run_folder(first).write_text("")
    (made.run_folder(second) / "checkpoints").parent.mkdir()
    (made.run_folder(second) / "checkpoints").write_text("")
    (made.run_folder(second) / FOLDER).write_text("")
    assert state(made) == ["waiting"] * 3
    assert "a file stands in place of its folder: it counts as absent" in infogan("why", made.folder, first.id)
