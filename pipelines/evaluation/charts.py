"""Charts as inline SVG: text stays text, and colours follow the page's light or dark style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from markupsafe import Markup

WIDTH = 760
LABEL = 170
VALUE = 190
ROW = 26
AXIS = 28
LINE_HEIGHT = 240
TICK_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Dot:
    """A value with its interval; ``style`` is a CSS class: ``main``, ``plain``, ``good`` or ``bad``."""

    label: str
    mean: float
    low: float
    high: float
    style: str = "plain"


@dataclass(frozen=True)
class Line:
    """Values over the places 1, 2, …; None leaves a gap."""

    label: str
    values: tuple[float | None, ...]
    style: str = "plain"


def intervals(dots: Sequence[Dot], *, description: str, signed: bool = False) -> Markup:
    """One row per value: a dot, its interval as a bar, the numbers beside; ``signed`` marks zero.

    Without sign the axis starts at zero.
    """
    if not dots:
        return Markup("")
    low, high = min(0.0, *(dot.low for dot in dots)), max(0.0, *(dot.high for dot in dots))
    ticks = _ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    height = ROW * len(dots) + AXIS

    def x(value: float) -> float:
        return round(LABEL + (WIDTH - LABEL - VALUE) * (value - low) / ((high - low) or 1.0), 1)

    parts = [
        f'<line class="{"grid" if tick else "zero"}" x1="{x(tick)}" x2="{x(tick)}" y1="0" y2="{height - AXIS + 4}"/>'
        f'<text class="tick" x="{x(tick)}" y="{height - 8}" text-anchor="middle">{_short(tick)}</text>'
        for tick in ticks
    ]
    for row, dot in enumerate(dots):
        y = ROW * row + ROW / 2
        mean, span = _number(dot.mean, signed=signed), [_number(end, signed=signed) for end in (dot.low, dot.high)]
        parts.append(
            f'<g class="{dot.style}"><text class="label" x="{LABEL - 12}" y="{y + 4}" text-anchor="end">'
            f'{escape(dot.label)}</text><line class="span" x1="{x(dot.low)}" x2="{x(dot.high)}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{x(dot.mean)}" cy="{y}" r="4.5"/><text class="value" x="{WIDTH}" y="{y + 4}" '
            f'text-anchor="end">{mean} <tspan>[{span[0]}, {span[1]}]</tspan></text></g>'
        )
    return _svg(parts, height, description)


def lines(series: Sequence[Line], *, description: str, unit: str) -> Markup:
    """Values over numbered places; the last series of each style is named at its end."""
    values = [value for line in series for value in line.values if value is not None]
    if not values:
        return Markup("")
    places = max(len(line.values) for line in series)
    ticks = _ticks(0.0, max(values))
    left, right, bottom = 50, 130, LINE_HEIGHT - AXIS

    def x(place: int) -> float:
        return round(left + (WIDTH - left - right) * place / max(places - 1, 1), 1)

    def y(value: float) -> float:
        return round(8 + (bottom - 8) * (1 - value / (ticks[-1] or 1.0)), 1)

    parts = [
        f'<line class="grid" x1="{left}" x2="{WIDTH - right}" y1="{y(t)}" y2="{y(t)}"/>'
        f'<text class="tick" x="{left - 8}" y="{y(t) + 4}" text-anchor="end">{_short(t)}</text>'
        for t in ticks
    ]
    parts += [
        f'<text class="tick" x="{x(place)}" y="{LINE_HEIGHT - 8}" text-anchor="middle">'
        f"{escape(unit)} {place + 1}</text>"
        for place in range(places)
    ]
    ends = {line.style: line for line in series}
    for line in series:
        known = [(x(place), y(value)) for place, value in enumerate(line.values) if value is not None]
        path = " ".join(f"{px},{py}" for px, py in known)
        title = f"<title>{escape(line.label)}</title>"
        dots = "".join(f'<circle cx="{px}" cy="{py}" r="3"/>' for px, py in known)
        parts.append(f'<g class="{line.style}">{title}<polyline points="{path}"/>{dots}</g>')
    parts += _end_labels([(line, y(_last(line))) for line in ends.values()], WIDTH - right + 10)
    return _svg(parts, LINE_HEIGHT, description)


def _end_labels(ends: list[tuple[Line, float]], x: float) -> list[str]:
    """Labels beside the lines' ends, moved apart where they would overlap."""
    placed: list[str] = []
    free = 0.0
    for line, wanted in sorted(ends, key=lambda end: end[1]):
        y = max(wanted + 4, free)
        free = y + 16
        placed.append(
            f'<g class="{line.style}"><text class="label end" x="{x}" y="{y}">{escape(line.label)}</text></g>'
        )
    return placed


def _last(line: Line) -> float:
    return next((value for value in reversed(line.values) if value is not None), 0.0)


def _ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers that cover the range."""
    span = (high - low) or 1.0
    power = 10.0 ** np.floor(np.log10(span / 5))
    step = next(power * factor for factor in TICK_STEPS if span / (power * factor) <= 6)
    first, last = int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))
    return [round(place * step, 10) for place in range(first, max(last, first + 1) + 1)]


def _svg(parts: Sequence[str], height: float, description: str) -> Markup:
    body = "".join(parts)
    label = escape(description, quote=True)
    svg = f'<svg class="chart" viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{label}">{body}</svg>'
    return Markup(svg)  # noqa: S704 - every text in it was escaped above


def _short(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _number(value: float, *, signed: bool) -> str:
    return f"{value:+.4f}".replace("-", "−") if signed else f"{value:.4f}"
