"""A folder of one's own photographs goes all the way to a report, with the preset `own` and two overrides."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """160 colour photographs of mixed sizes and formats, without labels: soft blots of colour on a gradient."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    random = np.random.RandomState(0)
    for number in range(160):
        height, width = random.randint(40, 120, 2)
        y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j]  # fmt: skip
        centre, colour = random.rand(2), random.rand(3)
        blot = np.exp(-(((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 0.05))[..., None]
        pixels = (255 * (blot * colour + (1 - blot) * y[..., None] * random.rand(3))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"IMG_{number:04}.{'jpg' if number % 2 else 'png'}")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_folder_of_photographs_becomes_a_report(infogan: Any, photographs: Path) -> None:
    infogan.good("shards", "build", "folder", "--path", str(photographs), "--size", "32", "--out", "photos", "--quiet")
    infogan.good("shards", "verify", "photos", "--quiet")
    infogan.good("train", "own", "data.path=photos", "stop=6 updates", "--run", "run")
    infogan.good("evaluate", "run", "--samples", "200")
    report = json.loads((infogan.folder / "run" / "report" / "report.json").read_text())
    names = [metric["name"] for metric in report["metrics"]]
    assert any(name.startswith("frechet200_test[photos-autoencoder@") for name in names), names
    assert not any(name.startswith("accuracy") for name in names)
    assert any("label" in note for note in report["notes"]), report["notes"]
    page = (infogan.folder / "run" / "report" / "report.html").read_text()
    assert "data:image/png;base64," in page
