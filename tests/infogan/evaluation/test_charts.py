"""What a curve's picture says is what was logged."""

import re
from io import BytesIO
from pathlib import Path

import matplotlib
import pytest
from PIL import Image, ImageFont

from infogan.evaluation.charts import HEIGHT, WIDTH, Series, labels, line_chart, ticks
from infogan.evaluation.report import charts
from infogan.pictures import curves

RANGES = [
    (-0.256394, -0.256394),
    (-0.275, -0.255),
    (0.7385, 0.741),
    (1.32141, 1.32172),
    (0.0, 0.0),
    (3.0, 3.0),
    (-12_003.0, -12_000.0),
    (99_999.5, 100_001.0),
    (1e-12, 5e-12),
    (0.0, 3e-7),
    (0.3, 0.3 + 1e-15),
    (1.2e30, 1.2e30),
    (-3e38, 3e38),
]


def drawn(low: float, high: float) -> str:
    return line_chart("Loss", "images seen", "nats", [Series("a", [(640.0, low), (12_345.0, high)])])


def texts(svg: str) -> list[tuple[float, str, str]]:
    found = re.findall(r'<text class="tick" x="([\d.]+)" y="[\d.]+" text-anchor="(\w+)">([^<]+)</text>', svg)
    return [(float(x), anchor, text) for x, anchor, text in found]


def test_a_curve_of_one_point_is_a_dot_inside_the_picture() -> None:
    svg = line_chart("Loss", "", "", [Series("a", [(2.56, -0.25)]), Series("b", [(1.0, 1.0), (2.0, 3.0)])])
    assert svg.count("<circle") == svg.count("<polyline") == 1
    across, down = map(float, re.findall(r'<circle class="dot c0" cx="([\d.]+)" cy="([\d.]+)"', svg)[0])
    assert 0 < across < WIDTH and 0 < down < HEIGHT


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_ticks_enclose_the_curve_and_no_two_of_them_read_alike(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low <= high <= found[-1]
    written = labels(found)
    assert 3 <= len(written) == len(set(written)) <= 9
    read = [float(text.replace("−", "-").replace(",", "")) for text in written]
    assert read == pytest.approx(found, rel=1e-5, abs=1e-6 * (found[-1] - found[0]))


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_no_tick_is_cut_at_the_edge_of_the_picture(low: float, high: float) -> None:
    css = (Path(charts.__code__.co_filename).parent / "templates" / "report.css").read_text()
    size = max(map(int, re.findall(r"\.chart text \{[^}]*font-size: (\d+)px", css)))
    wide = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
    for x, anchor, text in texts(drawn(low, high)):
        length = wide.getlength(text)
        left = x - {"end": length, "middle": length / 2}[anchor]
        assert left >= 0 and left + length <= WIDTH, text


def test_ticks_have_the_digits_that_tell_them_apart() -> None:
    assert labels(ticks(-0.275, -0.255)) == ["−0.275", "−0.270", "−0.265", "−0.260", "−0.255"]
    assert labels(ticks(0.0, 25_000.0)) == ["0", "5,000", "10,000", "15,000", "20,000", "25,000"]
    assert labels(ticks(-0.256394, -0.256394)) == ["−0.27", "−0.26", "−0.25", "−0.24"]


def test_a_flat_curve_lies_within_a_range_of_its_own_size() -> None:
    for level in (0.0, 0.256394, -7.0, 1e30):
        low, *_, high = ticks(level, level)
        assert low < level < high
        assert high - low <= 0.3 * abs(level) if level else (low, high) == (-high, high)


def test_a_report_of_one_logged_row_shows_it() -> None:
    row = {"kimg": 2.56, "loss/generator": 0.7, "loss/critic": 1.3, "mi/digit": 0.6}
    found = {chart.title: str(chart.svg) for chart in charts([row], {"digit": 2.302})}
    assert found["Adversarial losses"].count("<circle") == 2
    assert found["Mutual information L_I"].count("<circle") == 1


def test_the_picture_of_a_run_of_one_logged_row_has_a_mark_for_each_loss() -> None:
    rows = [{"kimg": 2.56, "loss/generator": 0.7, "loss/critic": 1.3}]
    picture = Image.open(BytesIO(curves(rows, {}))).convert("RGB")
    plot = picture.crop((0, 0, picture.width // 3, picture.height))  # of the losses, left of their legend
    for colour in ((31, 119, 180), (255, 127, 14)):  # matplotlib's first two
        assert any(found == colour for _, found in plot.getcolors(plot.width * plot.height))
