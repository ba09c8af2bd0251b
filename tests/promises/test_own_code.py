"""A user's own source, network and objective, in a file outside our tree, go the whole way."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

PLUGIN = '''
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from infogan.networks import NETWORKS, Critic, Network
from infogan.objectives import OBJECTIVES, Objective
from shards.sources import Sample, Source, option, register


@dataclass(frozen=True)
class StripesOptions:
    number: int = option(96, "images of the training split")


@register("stripes")
class Stripes(Source):
    """Stripes, upright or level, of a random phase."""

    Options = StripesOptions
    classes = ("upright", "level")

    def __init__(self, options: StripesOptions) -> None:
        self.options = options
        self.shape = (8, 8, 1)
        self.splits = {"train": options.number, "validation": 16, "test": 16}
        self.fingerprint = "stripes-1"

    def sample(self, split: str, i: int) -> Sample:
        wave = np.sin(np.arange(8) * 1.6 + i * 0.7) * 127.5 + 127.5
        image = np.tile(wave.astype(np.uint8), (8, 1))
        return Sample(i, (image if i % 2 == 0 else image.T)[..., None], i % 2)


@NETWORKS.register("stripes_net")
@dataclass(frozen=True)
class StripesNet(Network):
    width: int = 8

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 1, 8, 8

    @property
    def image_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    def generator(self, input_width: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(input_width, self.width), nn.ReLU(),
            nn.Linear(self.width, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)),
        )

    def critic(self, q_width: int) -> Critic:
        trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, self.width), nn.LeakyReLU(0.1))
        return Critic(trunk, nn.Linear(self.width, 1), nn.Linear(self.width, q_width))

    def initialise(self, module: nn.Module, generator: torch.Generator) -> None:
        for parameter in module.parameters():
            parameter.data.normal_(0.0, 0.1, generator=generator)


@OBJECTIVES.register("squares")
@dataclass(frozen=True)
class Squares(Objective):
    """Least squares, after Mao et al. 2017."""

    def critic_loss(self, real_logit: torch.Tensor, fake_logit: torch.Tensor) -> torch.Tensor:
        return (real_logit - 1).square().mean() + fake_logit.square().mean()

    def generator_loss(self, fake_logit: torch.Tensor) -> torch.Tensor:
        return (fake_logit - 1).square().mean()
'''

PRESET = """
data: {path: data/stripes}
codes:
  way: {kind: categorical, ways: 2}
  phase: {kind: continuous}
noise: {size: 4}
network: {name: stripes_net, width: 12}
objective: {name: squares}
batch: 16
stop: 5 updates
precision: fp32
device: cpu
threads: 1
"""


@pytest.fixture(scope="module")
def infogan(infogan_in: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The command in a user's folder, with a plugin and a preset of theirs, once they have gone the whole way there."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "stripes.py").write_text(PLUGIN)
    (folder / "own.yaml").write_text(PRESET)
    infogan = infogan_in(folder)
    build = "shards build stripes --number 64 --shard-size 20 --workers 2 --quiet"
    infogan.good("--plugin", "stripes.py", *build.split())
    infogan.good("shards", "verify", "data/stripes", "--quiet")
    for words in (
        ["train", "own.yaml", "--run", "runs/own"],
        ["evaluate", "runs/own", "--samples", "16", "--only", "information"],
        ["generate", "runs/own", "--set", "way=1", "-n", "4", "--grid", "grid.png"],
        ["train", "own.yaml", "stop=8 updates", "--run", "runs/own"],
    ):
        assert "changed since" not in infogan.good(*words, "--plugin=stripes.py")
    return infogan


@pytest.fixture(scope="module")
def folder(infogan: Any) -> Path:
    return Path(infogan.folder)


def test_a_plugin_goes_the_whole_way(folder: Path) -> None:
    """Build in two workers, train, evaluate, generate, resume."""
    manifest = json.loads((folder / "data/stripes/manifest.json").read_bytes())
    assert manifest["source"] == {
        "kind": "stripes", "options": {"number": 64}, "fingerprint": "stripes-1", "skipped": 0
    }  # fmt: skip
    assert [split["samples"] for split in manifest["splits"].values()] == [64, 16, 16]
    assert (folder / "runs/own/report/report.html").is_file()
    assert (folder / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "runs/own/checkpoints/kimg-000000.128").is_dir()
    assert not (folder / "__pycache__").exists()


def test_a_run_records_its_plugins(folder: Path) -> None:
    starts = json.loads((folder / "runs/own/environment.json").read_bytes())["starts"]
    assert len(starts) == 2
    for start in starts:
        assert start["plugins"][-1] == {
            "file": str((folder / "stripes.py").resolve()),
            "sha256": hashlib.sha256(PLUGIN.encode()).hexdigest(),
            "registers": ["source 'stripes'", "network 'stripes_net'", "objective 'squares'"],
        }
    page = (folder / "runs/own/report/report.html").read_text()
    assert hashlib.sha256(PLUGIN.encode()).hexdigest()[:12] in page


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "runs/own"],
        ["generate", "runs/own", "--grid", "other.png"],
        ["train", "own.yaml", "--run", "runs/own"],
        ["train", "own.yaml", "--run", "runs/own", "--processes", "1", "--dry-run"],
        ["train", "--run", "runs/own"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_without_its_plugin_a_run_says_which_it_was(folder: Path, infogan: Any, words: list[str]) -> None:
    error = infogan(*words).error
    assert "network 'stripes_net' is not ours: it was registered by the plugin stripes.py" in error
    assert f"say --plugin {(folder / 'stripes.py').resolve()}" in error


def test_an_export_that_was_handed_on_names_its_plugin(folder: Path, infogan: Any) -> None:
    (folder / "elsewhere").mkdir()
    error = infogan(
        "generate", "../runs/own/export", "--grid", "x.png", before="import os; os.chdir('elsewhere')"
    ).error
    assert "--plugin FILE with that file, once stripes.py" in error
    card = (folder / "runs/own/export/README.md").read_text()
    assert f"`stripes.py` (sha256 `{hashlib.sha256(PLUGIN.encode()).hexdigest()}`)" in card


def test_a_name_that_no_run_knows_asks_for_a_plugin(folder: Path, infogan: Any) -> None:
    error = infogan("train", "own.yaml", "--run", "runs/new").error
    assert "network.name: 'stripes_net': must be one of" in error
    assert "one of your own comes with --plugin FILE" in error


def test_a_plugin_that_changed_is_told_of_and_stops_nothing(folder: Path, infogan: Any) -> None:
    (folder / "later.py").write_text(PLUGIN + "\n# a remark\n")
    for words in (
        ["evaluate", "runs/own", "--samples", "16", "--only", "information", "--out", "report2"],
        ["generate", "runs/own", "--grid", "grid2.png"],
        ["train", "own.yaml", "stop=9 updates", "--run", "runs/own"],
    ):
        ended = infogan(*words, "--plugin", "later.py")
        assert ended.code == 0, ended.output
        (line,) = [line for line in ended.output.splitlines() if "changed since this run was last started" in line]
        assert line.startswith(f"plugin {(folder / 'later.py').resolve()}")


def test_the_help_lists_what_plugins_bring(folder: Path, infogan: Any) -> None:
    listed = infogan("shards", "build", "--help", "--plugin", "stripes.py").output
    assert "Stripes, upright or level, of a random phase." in listed
    options = infogan("shards", "build", "stripes", "--help", "--plugin=stripes.py").output
    assert "images of the training split" in options
    assert "stripes" not in infogan("shards", "build", "--help").output


def test_from_python_an_import_is_enough(folder: Path, tmp_path: Path) -> None:
    program = "import stripes, infogan; print(infogan.load('runs/own').sample(3, way=1).shape)"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
        "PYTHONPYCACHEPREFIX": str(tmp_path),
    }
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.stdout == "torch.Size([3, 1, 8, 8])\n", ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "launch.cli", "--plugin", "stripes.py", "train", "own.yaml", "--processes", "2"],
        [sys.executable, "-m", "launch.cli", "train", "own.yaml", "--plugin", "stripes.py", "--processes", "2"],
        [
            sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "-m", "launch.train",
            "--plugin", "stripes.py", "--config", "own.yaml",
        ],
    ],
    ids=["before the verb", "after the verb", "accelerate launch"],
)  # fmt: skip
def test_processes_that_others_start_load_it_too(
    folder: Path, tmp_path: Path, environment: Callable[..., dict[str, str]], command: list[str]
) -> None:
    clean = environment(PYTHONPATH=str(ROOT), HF_HOME=str(tmp_path))
    ended = subprocess.run(
        [*command, "--run", str(tmp_path / "run")], cwd=folder, env=clean, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (start,) = json.loads((tmp_path / "run" / "environment.json").read_bytes())["starts"]
    assert start["processes"] == (1 if "accelerate.commands.launch" in command else 2)
    assert [Path(plugin["file"]).name for plugin in start["plugins"]] == ["stripes.py"]
