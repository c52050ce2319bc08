"""Which pixels of a stored frame become an exported picture, and the filter graph that takes them there.

What belongs here: geometry (crop box, pixel aspect, rotation, centre crop to the bucket) and scaling. What does not: time
(`export.py`) and where crop boxes come from (`scan.py`).

The crop box lies in the display frame, but pixels are cut from the stored frame and scaled once: a turned or anamorphic
video is never resampled twice. The turn comes last, on the small picture.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import av
import av.filter
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

TRANSPOSE = {0: (), 90: ("transpose=clock",), 180: ("hflip", "vflip"), 270: ("transpose=cclock",)}
"""Filters that turn a picture clockwise by so many degrees."""

SCALE_FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
"""accurate_rnd and bitexact: the same pixels whatever vector instructions the machine has."""


@dataclass(frozen=True)
class Box:
    """A rectangle in units of its frame; exact, edges may fall between pixels."""

    left: Fraction
    top: Fraction
    right: Fraction
    bottom: Fraction


def unit_box(clip: Mapping[str, int], width_px: int, height_px: int) -> Box:
    """The part of the display frame, in shares of its sides, that fills a picture of `width_px` x `height_px`.

    It is the largest centred part of the clip's crop box with that aspect.

    Raises:
        ValueError: the crop box is empty or reaches outside the display frame.
    """
    left, top = clip["crop_left_px"], clip["crop_top_px"]
    width, height = clip["crop_width_px"], clip["crop_height_px"]
    is_inside = left >= 0 and top >= 0 and left + width <= clip["width_px"] and top + height <= clip["height_px"]
    if not is_inside or width < 1 or height < 1:
        raise ValueError(
            f"crop box {width}x{height}+{left}+{top} does not lie inside the display frame "
            f"{clip['width_px']}x{clip['height_px']}; scan the video again"
        )
    aspect = Fraction(width_px, height_px)
    part_width = min(Fraction(width), height * aspect)
    part_height = min(Fraction(height), width / aspect)
    x = left + (width - part_width) / 2
    y = top + (height - part_height) / 2
    return Box(
        x / clip["width_px"],
        y / clip["height_px"],
        (x + part_width) / clip["width_px"],
        (y + part_height) / clip["height_px"],
    )


def unrotate(box: Box, rotation_deg: int) -> Box:
    """A unit box of the upright frame, in the frame as stored: before a clockwise turn of `rotation_deg`."""
    if rotation_deg == 90:
        return Box(box.top, 1 - box.right, box.bottom, 1 - box.left)
    if rotation_deg == 180:
        return Box(1 - box.right, 1 - box.bottom, 1 - box.left, 1 - box.top)
    if rotation_deg == 270:
        return Box(1 - box.bottom, box.left, 1 - box.top, box.right)
    return box


def whole_pixels(low: Fraction, high: Fraction, size_px: int, step_px: int) -> tuple[int, int]:
    """(first, exclusive last) pixel of the unit span `[low, high)` of a side, inwards to the chroma grid.

    Inwards, so that no row of a border outside the crop box can bleed in; a span thinner than the grid widens to one step.
    """
    first = math.ceil(low * size_px / step_px) * step_px
    last = math.floor(high * size_px / step_px) * step_px
    if last > first:
        return first, last
    first = min(math.floor(low * size_px / step_px) * step_px, max(0, size_px - step_px))
    return first, min(first + step_px, size_px)


class Framing:
    """Turns stored frames into pictures of one size in yuv420p, square pixels, upright. Keeps PTS and colour tags."""

    def __init__(self, first: VideoFrame, time_base: Fraction, box: Box, rotation_deg: int, size_px: tuple[int, int]):
        """`box` is a unit box of the stored frame; `size_px` is (width, height) of the upright picture."""
        self._graph = av.filter.Graph()
        steps = [_source(first, time_base), *_filters(first, box, rotation_deg, size_px), ("buffersink", "")]
        nodes = [self._graph.add(name, arguments) for name, arguments in steps]
        self._graph.link_nodes(*nodes).configure()

    def apply(self, frame: VideoFrame) -> VideoFrame:
        """The picture of one stored frame."""
        self._graph.push(frame)
        picture = self._graph.pull()
        assert isinstance(picture, VideoFrame)
        return picture


def _source(first: VideoFrame, time_base: Fraction) -> tuple[str, str]:
    return "buffer", (
        f"video_size={first.width}x{first.height}:pix_fmt={first.format.name}:"
        f"time_base={time_base.numerator}/{time_base.denominator}:"
        f"colorspace={int(first.colorspace)}:range={int(first.color_range)}"
    )


def _filters(first: VideoFrame, box: Box, rotation_deg: int, size_px: tuple[int, int]) -> list[tuple[str, str]]:
    step_x = 16 // (first.format.chroma_width(16) or 16)
    step_y = 16 // (first.format.chroma_height(16) or 16)
    left, right = whole_pixels(box.left, box.right, first.width, step_x)
    top, bottom = whole_pixels(box.top, box.bottom, first.height, step_y)
    width_px, height_px = size_px if rotation_deg in (0, 180) else size_px[::-1]
    scale = f"{width_px}:{height_px}:flags={SCALE_FLAGS}"
    if (
        first.format.is_rgb
    ):  # YUV keeps its matrix and range; RGB has none, so the usual one of video is chosen and tagged
        scale += ":out_color_matrix=bt709:out_range=tv"
    elif is_full_range(first):
        scale += ":in_range=pc:out_range=pc"
    turns = [name.partition("=") for name in TRANSPOSE[rotation_deg]]
    return [
        ("crop", f"{right - left}:{bottom - top}:{left}:{top}:exact=1"),
        ("scale", scale),
        ("format", "yuv420p"),
        *((name, arguments) for name, _, arguments in turns),
        ("setsar", "1"),
    ]


def is_full_range(frame: VideoFrame) -> bool:
    """Whether luma spans 0..255 rather than 16..235."""
    return frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")


def colour_tags(first: VideoFrame) -> dict[str, int]:
    """Attributes of the encoder context that keep the source's colour tags, as FFmpeg's numbers."""
    if first.format.is_rgb:
        return {
            "colorspace": int(Colorspace.ITU709),
            "color_range": int(ColorRange.MPEG),
            "color_primaries": int(first.color_primaries),
            "color_trc": int(first.color_trc),
        }
    color_range = ColorRange.JPEG if is_full_range(first) else first.color_range
    return {
        "colorspace": int(first.colorspace),
        "color_range": int(color_range),
        "color_primaries": int(first.color_primaries),
        "color_trc": int(first.color_trc),
    }
