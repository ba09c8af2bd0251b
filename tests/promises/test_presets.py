"""Every preset is whole: what it says it is, and all the way from its data set's original files to a report."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infogan import settings
from infogan.config import RunConfig
from shards import build, open_dataset, open_source, sources

PRESETS = sorted(
    str(path.relative_to(settings.presets_folder()).with_suffix(""))
    for folder in ("paper", "modern")
    for path in (settings.presets_folder() / folder).glob("*.yaml")
)

# Appendix C of the paper, worked out by hand: G's input, and the parameters of G, trunk, D head and Q head.
PAPER = {
    "paper/mnist": (74, 6_645_121, 6_556_992, 1_025, 132_876),
    "paper/fashion_mnist": (74, 6_645_121, 6_556_992, 1_025, 132_876),
    "paper/svhn": (168, 2_798_787, 659_264, 4_097, 530_220),
    "paper/celeba": (228, 2_906_307, 659_264, 4_097, 537_444),
    "paper/faces_azimuth": (133, 8_675_457, 8_523_072, 1_025, 5_125),
    "paper/faces_elevation": (133, 8_675_457, 8_523_072, 1_025, 5_125),
    "paper/faces_lighting": (133, 8_675_457, 8_523_072, 1_025, 5_125),
    "paper/faces_width": (133, 8_675_457, 8_523_072, 1_025, 5_125),
    "paper/chairs_rotation": (189, 19_760_513, 19_534_656, 1_025, 62_525),
    "paper/chairs_width": (189, 19_760_513, 19_534_656, 1_025, 62_525),
}
# Its table of rates: the critic's, the generator's, and lambda of the categorical and of the continuous codes.
RATES = {
    "paper/mnist": (2e-4, 1e-3, 1, 1),
    "paper/fashion_mnist": (2e-4, 1e-3, 1, 1),
    "paper/svhn": (2e-4, 1e-3, 1, 1),
    "paper/celeba": (2e-4, 1e-3, 1, None),
    "paper/faces_azimuth": (2e-4, 5e-4, None, 0.2),
    "paper/faces_elevation": (4e-4, 3e-4, None, 0.1),
    "paper/faces_lighting": (8e-4, 3e-4, None, 0.1),
    "paper/faces_width": (8e-4, 3e-4, None, 0.1),
    "paper/chairs_rotation": (2e-4, 1e-3, 1, 10),
    "paper/chairs_width": (2e-4, 1e-3, 2, 0.05),
}


def test_every_row_of_the_papers_table_is_a_preset() -> None:
    assert set(PAPER) == set(RATES) == {name for name in PRESETS if name.startswith("paper/")}


@pytest.mark.parametrize("preset", PAPER)
def test_a_dry_run_shows_the_tables_parameter_counts(infogan: Any, preset: str) -> None:
    shown = infogan.good("train", preset, "--dry-run", "batch=2")
    found = re.search(
        r"generator, in \[2, (\d+)\]: ([\d,]+) .*trunk ([\d,]+), d_head ([\d,]+), q_head ([\d,]+)", shown, re.DOTALL
    )
    assert found is not None, shown
    assert tuple(int(number.replace(",", "")) for number in found.groups()) == PAPER[preset]


@pytest.mark.parametrize("preset", RATES)
def test_rates_and_lambdas_are_the_tables(preset: str) -> None:
    config = settings.load(preset).config
    weights: dict[str, set[float]] = {"categorical": set(), "continuous": set()}
    for code in config.codes.values():
        weights[code.kind].add(code.weight)
    critic, generator, categorical, continuous = RATES[preset]
    assert (config.optimizer.critic.lr, config.optimizer.generator.lr) == (critic, generator)
    assert weights["categorical"] == ({categorical} - {None})
    assert weights["continuous"] == ({continuous} - {None})


@pytest.fixture(scope="session")
def built(originals: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds the data set that a preset names, from a few images in its source's original format, once for each."""
    folder = tmp_path_factory.mktemp("built")

    def build_for(preset: str) -> Path:
        config = settings.load(preset).config
        name, side = Path(config.data.path).name, config.network.image_shape[1]
        source = {"celeba128": "celeba", "own": "folder"}.get(name, name)
        data = folder / f"{name}-{side}"
        if not data.exists():
            options = originals.write(source, folder / f"{name}-{side}.raw")
            if "size" in sources.get(source).Options.__dataclass_fields__:
                options["size"] = type(sources.get(source).Options().size)(side)
            build(open_source(source, **options), data, workers=1, progress=False)
        return data

    return build_for


LARGE = ("chairs", "residual")  # networks whose tests take a minute or more on one core
NARROWED = {"residual": ["network.base=8", "network.features=32"]}  # for a GPU: at full width many minutes


@pytest.mark.parametrize(
    "preset",
    [pytest.param(name, marks=pytest.mark.slow if any(part in name for part in LARGE) else ()) for name in PRESETS],
)
@pytest.mark.timeout(900)
def test_a_preset_goes_from_original_files_to_a_report(infogan: Any, built: Callable[[str], Path], preset: str) -> None:
    config = settings.load(preset).config
    narrower = NARROWED.get(config.network.name, [])
    infogan.good("train", preset, f"data.path={built(preset)}", "batch=8", "stop=5 updates", "--run", "run", *narrower)
    rows = (infogan.folder / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["update"] == 5
    infogan.good("evaluate", "run", "--samples", "32", *quick_families(built(preset), config))
    report = json.loads((infogan.folder / "run" / "report" / "report.json").read_text())
    names = {metric["name"].partition("[")[0] for metric in report["metrics"]}
    assert {f"{family}/{code}" for code in config.codes for family in ("mi", "variation")} <= names
    assert (infogan.folder / "run" / "report" / "report.html").is_file()


def quick_families(data: Path, config: RunConfig) -> list[str]:
    """All that apply and train no extractor: on so few images that would be most of the time of every test here."""
    manifest = open_dataset(data).manifest
    families = ["information", "variation"]
    families += ["accuracy"] if manifest.classes and config.latent_codes().categorical else []
    families += ["factors"] if manifest.factors else []
    return [word for family in families for word in ("--only", family)]
