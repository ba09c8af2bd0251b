"""What a stranger, another version or a full disk left in a sweep's folder costs itself alone, and is one line."""

import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shards.errors import UserError
from slurm import collect, scheduler, status, strays, submissions, table
from slurm import sweep as sweeps
from slurm.spec import Evaluation, Shape
from slurm.sweep import Run, Sweep

RUN, OTHER = "a" * 10, "b" * 10
HUGE = 10**400
DEEP = "[" * 200_000
HOLDER = {"host": "node7", "table": "t", "pid": 12, "started": 1.0, "job": "7", "restart": 0}
ENTRY = {
    "format": 1, "time": 1000.0, "holder": HOLDER, "open": False, "kind": "train", "cluster": "c",
    "code": {RUN: "c0de"}, "arrays": [[RUN]], "jobs": {RUN: "7_0"},
}  # fmt: skip
FACTS = {"state": "training", "time": 2000.0, "images": 8, "stop_images": 80, "images_per_s": 2.0, "mi": {"k": 0.5}}
BEGIN = {"event": "begin", "time": 1000.0, "job": "7_0", "restart": 0, "images": 0, "cpus": 1}
END = {"event": "end", "time": 1500.0, "job": "7_0", "restart": 0, "outcome": "failed", "images_after": 8}

SUBMISSION, LEASE = "submissions/x.json", f"runs/{RUN}/.lease/000001.json"
ATTEMPTS, RANK, FINAL = f"attempts/{RUN}.jsonl", f"attempts/{RUN}.rank1.json", "final.json"
FILES = [SUBMISSION, LEASE, ATTEMPTS, RANK, FINAL]


def lines(*found: dict[str, Any]) -> str:
    return "".join(json.dumps(line) + "\n" for line in found)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Two runs, of which the first was sent, trained and failed; SLURM knows of no job."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scheduler, "live", lambda jobs: {})
    monkeypatch.setattr(scheduler, "ended", lambda jobs: {})
    runs = tuple(Run(name, {"seed": n}, Shape(), f"{n:064d}", "9 updates") for n, name in enumerate((RUN, OTHER)))
    sweep = Sweep(tmp_path / "mine", "mine", runs, Evaluation())
    sweeps.save(sweep)
    rank = {"time": 1400.0, "rank": 1, "job": "7_0", "restart": 0, "message": "rank 1: its own"}
    lease = {"format": 1, "holder": HOLDER, "facts": FACTS}
    for name, content in (
        (SUBMISSION, json.dumps(ENTRY)),
        (LEASE, json.dumps(lease)),
        (ATTEMPTS, lines(BEGIN, END)),
        (RANK, json.dumps(rank)),
        (FINAL, '{"7_0": "FAILED"}'),
    ):
        (sweep.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (sweep.folder / name).write_text(content)
    return sweep


@pytest.fixture(autouse=True)
def no_hanging() -> Iterator[None]:
    """What waits for a pipe fails."""

    def fail(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def look_at(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The states of the runs after every look that verbs take; a file is told of in one line at most."""
    capsys.readouterr()
    found = status.look(sweep)
    table.show(table.status_table(sweep, found))
    json.dumps(status.as_json(sweep, found), allow_nan=False)
    for run in sweep.runs:
        assert table.why(sweep, run.id, 5)
    assert collect.gather(sweep, None).runs
    strays.cut_off(sweep)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == len(set(told))
    assert len(submissions.damaged(sweep.folder)) <= 1
    assert all(line.startswith("warning: ") and line.endswith("it counts as absent") for line in told)
    return {run.id: run.state for run in found.runs}


def test_what_is_right_is_believed(made: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert look_at(made, capsys) == {RUN: "failed", OTHER: "waiting"}
    assert "rank 1: its own" in table.why(made, RUN, 5)
    assert submissions.newest(made.folder).jobs == {RUN: "7_0"}


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_sparse_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(8 << 30)


def a_nest(path: Path) -> None:
    path.write_text(DEEP + "\n")


def a_nest_of_mappings(path: Path) -> None:
    path.write_text('{"a":' * 200_000 + "\n")


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00\n")


def a_long_number(path: Path) -> None:
    path.write_text('{"time": ' + "9" * 5000 + "}\n")


KINDS = [a_pipe, a_folder, a_sparse_file, a_nest, a_nest_of_mappings, no_text, a_long_number]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_none_counts_as_absent(
    made: Sweep, capsys: pytest.CaptureFixture[str], name: str, kind: Callable[[Path], None]
) -> None:
    (made.folder / name).unlink()
    kind(made.folder / name)
    assert look_at(made, capsys)[OTHER] == "waiting"
    assert bool(submissions.damaged(made.folder)) == (name == SUBMISSION)
    if name == SUBMISSION:
        with pytest.raises(UserError, match=r"x\.json: damaged: .*: jobs that it told of .* remove it"):
            submissions.refuse_damaged(made.folder)


@pytest.mark.parametrize("kind", [*KINDS], ids=lambda kind: kind.__name__)
def test_a_sweep_that_is_none_is_one_line(made: Sweep, kind: Callable[[Path], None]) -> None:
    (made.folder / "sweep.json").unlink()
    kind(made.folder / "sweep.json")
    with pytest.raises(UserError, match=r"^\S*/sweep\.json: (damaged|cannot be read) \([^\n]*$"):
        sweeps.read(made.folder)


@pytest.mark.parametrize("name", ["a\0b", "", "..", "../../other", "a/b", "-x"])
@pytest.mark.parametrize("key", ["id", "config"])
def test_a_run_that_is_no_name_of_a_file_is_one_line(made: Sweep, key: str, name: str) -> None:
    plain = json.loads((made.folder / "sweep.json").read_text())
    plain["runs"][0][key] = name
    (made.folder / "sweep.json").write_text(json.dumps(plain))
    if (key, name) == ("config", ""):  # of a sweep that was not sent yet
        sweeps.read(made.folder)
        return
    with pytest.raises(UserError, match=r"damaged \(runs.0: id and config must be names of files\)"):
        sweeps.read(made.folder)


PROCESSES = [
    *({"pid": wrong} for wrong in ("abc", "x", -1, -3, 0, 1.5, None, HUGE)),
    *({"started": wrong} for wrong in (None, "1", HUGE, -1.0)),
    {"host": 5}, {"table": ["t"]}, {"job": 7}, {"restart": "0"}, {"restart": None}, {"more": 1},
]  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        *({"jobs": {RUN: job}} for job in (5, None, ["7"], "a\0b", "", "-x", "7,8", "7 8")),
        *({"kind": kind} for kind in (["train"], None, 5, "", "other")),
        *({"time": when} for when in ("123", None, HUGE, 1e300, -1.0, float("nan"), float("inf"), True)),
        *({"arrays": arrays} for arrays in (5, [5], [[["x"]]], None, "x", [[5]])),
        *({"holder": {**HOLDER, **process}} for process in PROCESSES),
        *({"holder": holder} for holder in (None, 5, [], "x", {})),
        {"open": None}, {"open": 1}, {"cluster": 5}, {"code": {RUN: 5}}, {"code": {}}, {"code": []}, {"jobs": []},
    ],
    ids=lambda wrong: repr(wrong)[:60],
)  # fmt: skip
def test_a_submission_of_wrong_kind_is_named(
    made: Sweep, capsys: pytest.CaptureFixture[str], wrong: dict[str, Any]
) -> None:
    (made.folder / SUBMISSION).write_text(json.dumps({**ENTRY, **wrong}))
    assert look_at(made, capsys)[OTHER] == "waiting"
    with pytest.raises(UserError, match=r"x\.json: damaged: [^\n]*: jobs that it told of .* remove it"):
        submissions.refuse_damaged(made.folder)


@pytest.mark.parametrize(
    ("holder", "facts"),
    [
        *((process, {}) for process in PROCESSES),
        *(({}, {key: HUGE}) for key in ("time", "images", "stop_images", "images_per_s", "state", "message")),
        *(({}, {key: "x"}) for key in ("time", "images", "stop_images", "images_per_s", "mi")),
        *(({}, {key: None}) for key in ("time", "images", "images_per_s", "state", "mi")),
        *(({}, {"mi": mi}) for mi in ({"k": HUGE}, {"k": "x"}, [1])),
        *(({}, {"images_per_s": speed}) for speed in (1e-320, -1.0, 0)),
        ({}, {"time": 1e30}), ({}, {"images": float("nan")}), ({}, {"images": 10**149, "stop_images": 1}),
    ],
    ids=lambda wrong: repr(wrong)[:60],
)  # fmt: skip
def test_a_heartbeat_of_wrong_kind_stops_no_verb(
    made: Sweep, capsys: pytest.CaptureFixture[str], holder: dict[str, Any], facts: dict[str, Any]
) -> None:
    found = {"format": 1, "holder": {**HOLDER, **holder}, "facts": {**FACTS, **facts}}
    (made.folder / LEASE).write_text(json.dumps(found))
    for name in (ATTEMPTS, RANK, FINAL, SUBMISSION):  # until the heartbeat is all that there is
        assert look_at(made, capsys)[OTHER] == "waiting"
        (made.folder / name).unlink()
    look_at(made, capsys)


@pytest.mark.parametrize("value", [HUGE, 10**149, 1e300, 1e30, -1e30, "x", None, [], "zzz"], ids=lambda v: repr(v)[:9])
@pytest.mark.parametrize(
    "key", ["time", "images", "images_after", "cpus", "gpus", "checkpoint_time", "last_sign", "outcome", "restart"]
)
def test_an_attempt_of_wrong_kind_stops_no_verb(
    made: Sweep, capsys: pytest.CaptureFixture[str], key: str, value: Any
) -> None:
    (made.folder / RANK).unlink()
    for wrong in ([{**BEGIN, key: value}, END], [BEGIN, {**END, key: value}], [{**BEGIN, key: value}]):
        (made.folder / ATTEMPTS).write_text(lines(*wrong))
        assert look_at(made, capsys)[OTHER] == "waiting"


@pytest.mark.parametrize(
    "wrong", [{"time": HUGE}, {"time": "x"}, {"message": 5}, {"rank": HUGE}, {"job": []}, {"restart": {}}], ids=repr
)
def test_a_failure_of_one_rank_of_wrong_kind_stops_no_verb(
    made: Sweep, capsys: pytest.CaptureFixture[str], wrong: dict[str, Any]
) -> None:
    plain = json.loads((made.folder / RANK).read_text())
    (made.folder / RANK).write_text(json.dumps({**plain, **wrong}))
    assert look_at(made, capsys)[OTHER] == "waiting"


@pytest.mark.parametrize(
    "wrong",
    [
        {"value": HUGE}, {"value": "x"}, {"value": None}, {"name": 5}, {"protocol": 5}, {"protocol": {"split": []}},
        {"protocol": {"generated_images": HUGE}}, {"protocol": {"latent_seed": {}}}, {"value": 1e308}, {"value": True},
    ],
    ids=repr,
)  # fmt: skip
def test_a_report_of_wrong_kind_stops_no_verb(
    made: Sweep, capsys: pytest.CaptureFixture[str], wrong: dict[str, Any]
) -> None:
    for run in made.runs:
        folder = made.run_folder(run)
        (folder / "checkpoints" / "kimg-000000.008").mkdir(parents=True)
        (folder / "checkpoints" / "kimg-000000.008" / "manifest.json").write_text("{}")
        (folder / "report").mkdir()
        metric = {"name": "accuracy", "value": 0.5, "protocol": {}, **wrong}
        digest = hashlib.sha256(b"{}").hexdigest()
        report = {"format": 1, "data": {"digest": "d"}, "checkpoint": {"digest": digest}, "metrics": [metric]}
        (folder / "report" / "report.json").write_text(json.dumps(report))
    look_at(made, capsys)


def test_numbers_too_large_to_be_reckoned_with_are_left_out_of_a_table(
    made: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"kimg": HUGE}, {"kimg": 1.0, "loss/critic": 1e308}, {"kimg": 2.0, "loss/critic": 0.5, "other": HUGE}]
    (made.run_folder(made.runs[0]) / "metrics.jsonl").write_text(lines(*rows))
    look_at(made, capsys)
    assert collect.logged_last(made.run_folder(made.runs[0])) == {"log/loss/critic": 0.5}


def test_a_line_of_a_log_may_be_long_and_one_without_end_is_not_read(
    made: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slurm import records

    monkeypatch.setattr(records, "_LINE_BYTES", 100)
    path = made.folder / "log.jsonl"
    path.write_text(lines({"a": 1}) + "x" * 99 + "\n" + lines({"a": 2}) + " " * 300 + "\n" + lines({"a": 3}))
    assert list(records.rows(path)) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(("age", "refused"), [(-200, True), (-400, False), (-1e7, False)])
def test_an_open_submission_of_another_machine_from_the_future_blocks_nobody_for_ever(
    made: Sweep, age: float, refused: bool
) -> None:
    path = made.folder / SUBMISSION
    path.write_text(json.dumps({**ENTRY, "open": True}))
    os.utime(path, (os.stat(path).st_mtime - age,) * 2)
    if refused:
        with pytest.raises(UserError, match="on node7, job 7 is submitting"), submissions.turn(made.folder):
            pass
    else:
        with submissions.turn(made.folder):
            pass
