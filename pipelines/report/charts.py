"""Charts with an axis as inline SVG: pure functions from numbers to markup.

What belongs here: the geometry of histograms. Colours are CSS classes (`style.css`), so that a chart follows the reader's
colour scheme; there is no style attribute, because the page's security policy allows none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.policy import Gate
from pipelines.report.figures import Histogram
from pipelines.report.markup import Markup, count, element, number


@dataclass(frozen=True)
class Axis:
    """Where values lie on a chart's horizontal axis, in its pixels."""

    low: float
    high: float
    left_px: float
    right_px: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """The position of `value`, clamped to the axis."""
        if self.is_log:
            if value <= self.low:
                return self.left_px
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.left_px + min(1.0, max(0.0, part)) * (self.right_px - self.left_px)


CHART_WIDTH = 360.0
CHART_HEIGHT = 172.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 8.0, 352.0, 30.0, 146.0
_CHARACTER = 6.6  # width of a character of a bound's label
_ZERO_BOX = 36.0
"""Width kept free at the left for scores of zero that stand apart."""


def axis_of(figure: Histogram) -> Axis:
    """The horizontal axis of a histogram's chart."""
    left = _LEFT + (_ZERO_BOX if any(figure.zeros) else 0)
    return Axis(figure.edges[0], figure.edges[-1], left, _RIGHT, figure.is_log)


def histogram_chart(figure: Histogram, gate: Gate) -> Markup:
    """Bars by verdict, thresholds as lines, the refused side shaded, the median as a mark on the axis."""
    axis = axis_of(figure)
    label = (
        f"Histogram of {count(figure.judged)} scores, median {number(figure.median)}, threshold {gate.threshold}, "
        f"{count(sum(figure.rejected) + figure.zeros[1])} rejected"
    )
    return element(
        "svg",
        element("title", label),
        *_shades(axis, gate),
        *_bars(figure, axis),
        element("line", class_="axis", x1=_LEFT, x2=_RIGHT, y1=_BOTTOM, y2=_BOTTOM),
        *_tick_labels(axis),
        *_thresholds(axis, gate),
        _median(figure, axis),
        class_="histogram",
        viewbox=f"0 0 {CHART_WIDTH:.0f} {CHART_HEIGHT:.0f}",
        role="img",
        aria_label=label,
    )


def _shades(axis: Axis, gate: Gate) -> list[Markup]:
    sides = []
    if gate.minimum is not None:
        sides.append((_LEFT, axis.at(gate.minimum)))
    if gate.maximum is not None:
        sides.append((axis.at(gate.maximum), _RIGHT))
    height = _BOTTOM - _TOP
    return [
        element("rect", class_="refused", x=start, y=_TOP, width=end - start, height=height)
        for start, end in sides
        if end > start
    ]


def _bars(figure: Histogram, axis: Axis) -> list[Markup]:
    edges = zip(figure.edges, figure.edges[1:], strict=False)
    columns = list(zip(edges, figure.passed, figure.rejected, strict=True))
    tallest = max((passed + rejected for _, passed, rejected in columns), default=0) or 1
    scale = (_BOTTOM - _TOP - 6) / tallest
    return _zero_bar(figure) + [
        mark
        for (low, high), passed, rejected in columns
        for mark in _bar(axis.at(low), axis.at(high), passed, rejected, scale, f"{number(low)} to {number(high)}")
    ]


def _zero_bar(figure: Histogram) -> list[Markup]:
    """The zeros in a box of their own: full height whatever their number, which is written above; a gap says so."""
    amount = sum(figure.zeros)
    if not amount:
        return []
    start, end, top = _LEFT + 2, _LEFT + _ZERO_BOX - 14, _TOP + 16
    return [
        *_bar(start, end, *figure.zeros, (_BOTTOM - top) / amount, "0"),
        element(
            "path",
            class_="break",
            d=f"M{start - 2:.0f} {top + 20:.0f}l{end - start + 4:.0f} -6v4l-{end - start + 4:.0f} 6z",
        ),
        element("text", count(amount), class_="tick", x=start - 2, y=top - 4),
        element("text", "0", class_="tick", x=(start + end) / 2, y=_BOTTOM + 20, text_anchor="middle"),
    ]


def _bar(start: float, end: float, passed: int, rejected: int, scale: float, name: str) -> list[Markup]:
    """A column of two stacked blocks, never thinner or lower than can be seen."""
    gap = 0.5 if end - start > 4 else 0.0
    y, marks = _BOTTOM, []
    for kind, amount in (("kept", passed), ("rejected", rejected)):
        if amount:
            height = max(amount * scale, 1.2)
            y -= height
            hint = element("title", f"{name}: {count(amount)} {'pass' if kind == 'kept' else 'rejected'}")
            width = max(end - start - 2 * gap, 0.8)
            marks.append(element("rect", hint, class_=kind, x=start + gap, y=y, width=width, height=height))
    return marks


def _thresholds(axis: Axis, gate: Gate) -> list[Markup]:
    marks: list[Markup] = []
    taken = -math.inf
    for sign, bound in (("≥", gate.minimum), ("≤", gate.maximum)):
        if bound is None:
            continue
        x = axis.at(bound)
        arrow = " →" if bound > axis.high else " ←" if bound < axis.low else ""
        kind = "threshold off-the-axis" if arrow else "threshold"
        label = f"{sign} {number(bound)}{arrow}"
        width = _CHARACTER * len(label)
        start = max(min(x - width / 2, _RIGHT - width), _LEFT, taken)
        taken = start + width + _CHARACTER
        marks.append(element("line", class_=kind, x1=x, x2=x, y1=_TOP - 8, y2=_BOTTOM, data_bound=repr(bound)))
        marks.append(element("text", label, class_="bound", x=start, y=_TOP - 14))
    return marks


def _median(figure: Histogram, axis: Axis) -> Markup:
    x = axis.at(figure.median)
    if any(figure.zeros) and figure.median <= 0:
        x = _LEFT + _ZERO_BOX / 2 - 6
    hint = element("title", f"median {number(figure.median)}")
    return element(
        "path", hint, class_="median", d=f"M{x:.2f} {_BOTTOM:.0f}l4.5 7h-9z", data_median=repr(figure.median)
    )


def _tick_labels(axis: Axis) -> list[Markup]:
    marks = []
    for value in ticks(axis):
        x = axis.at(value)
        anchor = "end" if x > _RIGHT - 12 else "start" if x < _LEFT + 12 else "middle"
        marks.append(element("line", class_="axis", x1=x, x2=x, y1=_BOTTOM, y2=_BOTTOM + 3.5))
        marks.append(element("text", number(value), class_="tick", x=x, y=_BOTTOM + 20, text_anchor=anchor))
    return marks


def ticks(axis: Axis) -> list[float]:
    """Three to six round values on the axis."""
    if axis.is_log:
        low, high = math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high))
        fine = [m * 10.0**power for power in range(low, high + 1) for m in (1, 2, 5)]
        inside = [value for value in fine if axis.low * (1 - 1e-9) <= value <= axis.high * (1 + 1e-9)]
        powers = [value for value in inside if value in (10.0**power for power in range(low, high + 1))]
        shown = powers if len(powers) > 2 else inside
        return shown[:: math.ceil(len(shown) / 6)] if shown else [axis.low, axis.high]
    step = 10.0 ** math.floor(math.log10((axis.high - axis.low) / 3))
    step *= max(m for m in (1, 2, 2.5, 5) if (axis.high - axis.low) / (step * m) >= 3 or m == 1)
    first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def category_bars(amounts: Sequence[tuple[str, int, int]]) -> Markup:
    """Values that are no numbers: one bar for each (value, passed, rejected), as a table that needs no colour to read."""
    widest = max((passed + rejected for _, passed, rejected in amounts), default=0) or 1
    rows = []
    for name, passed, rejected in amounts:
        width = 100.0 * (passed + rejected) / widest
        bars = [element("rect", class_="kept", x=0, y=0, width=width * passed / (passed + rejected), height=10)]
        bars.append(
            element(
                "rect",
                class_="rejected",
                x=width * passed / (passed + rejected),
                y=0,
                width=width * rejected / (passed + rejected),
                height=10,
            )
        )
        drawing = element(
            "svg", *bars, class_="bar", viewbox="0 0 100 10", preserveaspectRatio="none", aria_hidden="true"
        )
        verdict = "pass" if not rejected else "rejected" if not passed else f"{count(rejected)} rejected"
        rows.append(
            element(
                "tr",
                element("th", name, scope="row"),
                element("td", drawing),
                element("td", count(passed + rejected), class_="n"),
                element("td", verdict, class_="quiet"),
            )
        )
    return element("table", *rows, class_="categories")
