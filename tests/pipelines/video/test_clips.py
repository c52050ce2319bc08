"""Cutting shots into clips: laws that hold for any frame times, and the names of clips."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.video.clips import Crop, Span, clip_id, cut_shot, unused_ticks
from pipelines.video.scan_params import ScanParams

TIME_BASE = Fraction(1, 1000)


def steady(frames: int, fps: int = 25) -> NDArray[np.int64]:
    return np.arange(frames + 1, dtype=np.int64) * (1000 // fps)


@st.composite
def shots(draw: st.DrawFn) -> tuple[NDArray[np.int64], Span, ScanParams]:
    steps = draw(st.lists(st.integers(1, 400), min_size=2, max_size=300))
    pts = np.cumsum([draw(st.integers(-5000, 5000)), *steps]).astype(np.int64)
    first = draw(st.integers(0, len(steps) - 1))
    end = draw(st.integers(first + 1, len(steps)))
    low = draw(st.floats(0.1, 4))
    params = ScanParams(
        min_clip_s=low,
        max_clip_s=low * draw(st.floats(2, 8)),
        trim_source_s=draw(st.floats(0, 2)),
        trim_cut_s=draw(st.floats(0, 2)),
    )
    return pts, Span(first, end), params


@given(shots())
def test_clips_lie_in_order_inside_their_shot_and_no_second_is_lost(
    shot: tuple[NDArray[np.int64], Span, ScanParams],
) -> None:
    pts, span, params = shot
    clips = cut_shot(pts, TIME_BASE, span, params)
    bounds = [span.first, *(at for clip in clips.spans for at in (clip.first, clip.end)), span.end]
    assert bounds == sorted(bounds)
    lengths = [int(pts[clip.end] - pts[clip.first]) for clip in clips.spans]
    assert all(params.min_clip_s <= length / 1000 <= params.max_clip_s for length in lengths)
    assert sum(lengths) + unused_ticks(pts, span, clips) == pts[span.end] - pts[span.first]
    if clips.spans:
        start = pts[0] + params.trim_source_s * 1000 if span.first == 0 else pts[span.first] + params.trim_cut_s * 1000
        assert pts[clips.spans[0].first] >= start - 1
        if span.end < len(pts) - 1:
            assert pts[clips.spans[-1].end - 1] < pts[span.end] - params.trim_cut_s * 1000 + 1


@given(st.integers(60, 2000), st.floats(0, 1))
def test_steady_video_is_used_to_the_last_frame_that_is_not_trimmed(frames: int, trim: float) -> None:
    params = ScanParams(trim_source_s=trim, trim_cut_s=trim)
    pts = steady(frames)
    clips = cut_shot(pts, TIME_BASE, Span(0, frames), params)
    left = frames - int(np.searchsorted(pts[:-1], round(trim * 1000)))
    if left * 40 >= 2000:
        assert sum(clip.end - clip.first for clip in clips.spans) == left
        assert len(clips.spans) == max(1, -(-left * 40 // 16000))
        sizes = [clip.end - clip.first for clip in clips.spans]
        assert max(sizes) - min(sizes) <= 1
    else:
        assert not clips.spans


def test_cuts_are_trimmed_and_artificial_splits_are_not() -> None:
    pts = steady(2000)
    clips = cut_shot(pts, TIME_BASE, Span(500, 1500), ScanParams())
    assert clips.cut == "divided"
    assert [(clip.first, clip.end) for clip in clips.spans] == [(513, 838), (838, 1163), (1163, 1488)]
    assert cut_shot(pts, TIME_BASE, Span(500, 700), ScanParams()).spans == (Span(513, 688),)


def test_the_first_seconds_of_the_source_are_trimmed_even_across_a_cut() -> None:
    pts = steady(500)
    clips = cut_shot(pts, TIME_BASE, Span(10, 400), ScanParams(trim_source_s=3))
    assert clips.spans[0].first == 75


def test_the_end_of_the_source_is_not_trimmed() -> None:
    assert cut_shot(steady(200), TIME_BASE, Span(50, 200), ScanParams()).spans == (Span(63, 200),)


def test_a_clip_is_named_by_source_span_and_crop() -> None:
    crop = Crop(0, 0, 640, 360)
    name = clip_id("a" * 32, Fraction(1, 90000), 0, 90000, crop)
    assert len(name) == 32 and set(name) <= set("0123456789abcdef")
    others = [
        clip_id("b" * 32, Fraction(1, 90000), 0, 90000, crop),
        clip_id("a" * 32, Fraction(1, 9000), 0, 90000, crop),
        clip_id("a" * 32, Fraction(1, 90000), 1, 90000, crop),
        clip_id("a" * 32, Fraction(1, 90000), 0, 90001, crop),
        clip_id("a" * 32, Fraction(1, 90000), 0, 90000, Crop(2, 0, 638, 360)),
    ]
    assert len({name, *others}) == 6
    assert name == clip_id("a" * 32, Fraction(2, 180000), 0, 90000, crop)


@pytest.mark.parametrize(
    ("given_params", "says"),
    [
        ({"min_clips": 1}, "unknown scan parameter min_clips"),
        ({"min_clip_s": 10.0, "max_clip_s": 12.0}, "at least twice"),
        ({"plane_px": 255}, "multiple of 4"),
        ({"jpeg_quality": 90.5}, "whole number"),
        ({"trim_cut_s": -1}, "must lie in"),
        ({"flow_hz": True}, "must be a number"),
        ({"trim_cut_s": float("nan")}, "must lie in"),
    ],
)
def test_a_wrong_parameter_is_refused_in_a_sentence(given_params: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ScanParams.from_dict(given_params)


def test_parameters_survive_json() -> None:
    params = ScanParams(min_clip_s=4, jpeg_quality=80)
    assert ScanParams.from_dict(params.to_dict()) == params
