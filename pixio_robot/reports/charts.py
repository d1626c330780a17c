"""Line charts as inline SVG that take their colours from the page, in light and dark alike."""

import math
from collections.abc import Sequence

from markupsafe import Markup

_WIDTH, _HEIGHT = 520, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 12, 30
# More points than this are averaged in as many groups: a line of 500 px shows no more, and noise hides the
# trend.
_MAX_POINTS = 240


def line_chart(steps: Sequence[float], values: Sequence[float], name: str, *, logarithmic: bool) -> Markup:
    """Draw values over training steps.

    Args:
        steps: Step of every value, increasing.
        values: Finite values.
        name: What the values are, for screen readers.
        logarithmic: Whether to draw the values on a logarithmic axis; one that meets values of zero or less
            is linear.
    """
    assert len(steps) == len(values) > 0
    x_low, x_high = steps[0], steps[-1]
    steps, values = _average(steps), _average(values)
    low, high = min(values), max(values)
    is_log = logarithmic and low > 0
    y_ticks = _log_ticks(low, high) if is_log else _linear_ticks(min(low, 0.0), high)
    low, high = min(low, *y_ticks), max(high, *y_ticks)

    def x(step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * _share(step, x_low, x_high)

    def y(value: float) -> float:
        share = _share(math.log(value), math.log(low), math.log(high)) if is_log else _share(value, low, high)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    grid = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{_label(tick)}</text>'
        for tick in y_ticks
    ]
    axis = [
        f'<text x="{x(tick):.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{tick:,.0f}</text>'
        for tick in _linear_ticks(x_low, x_high)
        if x_low <= tick <= x_high
    ]
    points = [f"{x(step):.1f},{y(value):.1f}" for step, value in zip(steps, values, strict=True)]
    last_x, last_y = points[-1].split(",")
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}'
        '<polyline class="curve" points="{}"/><circle class="dot" cx="{}" cy="{}" r="3.5"/></svg>'
    ).format(_WIDTH, _HEIGHT, name, Markup("".join(grid + axis)), " ".join(points), last_x, last_y)


def _average(numbers: Sequence[float]) -> list[float]:
    size = math.ceil(len(numbers) / _MAX_POINTS)
    groups = [numbers[start : start + size] for start in range(0, len(numbers), size)]
    return [sum(group) / len(group) for group in groups]


def _label(tick: float) -> str:
    if tick and abs(tick) < 0.001:
        mantissa, exponent = f"{tick:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{tick:.3g}"


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _linear_ticks(low: float, high: float) -> list[float]:
    """Return about four round numbers from below `low` to at most `high`."""
    if high <= low:
        return [low]
    raw = (high - low) / 4
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    first = math.floor(low / step)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers in [low, high], and the ones around it where there is none."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(decades) <= 3 else (1,)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    inside = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    if len(inside) > 1:
        return inside
    return [max(tick for tick in ticks if tick <= low), min(tick for tick in ticks if tick >= high)]
