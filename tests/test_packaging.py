"""What a user gets: the wheel, the lock file, and a console command that works from any folder."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import pytest

from launch.cli import DISTRIBUTION, PIPELINE

ROOT = Path(__file__).resolve().parent.parent
OURS = ("launch", "infogan", "shards", "slurm")


def run_python(code: str, folder: Path, *arguments: str, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh Python that finds our packages in `path` first, from another folder."""
    environment = os.environ | {"PYTHONPATH": str(path), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without the network from a copy of the tree, and unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    for name in (*OURS, "configs"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*"):
        if path.is_file():
            shutil.copy(path, tree)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(tree)],
        cwd=folder, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_wheel_holds_our_four_packages_and_nothing_else(unpacked: Path) -> None:
    names = {path.name for path in unpacked.iterdir()}
    assert names == {*OURS, f"{DISTRIBUTION.replace('-', '_')}-{metadata_version(unpacked)}.dist-info"}


def test_the_wheel_holds_every_module(unpacked: Path) -> None:
    def modules(root: Path) -> set[str]:
        return {str(path.relative_to(root)) for name in OURS for path in (root / name).rglob("*.py")}

    assert modules(unpacked) == modules(ROOT)


def test_the_wheel_holds_every_preset_and_template(unpacked: Path) -> None:
    expected = {
        Path("infogan") / path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*") if path.is_file()
    } | {
        path.relative_to(ROOT)
        for path in (ROOT / "infogan" / "evaluation").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    missing = [str(path) for path in sorted(expected) if not (unpacked / path).is_file()]
    assert expected
    assert not missing


@pytest.mark.parametrize("from_wheel", [True, False], ids=["wheel", "working tree"])
def test_presets_are_found_by_name_from_any_folder(unpacked: Path, tmp_path: Path, from_wheel: bool) -> None:
    path = unpacked if from_wheel else ROOT
    answer = run_python(
        "from infogan.settings import find_preset; print(find_preset('paper/mnist'))", tmp_path, path=path
    )
    assert answer.returncode == 0, answer.stderr
    preset = Path(answer.stdout.strip())
    assert preset.is_relative_to(path)
    assert preset.read_bytes() == (ROOT / "configs" / "paper" / "mnist.yaml").read_bytes()


def test_the_console_command_runs_from_the_wheel_and_from_any_folder(unpacked: Path, tmp_path: Path) -> None:
    code = "import launch.cli, sys; print(launch.cli.__file__, file=sys.stderr); launch.cli.main()"
    answer = run_python(code, tmp_path, "--version", path=unpacked)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr.startswith(str(unpacked))
    assert answer.stdout.startswith(f"infogan {metadata_version(unpacked)}, Python 3.")
    scripts = ConfigParser()
    scripts.read(next(unpacked.glob("*.dist-info")) / "entry_points.txt")
    assert dict(scripts["console_scripts"]) == {"infogan": "launch.cli:main"}


def test_help_names_every_verb_and_imports_nothing_heavy(unpacked: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom launch.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print(*[name for name in sys.modules if '.' not in name], file=sys.stderr)"
    )
    answer = run_python(code, tmp_path, "--help", path=unpacked)
    assert answer.returncode == 0, answer.stderr
    for verb in PIPELINE:
        assert re.search(rf"^  {verb}  +[A-Z]", answer.stdout, re.MULTILINE), f"{verb} in:\n{answer.stdout}"
    heavy = {
        "torch",
        "torchvision",
        "numpy",
        "omegaconf",
        "accelerate",
        "sklearn",
        "matplotlib",
        "PIL",
        "rich",
    }
    assert not heavy & set(answer.stderr.split())


def test_an_unknown_verb_is_answered_with_those_there_are(unpacked: Path, tmp_path: Path) -> None:
    answer = run_python("from launch.cli import main; main()", tmp_path, "trian", path=unpacked)
    assert answer.returncode == 2
    assert "no verb 'trian'" in answer.stderr
    assert "train" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_the_lock_pins_all_that_the_project_needs() -> None:
    """Walks what is installed here from our own requirements on; torch's CUDA packages are left to torch."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0] for line in lines if line and not line.startswith("#")}
    assert not [line for line in lines if line and not re.fullmatch(r"#.*|[a-z0-9-]+==[0-9][0-9a-z.]*", line)]
    unpinned, seen, waiting = set(), set(), list(declared_requirements())
    from packaging.requirements import Requirement

    while waiting:
        requirement = Requirement(waiting.pop())
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if not needed or name in seen or name.startswith(("nvidia-", "cuda-")) or name == "triton":
            continue
        seen.add(name)
        if name not in pinned:
            unpinned.add(name)
        try:
            waiting += metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
    assert {"torch", "numpy", "sympy"} <= seen
    assert not unpinned


def test_the_lock_is_inside_the_declared_ranges() -> None:
    from packaging.requirements import Requirement

    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    outside = [
        line
        for line in declared_requirements()
        if not Requirement(line).specifier.contains(pins[Requirement(line).name])
    ]
    assert not outside


def declared_requirements() -> list[str]:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    texts = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    return [line for text in texts for line in text.splitlines() if line]


def metadata_version(unpacked: Path) -> str:
    (folder,) = unpacked.glob("*.dist-info")
    return metadata.PathDistribution(folder).version
