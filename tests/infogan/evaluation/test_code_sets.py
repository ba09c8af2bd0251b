"""Every kind of code set on every kind of data: trained, validated, exported, sampled, measured and reported."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from infogan import load
from infogan.codes import CategoricalCode, Code, ContinuousCode
from infogan.config import Data, Evaluation, RunConfig
from infogan.evaluation import Options, evaluate_run, write
from infogan.evaluation.families import FAMILIES
from infogan.networks import NETWORKS
from infogan.networks.layers import FC, Conv, UpConv
from infogan.session import train
from infogan.settings import Settings
from infogan.tracking import read_log
from launch.evaluate import tell
from launch.generate import command as generate
from shards import Dataset, open_dataset

CONTINUOUS: dict[str, Code] = {f"c{number}": ContinuousCode() for number in range(1, 6)}
CATEGORICAL: dict[str, Code] = {f"k{number}": CategoricalCode(10) for number in range(1, 11)}
CHAIRS: dict[str, Code] = {f"k{number}": CategoricalCode(20) for number in range(1, 4)} | {"rotation": ContinuousCode()}
Datasets = Callable[[str], Dataset]


@pytest.fixture
def data_of(tiny_data: Path, make_data: Callable[..., Path], make_arrows: Callable[..., Dataset]) -> Datasets:
    """`bars` has two classes, `plain` none, `arrows` known factors, `classified arrows` both, at 64x64."""
    return lambda name: {
        "bars": lambda: open_dataset(tiny_data),
        "plain": lambda: open_dataset(make_data(labels=False)),
        "arrows": lambda: make_arrows(64, samples=40),
        "classified arrows": lambda: make_arrows(64, labels=True, samples=40),
    }[name]()


@pytest.fixture
def config_for(
    registered: type[Any], tiny_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Dataset, dict[str, Code]], RunConfig]:
    """A run of 4 updates of a network that fits the data: 8x8, or 64x64 with Q on the whole trunk."""

    class Tiny64(registered):  # type: ignore[misc]
        name = "tiny64"
        side = 64
        q_hidden = None
        trunk_layers = (Conv(2, norm=False), Conv(4), Conv(4), FC(16))
        generator_layers = (FC((4, 8, 8)), UpConv(4), UpConv(4))

    monkeypatch.setitem(NETWORKS._entries, "tiny64", Tiny64)

    def make(dataset: Dataset, codes: dict[str, Code]) -> RunConfig:
        network = registered() if dataset.manifest.image.height == 8 else Tiny64()
        config = tiny_config(codes=codes, data=Data(path=str(dataset.root)), eval=Evaluation(0.024))
        return replace(config, network=network)

    return make


@pytest.mark.parametrize(
    ("data", "codes", "present", "absent"),
    [
        pytest.param("plain", CONTINUOUS, {"mi/c5"}, {"accuracy", "spearman", "ami"}, marks=pytest.mark.slow),
        ("bars", CONTINUOUS, {"mi/c5"}, {"accuracy", "agreement", "spearman", "ami"}),
        pytest.param("bars", CATEGORICAL, {"accuracy_test/k1", "nmi_test/k10"}, {"ami"}, marks=pytest.mark.slow),
        ("bars", {}, set(), {"mi", "accuracy", "agreement", "spearman", "ami"}),
        pytest.param("arrows", CATEGORICAL, {"ami_test/k10/shade"}, {"spearman"}, marks=pytest.mark.slow),
        pytest.param("classified arrows", CHAIRS, {"accuracy_test/k3", "spearman_test/rotation/x"}, set(),
                     marks=pytest.mark.slow),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_run_ends_in_a_report_whatever_its_codes_and_labels(
    data: str, codes: dict[str, Code], present: set[str], absent: set[str], data_of: Datasets,
    config_for: Callable[[Dataset, dict[str, Code]], RunConfig], quick_extractors: None,
    engine_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    dataset, run = data_of(data), tmp_path / "run"
    config = config_for(dataset, codes)
    assert train(Settings(config, {}, "tiny"), run, say=lambda line: None).finished
    rows = read_log(run)
    assert any(key.startswith("validation/") for row in rows for key in row) == bool(codes)
    assert {path.stem for path in (run / "images").glob("traversal-*.png") if "kimg" not in path.stem} == {
        f"traversal-{name}" for name in codes
    }
    card = (run / "export" / "README.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in card for name in codes)
    model = load(run)
    families = [name for name in FAMILIES if name != "fidelity"]  # which owes nothing to the codes, and takes long
    if not dataset.manifest.classes:
        families.remove("accuracy")
    if not (dataset.manifest.factors and codes):
        families.remove("factors")
    report = evaluate_run(model, dataset, Options(samples=60, only=tuple(families)))
    names = {metric.name for metric in report.metrics}
    assert present <= names
    assert not {name for name in names if name.startswith(tuple(f"{stem}_" for stem in absent))}
    assert not ("mi" in absent and any(name.startswith("mi/") for name in names))
    page = write(report, run).read_text(encoding="utf-8")
    assert page.count('<figure class="card') >= len(codes)
    assert len(page) < 5_000_000
    tell(report)
    told = capsys.readouterr().out
    assert "[pca]" not in told and "[untrained]" not in told
    chosen = [f"--set={name}=1" for name in list(codes)[:2]]
    result = CliRunner().invoke(generate, [str(run), "-n", "3", "--grid", str(tmp_path / "grid.png"), *chosen])
    assert result.exit_code == 0, result.output
