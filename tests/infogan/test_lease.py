"""One process writes to a run; whoever has gone is followed, whoever has not is left alone."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from infogan import lease
from infogan.lease import Holder, acquire
from shards.errors import UserError


def said(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture
def standing(tmp_path: Path) -> Callable[..., Path]:
    """Leaves a lease of another process in a run: its number, state and holder's facts as given."""

    def leave(number: int = 3, state: str = "training", **holder: Any) -> Path:
        path = tmp_path / lease.FOLDER / f"{number:06d}.json"
        path.parent.mkdir(exist_ok=True)
        other = replace(Holder.current(), **holder)
        path.write_text(
            json.dumps({"holder": asdict(other), "facts": {"state": state, "beat": 4, "time": time.time()}})
        )
        return path

    return leave


def gone_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_a_run_that_nobody_holds_is_held_and_let_go_of(tmp_path: Path) -> None:
    with acquire(tmp_path, said) as held:
        held.note(images=5)
        held.beat()
        found = lease.read(tmp_path)
        assert found is not None
        assert (found.held, found.holder.pid, found.facts["images"]) == (True, os.getpid(), 5)
        with pytest.raises(UserError, match=f"another process is training it .process {os.getpid()} on"):
            acquire(tmp_path, said)
    found = lease.read(tmp_path)
    assert found is not None
    assert (found.held, found.state) == (False, "stopped")
    acquire(tmp_path, said)
    assert [path.name for path in (tmp_path / lease.FOLDER).iterdir()] == ["000002.json"]


def test_a_lease_says_how_its_run_failed(tmp_path: Path) -> None:
    with pytest.raises(UserError), acquire(tmp_path, said):
        raise UserError("data gone: bring it\nback")
    found = lease.read(tmp_path)
    assert found is not None
    assert (found.state, found.facts["message"]) == ("failed", "data gone: bring it back")


@pytest.mark.parametrize(
    "holder",
    [
        lambda: {"pid": gone_pid()},
        lambda: {"pid": os.getppid(), "started": 12345.0},  # the pid lives, but is another process's now
        lambda: {"table": "elsewhere", "job": "77", "restart": 0},  # the job's own first start, before its requeue
    ],
)
def test_a_holder_known_to_have_ended_is_followed_at_once(
    tmp_path: Path, standing: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, holder: Callable[[], dict[str, Any]]
) -> None:
    standing(**holder())
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    begun = time.monotonic()
    assert acquire(tmp_path, said).number == 4
    assert time.monotonic() - begun < 1


def test_a_killed_process_that_nobody_has_waited_for_has_ended(tmp_path: Path, standing: Callable[..., Path]) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    time.sleep(1)
    import psutil

    standing(pid=process.pid, started=psutil.Process(process.pid).create_time())
    acquire(tmp_path, said)
    process.wait()


def test_another_job_of_the_same_id_and_restart_does_not_follow(
    tmp_path: Path, standing: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tasks of one job: neither may take the other for an earlier start."""
    standing(table="elsewhere", job="77", restart=1)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert not lease._may_follow(tmp_path, 3, lease.read(tmp_path), Holder.current())


def test_a_silent_holder_on_another_machine_is_followed_once_it_is_stale(
    tmp_path: Path, standing: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_S", 2.5)
    standing(table="elsewhere", host="node7")
    lines: list[str] = []
    begun = time.monotonic()
    acquire(tmp_path, lines.append)
    assert 2 < time.monotonic() - begun < 10
    assert len(lines) == 1
    assert "on node7" in lines[0]


def test_a_holder_on_another_machine_whose_lease_is_old_is_followed_at_once(
    tmp_path: Path, standing: Callable[..., Path]
) -> None:
    path = standing(table="elsewhere")
    os.utime(path, (time.time() - 70, time.time() - 70))
    acquire(tmp_path, said)


def test_a_holder_on_another_machine_that_beats_is_left_alone(tmp_path: Path, standing: Callable[..., Path]) -> None:
    path = standing(table="elsewhere", host="node7")

    def beat(line: str) -> None:
        content = json.loads(path.read_text())
        content["facts"]["beat"] += 1
        path.write_text(json.dumps(content))

    with pytest.raises(UserError, match="on node7"):
        acquire(tmp_path, beat)


def test_a_holder_that_was_taken_for_gone_notices_and_writes_no_more(tmp_path: Path) -> None:
    with acquire(tmp_path, said) as slept:
        assert slept.taken_by is None
        other = lease.Lease(tmp_path, slept.number + 1, replace(slept.holder, host="node7"))
        assert other.create()
        taken_by = slept.taken_by
        assert taken_by is not None
        assert taken_by.host == "node7"
    assert [path.name for path in (tmp_path / lease.FOLDER).iterdir()] == [other.path.name]
    assert json.loads(other.path.read_text())["facts"]["state"] == "training"


def contend(run: Path, start: float, results: Any) -> None:
    time.sleep(max(0.0, start - time.time()))
    try:
        acquire(run, lambda line: None)
    except UserError:
        results.put("left")
    else:
        results.put("held")
        time.sleep(4)  # alive until the others have looked


@pytest.mark.parametrize("links", [True, False])
def test_of_many_that_follow_a_dead_holder_one_holds_the_run(
    tmp_path: Path, standing: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """With hard links and without, as on file systems that lack them."""
    if not links:
        monkeypatch.setattr(os, "link", lambda *paths: (_ for _ in ()).throw(OSError(1, "no links here")))
    standing(pid=gone_pid())
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    start = time.time() + 0.5
    processes = [context.Process(target=contend, args=(tmp_path, start, results)) for _ in range(6)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(found) == ["held", *["left"] * 5]


def test_a_damaged_lease_is_waited_for_and_then_followed(
    tmp_path: Path, standing: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_S", 1.0)
    standing().write_text("{")
    begun = time.monotonic()
    assert acquire(tmp_path, said).number == 4
    assert time.monotonic() - begun > 0.8


@pytest.mark.parametrize(
    "holder",
    [
        *({"pid": wrong} for wrong in ("x", -3, 0, 1.5, None, 10**400)),
        *({"started": wrong} for wrong in (None, "1", 10**400, -1.0)),
        {"host": 5}, {"table": None}, {"job": 7}, {"restart": "x"}, {"more": 1},
    ],
    ids=repr,
)  # fmt: skip
def test_a_lease_of_no_process_tells_of_none(tmp_path: Path, standing: Callable[..., Path], holder: Any) -> None:
    path = standing()
    plain = json.loads(path.read_text())
    path.write_text(json.dumps({**plain, "holder": {**plain["holder"], **holder}}))
    assert lease.read(tmp_path) is None


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_sparse_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(8 << 30)


@pytest.mark.parametrize(
    "make",
    [
        a_pipe,
        a_sparse_file,
        lambda path: path.write_text("[" * 200_000),
        lambda path: path.write_text('{"holder": 5, "facts": {}}'),
        lambda path: path.write_bytes(path.with_name("whole").read_bytes().replace(b'"state"', b'"stat"')),
    ],
    ids=["pipe", "sparse", "deep", "no holder", "no state"],
)
def test_what_is_no_lease_is_followed_once_it_is_old(
    tmp_path: Path, standing: Callable[..., Path], make: Callable[[Path], object]
) -> None:
    path = standing()
    path.rename(path.with_name("whole"))
    make(path)
    assert lease.read(tmp_path) is None
    old = time.time() - 2 * lease.STALE_S
    os.utime(path, (old, old))
    assert acquire(tmp_path, said).number == 4


@pytest.mark.parametrize(("word", "count"), [("3", 3), ("", 0), ("x", 0), ("-2", 0), ("1.5", 0), ("9" * 5000, 0)])
def test_how_often_a_job_was_put_back_is_a_number_whatever_stands_there(
    monkeypatch: pytest.MonkeyPatch, word: str, count: int
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", word)
    assert Holder.current().restart == lease.restarts() == count
