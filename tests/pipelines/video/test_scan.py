"""The scan end to end: exact time, geometry, determinism, and rows that agree with each other."""

from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from pipelines.tables import CLIPS, KEYFRAMES, SCANS, SHOTS, SIGNALS
from pipelines.video import scan as scan_module
from pipelines.video.reading import MediaError, Reason
from pipelines.video.scan import run, scan
from pipelines.video.scan_params import ScanParams

VIDEO_ID = "0123456789abcdef" * 2


def scanned(path: Path, threads: int = 1, **params: float) -> dict[str, pa.Table]:
    return scan(str(path), VIDEO_ID, ScanParams.from_dict(params), threads, lambda: None)


@pytest.fixture(scope="module")
def footage(samples: Path) -> list[NDArray[np.uint8]]:
    """A hundred real frames, 320x180, BGR."""
    with av.open(str(samples / "bigbuckbunny.mp4")) as container:
        decoded = zip(range(100), container.decode(video=0), strict=False)
        return [frame.reformat(320, 180, format="bgr24").to_ndarray() for _, frame in decoded]


def film(
    path: Path,
    pictures: list[NDArray[np.uint8]],
    pts: list[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    rotation_deg: int = 0,
    sar: Fraction | None = None,
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = pictures[0].shape[1], pictures[0].shape[0], "yuv420p"
        stream.codec_context.time_base = time_base
        stream.options = {"preset": "ultrafast", "crf": "18"}
        if sar:
            stream.codec_context.sample_aspect_ratio = sar
        if rotation_deg:
            stream.set_display_rotation(rotation_deg)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
            frame.pts, frame.time_base = (pts[index] if pts else index), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decoded_pts(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [int(frame.pts) for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    "name", ["bigbuckbunny.mp4", "bikes.mp4", "world.mp4", "a.mp4", "b.avi", "carphone_pristine.mp4"]
)
def test_rows_of_a_real_video_agree_with_each_other_and_with_its_frames(samples: Path, name: str) -> None:
    tables = scanned(samples / name, min_clip_s=0.5, max_clip_s=4.0, trim_source_s=0.2, trim_cut_s=0.1)
    for table in (SCANS, SHOTS, CLIPS, SIGNALS, KEYFRAMES):
        assert tables[table.name].schema == table.schema
    pts = decoded_pts(samples / name)
    (summary,) = tables["scans"].to_pylist()
    shots, clips = tables["shots"].to_pylist(), tables["clips"].to_pylist()
    assert summary["frame_count"] == len(pts)
    assert (summary["shot_count"], summary["clip_count"]) == (len(shots), len(clips))
    assert clips
    per_shot = Counter(clip["shot_index"] for clip in clips)
    for shot in shots:
        assert shot["start_pts"] == pts[shot["start_frame"]]
        assert shot["clip_count"] == per_shot[shot["index"]]
        used = sum(clip["duration_s"] for clip in clips if clip["shot_index"] == shot["index"])
        assert used + shot["unused_s"] == pytest.approx(shot["end_s"] - shot["start_s"])
    for clip in clips:
        shot = shots[clip["shot_index"]]
        assert shot["start_pts"] <= clip["start_pts"] < clip["end_pts"] <= shot["end_pts"]
        assert clip["start_pts"] in pts
        assert clip["frame_count"] == sum(clip["start_pts"] <= at < clip["end_pts"] for at in pts)
        assert 0.5 <= clip["duration_s"] <= 4
        assert clip["crop_width_px"] % 2 == clip["crop_height_px"] % 2 == 0
    keyframes = tables["keyframes"].to_pylist()
    for clip in clips:
        own = [row for row in keyframes if row["clip_id"] == clip["clip_id"]]
        assert [row["index"] for row in own] == list(range(len(own)))
        assert len(own) >= min(3, clip["frame_count"])
        assert all(clip["start_pts"] <= row["pts"] < clip["end_pts"] and row["pts"] in pts for row in own)
        assert own[0]["time_s"] <= 0.3 and own[-1]["time_s"] >= clip["duration_s"] - 0.3
        for row in own:
            picture = cv2.imdecode(np.frombuffer(row["jpeg"], np.uint8), cv2.IMREAD_COLOR)
            assert picture.shape[:2] == (row["height_px"], row["width_px"])
            assert max(picture.shape[:2]) <= 640
    for row in tables["signals"].to_pylist():
        assert all(value is not None and (isinstance(value, str) or np.isfinite(value)) for value in row.values()), row
        shares = [
            value for column, value in row.items() if column.endswith(("_share", "_score")) and column != "motion_score"
        ]
        assert all(0 <= value <= 1 + 1e-9 for value in shares), row


def test_the_same_file_gives_the_same_rows_whatever_the_threads(samples: Path) -> None:
    one, again, four = (scanned(samples / "bigbuckbunny.mp4", threads) for threads in (1, 1, 4))
    assert one == again
    assert one == four


def test_time_follows_the_frames_of_variable_rate_video(tmp_path: Path, footage: list[NDArray[np.uint8]]) -> None:
    rng = np.random.default_rng(0)
    pts = np.cumsum(rng.integers(8, 90, len(footage))).tolist()
    path = film(tmp_path / "v.mp4", footage, pts, Fraction(1, 1000))
    tables = scanned(path, trim_source_s=0.0)
    seen = decoded_pts(path)
    (clip,) = tables["clips"].to_pylist()
    (summary,) = tables["scans"].to_pylist()
    assert clip["start_pts"] == seen[0]
    assert clip["frame_count"] == 100
    assert clip["duration_s"] == pytest.approx((pts[-1] - pts[0]) / 1000, abs=0.1)
    assert summary["duration_s"] == pytest.approx(clip["duration_s"])
    assert {row["pts"] for row in tables["keyframes"].to_pylist()} <= set(seen)


def test_a_gap_in_time_ends_the_shot(tmp_path: Path, footage: list[NDArray[np.uint8]]) -> None:
    pts = [index + (50 if index >= 50 else 0) for index in range(100)]
    shots = scanned(film(tmp_path / "v.mkv", footage, pts))["shots"].to_pylist()
    assert [(row["transition"], row["start_frame"]) for row in shots] == [("start", 0), ("gap", 50)]


@pytest.mark.parametrize("rotation_deg", [90, 180, 270])
def test_keyframes_and_crop_are_upright(tmp_path: Path, footage: list[NDArray[np.uint8]], rotation_deg: int) -> None:
    boxed = []
    for picture in footage[:75]:
        out = np.zeros((240, 320, 3), np.uint8)
        out[20:200] = picture  # 20 px of black above, 40 px below
        boxed.append(out)
    turns = rotation_deg // 90
    stored = [
        np.ascontiguousarray(np.rot90(picture, -turns)) for picture in boxed
    ]  # lies so that turning it back shows it upright
    path = film(tmp_path / "v.mp4", stored, rotation_deg=rotation_deg)
    tables = scanned(path, trim_source_s=0.0)
    (clip,) = tables["clips"].to_pylist()
    assert (clip["width_px"], clip["height_px"]) == (320, 240)
    assert [clip["crop_left_px"], clip["crop_width_px"]] == [0, 320]
    assert [clip["crop_top_px"], clip["crop_height_px"]] == pytest.approx([20, 180], abs=2)
    jpeg = tables["keyframes"]["jpeg"][0].as_py()
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    wanted = cv2.resize(footage[0], (picture.shape[1], picture.shape[0]))
    assert np.abs(picture.astype(int) - wanted).mean() < 12


def test_wide_pixels_widen_the_display_frame(tmp_path: Path, footage: list[NDArray[np.uint8]]) -> None:
    path = film(tmp_path / "v.mp4", footage[:75], sar=Fraction(4, 3))
    tables = scanned(path, trim_source_s=0.0)
    (clip,) = tables["clips"].to_pylist()
    assert (clip["width_px"], clip["height_px"]) == (427, 180)
    assert (clip["crop_width_px"], clip["crop_height_px"]) == (426, 180)
    keyframe = tables["keyframes"].to_pylist()[0]
    assert keyframe["width_px"] / keyframe["height_px"] == pytest.approx(427 / 180, rel=0.02)


def test_a_video_without_clips_still_has_its_scan_and_shot_rows(samples: Path) -> None:
    tables = scanned(samples / "bikes.mp4")
    (summary,) = tables["scans"].to_pylist()
    assert (summary["status"], summary["shot_count"], summary["clip_count"]) == ("ok", 6, 0)
    assert sum(tables["shots"]["unused_s"].to_pylist()) == pytest.approx(10)
    assert tables["clips"].num_rows == tables["signals"].num_rows == tables["keyframes"].num_rows == 0


def test_a_single_frame_is_a_scan_without_clips(tmp_path: Path, footage: list[NDArray[np.uint8]]) -> None:
    tables = scanned(film(tmp_path / "v.mp4", footage[:1]))
    assert tables["scans"]["frame_count"].to_pylist() == [1]
    assert tables["shots"].num_rows == 1


def test_what_is_no_video_is_a_media_error(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_text("not a video\n" * 50)
    with pytest.raises(MediaError) as caught:
        scanned(tmp_path / "v.mp4")
    assert caught.value.reason == Reason.NOT_MEDIA


def test_the_sandbox_entry_takes_json_and_beats(samples: Path) -> None:
    beats = []
    request = {"path": str(samples / "b.mp4"), "video_id": VIDEO_ID, "params": {"trim_source_s": 0.5}, "threads": 2}
    facts, tables = run(request, lambda: beats.append(1))
    assert facts["frame_count"] == 150
    assert set(tables) == {"scans", "shots", "clips", "signals", "keyframes"}
    assert tables["clips"]["start_s"].to_pylist() == [0.5]
    assert len(beats) > 150 // scan_module.BEAT_FRAMES
    with pytest.raises(ValueError, match="unknown scan parameter trim"):
        run(request | {"params": {"trim": 1}}, lambda: None)
