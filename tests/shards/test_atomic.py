"""Files and folders appear whole, or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shards import atomic
from shards.errors import UserError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    atomic.write_text(path, "one")
    with pytest.raises(TypeError), atomic.file(path) as stream:
        stream.write(b"half of")
        stream.write("not bytes")  # type: ignore[arg-type]
    assert path.read_text() == "one"
    atomic.write_json(path, {"a": [1, "é"]})
    assert path.read_text(encoding="utf-8") == '{\n  "a": [\n    1,\n    "é"\n  ]\n}\n'
    assert names(path.parent) == ["file.txt"]


def test_json_that_others_cannot_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        atomic.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert names(tmp_path) == []


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    with atomic.folder(target) as beside:
        (beside / "inner").mkdir()
        (beside / "inner" / "a").write_text("a")
        assert not target.exists()
    assert (target / "inner" / "a").read_text() == "a"
    with pytest.raises(UserError, match="already exists"), atomic.folder(target):
        pass
    with pytest.raises(RuntimeError), atomic.folder(target, replace=True) as beside:
        raise RuntimeError
    assert (target / "inner" / "a").read_text() == "a"
    with atomic.folder(target, replace=True) as beside:
        (beside / "b").write_text("b")
    assert names(target) == ["b"]
    assert names(tmp_path) == ["checkpoint"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_kill_at_any_step_of_a_replacement_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    """Stops before the 1st, 2nd, ... call that moves or removes something, and looks at what is there."""

    class Killed(BaseException):
        pass

    for step in range(8):
        here = tmp_path / str(step)
        here.mkdir()
        with atomic.folder(here / "set") as beside:
            (beside / "which").write_text("old")
        with atomic.folder(here / ".fresh") as beside:
            (beside / "which").write_text("new")
        left = {"calls": step}

        def stop(function, left=left):
            def stopping(*arguments, **options):
                left["calls"] -= 1
                if left["calls"] < 0:
                    raise Killed
                return function(*arguments, **options)

            return stopping

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", stop(os.rename))
            patch.setattr(atomic.shutil, "rmtree", stop(atomic.shutil.rmtree))
            if exchange:
                patch.setattr(atomic, "_exchange", stop(atomic._exchange))
            else:
                patch.setattr(atomic, "_exchange", lambda one, other: False)
            try:
                atomic.install(here / ".fresh", here / "set", replace=True)
                finished = True
            except Killed:
                finished = False
        if exchange:
            assert (here / "set" / "which").exists()  # never a moment without one
        atomic.recover(here / "set")
        assert (here / "set" / "which").read_text() in ("old", "new")
        if finished:
            assert (here / "set" / "which").read_text() == "new"
            assert names(here) == ["set"]
            break
    else:
        pytest.fail("the replacement never finished")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_what_the_system_refuses_is_one_line_with_path_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match=f"cannot write {path}: .*: ") as caught:
        atomic.write_text(path, "new")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot write"), atomic.folder(tmp_path / "folder") as beside:
        (beside / "x").write_text("x")
    assert names(tmp_path) == ["file"]
    assert path.read_text() == "old"


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_is_kept(tmp_path: Path) -> None:
    program = "import sys, time\nfrom shards import atomic\n"
    program += "with atomic.file(sys.argv[1]) as stream:\n    stream.write(b'x')\n    time.sleep(60)\n"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "big")], env=environment)
    while not names(tmp_path):
        time.sleep(0.01)
    assert atomic.is_temporary(names(tmp_path)[0])
    assert atomic.clean_stale(tmp_path) == []
    child.send_signal(signal.SIGKILL)
    child.wait()
    (tmp_path / "mine.partial").write_text("a user's own file")
    assert len(atomic.clean_stale(tmp_path)) == 1
    assert names(tmp_path) == ["mine.partial"]
    assert atomic.clean_stale(tmp_path / "nowhere") == []
