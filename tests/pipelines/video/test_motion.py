"""Motion signals on rendered videos of known truth: a camera that is a moving crop of one real frame."""

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.video.scan import scan
from pipelines.video.scan_params import ScanParams

WIDTH, HEIGHT, FPS = 640, 360, 30
DIAGONAL = float(np.hypot(WIDTH, HEIGHT))
Camera = Callable[
    [float], tuple[float, float, float, float]
]  # seconds -> x, y in px of the view, scale, roll in radians
PARAMS = ScanParams(trim_source_s=0.0)


@pytest.fixture(scope="module")
def still(samples: Path) -> NDArray[np.uint8]:
    """One real frame, 1280x720."""
    with av.open(str(samples / "bigbuckbunny.mp4")) as container:
        return next(container.decode(video=0)).to_ndarray(format="bgr24")


def view(still: NDArray[np.uint8], x: float, y: float, scale: float = 1.0, roll: float = 0.0) -> NDArray[np.uint8]:
    """What a camera sees that looks at the middle of `still`, moved right by x and down by y, closer by scale, turned clockwise."""
    cosine, sine = scale * np.cos(roll), scale * np.sin(roll)
    centre_x, centre_y = still.shape[1] / 2 + x, still.shape[0] / 2 + y
    matrix = np.array([[cosine, sine, 0], [-sine, cosine, 0]])
    matrix[:, 2] = np.array([WIDTH / 2, HEIGHT / 2]) - matrix[:, :2] @ [centre_x, centre_y]
    return cv2.warpAffine(still, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def film(path: Path, pictures: Sequence[NDArray[np.uint8]], fps: int = FPS, crf: int = 18) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = pictures[0].shape[1], pictures[0].shape[0], "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": str(crf)}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    return path


def signals(path: Path, params: ScanParams = PARAMS) -> dict:
    rows = scan(str(path), "0" * 32, params, 1, lambda: None)["signals"].to_pylist()
    assert len(rows) == 1
    return rows[0]


def shoot(tmp_path: Path, still: NDArray[np.uint8], camera: Camera, seconds: float = 3.0, fps: int = FPS) -> dict:
    pictures = [view(still, *camera(index / fps)) for index in range(round(seconds * fps))]
    return signals(film(tmp_path / "v.mp4", pictures, fps))


@pytest.mark.parametrize("px_per_s", [15, 90, 400])
def test_a_pan_has_the_speed_and_direction_of_the_camera(
    tmp_path: Path, still: NDArray[np.uint8], px_per_s: int
) -> None:
    seconds = min(3.0, 500 / px_per_s)
    params = ScanParams(trim_source_s=0.0, min_clip_s=1.0)
    pictures = [view(still, px_per_s * (index / FPS - seconds / 2), 0) for index in range(round(seconds * FPS))]
    row = signals(film(tmp_path / "v.mp4", pictures), params)
    true = px_per_s / DIAGONAL
    assert row["camera_pan_x"] == pytest.approx(true, rel=0.05)
    assert row["flow_speed"] == pytest.approx(true, rel=0.08)
    assert row["flow_px"] == pytest.approx(px_per_s / FPS, rel=0.08)
    assert row["camera_speed"] == pytest.approx(true, rel=0.08)
    assert row["subject_speed"] < 0.1 * true + 0.002
    assert row["camera_coherence"] > 0.9
    assert row["static_share"] == 0
    assert row["camera_parallax"] < 0.1


def test_speed_is_per_second_whatever_the_frame_rate(tmp_path: Path, still: NDArray[np.uint8]) -> None:
    slow, fast = (shoot(tmp_path, still, lambda t: (60 * t, 30 * t, 1, 0), fps=fps) for fps in (12, 60))
    assert slow["flow_speed"] == pytest.approx(fast["flow_speed"], rel=0.05)
    assert slow["camera_pan_y"] == pytest.approx(30 / DIAGONAL, rel=0.05)


def test_zoom_and_roll_have_sign_and_size(tmp_path: Path, still: NDArray[np.uint8]) -> None:
    row = shoot(tmp_path, still, lambda t: (0, 0, float(np.exp(0.1 * t)), 0.05 * t))
    assert row["camera_zoom"] == pytest.approx(0.1, rel=0.05)
    assert row["camera_roll"] == pytest.approx(0.05, rel=0.05)
    assert abs(row["camera_pan_x"]) < 0.01


def test_a_shaken_camera_has_jitter_and_handheld_energy_and_a_smooth_one_has_not(
    tmp_path: Path, still: NDArray[np.uint8]
) -> None:
    smooth = shoot(tmp_path, still, lambda t: (60 * t, 0, 1, 0))
    handheld = shoot(tmp_path, still, lambda t: (60 * t + 4 * np.sin(2 * np.pi * 2 * t), 0, 1, 0))
    shaken = shoot(tmp_path, still, lambda t: (60 * t + 4 * np.sin(2 * np.pi * 5 * t), 0, 1, 0))
    assert handheld["handheld_energy"] == pytest.approx(4 * 2 * np.pi * 2 / np.sqrt(2) / DIAGONAL, rel=0.2)
    assert handheld["jitter"] < 0.3 * handheld["handheld_energy"]
    assert shaken["jitter"] > 5 * handheld["jitter"]
    assert smooth["jitter"] < 0.1 * shaken["jitter"]
    assert smooth["handheld_energy"] < 0.1 * handheld["handheld_energy"]


def test_a_still_with_noise_is_static_and_a_moving_one_is_not(tmp_path: Path, still: NDArray[np.uint8]) -> None:
    rng = np.random.default_rng(0)
    picture = view(still, 0, 0).astype(np.int16)
    noisy = [np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8) for _ in range(75)]
    row = signals(film(tmp_path / "v.mp4", noisy))
    assert row["static_share"] > 0.9
    assert row["flow_speed"] < 0.004


def test_frozen_frames_and_pulldown_are_counted_as_duplicates(tmp_path: Path, still: NDArray[np.uint8]) -> None:
    moving = [view(still, 3 * index, 0) for index in range(90)]
    frozen = signals(film(tmp_path / "a.mp4", [*moving[:45], *[moving[45]] * 45]))
    pulldown = signals(film(tmp_path / "b.mp4", [moving[index * 4 // 5] for index in range(90)]))
    plain = signals(film(tmp_path / "c.mp4", moving))
    assert frozen["duplicate_share"] == pytest.approx(0.5, abs=0.05)  # the encoder sharpens the first frozen frames
    assert frozen["static_share"] == pytest.approx(0.5, abs=0.06)
    assert pulldown["duplicate_share"] == pytest.approx(0.2, abs=0.03)
    assert plain["duplicate_share"] == 0


def test_a_subject_before_a_still_camera_is_subject_motion(tmp_path: Path, still: NDArray[np.uint8]) -> None:
    patch = view(still, 300, 150)[100:200, 200:360]
    pictures = []
    for index in range(90):
        picture = view(still, 0, 0)
        left = 20 + 4 * index
        picture[140:240, left : left + 160] = patch
        pictures.append(picture)
    row = signals(film(tmp_path / "v.mp4", pictures))
    assert row["subject_speed"] > 4 * row["camera_speed"]
    assert row["camera_coherence"] > 0.6
    assert row["static_share"] == 0
    assert row["slideshow_score"] < 0.3


def test_depth_shows_as_parallax_when_the_camera_moves_and_not_when_it_turns(
    tmp_path: Path, still: NDArray[np.uint8]
) -> None:
    near = view(still, -200, 100)
    pictures = []
    for index in range(75):
        picture = view(still, 1.5 * index, 0)
        shifted = np.roll(near, -6 * index, axis=1)
        picture[220:] = shifted[220:]
        pictures.append(picture)
    trucking = signals(film(tmp_path / "a.mp4", pictures))
    turning = shoot(tmp_path, still, lambda t: (60 * t, 0, 1, 0))
    assert trucking["camera_parallax"] > 0.2
    assert turning["camera_parallax"] < 0.05


def test_stills_with_synthetic_moves_look_like_a_slideshow_and_real_footage_does_not(
    tmp_path: Path, samples: Path, still: NDArray[np.uint8]
) -> None:
    ken_burns = shoot(tmp_path, still, lambda t: (20 * t, 5 * t, 1 + 0.03 * t, 0))
    assert ken_burns["slideshow_score"] > 0.9
    for name in ("bigbuckbunny.mp4", "carphone_pristine.mp4", "world.mp4"):
        rows = scan(str(samples / name), "0" * 32, PARAMS, 1, lambda: None)["signals"].to_pylist()
        assert max(row["slideshow_score"] for row in rows) < 0.3, name


def test_flashes_black_and_flat_frames_are_counted(tmp_path: Path, still: NDArray[np.uint8]) -> None:
    pictures = [view(still, index / 3, 0) for index in range(90)]
    for at in (20, 50, 51):
        pictures[at] = np.clip(pictures[at].astype(np.int16) + 90, 0, 255).astype(np.uint8)
    row = signals(film(tmp_path / "a.mp4", pictures))
    assert row["flash_count"] == 2
    assert row["black_share"] == row["flat_share"] == 0
    black = [np.zeros_like(pictures[0])] * 30
    grey = [np.full_like(pictures[0], 120)] * 45
    assert signals(film(tmp_path / "b.mp4", black * 3))["black_share"] == 1
    row = signals(film(tmp_path / "c.mp4", grey * 2))
    assert (row["black_share"], row["flat_share"]) == (0, 1)


def test_motion_score_is_in_the_scale_of_vmafmotion(tmp_path: Path, samples: Path, still: NDArray[np.uint8]) -> None:
    pan = film(tmp_path / "pan.mp4", [view(still, 2 * index, 0) for index in range(75)])
    for path in (samples / "bigbuckbunny.mp4", samples / "carphone_pristine.mp4", samples / "world.mp4", pan):
        rows = scan(str(path), "0" * 32, PARAMS, 1, lambda: None)["signals"].to_pylist()
        ours = np.mean([row["motion_score"] for row in rows])
        assert ours == pytest.approx(vmafmotion(path), rel=0.2), path.name


def vmafmotion(path: Path) -> float:
    """Mean score of FFmpeg's filter over all frames but the first."""
    scores = []
    with av.open(str(path)) as container:
        graph = av.filter.Graph()
        source = graph.add_buffer(template=container.streams.video[0])
        measure, sink = graph.add("vmafmotion"), graph.add("buffersink")
        source.link_to(measure)
        measure.link_to(sink)
        graph.configure()
        for frame in container.decode(video=0):
            graph.push(frame)
            scores.append(float(graph.pull().metadata["lavfi.vmafmotion.score"]))
    return float(np.mean(scores[1:]))
