"""Line charts as SVG text, without script, font or file; colours come from the page's style sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 280
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40
MOST_POINTS = 300
COLOURS = 10  # how many the style sheet defines: .c0 to .c9


@dataclass(frozen=True)
class Series:
    """A named curve of (x, y) points; `ceiling` is drawn as a dotted line in the same colour."""

    name: str
    points: Sequence[tuple[float, float]]
    ceiling: float | None = None


def line_chart(title: str, x_label: str, y_label: str, series: Sequence[Series]) -> str:
    """An SVG element whose title and description say what it shows; empty where there is nothing to draw."""
    curves = [(number, s, thinned(s.points)) for number, s in enumerate(series)]
    everything = [point for _, _, points in curves for point in points]
    if not everything:
        return ""
    x_ticks = ticks(0.0, max(x for x, _ in everything))
    levels = [y for _, y in everything] + [s.ceiling for s in series if s.ceiling is not None]
    y_ticks = ticks(min(levels), max(levels))
    x_from, x_to, y_from, y_to = x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1]

    def x_at(x: float) -> float:
        return LEFT + (x - x_from) / (x_to - x_from) * (WIDTH - LEFT - RIGHT)

    def y_at(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_from) / (y_to - y_from) * (HEIGHT - TOP - BOTTOM)

    label = escape(f"{title}: {', '.join(s.name for s in series)}")
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">']
    for y in y_ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_at(y):.1f}" y2="{y_at(y):.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{y_at(y) + 4:.1f}" text-anchor="end">{number(y)}</text>')
    for x in x_ticks:
        # the last number ends at the picture's edge: centred, a wide font would be cut there
        place, anchor = (f"{x_at(x):.1f}", "middle") if x < x_to else (WIDTH, "end")
        parts.append(
            f'<text class="tick" x="{place}" y="{HEIGHT - BOTTOM + 17}" text-anchor="{anchor}">{number(x)}</text>'
        )
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>')
    for order, s, points in curves:
        colour = f"c{order % COLOURS}"
        if s.ceiling is not None:
            level = f"{y_at(s.ceiling):.1f}"
            parts.append(f'<line class="ceiling {colour}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level}" y2="{level}"/>')
        path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="curve {colour}" points="{path}"/>')
    parts.append(
        f'<text class="label" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 4}"'
        f' text-anchor="middle">{escape(x_label)}</text>'
    )
    parts.append(f'<text class="label" x="{LEFT + 6}" y="{TOP + 9}">{escape(y_label)}</text></svg>')
    return "".join(parts)


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most 300 points: means over runs of neighbours. Points that are not finite are left out."""
    whole = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    size = -(-len(whole) // MOST_POINTS) or 1
    runs = [whole[start : start + size] for start in range(0, len(whole), size)]
    return [(sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run)) for run in runs]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from below `low` to above `high`, in steps of 1, 2 or 5 times a power of ten."""
    span = max(high - low, 1e-9 * max(1.0, abs(high)))
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [place * step for place in range(first, max(last, first + 1) + 1)]


def number(value: float) -> str:
    """A tick's label: no trailing zeros, a true minus sign."""
    text = f"{value:.6g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return "0" if text in ("-0", "0") else text.replace("-", "−")
