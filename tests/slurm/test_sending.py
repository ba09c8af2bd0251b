"""What is sent: arrays that SLURM takes, the code as it was, and nothing twice."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

import infogan
from shards.errors import UserError
from slurm import scheduler, snapshot, submit
from slurm.cluster import Cluster, Preemption
from slurm.order import Order, needs, order_for
from slurm.snapshot import Snapshot
from slurm.spec import Evaluation, Shape
from slurm.submissions import Turn
from slurm.sweep import Run, Sweep

NOWHERE = Snapshot("abc", Path("/sweep/code/abc"), ())


def some_runs(count: int, shape: Shape | None = None) -> list[Run]:
    return [Run(f"{n:010d}", {"seed": n}, shape or Shape(), f"{n:064d}", "40 updates") for n in range(count)]


def batches(runs: list[Run], cluster: Cluster, code: dict[str, Snapshot] | None = None) -> list[submit.Batch]:
    return submit.batches(runs, cluster, code or dict.fromkeys((run.id for run in runs), NOWHERE))


@pytest.fixture
def largest_array(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda size: monkeypatch.setattr(scheduler, "largest_array", lambda: size)


def test_an_array_is_never_larger_than_slurm_takes_and_all_arrays_share_the_limit(
    largest_array: Callable[[int], None],
) -> None:
    largest_array(100)
    found = batches(some_runs(250), Cluster(parallel=64))
    assert [len(batch.runs) for batch in found] == [100, 100, 50]
    assert [run.id for batch in found for run in batch.runs] == [run.id for run in some_runs(250)]
    assert sum(batch.parallel for batch in found) == 64
    assert all(batch.after is None for batch in found)


def test_more_arrays_than_the_limit_go_one_after_another(largest_array: Callable[[int], None]) -> None:
    largest_array(10)
    found = batches(some_runs(45), Cluster(parallel=2))
    assert [batch.parallel for batch in found] == [1] * 5
    assert [batch.after for batch in found] == [None, None, 0, 1, 2]


def test_an_array_holds_one_shape_only(largest_array: Callable[[int], None]) -> None:
    largest_array(100)
    runs = some_runs(3) + some_runs(2, Shape(nodes=2, processes=4))
    assert [(len(batch.runs), batch.needs.nodes) for batch in batches(runs, Cluster())] == [(3, 1), (2, 2)]


def test_arrays_of_all_shapes_and_codes_share_one_limit_and_leave_none_of_it_unused(
    largest_array: Callable[[int], None],
) -> None:
    largest_array(100)
    runs = some_runs(90) + [replace(run, id=f"x{run.id}") for run in some_runs(2, Shape(nodes=2))]
    other = Snapshot("def", Path("/sweep/code/def"), ())
    code = {run.id: other if run.id.endswith("9") else NOWHERE for run in runs}
    found = batches(runs, Cluster(parallel=16), code)
    assert [(len(batch.runs), batch.snapshot.digest, batch.parallel) for batch in found] == [
        (81, "abc", 7), (9, "def", 7), (2, "abc", 2),
    ]  # fmt: skip
    one_by_one = batches(runs, Cluster(parallel=1), code)
    assert [(batch.parallel, batch.after) for batch in one_by_one] == [(1, None), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    ("file", "slurm", "largest"),
    [(None, None, 1000), (None, 4001, 4001), (50, 4001, 50), (9000, 4001, 4001), (2000, None, 2000)],
)
def test_an_array_is_as_large_as_the_file_and_slurm_allow(
    monkeypatch: pytest.MonkeyPatch, file: int | None, slurm: int | None, largest: int
) -> None:
    monkeypatch.setattr(scheduler, "largest_array", lambda: slurm)
    assert len(batches(some_runs(5000), Cluster(array_size=file))[0].runs) == min(largest, 5000)


def script(cluster: Cluster, shape: Shape, **more: Any) -> str:
    runs = some_runs(3, shape)
    sweep = Sweep(Path("/sweep"), "mine", tuple(runs), Evaluation(), **more)
    return submit.script(sweep, submit.Batch(runs, needs(shape, cluster), NOWHERE, 2, None), cluster)


def test_the_script_asks_for_what_the_cluster_file_and_the_shape_say() -> None:
    cluster = Cluster(
        partition="gpu", account="lab", constraint="a100", time="1:30:00", memory_per_process="8G",
        modules=("cuda/12",), environment={"A": "b c", "B": '$TMPDIR/"x" $(id) \\'}, setup=("ulimit -n 4096",),
        srun=("--cpu-bind=cores",),
        sbatch={"nice": "50", "exclusive": "", "mail_type": "END"},
    )  # fmt: skip
    said = script(cluster, Shape(nodes=2, processes=4))
    for line in (
        "--partition=gpu", "--account=lab", "--constraint=a100", "--time=90", "--nodes=2", "--ntasks-per-node=4",
        "--cpus-per-task=4", "--gpus-per-node=4", "--mem=32768MB", "--signal=USR2@120", "--array=0-2%2", "--requeue",
        "--nice=50", "--exclusive", "--mail-type=END",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in said
    srun = next(line for line in said.splitlines() if line.startswith("srun "))
    assert "--cpus-per-task=4 --kill-on-bad-exit=1 --wait=0 --cpu-bind=cores" in srun
    setup = said.partition("# setup\n")[2].partition("\n# command")[0].splitlines()
    assert setup == [
        "module load cuda/12", "export A='b c'", 'export B="$TMPDIR/\\"x\\" \\$(id) \\\\"', "export INFOGAN_OFFLINE=1",
        "export HF_HUB_OFFLINE=1", "export PYTHONSAFEPATH=1",
        "export PYTHONPATH=/sweep/code/abc${PYTHONPATH:+:$PYTHONPATH}", "ulimit -n 4096",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("preemption", "lines"),
    [
        (Preemption(signal="TERM", notice_s=60), ["--signal=TERM@60", "--requeue"]),
        (Preemption(signal="none", requeue="slurm"), ["--signal=TERM@0", "--requeue"]),
        (Preemption(requeue="none"), ["--signal=USR2@120", "--no-requeue"]),
    ],
)
def test_the_script_follows_how_the_cluster_preempts(preemption: Preemption, lines: list[str]) -> None:
    said = script(Cluster(preemption=preemption, gpus_per_process=0), Shape())
    assert all(f"#SBATCH {line}\n" in said for line in lines)
    assert "gpus" not in said


def test_where_there_is_no_slurm_a_submission_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sweep = Sweep(tmp_path, "mine", tuple(some_runs(2)), Evaluation())
    with pytest.raises(UserError, match=r"no SLURM on this machine .* or say --cluster local"):
        code = dict.fromkeys((run.id for run in sweep.runs), NOWHERE)
        order = cast(Callable[[Run], Order], lambda run: None)
        submit.send(sweep, sweep.runs, Cluster(), code, order, print, Turn(tmp_path))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small repository in the place of ours."""
    root = tmp_path / "repository"
    (root / "infogan").mkdir(parents=True)
    (root / "infogan" / "__init__.py").write_text("one = 1\n")
    (root / ".gitignore").write_text("/data/\n__pycache__/\n")
    (root / "requirements.lock").write_text("torch==2.13.0\n")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    monkeypatch.setattr(infogan, "__file__", str(root / "infogan" / "__init__.py"))
    monkeypatch.setattr(snapshot.plugins, "known", list)
    return root


def test_a_snapshot_holds_the_code_as_it_is_and_no_later_edit(checkout: Path, tmp_path: Path) -> None:
    (checkout / "infogan" / "new.py").write_text("untracked = True\n")
    (checkout / "infogan" / "__init__.py").write_text("one = 2\n")
    (checkout / "data").mkdir()
    (checkout / "data" / "large.bin").write_bytes(b"x")
    taken = snapshot.take(tmp_path / "sweep")
    (checkout / "infogan" / "__init__.py").write_text("one = 3\n")
    found = {str(path.relative_to(taken.folder)) for path in taken.folder.rglob("*") if path.is_file()}
    assert found == {"CODE.json", "infogan/__init__.py", "infogan/new.py"}
    assert (taken.folder / "infogan" / "__init__.py").read_text() == "one = 2\n"
    told = (taken.folder / "CODE.json").read_text()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True)
    for part in (commit.stdout.strip(), "+one = 2", "infogan/new.py", "torch==2.13.0", "pytest=="):
        assert part in told
    later = snapshot.take(tmp_path / "sweep")
    assert later.digest != taken.digest
    assert snapshot.differing(taken.folder, later.folder) == ["infogan/__init__.py"]
    (checkout / "infogan" / "__init__.py").write_text("one = 2\n")
    assert snapshot.take(tmp_path / "sweep") == taken
    assert snapshot.kept(tmp_path / "sweep", taken.digest) == taken


def test_a_snapshot_is_what_a_process_imports_wherever_it_starts(checkout: Path, tmp_path: Path) -> None:
    taken = snapshot.take(tmp_path / "sweep")
    (checkout / "infogan" / "__init__.py").write_text("one = 4\n")
    run = some_runs(1)[0]
    order = order_for(Sweep(tmp_path / "sweep", "mine", (run,), Evaluation()), run, Cluster(), taken)
    command = [sys.executable, "-c", "import infogan; print(infogan.one)"]
    found = subprocess.run(command, cwd=checkout, env=order.within({}), capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"


def test_a_snapshot_of_data_is_refused(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MOST_MB", 1)
    (checkout / "infogan" / "raw.bin").write_bytes(bytes(2**21))
    with pytest.raises(UserError, match=r"over 1 MB .*the largest: infogan/raw.bin.*gitignore"):
        snapshot.take(tmp_path / "sweep")


def test_a_shape_may_have_cpus_and_time_of_its_own() -> None:
    said = script(
        Cluster(), replace(Shape(), cpus_per_process=9, gpus_per_process=0, time="5", memory_per_process="1G")
    )
    assert all(f"#SBATCH {line}\n" in said for line in ("--cpus-per-task=9", "--time=5", "--mem=1024MB"))
    assert "gpus" not in said
