"""Runs that are small enough to be made in the test's own process."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from infogan.codes import CategoricalCode, Code, ContinuousCode, Noise
from infogan.config import Data, Evaluation, Every, RunConfig, Stop
from infogan.engine import Engine
from infogan.networks import NETWORKS
from infogan.session import train
from infogan.settings import Settings


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, tiny_network: type[Any]) -> type[Any]:
    """The tiny network, for this test a network that a config can name."""
    monkeypatch.setitem(NETWORKS._entries, "tiny", tiny_network)
    return tiny_network


def config_of(network: type[Any], **fields: Any) -> RunConfig:
    codes: dict[str, Code] = {"kind": CategoricalCode(3), "c1": ContinuousCode(std="learned"), "c2": ContinuousCode()}
    usual = {
        "codes": codes, "network": network(), "noise": Noise(6), "batch": 8, "stop": Stop(4, "updates"),
        "precision": "fp32", "device": "cpu", "threads": 1, "log": Every(0.016), "eval": Evaluation(None),
    }  # fmt: skip
    return RunConfig(**(usual | fields))


@pytest.fixture
def tiny_config(registered: type[Any]) -> Callable[..., RunConfig]:
    """Makes the config of a tiny run; arguments are fields of RunConfig."""
    return lambda **fields: config_of(registered, **fields)


def alone(patch: pytest.MonkeyPatch) -> None:
    """As in a process that accelerate has not seen yet, and that no launcher started."""
    for name in [
        name for name in os.environ if name.startswith(("ACCELERATE_", "MASTER_")) or name in ("WORLD_SIZE", "RANK")
    ]:
        patch.delenv(name)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def engine_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[RunConfig], Engine]]:
    """Makes the engine of a config, and lets accelerate forget it."""
    threads = torch.get_num_threads()

    def make(config: RunConfig) -> Engine:
        alone(monkeypatch)
        return Engine(config)

    yield make
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def _finished(tiny_network: type[Any], tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        alone(patch)
        patch.setitem(NETWORKS._entries, "tiny", tiny_network)
        patch.setattr("shards.loader._BLOCK", 512)  # the order of 512 epochs need not be worked out for 4 updates
        config = config_of(tiny_network, data=Data(path=str(tiny_data)))
        train(Settings(config, {}, "tiny"), run, say=lambda line: None)
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(threads)
    return run


@pytest.fixture
def run(_finished: Path, registered: type[Any], tmp_path: Path) -> Path:
    """A finished run of the tiny network, for a test to use up."""
    return Path(shutil.copytree(_finished, tmp_path / "run"))
