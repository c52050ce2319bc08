"""Charts that are bars in a stretching box: funnel rows, timelines, one bar of a whole. Pure functions from numbers to markup.

What belongs here: geometry without text, so that a drawing may stretch to any width. Charts with an axis are `charts.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.report.figures import Step
from pipelines.report.markup import Markup, clock, count, element, share

FLOW_WIDTH = 1000.0
FLOW_HEIGHT = 48.0
_BAR = 30.0


def flow(step: Step, whole: int) -> Markup:
    """One row of a funnel: survivors run straight down to the next row, what stops bends off and fades out.

    The width of the drawing stands for `whole` subjects; it stretches to its box, so it holds no text. A step that stops
    nothing is only the stream.
    """
    scale = FLOW_WIDTH / whole if whole else 0.0
    left = step.left * scale
    is_quiet = step.left == step.entered
    shapes = [element("rect", class_="stream", x=0, y=0, width=left, height=FLOW_HEIGHT)]
    if not is_quiet:
        shapes.append(
            element(
                "rect",
                class_="track",
                x=step.entered * scale,
                y=0,
                width=FLOW_WIDTH - step.entered * scale,
                height=_BAR,
            )
        )
        shapes.append(element("rect", class_="kept", x=0, y=0, width=left, height=_BAR))
    at = left
    for kind, amount in (("rejected", step.rejected), ("failed", step.errors)):
        if amount:
            shapes.append(element("path", class_=kind, d=_bend(at, amount * scale)))
            at += amount * scale
    label = f"{count(step.left)} of {count(step.entered)} go on, {count(step.entered - step.left)} stop here"
    return element(
        "svg",
        element("title", label),
        *shapes,
        class_="flow",
        viewbox=f"0 0 {FLOW_WIDTH:.0f} {FLOW_HEIGHT:.0f}",
        preserveaspectRatio="none",
        role="img",
        aria_label=label,
    )


def _bend(x: float, width: float) -> str:
    """A block that leaves the stream, with a tail that bends away to the right."""
    width = max(width, 1.5)
    end, tail = x + width, FLOW_HEIGHT - 3
    reach = min(12.0, FLOW_WIDTH - end)
    return f"M{x:.1f} 0H{end:.1f}V{_BAR:.0f}Q{end:.1f} {tail:.1f} {end + reach:.1f} {tail:.1f}Q{x:.1f} {tail:.1f} {x:.1f} {_BAR:.0f}Z"


@dataclass(frozen=True)
class Block:
    """A stretch of a video on its timeline, in seconds from the first frame."""

    start_s: float
    end_s: float
    kind: str
    hint: str


STRIP_WIDTH = 1000.0
_SHOT_HEIGHT, _LANE_HEIGHT, _LANE_GAP = 16.0, 9.0, 3.0


def timeline(duration_s: float, shots: Sequence[Block], lanes: Sequence[Sequence[Block]], label: str) -> Markup:
    """A video from left to right: its shots above, one lane of clips for each policy below. Stretches to its box."""
    scale = STRIP_WIDTH / duration_s if duration_s > 0 else 0.0
    marks = [_block(block, scale, 0, _SHOT_HEIGHT, 0.75) for block in shots]
    y = _SHOT_HEIGHT + _LANE_GAP
    for lane in lanes:
        marks.append(element("rect", class_="track", x=0, y=y, width=STRIP_WIDTH, height=_LANE_HEIGHT))
        marks += [_block(block, scale, y, _LANE_HEIGHT, 0.75) for block in lane]
        y += _LANE_HEIGHT + _LANE_GAP
    return element(
        "svg",
        element("title", label),
        *marks,
        class_=f"timeline lanes-{min(len(lanes), 6)}",
        viewbox=f"0 0 {STRIP_WIDTH:.0f} {y - _LANE_GAP:.0f}",
        preserveaspectRatio="none",
        role="img",
        aria_label=label,
    )


def _block(block: Block, scale: float, y: float, height: float, gap: float) -> Markup:
    x, width = block.start_s * scale, (block.end_s - block.start_s) * scale
    gap = gap if width > 4 * gap else 0.0
    hint = element("title", f"{clock(block.start_s)} – {clock(block.end_s)} · {block.hint}")
    return element("rect", hint, class_=block.kind, x=x + gap, y=y, width=max(width - 2 * gap, 0.75), height=height)


def stacked(parts: Sequence[tuple[str, str, int]]) -> Markup:
    """One bar of a whole: (name, CSS class, amount) side by side."""
    whole = sum(amount for _, _, amount in parts)
    x, marks = 0.0, []
    for name, kind, amount in parts:
        if amount:
            width = STRIP_WIDTH * amount / whole
            hint = element("title", f"{name}: {count(amount)} ({share(amount, whole)})")
            marks.append(element("rect", hint, class_=kind, x=x, y=0, width=width, height=12))
            x += width
    label = ", ".join(f"{name} {count(amount)}" for name, _, amount in parts if amount) or "nothing"
    return element(
        "svg",
        *marks,
        class_="stacked",
        viewbox=f"0 0 {STRIP_WIDTH:.0f} 12",
        preserveaspectRatio="none",
        role="img",
        aria_label=label,
    )
