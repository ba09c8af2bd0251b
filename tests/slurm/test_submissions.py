"""One submission at a time, remembered whatever interrupts it."""

import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from infogan.lease import Holder
from shards.errors import UserError
from slurm import submissions

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
