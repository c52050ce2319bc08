"""The probe against frames that were really decoded, and its arithmetic of time."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.tables import VIDEOS, conform
from pipelines.video import probe
from pipelines.video.reading import frames, open_video
from pipelines.video.sandbox import Sandbox

SAMPLES = {
    "a.mp4": {"width_px": 1920, "height_px": 1080, "fps": 30.0, "video_codec": "h264", "audio_codec": "aac"},
    "b.avi": {"width_px": 480, "height_px": 270, "video_codec": "mpeg4", "audio_codec": "mp3", "container": "avi"},
    "bikes.mp4": {"width_px": 640, "height_px": 272, "fps": 25.0, "duration_s": 10.0, "audio_codec": None},
    "bigbuckbunny.mp4": {"width_px": 1280, "height_px": 720, "duration_s": 5.28, "audio_channels": 6},
    "carphone_pristine.mp4": {"width_px": 193, "height_px": 144, "sar_num": 128, "sar_den": 117, "packet_count": 120},
    "muted_b.mp4": {"audio_codec": None, "duration_s": 5.0},
    "world.mp4": {"packet_count": 901, "is_vfr": False, "gap_count": 0, "backward_count": 0},
}


def row_of(path: Path) -> dict[str, object]:
    facts, tables = probe.run({"path": str(path), "video_id": "0" * 32}, lambda: None)
    assert facts == {}
    return conform(tables["videos"], VIDEOS).to_pylist()[0]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_real_video_s_row_holds_what_is_known_of_it(name: str, samples: Path) -> None:
    row = row_of(samples / name)
    assert row["status"] == "ok"
    for column, expected in SAMPLES[name].items():
        assert row[column] == pytest.approx(expected) if isinstance(expected, float) else row[column] == expected, (
            column
        )


@pytest.mark.parametrize("name", SAMPLES)
def test_the_span_of_the_probe_is_the_span_of_the_frames(name: str, samples: Path) -> None:
    row = row_of(samples / name)
    with open_video(samples / name) as video:
        decoded = [(frame.pts, frame.duration) for frame in frames(video)]
    assert row["start_pts"] == decoded[0][0]
    assert row["end_pts"] == decoded[-1][0] + decoded[-1][1]
    assert row["packet_count"] == len(decoded)


def test_the_sandboxed_probe_gives_the_same_row(samples: Path) -> None:
    with Sandbox() as box:
        reply = box.call("probe", {"path": str(samples / "bikes.mp4"), "video_id": "0" * 32})
    assert reply.tables["videos"].to_pylist() == [row_of(samples / "bikes.mp4")]


@given(st.integers(1, 240), st.sampled_from([30, 600, 1000, 90000]), st.integers(3, 300))
def test_a_constant_rate_rounded_to_any_clock_is_not_variable(rate: int, ticks_per_s: int, count: int) -> None:
    pts = np.round(np.arange(count) * ticks_per_s / rate).astype(np.int64)
    steps = np.diff(pts)
    if ticks_per_s >= 4 * rate or ticks_per_s % rate == 0:  # else the clock is too coarse to tell
        assert not probe.is_variable(steps)


@given(st.integers(2, 20), st.integers(100, 5000))
def test_a_frame_in_ten_twice_as_long_is_variable(tens: int, step: int) -> None:
    assert probe.is_variable(np.array(([step] * 9 + [2 * step]) * tens))
    assert not probe.is_variable(np.array([step] * (10 * tens)))
