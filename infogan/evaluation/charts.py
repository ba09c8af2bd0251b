"""Line charts as SVG text, without script, font or file; colours come from the page's style sheet."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 280
TOP, BOTTOM = 12, 40
LEAST_LEFT, LEAST_RIGHT = 46, 12
GAP = 7  # between a number and the axis
DIGIT = 9.0  # how wide one is in a wide font, at the size that the style sheet gives numbers on a phone
DOT = 3
MOST_POINTS = 300
COLOURS = 10  # how many the style sheet defines: .c0 to .c9
FLAT = 1e-4  # a curve that moves by less, as a share of its values, is a level: its steps are rounding
LONGEST_FIXED = 6  # digits before or after the point; numbers that need more are written with a power of ten


@dataclass(frozen=True)
class Series:
    """A named curve of (x, y) points; `ceiling` is drawn as a dotted line in the same colour."""

    name: str
    points: Sequence[tuple[float, float]]
    ceiling: float | None = None


class Axes:
    """Where numbers are in the picture: the ticks of both directions, and margins that hold their labels."""

    def __init__(self, points: Sequence[tuple[float, float]], levels: Sequence[float]) -> None:
        heights = [y for _, y in points] + list(levels)
        self.x = ticks(0.0, max(x for x, _ in points) or 1.0)
        self.y = ticks(min(heights), max(heights))
        self.x_labels, self.y_labels = labels(self.x), labels(self.y)
        self.left = max(LEAST_LEFT, math.ceil(GAP + max(map(width, self.y_labels))))
        self.right = WIDTH - max(LEAST_RIGHT, math.ceil(width(self.x_labels[-1]) / 2))
        self.bottom = HEIGHT - BOTTOM

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[-1] - self.x[0])
        up = (y - self.y[0]) / (self.y[-1] - self.y[0])
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - TOP)

    def level(self, kind: str, y: float) -> str:
        """A line from side to side."""
        height = f"{self.place(0, y)[1]:.1f}"
        return f'<line class="{kind}" x1="{self.left}" x2="{self.right}" y1="{height}" y2="{height}"/>'


def line_chart(title: str, x_label: str, y_label: str, series: Sequence[Series]) -> str:
    """An SVG element whose title and description say what it shows; empty where there is nothing to draw.

    A curve of one point is a dot.
    """
    curves = [thinned(s.points) for s in series]
    everything = [point for points in curves for point in points]
    if not everything:
        return ""
    axes = Axes(everything, [s.ceiling for s in series if s.ceiling is not None])
    label = escape(f"{title}: {', '.join(s.name for s in series)}")
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">', *_scales(axes)]
    for order, (s, points) in enumerate(zip(series, curves, strict=True)):
        colour = f"c{order % COLOURS}"
        if s.ceiling is not None:
            parts.append(axes.level(f"ceiling {colour}", s.ceiling))
        parts.append(_curve([axes.place(x, y) for x, y in points], colour))
    parts.append(
        f'<text class="label" x="{(axes.left + axes.right) / 2:.0f}" y="{HEIGHT - 4}"'
        f' text-anchor="middle">{escape(x_label)}</text>'
    )
    parts.append(f'<text class="label" x="{axes.left + 6}" y="{TOP + 9}">{escape(y_label)}</text></svg>')
    return "".join(parts)


def _scales(axes: Axes) -> Iterator[str]:
    """Grid lines, the axis, and the numbers at both."""
    for y, text in zip(axes.y, axes.y_labels, strict=True):
        yield axes.level("grid", y)
        height = axes.place(0, y)[1] + 4
        yield f'<text class="tick" x="{axes.left - GAP}" y="{height:.1f}" text-anchor="end">{text}</text>'
    for x, text in zip(axes.x, axes.x_labels, strict=True):
        across = axes.place(x, axes.y[0])[0]
        yield f'<text class="tick" x="{across:.1f}" y="{axes.bottom + 17}" text-anchor="middle">{text}</text>'
    yield axes.level("axis", axes.y[0])


def _curve(places: Sequence[tuple[float, float]], colour: str) -> str:
    if len(places) == 1:
        across, down = places[0]
        return f'<circle class="dot {colour}" cx="{across:.1f}" cy="{down:.1f}" r="{DOT}"/>'
    path = " ".join(f"{across:.1f},{down:.1f}" for across, down in places)
    return f'<polyline class="curve {colour}" points="{path}"/>'


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most 300 points: means over runs of neighbours. Points that are not finite are left out."""
    whole = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    size = -(-len(whole) // MOST_POINTS) or 1
    runs = [whole[start : start + size] for start in range(0, len(whole), size)]
    return [(sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run)) for run in runs]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from below `low` to above `high`, in steps of 1, 2 or 5 times a power of ten.

    Around a single level they reach a twentieth of it to both sides.
    """
    size = max(abs(low), abs(high))
    if high - low <= FLAT * size:
        low, high = low - (0.05 * size or 0.5), high + (0.05 * size or 0.5)
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [place * step for place in range(first, last + 1)]


def labels(values: Sequence[float]) -> list[str]:
    """What is written at evenly spaced ticks: as many digits as tell them apart, the same for all; true minus signs."""
    size = math.floor(math.log10(max(map(abs, values))))
    finest = math.floor(math.log10(values[1] - values[0]) + 1e-9)
    if size < LONGEST_FIXED and -finest <= LONGEST_FIXED:
        separator = "," if size >= 4 else ""
        found = [f"{value:{separator}.{max(0, -finest)}f}" for value in values]
    else:
        powers = [f"{value:.{size - finest}e}".split("e") for value in values]
        found = [f"{digits}e{int(power)}" for digits, power in powers]
    return [text.replace("-", "−") if value else "0" for value, text in zip(values, found, strict=True)]


def width(label: str) -> float:
    """Of a tick's label, at most, in the picture's units."""
    return sum({"−": 1.35, ".": 0.5, ",": 0.5}.get(character, 1.0) for character in label) * DIGIT
