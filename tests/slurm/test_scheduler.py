"""SLURM is asked in a way that leaves nothing out, and what is no answer is none."""

from typing import Any

import pytest

from slurm import scheduler


@pytest.mark.parametrize(
    "answer",
    [
        "", "slurm_load_jobs error: Unable to contact slurm controller\n", "Bonjour le monde\n", "7_0|PEND",
        "JOBID|STATE|REASON\n7_0|PENDING|x\n7_", "\xe9",
    ],
)  # fmt: skip
def test_what_is_no_list_of_jobs_says_nothing_of_them(slurm: Any, answer: str) -> None:
    """squeue ended well, and so would all jobs seem to have."""
    (slurm.folder / "answer").write_bytes(answer.encode("latin-1"))
    (slurm.folder / "squeue").write_text(f"#!/bin/sh\ncat {slurm.folder / 'answer'}\n")
    for ask in (lambda: scheduler.live(["7_0"]), scheduler.mine):
        with pytest.raises(scheduler.NoAnswer, match=r"^squeue: no list of jobs but "):
            ask()


def test_a_users_own_filters_hide_no_job(slurm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SQUEUE_STATES", "SCANCEL_STATE", "SLURM_CLUSTERS", "SLURM_CONF"):
        monkeypatch.setenv(name, "x")
    for program in ("squeue", "scancel"):
        text = f"#!/bin/sh\nenv > {slurm.folder / program}.env\necho 'JOBID|STATE|REASON'\n"
        (slurm.folder / program).write_text(text)
    scheduler.live(["7_0"])
    scheduler.cancel(["7_0"])
    for program in ("squeue", "scancel"):
        seen = {line.partition("=")[0] for line in (slurm.folder / f"{program}.env").read_text().splitlines()}
        assert seen & {"SQUEUE_STATES", "SCANCEL_STATE", "SLURM_CLUSTERS", "SLURM_CONF"} == {"SLURM_CONF"}


@pytest.mark.parametrize(("told", "size"), [("1001", 1001), ("0", 1), ("\xb2", None), ("many", None)])
def test_the_largest_array_is_what_slurm_says(slurm: Any, told: str, size: int | None) -> None:
    (slurm.folder / "answer").write_bytes(f"Cl\xe9 = 1\nMaxArraySize = {told}\n".encode("latin-1"))
    (slurm.folder / "scontrol").write_text(f"#!/bin/sh\ncat {slurm.folder / 'answer'}\n")
    (slurm.folder / "scontrol").chmod(0o755)
    assert scheduler.largest_array() == size


@pytest.mark.parametrize("state", ["COMPLETING", "REQUEUED", "RUNNING", "PENDING", "RESIZING", "", "UNKNOWN"])
def test_accounting_is_believed_only_where_it_says_that_a_job_is_over(slurm: Any, state: str) -> None:
    slurm.says("sacct", f"7_0|{state}", "7_1|CANCELLED by 1000", "8_0|FAILED")
    assert scheduler.ended(["7_0", "7_1"]) == {"7_1": "CANCELLED by 1000"}
    assert slurm.calls("sacct") == ["-X -n -P -o JobID,State -j 7_0,7_1"]


def test_the_queue_is_asked_for_jobs_and_not_for_a_user(slurm: Any) -> None:
    slurm.says("squeue", "7_0|PENDING|Priority", "7_1|RUNNING|None", "9|RUNNING|None")
    assert scheduler.live(["7_0", "7_2", "9"]) == {"7_0": ("PENDING", "Priority"), "9": ("RUNNING", "None")}
    (call,) = slurm.calls("squeue")
    assert "--jobs 7,9" in call
    assert "user" not in call


def test_jobs_that_slurm_has_forgotten_are_no_failure_to_answer(slurm: Any) -> None:
    slurm.says("squeue", code=1, error="slurm_load_jobs error: Invalid job id specified")
    assert scheduler.live(["7_0"]) == {}


def test_a_queue_that_does_not_answer_is_not_an_empty_one(slurm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm.says("squeue", code=1, error="slurm_load_jobs error: Unable to contact slurm controller")
    with pytest.raises(scheduler.NoAnswer, match=r"^squeue: slurm_load_jobs error: Unable to contact"):
        scheduler.live(["7_0"])
    monkeypatch.setattr(scheduler, "ANSWER_S", 0.2)
    slurm.says("squeue", wait=5)
    with pytest.raises(scheduler.NoAnswer, match=r"^squeue: no answer in 0.2 s"):
        scheduler.live(["7_0"])
    assert scheduler.ended(["7_0"]) == {}
    slurm.absent(monkeypatch)
    with pytest.raises(scheduler.NoAnswer, match=r"^squeue: not found on this machine"):
        scheduler.live(["7_0"])
