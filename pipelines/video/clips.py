"""From shots to clips: trim what a cut spoils, divide what is too long, account for every second.

What belongs here: arithmetic on frame times. A clip is named by what it is (video, span, crop), so the same clip found
again has the same name.
"""

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipelines.video.scan_params import ScanParams

CLIP_ID_HEX = 32


@dataclass(frozen=True)
class Crop:
    """A box in the display frame, pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Span:
    """Frames `first` to `end` (exclusive) of the video."""

    first: int
    end: int


@dataclass(frozen=True)
class ShotClips:
    """The clips of one shot and how they were cut."""

    spans: tuple[Span, ...]
    cut: str  # whole or divided


def clip_id(video_id: str, time_base: Fraction, start_pts: int, end_pts: int, crop: Crop) -> str:
    """Name of a clip: 32 hex digits of the sha256 of its source, exact span and crop box."""
    span = f"{video_id} {time_base.numerator}/{time_base.denominator} {start_pts} {end_pts}"
    box = f"{crop.left} {crop.top} {crop.width} {crop.height}"
    return hashlib.sha256(f"{span} {box}".encode()).hexdigest()[:CLIP_ID_HEX]


def cut_shot(
    pts: NDArray[np.int64],
    time_base: Fraction,
    shot: Span,
    params: ScanParams,
) -> ShotClips:
    """Clips of one shot. `pts` has one entry more than there are frames: the end of the last.

    Trims the first `trim_source_s` of the source, and `trim_cut_s` at every end of a shot that is not an end of the source. What is left is
    cut into ceil(length / max_clip_s) equal parts, to the nearest frame; a part that one long frame pushes out of
    `min_clip_s..max_clip_s` is no clip. Every clip lies inside the shot, and clips do not overlap.
    """
    start, stop = int(pts[shot.first]), int(pts[shot.end])
    is_source_end = shot.end == len(pts) - 1
    if shot.first > 0:
        start += _ticks(params.trim_cut_s, time_base)
    start = max(start, int(pts[0]) + _ticks(params.trim_source_s, time_base))
    first = _frame_at(pts, shot, start)
    end = shot.end if is_source_end else _frame_at(pts, shot, stop - _ticks(params.trim_cut_s, time_base))
    length_s = float(int(pts[end]) - int(pts[first])) * float(time_base)
    if end <= first or length_s < params.min_clip_s:
        return ShotClips((), "whole")
    fewest = _part_count(length_s, params.max_clip_s)
    spans = _equal_parts(pts, Span(first, end), fewest)
    if not all(_length_s(pts, span, time_base) <= params.max_clip_s for span in spans):
        spans = _equal_parts(pts, Span(first, end), fewest + 1)  # snapping made one part longer by a frame
    kept = tuple(span for span in spans if params.min_clip_s <= _length_s(pts, span, time_base) <= params.max_clip_s)
    return ShotClips(kept, "whole" if len(spans) == 1 else "divided")


def unused_ticks(pts: NDArray[np.int64], shot: Span, clips: ShotClips) -> int:
    """PTS units of the shot that lie in no clip: trimmed or left over."""
    used = sum(int(pts[span.end] - pts[span.first]) for span in clips.spans)
    return int(pts[shot.end] - pts[shot.first]) - used


def _length_s(pts: NDArray[np.int64], span: Span, time_base: Fraction) -> float:
    return float(int(pts[span.end] - pts[span.first]) * time_base)


def _part_count(length_s: float, max_clip_s: float) -> int:
    return max(1, int(np.ceil(length_s / max_clip_s - 1e-9)))


def _equal_parts(pts: NDArray[np.int64], span: Span, count: int) -> list[Span]:
    """`count` parts of equal time, each end at the nearest frame."""
    start, stop = int(pts[span.first]), int(pts[span.end])
    bounds = [_nearest(pts, span, start + (stop - start) * part // count) for part in range(count + 1)]
    return [Span(first, end) for first, end in pairwise(bounds) if end > first]


def _frame_at(pts: NDArray[np.int64], span: Span, at: int) -> int:
    """First frame of `span` at or after PTS `at`; its end if there is none."""
    return int(np.searchsorted(pts[span.first : span.end], at)) + span.first


def _nearest(pts: NDArray[np.int64], span: Span, at: int) -> int:
    after = _frame_at(pts, span, at)
    if after > span.first and at - int(pts[after - 1]) < int(pts[after]) - at:
        return after - 1
    return after


def _ticks(seconds: float, time_base: Fraction) -> int:
    return round(seconds / time_base)
