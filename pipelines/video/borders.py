"""Borders: bars, frames and fills around the picture, as one crop box for a clip.

What belongs here: finding the box on the clip's keyframe candidates (up to 640 px), and making it exact on the full frame's
row and column means. A border is flat or blurred, stands still while the clip lasts, and ends in a straight line.

Pictures of the whole clip are looked at together: what is bright in any of them counts, so that a dark scene does not look
like a bar, and a bar is a bar only where no picture ever shows anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.video.clips import Crop
from pipelines.video.planes import Image, Scaler
from pipelines.video.reading import OpenVideo
from pipelines.video.spill import Spill

JPEG_BLOCK_PX = (
    8  # an edge inside a block ripples through all of it, so a flat border may seem to end so much too early
)
STRONG_STEP = 0.5  # of the strongest step nearby: as sharp as the edge of the border
FLAT_LUMA = 12  # levels by which border pixels may differ from the border's colour, over the whole clip
FLAT_SHARE = 0.985  # share of a line's pixels that must be so; the rest is JPEG noise
EDGE_LUMA = 10  # levels by which the picture stands out from the border within a few pixels
EDGE_SHARE = 0.35  # share of the first picture line that must differ from the border for it to be a straight edge
PAIRED_EDGE_SHARE = 0.06  # enough where the opposite side has a border of the same width: dark scenes
MIN_DEPTH_SHARE = 0.008  # of the side: thinner lines are no border
BLUR_RATIO = 0.2  # of the picture's fine detail that a blurred fill has at most
MIN_FILL_SHARE = 0.08  # of the side, on each of both sides
MIN_CONTENT_SHARE = 0.05  # of the frame: a smaller rest is a speck on a flat ground, not a picture


@dataclass(frozen=True)
class Border:
    """The crop box that leaves the border out, and what the border is."""

    kind: str  # none, letterbox, pillarbox, windowbox or picture_in_picture
    crop: Crop
    share: float  # of the display frame that lies outside the box
    luma: float | None  # of a flat border, 0..255; None for one that shows something


@dataclass(frozen=True)
class Box:
    """Half-open rows and columns."""

    top: int
    bottom: int
    left: int
    right: int


class Profiles:
    """Row and column means of luma of some frames at full size, on disk: 4 (width + height) bytes each."""

    def __init__(self, video: OpenVideo, spill: Spill) -> None:
        sideways = video.is_sideways
        self.width = video.stored_height_px if sideways else video.stored_width_px
        self.height = video.stored_width_px if sideways else video.stored_height_px
        self._scale = Scaler(video, self.width, self.height, "gray", flags="neighbor")
        self._spill = spill
        self._pts: list[int] = []

    def append(self, frame: av.VideoFrame) -> None:
        luma = self._scale(frame).to_ndarray()
        rows = cv2.reduce(luma, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel()
        columns = cv2.reduce(luma, 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel()
        self._spill.append(np.concatenate([rows, columns]).astype(np.float32).tobytes())
        self._pts.append(int(frame.pts or 0))

    def edges(self, start_pts: int, end_pts: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean absolute step between neighbouring rows (length height - 1) and columns (width - 1) over the clip's frames."""
        inside = [number for number, pts in enumerate(self._pts) if start_pts <= pts < end_pts]
        total = np.zeros(self.height + self.width, np.float32)
        for number in inside:
            profile = np.frombuffer(self._spill[number], np.float32)
            total[1:] += np.abs(np.diff(profile))
        total /= max(len(inside), 1)
        return total[1 : self.height], total[self.height + 1 :]


def find_border(
    pictures: Sequence[Image], profiles: Profiles, span: tuple[int, int], display: tuple[int, int]
) -> Border:
    """The border of a clip shown by `pictures` (H W 3, BGR), spanning PTS `span`, of a `display` (width, height) frame."""
    high = np.maximum.reduce(list(pictures))
    low = np.minimum.reduce(list(pictures))
    box = _flat_box(high.astype(np.int16), low.astype(np.int16))
    height, width = high.shape[:2]
    if box == Box(0, height, 0, width):
        filled = _filled_box(pictures)
        if filled == box:
            return Border("none", _whole(display), 0.0, None)
        crop = _exact(filled, (height, width), profiles, span, display)
        return Border("picture_in_picture", crop, _share(crop, display), None)
    outside = np.ones((height, width), bool)
    outside[box.top : box.bottom, box.left : box.right] = False
    luma = float(cv2.cvtColor(low, cv2.COLOR_BGR2GRAY)[outside].mean())
    crop = _exact(box, (height, width), profiles, span, display)
    return Border(_kind(box, (height, width)), crop, _share(crop, display), luma)


def _share(crop: Crop, display: tuple[int, int]) -> float:
    """Share of the display frame outside `crop`."""
    return 1 - crop.width * crop.height / (display[0] * display[1])


def _kind(box: Box, size: tuple[int, int]) -> str:
    has_rows = box.top > 0 or box.bottom < size[0]
    has_columns = box.left > 0 or box.right < size[1]
    return "windowbox" if has_rows and has_columns else "letterbox" if has_rows else "pillarbox"


def _filled_box(pictures: Sequence[Image]) -> Box:
    """The box between two sides that hold a blurred copy of the picture; the whole picture if there is none."""
    grey = np.stack([cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) for picture in pictures[:: max(1, len(pictures) // 5)]])
    height, width = grey.shape[1:]
    left, right = _filled_ends(grey)
    if (left, right) != (0, width):
        return Box(0, height, left, right)
    top, bottom = _filled_ends(grey.swapaxes(1, 2))
    return Box(top, bottom, 0, width)


def _filled_ends(grey: Image) -> tuple[int, int]:
    """First and end column of the sharp picture between two blurred sides; `grey` is T H W."""
    count = grey.shape[2]
    lines = grey.astype(np.int16)
    detail = np.abs(lines[:, 2:] - 2 * lines[:, 1:-1] + lines[:, :-2]).mean(axis=(0, 1))
    middle = float(np.median(detail[count * 2 // 5 : count * 3 // 5]))
    is_sharp = detail > max(BLUR_RATIO * middle, 0.5)
    if not is_sharp.any() or middle < 1.5:
        return 0, count
    left, right = int(is_sharp.argmax()), count - int(is_sharp[::-1].argmax())
    left, right = _seam(lines, left, 1), _seam(lines, right, -1)
    is_fill = min(left, count - right) >= MIN_FILL_SHARE * count and abs(left - (count - right)) <= 0.03 * count
    seams = [
        np.abs(lines[:, :, min(at + 2, count - 1)] - lines[:, :, max(at - 3, 0)]) > EDGE_LUMA for at in (left, right)
    ]
    return (left, right) if is_fill and min(seam.mean() for seam in seams) >= EDGE_SHARE else (0, count)


def _seam(lines: NDArray[np.int16], at: int, inwards: int) -> int:
    """The strongest column edge near `at`: JPEG's blocks of 8 px carry the picture's detail beyond its end."""
    columns = [at + inwards * step for step in range(-2, 9)]
    inside = [column for column in columns if 0 < column < lines.shape[2]]
    strength = [float(np.abs(lines[:, :, column] - lines[:, :, column - 1]).mean()) for column in inside]
    return inside[int(np.argmax(strength))] if inside else at


def _flat_box(high: NDArray[np.int16], low: NDArray[np.int16]) -> Box:
    """The box inside flat borders, in pixels of the pictures; the whole picture if there are none."""
    height, width = high.shape[:2]
    top, bottom = _flat_ends(high, low)
    left, right = _flat_ends(high[top:bottom].swapaxes(0, 1), low[top:bottom].swapaxes(0, 1))
    if (top, bottom) == (0, height) and (left, right) != (0, width):
        top, bottom = _flat_ends(high[:, left:right], low[:, left:right])
    if (bottom - top) * (right - left) < MIN_CONTENT_SHARE * height * width:
        return Box(0, height, 0, width)
    return Box(top, bottom, left, right)


def _flat_ends(high: NDArray[np.int16], low: NDArray[np.int16]) -> tuple[int, int]:
    """First and end row of the picture between flat rows at both ends."""
    count = len(high)
    if count < 8:
        return 0, count
    start, start_edge = _flat_depth(high, low)
    end, end_edge = _flat_depth(high[::-1], low[::-1])
    if start + end >= count:
        return 0, count
    is_paired = abs(start - end) <= max(2, 0.01 * count) and min(start_edge, end_edge) >= PAIRED_EDGE_SHARE
    needed = max(2, round(MIN_DEPTH_SHARE * count))
    has_start = start >= needed and (
        start_edge >= EDGE_SHARE or (is_paired and max(start_edge, end_edge) >= EDGE_SHARE)
    )
    has_end = end >= needed and (end_edge >= EDGE_SHARE or (is_paired and max(start_edge, end_edge) >= EDGE_SHARE))
    return start if has_start else 0, count - end if has_end else count


def _flat_depth(high: NDArray[np.int16], low: NDArray[np.int16]) -> tuple[int, float]:
    """How many rows from the first on are flat and alike, and which share of the row after them differs."""
    colour = np.median((high[0] + low[0]) // 2, axis=0)
    if (_away(high[:1], low[:1], colour) <= FLAT_LUMA).mean() < FLAT_SHARE:
        return 0, 1.0
    depth = _flat_rows(high, low, colour)
    if not 0 < depth < len(high):
        return depth, 0.0
    around = slice(max(depth - 3, 0), depth + 3)
    away = _away(high[around], low[around], colour)
    stands_out = (
        away[depth - around.start :].max(axis=0) - away[0] > EDGE_LUMA
    )  # a vignette brightens too slowly for this
    return depth, float(stands_out.mean())


def _flat_rows(high: NDArray[np.int16], low: NDArray[np.int16], colour: NDArray[np.float64]) -> int:
    """Rows from the first on that are flat and of `colour`, looked at in blocks: most pictures end at once."""
    for start in range(0, len(high), 16):
        away = _away(high[start : start + 16], low[start : start + 16], colour)
        is_flat = (away <= FLAT_LUMA).mean(axis=1) >= FLAT_SHARE
        if not is_flat.all():
            return start + int(is_flat.argmin())
    return len(high)


def _away(high: NDArray[np.int16], low: NDArray[np.int16], colour: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each pixel strays from `colour` over the clip, in levels."""
    return np.maximum(high - colour, colour - low).max(axis=2)


def _exact(
    box: Box, size: tuple[int, int], profiles: Profiles, span: tuple[int, int], display: tuple[int, int]
) -> Crop:
    """The box on the display frame, each edge moved to the sharpest step of the full frame nearby."""
    row_steps, column_steps = profiles.edges(*span)
    top, bottom = _snap(box.top, box.bottom, size[0], row_steps)
    left, right = _snap(box.left, box.right, size[1], column_steps)
    stretch_x, stretch_y = display[0] / profiles.width, display[1] / profiles.height
    return _even(
        int(np.ceil(left * stretch_x)), int(np.ceil(top * stretch_y)), int(right * stretch_x), int(bottom * stretch_y)
    )


def _snap(start: int, end: int, count: int, steps: NDArray[np.float32]) -> tuple[int, int]:
    """`start` and `end` of `count` picture lines, as lines of the full frame whose `steps` lie between neighbours."""
    scale = (len(steps) + 1) / count
    outwards, inwards = int(np.ceil(2 * scale)), int(np.ceil((JPEG_BLOCK_PX + 1) * scale))

    def outermost(first: int, last: int, order: int) -> int:
        """Of the steps before lines `first` to `last` that are nearly the strongest, the one nearest to the frame's edge."""
        first, last = max(first, 1), min(last, len(steps))
        nearby = steps[first - 1 : last]
        return first + int(np.flatnonzero(nearby >= STRONG_STEP * nearby.max())[order])

    at_start, at_end = round(start * scale), round(end * scale)
    return (
        outermost(at_start - outwards, at_start + inwards, 0) if start else 0,
        outermost(at_end - inwards, at_end + outwards, -1) if end < count else len(steps) + 1,
    )


def _even(left: int, top: int, right: int, bottom: int) -> Crop:
    return Crop(left, top, max(2, (right - left) // 2 * 2), max(2, (bottom - top) // 2 * 2))


def _whole(display: tuple[int, int]) -> Crop:
    return _even(0, 0, *display)
