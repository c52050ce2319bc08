"""Choosing keyframes: laws over any grid of candidates."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.video.keyframes import choose, encode_jpeg


@given(st.lists(st.integers(1, 900), min_size=1, max_size=120), st.data())
def test_keyframes_lie_in_the_clip_first_and_last_included(steps: list[int], data: st.DataObject) -> None:
    pts = np.cumsum(steps).astype(np.int64)
    start = data.draw(st.integers(0, int(pts[-1])))
    end = data.draw(st.integers(start + 1, int(pts[-1]) + 1000))
    chosen = choose(pts, start, end, (end - start) / 1000, 2.0)
    inside = [number for number, at in enumerate(pts) if start <= at < end]
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(inside)
    if inside:
        assert (chosen[0], chosen[-1]) == (inside[0], inside[-1])
        assert len(chosen) <= max(3, round((end - start) / 2000) + 1)


@given(st.integers(8, 64))
def test_on_the_grid_there_are_at_least_three_and_about_one_in_two_seconds(quarters: int) -> None:
    pts = np.arange(0, 200, dtype=np.int64) * 250
    chosen = choose(pts, 1000, 1000 + quarters * 250, quarters / 4, 2.0)
    assert len(chosen) == max(3, round(quarters / 8) + 1)
    gaps = np.diff(pts[chosen])
    assert gaps.max() - gaps.min() <= 500


def test_the_same_picture_gives_the_same_bytes() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    assert encode_jpeg(picture, 90) == encode_jpeg(picture.copy(), 90)
