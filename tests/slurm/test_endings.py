"""What becomes of a run that was stopped: it goes on where it can, and says why where it cannot."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from slurm import job as jobs
from slurm import supervisor
from slurm.attempts import Record
from slurm.cluster import Cluster, Preemption
from slurm.order import Order, order_for
from slurm.shape import Shape
from slurm.snapshot import Snapshot
from slurm.spec import Evaluation
from slurm.supervisor import Ending, Signals, supervise
from slurm.sweep import Run, Sweep


def order_of(folder: Path, **more: Any) -> Order:
    facts: dict[str, Any] = {
        "run_id": "abc", "sweep": str(folder), "folder": str(folder), "config": "", "run": str(folder / "run"),
        "code": "c0de", "plugins": (), "nodes": 1, "processes": 1, "cpus": 1, "gpus": 0,
        "time_s": 3600, "notice_s": 60, "requeue": "submitit", "timeouts": 100, "stop_if": (), "evaluate": None,
        "train": True, "environment": {}, "scratch": None,
    }  # fmt: skip
    return Order(**(facts | more))


class Place:
    """A task of a job as submitit shows it."""

    num_tasks, job_id = 1, "7_0"

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.global_rank = self.node = rank
        self.local_rank = 0
        self.requeued = 0
        self.paths = type("Paths", (), {"stdout": folder / "log.out"})


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Place, dict[str, Any]]]:
    """Lets a task of a run be stopped after having saved; what it asked of SLURM, and what it recorded."""

    def stop(
        facts: dict[str, str],
        *,
        ran_s: float = 10,
        scontrol: bool = True,
        images: int = 80,
        refused: str = "",
        stays: str = "",
        ending: Ending | None = None,
        rank: int = 0,
        **order: Any,
    ) -> tuple[Place, dict[str, Any]]:
        place = Place(tmp_path, rank)

        def requeue(job: str) -> str:
            place.requeued += 1
            return refused

        monkeypatch.setattr(jobs, "JobEnvironment", lambda: place)
        monkeypatch.setattr(jobs, "job_facts", lambda job: facts)
        monkeypatch.setattr(jobs, "WAIT_S", 0.01)
        monkeypatch.setattr(jobs, "GONE_S", 0.2)
        monkeypatch.setattr(jobs.scheduler, "requeue", requeue)
        monkeypatch.setattr(jobs.Task, "_stays", lambda task: stays)
        monkeypatch.setattr(jobs.shutil, "which", lambda name: "/bin/scontrol" if scontrol else None)
        task = jobs.Task(order_of(tmp_path, **order), Signals())
        task.began -= ran_s
        task.record.begin(task.order, "7_0", 0, task.log)
        saved = tmp_path / "run" / "checkpoints" / f"kimg-000000.{images:03d}"
        saved.mkdir(parents=True, exist_ok=True)
        (saved / "manifest.json").write_text("{}")
        if ending is None:
            task._stopped(Ending("stopped"))
        else:
            with pytest.raises(SystemExit):
                task._bereft(ending)
        return place, json.loads((tmp_path / "attempts" / "abc.jsonl").read_text().splitlines()[-1])

    return stop


PREEMPTED = {"JobState": "RUNNING", "PreemptTime": "2026-11-24T12:35:54"}
RUNNING = {"JobState": "RUNNING", "PreemptTime": "None"}


def test_a_preempted_run_is_put_back(stopped: Callable[..., Any]) -> None:
    place, end = stopped(PREEMPTED)
    assert (place.requeued, end["outcome"], end["requeued"], end["images_after"]) == (1, "preempted", True, 80)


@pytest.mark.parametrize("signal", ["USR2", "TERM"])
def test_a_run_at_its_time_limit_is_put_back_as_often_as_the_cluster_file_allows(
    tmp_path: Path, stopped: Callable[..., Any], signal: Literal["USR2", "TERM"]
) -> None:
    """Whichever signal gives notice of it."""
    cluster = Cluster(preemption=Preemption(signal=signal, notice_s=600, timeouts=1))
    run = Run("abc", {}, Shape(), "", "40 updates")
    order = order_for(
        Sweep(tmp_path, "mine", (run,), Evaluation()), run, cluster, Snapshot("c0de", tmp_path / "code", ())
    )
    noticed = {"ran_s": 2950, "notice_s": order.notice_s, "timeouts": order.timeouts}
    place, end = stopped(RUNNING, **noticed)
    assert (place.requeued, end["outcome"], end["requeued"]) == (1, "timed out", True)
    place, end = stopped(RUNNING, images=160, **noticed)
    assert (place.requeued, end["outcome"], end["requeued"]) == (0, "timed out", False)


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING"])
def test_a_cancelled_run_is_not_put_back(stopped: Callable[..., Any], state: str) -> None:
    place, end = stopped({"JobState": state, "Restarts": "0"}, ran_s=1800)
    assert (place.requeued, end["outcome"], end["requeued"]) == (0, "cancelled", False)


def test_a_run_that_slurm_has_taken_back_already_is_left_to_it(stopped: Callable[..., Any]) -> None:
    """GraceTime 0: SLURM sends SIGTERM when the job is already on its way back into the queue."""
    place, end = stopped({"JobState": "COMPLETING", "Restarts": "1"})
    assert (place.requeued, end["outcome"], end["requeued"]) == (0, "preempted", True)


def test_a_run_that_slurm_ends_at_its_limit_without_notice_is_put_back(stopped: Callable[..., Any]) -> None:
    place, end = stopped({"JobState": "COMPLETING", "Restarts": "0"}, ran_s=3595)
    assert (place.requeued, end["outcome"], end["requeued"]) == (1, "timed out", True)


def test_without_scontrol_a_preempted_run_is_left_to_slurm(stopped: Callable[..., Any]) -> None:
    place, end = stopped({}, scontrol=False)
    assert (place.requeued, end["outcome"], end["requeued"]) == (0, "preempted", True)
    assert end["message"] == "left to SLURM to requeue"


@pytest.mark.parametrize(
    ("order", "scontrol", "said"),
    [
        ({"requeue": "none"}, True, "infogan sweep submit goes on with it"),
        ({"requeue": "slurm"}, True, "SLURM requeues nothing after a time limit: infogan sweep submit goes on with it"),
        ({}, False, "no scontrol on this node: infogan sweep submit goes on with it"),
        ({"timeouts": 0}, True, "this was time limit 1, and preemption.timeouts allows 0"),
    ],
)
def test_a_run_that_cannot_go_on_after_a_time_limit_says_why(
    stopped: Callable[..., Any], order: dict[str, Any], scontrol: bool, said: str
) -> None:
    place, end = stopped(RUNNING, ran_s=3500, scontrol=scontrol, **order)
    assert (place.requeued, end["outcome"], end["requeued"]) == (0, "timed out", False)
    assert said in end["message"]


def test_a_run_that_is_timed_out_five_times_goes_on_as_long_as_it_makes_progress(stopped: Callable[..., Any]) -> None:
    """submitit by itself ends a run at its fourth."""
    for time_limit in range(5):
        place, end = stopped(RUNNING, ran_s=3500, images=80 * (1 + time_limit))
        assert (place.requeued, end["outcome"], end["requeued"]) == (1, "timed out", True)


def test_a_run_that_makes_no_progress_between_time_limits_ends_and_says_so(stopped: Callable[..., Any]) -> None:
    requeued = [stopped(RUNNING, ran_s=3500)[0].requeued for _ in range(4)]
    assert requeued == [1, 1, 1, 0]  # the first one began without a checkpoint
    _, end = stopped(RUNNING, ran_s=3500)
    assert "3 attempts in a row ended at their time limit of 60 minutes without a new checkpoint" in end["message"]


def test_time_limits_of_training_and_of_evaluation_are_counted_apart(stopped: Callable[..., Any]) -> None:
    for time_limit in range(3):
        place, _ = stopped(RUNNING, ran_s=3500, images=80 * (1 + time_limit), timeouts=3)
        assert place.requeued == 1
    evaluates = {"train": False, "evaluate": (), "timeouts": 3, "images": 240}
    assert [stopped(RUNNING, ran_s=3500, **evaluates)[0].requeued for _ in range(2)] == [1, 1]
    place, end = stopped(RUNNING, ran_s=3500, **evaluates)
    assert (place.requeued, end["outcome"]) == (0, "timed out")
    assert "3 attempts in a row ended at their time limit of 60 minutes without a report" in end["message"]
    assert end["message"].endswith("raise time, then infogan sweep evaluate")
    _, end = stopped(RUNNING, ran_s=3500, timeouts=3, images=320)
    assert "this was time limit 4, and preemption.timeouts allows 3" in end["message"]


def test_a_run_one_of_whose_ranks_was_killed_is_not_put_back(tmp_path: Path, stopped: Callable[..., Any]) -> None:
    """srun sends SIGTERM to the other ranks then, as a preemption does."""
    Record(tmp_path, "abc").fail_alone(1, "node1", "7_0", 0, "rank 1: the training process was ended by SIGKILL")
    with pytest.raises(SystemExit):
        stopped(RUNNING)
    end = json.loads((tmp_path / "attempts" / "abc.jsonl").read_text().splitlines()[-1])
    assert (end["outcome"], end["requeued"]) == ("killed", False)
    assert end["message"] == "rank 1: the training process was ended by SIGKILL"


def test_a_preemption_without_progress_is_nobodys_fault(stopped: Callable[..., Any]) -> None:
    assert [stopped(PREEMPTED)[0].requeued for _ in range(6)] == [1] * 6


# ---- a node is gone --------------------------------------------------------------------------------------------

BEREFT = Ending("killed", "error: rank 1 (process 7 on node2) is gone or stopped", bereft=True)


def test_a_run_whose_node_is_gone_is_put_back(stopped: Callable[..., Any]) -> None:
    place, end = stopped(RUNNING, ending=BEREFT, nodes=2)
    assert (place.requeued, end["outcome"], end["requeued"]) == (1, "node failure", True)
    assert end["message"] == BEREFT.message


def test_where_rank_0s_node_is_gone_the_first_that_is_left_puts_the_run_back(stopped: Callable[..., Any]) -> None:
    place, end = stopped(RUNNING, ending=BEREFT, nodes=3, rank=1)
    assert (place.requeued, end["outcome"], end["requeued"]) == (1, "node failure", True)


def test_only_one_task_decides_what_becomes_of_a_run(
    tmp_path: Path, stopped: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 has put the run back while the first task of the second node was waiting for that."""
    monkeypatch.setattr(Record, "begin", lambda *_: None)
    (tmp_path / "attempts").mkdir()
    lines = [
        {"event": "begin", "job": "7_0"},
        {"event": "end", "job": "7_0", "outcome": "node failure", "requeued": True},
    ]
    text = "".join(json.dumps({"time": time.time(), **line}) + "\n" for line in lines)
    (tmp_path / "attempts" / "abc.jsonl").write_text(text)
    place, _ = stopped(RUNNING, ending=BEREFT, nodes=3, rank=1)
    assert place.requeued == 0
    assert (tmp_path / "attempts" / "abc.jsonl").read_text() == text


def test_a_trainer_that_was_killed_on_a_living_node_is_no_node_failure(
    tmp_path: Path, stopped: Callable[..., Any]
) -> None:
    Record(tmp_path, "abc").fail_alone(1, "node2", "7_0", 0, "rank 1: the training process was ended by SIGKILL")
    place, end = stopped(RUNNING, ending=BEREFT, nodes=2)
    assert (place.requeued, end["outcome"], end["requeued"]) == (0, "killed", False)
    assert end["message"] == "rank 1: the training process was ended by SIGKILL"


@pytest.mark.parametrize(("living", "outcome", "requeued"), [(3, "killed", 0), (2, "node failure", 1)])
def test_a_run_that_hangs_on_nodes_that_all_live_is_no_node_failure(
    tmp_path: Path, stopped: Callable[..., Any], living: int, outcome: str, requeued: int
) -> None:
    hangs = Ending("killed", "error: no process has moved for 30 s", bereft=True)
    for rank in range(1, 1 + living):
        Record(tmp_path, "abc").fail_alone(rank, "node", "7_0", 0, hangs.message, bereft=True)
    place, end = stopped(RUNNING, ending=hangs, nodes=2, processes=2)
    assert (place.requeued, end["outcome"], end["message"]) == (requeued, outcome, hangs.message)


def test_a_rank_that_another_ones_end_has_ended_says_that_it_lives(
    tmp_path: Path, stopped: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the record's first line, of another machine, is not to be seen yet."""
    monkeypatch.setattr(Record, "begin", lambda *_: None)
    place, _ = stopped(RUNNING, ending=BEREFT, nodes=2, rank=1)
    assert place.requeued == 1
    record = Record(tmp_path, "abc")
    assert (record.bereft("7_0", 0), record.bereft("7_0", 1), record.failed_alone("7_0", 0)) == (1, 0, None)


def test_a_run_whose_nodes_fail_again_and_again_without_a_checkpoint_ends_and_says_so(
    stopped: Callable[..., Any],
) -> None:
    found = [stopped(RUNNING, ending=BEREFT, nodes=2) for _ in range(4)]
    assert [place.requeued for place, _ in found] == [1, 1, 1, 0]
    assert found[-1][1]["outcome"] == "killed"
    assert "3 attempts in a row ended without a new checkpoint, this one by a node's failure" in found[-1][1]["message"]
    place, end = stopped(RUNNING, ending=BEREFT, nodes=2, images=160)
    assert (place.requeued, end["outcome"]) == (1, "node failure")


def test_a_user_who_cancels_a_run_whose_node_is_gone_gets_no_new_one(stopped: Callable[..., Any]) -> None:
    place, end = stopped({"JobState": "COMPLETING", "Restarts": "0"}, ending=BEREFT, nodes=2)
    assert (place.requeued, end["outcome"]) == (0, "cancelled")


# ---- what SLURM refuses ----------------------------------------------------------------------------------------


def test_a_run_that_slurm_does_not_put_back_says_why(
    stopped: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "RETRY_S", 0.5)
    place, end = stopped(
        PREEMPTED, refused="scontrol requeue: slurm_requeue error: Requested operation is disabled", notice_s=1
    )
    assert place.requeued >= 2
    assert (end["outcome"], end["requeued"]) == ("preempted", False)
    assert end["message"] == (
        "scontrol requeue: slurm_requeue error: Requested operation is disabled: infogan sweep submit goes on with it"
    )
    _, end = stopped(PREEMPTED, stays="SLURM has not taken the job back in 300 s")
    assert (end["requeued"], end["message"][:41]) == (False, "SLURM has not taken the job back in 300 s")


def test_a_task_leaves_once_slurm_is_ending_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "JobEnvironment", lambda: Place(tmp_path))
    states = iter(["RUNNING", "COMPLETING"])
    monkeypatch.setattr(jobs, "job_facts", lambda job: {"JobState": next(states)})
    signals = Signals()
    threading.Timer(0.3, signals.stop, ["SIGTERM"]).start()
    began = time.monotonic()
    assert jobs.Task(order_of(tmp_path), signals)._stays() == ""
    assert 0.2 < time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("facts", "outcome"),
    [
        ({"RunTime": "00:59:10", "TimeLimit": "01:00:00"}, "timed out"),  # a minute of Python after a long setup
        ({"RunTime": "00:59:10", "TimeLimit": "1-00:00:00"}, "preempted"),  # raised since by scontrol update
        ({"RunTime": "00:59:55", "JobState": "COMPLETING"}, "timed out"),
    ],
)
def test_slurm_is_asked_how_long_a_job_has_run(
    stopped: Callable[..., Any], facts: dict[str, str], outcome: str
) -> None:
    assert stopped(RUNNING | facts, ran_s=60)[1]["outcome"] == outcome


def test_an_error_of_the_supervisor_itself_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "JobEnvironment", lambda: Place(tmp_path))
    (tmp_path / "config.yaml").write_text("batch: 8\n")
    order = replace(order_of(tmp_path, config=str(tmp_path / "config.yaml")), folder=str(tmp_path / "gone"))
    with pytest.raises(SystemExit):
        jobs.Task(order, Signals()).run()
    end = json.loads((tmp_path / "attempts" / "abc.jsonl").read_text().splitlines()[-1])
    assert end["outcome"] == "failed"
    assert "No such file or directory" in end["message"]
    assert "gone" in end["message"]


def test_jobs_beside_each_other_meet_at_ports_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path)
    place.num_tasks = 2
    monkeypatch.setattr(jobs, "JobEnvironment", lambda: place)
    monkeypatch.setattr(
        jobs,
        "TorchDistributedEnvironment",
        lambda: type(
            "Found", (), {"master_addr": "a", "rank": 0, "world_size": 2, "local_rank": 0, "local_world_size": 2}
        ),
    )
    found = []
    for job in range(70000, 70064):
        monkeypatch.setenv("SLURM_JOB_ID", str(job))
        found.append(int(jobs.Task(order_of(tmp_path, processes=2), Signals())._distributed()["MASTER_PORT"]))
    assert len(set(found)) == 64


# ---- one child -------------------------------------------------------------------------------------------------


def child(folder: Path, code: str, signals: Signals | None = None, **order: Any) -> Ending:
    """How a child that runs this Python ends in the supervisor's eyes."""
    log = folder / "child.log"
    with log.open("ab") as output:
        return supervise(
            order_of(folder, **order), [sys.executable, "-u", "-c", code], signals or Signals(), os.environ, log,
            watches=True, output=output,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "outcome", "said"),
    [
        ("", "finished", ""),
        ("import sys; sys.exit(143)", "stopped", ""),
        (
            "import sys; print('error: data: gone; bring it', file=sys.stderr); sys.exit(2)",
            "failed",
            "error: data: gone",
        ),
        ("raise RuntimeError('a fault of ours')", "failed", "RuntimeError: a fault of ours"),
        ("import os; os.kill(os.getpid(), 9)", "killed", "ended by SIGKILL, as when memory runs out"),
        ("import os; os.kill(os.getpid(), 11)", "killed", "ended by SIGSEGV"),
    ],
)
def test_how_a_child_ended_is_told(tmp_path: Path, code: str, outcome: str, said: str) -> None:
    ending = child(tmp_path, code)
    assert ending.outcome == outcome
    assert said in ending.message


def test_an_error_of_an_earlier_start_is_not_this_ones(tmp_path: Path) -> None:
    (tmp_path / "child.log").write_text("error: an old story\n")
    assert child(tmp_path, "import sys; sys.exit(7)").message == "the training process ended with code 7"


def test_a_signal_before_the_child_listens_costs_nothing(tmp_path: Path) -> None:
    signals = Signals()
    signals.stop("SIGUSR2")
    assert child(tmp_path, "import time; time.sleep(60)", signals).outcome == "stopped"


@pytest.mark.parametrize("name", ["SIGUSR2", "SIGTERM"])
def test_a_child_that_does_not_save_in_time_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    deaf = f"import signal, time; signal.signal(signal.{name}, signal.SIG_IGN); open('deaf', 'w'); time.sleep(60)"
    signals = Signals()
    send = supervisor.send

    def once_deaf(process: Any, number: signal.Signals) -> None:
        while not (tmp_path / "deaf").exists():
            time.sleep(0.02)
        send(process, signal.Signals[name])

    monkeypatch.setattr(supervisor, "send", once_deaf)
    signals.stop(name)
    ending = child(tmp_path, deaf, signals, notice_s=2)
    assert (ending.outcome, ending.message[:31]) == ("stopped", "it had not saved in time and wa")


def test_a_signal_that_gives_no_notice_leaves_the_child_all_the_time_it_needs(tmp_path: Path) -> None:
    """preemption.signal none, or no cluster: nobody takes the machine away at a moment that is known."""
    saves = "import signal, sys, time; signal.signal(signal.SIGUSR2, lambda *_: (time.sleep(1), sys.exit(143))); "
    signals = Signals()
    threading.Timer(1.0, signals.stop, ["SIGUSR2"]).start()
    ending = child(tmp_path, saves + "time.sleep(60)", signals, notice_s=0)
    assert (ending.outcome, ending.message) == ("stopped", "")


def test_a_child_that_another_processs_end_has_ended_says_so(tmp_path: Path) -> None:
    ending = child(tmp_path, "import sys; print('error: rank 1 is gone', file=sys.stderr); sys.exit(75)")
    assert ending == Ending("killed", "error: rank 1 is gone", bereft=True)


def test_a_hopeless_run_is_told_to_save_and_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HOPELESS_S", 0.1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"kimg": 300.0, "mi/digit": 0.1}\n')
    ending = child(tmp_path, "import time; time.sleep(60)", stop_if=("mi/digit < 0.5 after 200 kimg",))
    assert ending.outcome == "hopeless"
    assert ending.message == "mi/digit was 0.1 at 300 kimg: stop_if 'mi/digit < 0.5 after 200 kimg'"


def test_a_rank_that_fails_alone_is_remembered(tmp_path: Path) -> None:
    record = Record(tmp_path, "abc")
    record.fail_alone(3, "node2", "7_0", 1, "rank 3: ended by SIGKILL")
    found = record.failed_alone("7_0", 1)
    assert found is not None
    assert (found["rank"], found["host"]) == (3, "node2")
    assert record.failed_alone("7_0", 2) is None
