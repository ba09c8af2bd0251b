"""What only looks at a sweep does not wait for torch: on a login node that may take half a minute."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from slurm import sweep as sweeps
from slurm.spec import Evaluation, Shape
from slurm.sweep import Run, Sweep

COMMANDS = (["status", "FOLDER"], ["status", "FILE", "--json"], ["why", "FOLDER", "0"], ["cancel", "FOLDER"])
LOOK = """
import json, sys
from click.testing import CliRunner
from slurm.verbs import sweep_group
for words in json.loads(sys.argv[1]):
    ended = CliRunner().invoke(sweep_group, words)
    assert ended.exit_code == 0, (words, ended.output, ended.exception)
    heavy = {"torch", "submitit"} & set(sys.modules)
    assert not heavy, (words, heavy)
"""


def test_who_looks_at_a_sweep_waits_for_no_torch(tmp_path: Path) -> None:
    folder, file = tmp_path / "sweeps" / "mine", tmp_path / "mine.yaml"
    file.write_text("base: paper/mnist\n")
    sweep = Sweep(folder, "mine", (Run("0" * 10, {"seed": 0}, Shape(), "0" * 64, "40 updates"),), Evaluation())
    plain = {key: value for key, value in asdict(sweep).items() if key != "folder"}
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps({"format": sweeps.FORMAT, **plain}))
    places = {"FOLDER": str(folder), "FILE": str(file)}
    words = [[places.get(word, word) for word in command] for command in (*COMMANDS, ["collect", "FOLDER"])]
    command = [sys.executable, "-c", LOOK, json.dumps(words)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_supervisor_beside_every_rank_needs_no_torch() -> None:
    code = "import sys, slurm.job; assert not {'torch', 'numpy', 'accelerate'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
