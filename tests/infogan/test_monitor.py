"""A run says what it does, before it does it, where that takes a while and shows no progress."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infogan import monitor
from infogan.config import Data, Evaluation, Every, RunConfig
from infogan.engine import Engine
from infogan.session import train
from infogan.settings import Settings, load

AT_THE_END = "0.032 kimg: trained; drawing pictures, {}saving"
EXPORTING = "drawing the final pictures and curves, exporting the model"


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was said, and what was done, in order."""
    found: list[str] = []
    for name in ("run_pictures", "validation_score", "export"):
        work = getattr(monitor, name)

        def noted(*arguments: Any, name: str = name, work: Callable[..., Any] = work) -> Any:
            found.append(name)
            return work(*arguments)

        monkeypatch.setattr(monitor, name, noted)
    return found


@pytest.mark.parametrize(("every_kimg", "scoring"), [(0.016, "scoring on the validation split, "), (None, "")])
def test_the_end_of_training_is_announced_once_and_no_interval_is(
    tiny_config: Callable[..., RunConfig],
    engine_of: Callable[[RunConfig], Engine],
    tiny_data: Path,
    tmp_path: Path,
    events: list[str],
    every_kimg: float | None,
    scoring: str,
) -> None:
    config = tiny_config(
        data=Data(path=str(tiny_data)), images=Every(0.016), log=Every(0.008), eval=Evaluation(every_kimg)
    )
    engine_of(config).close()
    train(Settings(config, {}, "tiny"), tmp_path / "run", say=events.append)
    scored = ["validation_score"] if every_kimg else []
    known = [e for e in events if e.startswith(("run_p", "valid", "export")) or "drawing" in e]
    expected = ["run_pictures", *scored, AT_THE_END.format(scoring), "run_pictures", *scored, EXPORTING]
    assert known == [*expected, "run_pictures", "export"]


def test_a_run_that_only_lacks_its_export_says_so(
    run: Path, engine_of: Callable[[RunConfig], Engine], events: list[str]
) -> None:
    shutil.rmtree(run / "export")
    settings = load(str(run / "config.yaml"), (), run)
    engine_of(settings.config).close()
    train(settings, run, say=events.append)
    assert [e for e in events if "drawing" in e] == [EXPORTING]
    assert events.index(EXPORTING) < events.index("export")
