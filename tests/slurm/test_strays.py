"""A submission that is cut off at any point, and a folder that was removed: each run is in the queue once."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from shards.errors import UserError
from slurm import scheduler, submissions, submit
from slurm.verbs import sweep_group

# A queue in a file, in which nothing ever starts. KILL: when sbatch kills who called it, as `kill -9` would.
SBATCH = """#!/usr/bin/env python3
import os, re, signal, sys, time
from pathlib import Path
here = Path(__file__).parent
script = Path(sys.argv[-1]).read_text()
(here / "environment").write_text("\\n".join(os.environ))
kill = os.environ.get("KILL", "")
if kill == "before":
    os.kill(os.getppid(), signal.SIGKILL)
    sys.exit(1)
if kill == "slow":
    time.sleep(60)
if (here / "refusal").exists():
    sys.exit((here / "refusal").read_text())
comment = re.search("#SBATCH --comment='(.*)'", script)[1]
array = re.search("#SBATCH --array=0-(\\\\d+)", script)
number = 100 + len(list(here.glob("*.job")))
(here / f"{number}.job").write_text(script)
ids = [f"{number}_{n}" for n in range(int(array[1]) + 1)] if array else [str(number)]
with open(here / "queue", "a") as queue:
    queue.write("".join(f"{id}|{comment}\\n" for id in ids))
if kill == "after":
    os.kill(os.getppid(), signal.SIGKILL)
print("no such thing" if kill == "mute" else f"Submitted batch job {number}")
"""
SQUEUE = """#!/usr/bin/env python3
import sys
from pathlib import Path
here = Path(__file__).parent
if (here / "dead").exists():
    sys.exit("slurm_load_jobs error: Unable to contact slurm controller")
print("JOBID|COMMENT" if sys.argv[-1] == "%i|%k" else "JOBID|STATE|REASON")
queue = here / "queue"
for line in queue.read_text().splitlines() if queue.exists() else []:
    job, comment = line.split("|", 1)
    print(line if sys.argv[-1] == "%i|%k" else f"{job}|PENDING|Priority")
"""


class Cluster:
    """A sweep of three runs, and the programs of a SLURM that sends nothing anywhere."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        programs = {"sbatch": SBATCH, "squeue": SQUEUE, **dict.fromkeys(("srun", "scontrol", "sacct"), "#!/bin/sh\n")}
        for name, text in {**programs, "scancel": f'#!/bin/sh\necho "$@" > {self.bin}/cancelled\n'}.items():
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{self.bin}:{Path(sys.executable).parent}:/usr/bin:/bin")
        monkeypatch.chdir(folder)
        (folder / "mine.yaml").write_text("base: paper/mnist\nfixed: {stop: 40 updates}\nseeds: 3\n")
        (folder / "c.yaml").write_text("gpus_per_process: 0\narray_size: 2\n")
        self.words = ["submit", "mine.yaml", "--cluster", "c.yaml"]

    def killed(self, kill: str) -> None:
        """A submission that is killed when its sbatch is at work."""
        command = [sys.executable, "-m", "launch.cli", "sweep", *self.words]
        ended = subprocess.run(command, env={**os.environ, "KILL": kill}, capture_output=True, check=False)
        assert ended.returncode == -signal.SIGKILL, ended.stderr

    def __call__(self, *words: str) -> str:
        ended = CliRunner().invoke(sweep_group, list(words) or self.words)
        if ended.exit_code != 0:
            raise ended.exception or AssertionError(ended.output)
        return ended.output

    def queued(self) -> list[str]:
        path = self.bin / "queue"
        return [line.split("|")[0] for line in path.read_text().splitlines()] if path.exists() else []

    def runs(self) -> dict[str, str]:
        """The run of each job that is queued, by the order that it would find."""
        from submitit.core.utils import DelayedSubmission, JobPaths

        jobs = self.folder / "sweeps" / "mine" / "jobs"
        return {
            job: DelayedSubmission.load(JobPaths(jobs, job).submitted_pickle).function.order.run_id  # type: ignore[attr-defined]
            for job in self.queued()
        }


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


def assert_each_once(cluster: Cluster) -> None:
    runs = cluster.runs()
    states = json.loads(cluster("status", "mine.yaml", "--json"))["runs"]
    assert Counter(runs.values()) == Counter(run["id"] for run in states)
    assert {run["job"]: run["id"] for run in states} == runs
    assert {run["state"] for run in states} == {"queued"}


@pytest.mark.parametrize("kill", ["before", "after"])
def test_a_submission_that_is_killed_while_it_sends_ends_in_each_run_queued_once(cluster: Cluster, kill: str) -> None:
    cluster.killed(kill)
    assert len(cluster.queued()) == (2 if kill == "after" else 0)
    said = cluster()
    assert ("job 100: 2 runs, sent by a submission that was cut off, are known now" in said) == (kill == "after")
    assert_each_once(cluster)
    assert "nothing to submit" in cluster()
    assert_each_once(cluster)


def test_who_cancels_after_a_kill_ends_also_what_was_not_noted(cluster: Cluster) -> None:
    cluster.killed("after")
    said = cluster("cancel", "mine.yaml")
    assert "job 100: 2 runs, sent by a submission that was cut off, are known now" in said
    assert "2 runs cancelled" in said
    assert (cluster.bin / "cancelled").read_text().split() == ["--quiet", "100_0", "100_1"]


def test_a_disk_that_is_full_when_jobs_are_to_be_noted_sends_none_twice(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:

        def refuse(self: submissions.Turn, jobs: object) -> None:
            raise UserError("cannot write: the disk is full")

        full.setattr(submissions.Turn, "note", refuse)
        with pytest.raises(UserError, match="the disk is full"):
            cluster()
    cluster()
    assert_each_once(cluster)


def test_where_the_queue_does_not_answer_after_a_kill_nothing_is_sent(cluster: Cluster) -> None:
    cluster.killed("after")
    (cluster.bin / "dead").touch()
    with pytest.raises(UserError, match=r"^SLURM does not answer \(squeue: .*\): nothing was sent; try again$"):
        cluster()
    assert len(cluster.queued()) == 2


def test_jobs_of_a_folder_that_was_removed_are_refused_and_those_of_others_are_not(cluster: Cluster) -> None:
    cluster()
    assert len(cluster.queued()) == 3
    (cluster.folder / "sweeps" / "mine").rename(cluster.folder / "gone")
    with pytest.raises(
        UserError, match=r"jobs of this folder that it does not know.*scancel 100 101 ends them"
    ) as told:
        cluster()
    assert "\n" not in str(told.value)
    assert len(cluster.queued()) == 3
    assert "3 runs sent" in cluster(*cluster.words, "--out", "other")
    (cluster.bin / "queue").unlink()
    assert "3 runs sent" in cluster()


def test_while_the_sbatch_of_a_killed_submission_lives_nothing_is_sent(cluster: Cluster) -> None:
    cluster.killed("after")
    jobs = cluster.folder / "sweeps" / "mine" / "jobs"
    waits = [sys.executable, "-c", "import time; time.sleep(60)", str(jobs / ".submission_file_00.sh")]
    with subprocess.Popen(waits) as late:
        try:
            with pytest.raises(UserError, match=rf"its sbatch, process {late.pid}, is at work still: wait for it"):
                cluster()
        finally:
            late.kill()
    cluster()
    assert_each_once(cluster)


@pytest.mark.parametrize("content", ["", "[]", "{", "{}", '{"time": 1}', "null", '"x"'])
def test_a_torn_record_of_a_submission_is_named_and_sends_nothing_twice(cluster: Cluster, content: str) -> None:
    cluster()
    (path,) = (cluster.folder / "sweeps" / "mine" / "submissions").iterdir()
    path.write_text(content)
    for more in ([], ["--dry-run"]):
        with pytest.raises(UserError, match=r"^sweeps/mine/submissions/.*\.json: damaged: .* remove it"):
            cluster(*cluster.words, *more)
    ended = CliRunner().invoke(sweep_group, ["status", "mine.yaml", "--json"])
    assert ended.exit_code == 0
    assert ended.stderr.startswith("warning: sweeps/mine/submissions/")
    assert [run["state"] for run in json.loads(ended.stdout)["runs"]] == ["waiting"] * 3
    path.unlink()
    with pytest.raises(UserError, match="scancel 100 101 ends them"):
        cluster()


def test_slurms_refusal_is_said_once(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    refusal = "sbatch: error: Batch job submission failed: Invalid account\n"
    (cluster.bin / "refusal").write_text(refusal)
    with pytest.raises(UserError, match=r"^SLURM refused the jobs: sbatch: error: Batch job .*: Invalid account$"):
        cluster()
    assert "Invalid account" not in "".join(capfd.readouterr())
    (cluster.bin / "refusal").unlink()
    cluster()
    assert_each_once(cluster)


def test_an_sbatch_that_never_returns_or_names_no_job_is_told_and_asked_about(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "SENDING_S", 1.0)
    monkeypatch.setenv("KILL", "slow")
    with pytest.raises(UserError, match=r"^sbatch has not answered in 1 s: run the same command again, which asks"):
        cluster()
    monkeypatch.setenv("KILL", "mute")
    with pytest.raises(UserError, match=r"^sbatch has told no number of a job: .*: run the same command again"):
        cluster()
    monkeypatch.delenv("KILL")
    cluster()
    assert_each_once(cluster)


def test_what_a_users_environment_says_to_sbatch_does_not_overrule_the_script(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for word in ("WAIT", "COMMENT", "OUTPUT", "ACCOUNT", "PARTITION", "MEM_PER_CPU", "EXCLUDE"):
        monkeypatch.setenv(f"SBATCH_{word}", "x")
    (cluster.folder / "c.yaml").write_text(
        "gpus_per_process: 0\npartition: long\nmemory_per_process: 1G\nsbatch: {exclude: n7}\n"
    )
    cluster()
    found = {name for name in (cluster.bin / "environment").read_text().split() if name.startswith("SBATCH_")}
    assert found == {"SBATCH_ACCOUNT"}
    assert os.environ["SBATCH_WAIT"] == "x"


def test_a_users_own_comment_stands_before_ours(cluster: Cluster) -> None:
    (cluster.folder / "c.yaml").write_text("gpus_per_process: 0\nsbatch: {comment: project 7}\n")
    cluster()
    comment = re.search("--comment='(.*)'", (cluster.bin / "100.job").read_text())
    assert comment is not None
    assert re.fullmatch(r"project 7; infogan \S+ array 0 of \S+/sweeps/mine", comment[1])
    cluster()
    assert_each_once(cluster)


def test_a_slurm_that_is_slow_is_told_once_and_not_on_stdout(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scheduler, "SLOW_S", 0.1)
    monkeypatch.setattr(scheduler, "_told", [])
    (cluster.bin / "squeue").write_text("#!/bin/sh\nsleep 0.5\necho 'JOBID|STATE|REASON'; echo '7_0|PENDING|x'\n")
    assert scheduler.live(["7_0"]) == {"7_0": ("PENDING", "x")}
    assert scheduler.live(["7_0"]) == {"7_0": ("PENDING", "x")}
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "waiting for SLURM: squeue has not answered yet, and has 60 s\n"
