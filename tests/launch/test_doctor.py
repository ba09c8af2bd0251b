"""The doctor says what is wrong, leaves with 1 then, and never falls over itself."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from infogan import devices
from launch import doctor, machine
from launch.machine import Findings


def test_a_page_and_the_json_tell_the_same() -> None:
    page = CliRunner().invoke(doctor.command)
    facts = json.loads(CliRunner().invoke(doctor.command, ["--json"]).output)
    assert page.exit_code == (0 if facts["ok"] else 1)
    assert page.output.rstrip().splitlines()[-1].startswith("verdict: ready" if facts["ok"] else "verdict: ")
    for section in doctor.SECTIONS:
        assert section in page.output
        assert facts[section]
    assert facts["our packages"]["launch"] == str(Path(machine.__file__).resolve().parent)
    assert facts["dependencies"] == {} or facts["dependencies"]["torch"].startswith("2.")


def test_a_section_that_cannot_import_is_a_problem_and_hides_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(findings: Findings) -> machine.Facts:
        raise ImportError("no module named thing")

    monkeypatch.setattr(doctor, "SECTIONS", {"first": broken, "second": lambda findings: {"a": "b"}})
    result = CliRunner().invoke(doctor.command)
    assert result.exit_code == 1
    assert "problem: first cannot be examined: no module named thing" in result.output
    assert "verdict: 1 problem" in result.output
    assert "second" in result.output


def test_a_package_that_is_not_ours_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = machine._folder
    monkeypatch.setattr(machine, "_folder", lambda name: tmp_path / "slurm" if name == "slurm" else found(name))
    findings = Findings()
    machine.look_at_our_packages(findings)
    assert findings.problems == [f"package slurm is not ours but {tmp_path / 'slurm'}, first on sys.path: remove it"]


def test_a_missing_and_a_wrong_dependency_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        "numpy<1",
        "a-package-nobody-has>=2",
        'another-one; extra == "deepspeed"',
        'third; extra == "dev"',
    ]
    monkeypatch.setattr(machine, "_requirements", lambda: wanted)
    findings = Findings()
    facts = machine.look_at_dependencies(findings)
    assert len(findings.problems) == 2
    assert "is not <1" in findings.problems[0]
    assert findings.problems[1] == "a-package-nobody-has is missing: pip install 'a-package-nobody-has>=2'"
    assert facts["another-one"] == "not installed (extra deepspeed)"
    assert "third" not in facts


def test_the_file_that_accelerate_reads_unasked_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "default_config.yaml"
    path.write_text("mixed_precision: fp16\nnum_processes: 4\nfsdp_config: {}\n")
    monkeypatch.setattr("accelerate.commands.config.config_args.default_config_file", str(path))
    findings = Findings()
    machine.look_at_processes(findings)
    assert findings.notes == [
        f"accelerate launch without --config_file reads {path}: mixed_precision=fp16, num_processes=4"
    ]
    path.write_text("a: [1\n")
    machine.look_at_processes(findings)
    assert findings.problems[0].startswith(f"{path}, which accelerate launch reads unasked, is damaged: ")


def test_weights_are_judged_by_their_hash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    digest = hashlib.sha256(b"good").hexdigest()
    (folder / f"vgg16-{digest[:8]}.pth").write_bytes(b"good")
    wrong = folder / "weights-inception-2015-12-05-6726825d.pth"
    wrong.write_bytes(b"cut off")
    findings = Findings()
    facts = machine.look_at_weights(findings)
    assert "genuine" in (facts["vgg16"] or "")
    assert len(findings.problems) == 1
    assert findings.problems[0].startswith(str(wrong))


def test_slurm_is_asked_for_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "none" in (machine.look_at_slurm(Findings())["programs"] or "")
    program = tmp_path / "sinfo"
    program.write_text("#!/bin/sh\necho slurm 22.05.8\n")
    program.chmod(0o755)
    findings = Findings()
    facts = machine.look_at_slurm(findings)
    assert (facts["programs"], facts["version"]) == ("sinfo", "slurm 22.05.8")
    assert findings.notes == ["SLURM without sbatch, srun: jobs cannot be submitted from here"]
    program.write_text("#!/bin/sh\nexit 1\n")
    machine.look_at_slurm(findings)
    assert "SLURM does not answer" in findings.notes[-1]


def test_an_unusable_gpu_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "unusable_gpu", lambda: "driver too old")
    findings = Findings()
    facts = machine.look_at_devices(findings)
    assert facts["gpu"] == "there but unusable: driver too old"
    assert findings.problems == ["a GPU is there but cannot be used: driver too old; or ask for device=cpu"]


def test_little_room_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=2**20, total=2**26, used=0)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    findings = Findings()
    machine.look_at_machine(findings)
    assert len(findings.notes) == 2
