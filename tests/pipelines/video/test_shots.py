"""Shot boundaries on small rendered sequences of known truth. How well it works at large: benchmarks/cuts.py."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scenedetect.common import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from pipelines.video.measure import FrameMeter, Thumbs
from pipelines.video.reading import frames, open_video
from pipelines.video.scan import scan
from pipelines.video.scan_params import ScanParams
from pipelines.video.shots import find_shots
from pipelines.video.spill import Spill

WIDTH, HEIGHT, FPS = 320, 180, 25
Footage = list[NDArray[np.float32]]


def read(path: Path, first: int, end: int) -> Footage:
    with av.open(str(path)) as container:
        return [
            frame.reformat(WIDTH, HEIGHT, format="bgr24").to_ndarray().astype(np.float32)
            for index, frame in enumerate(container.decode(video=0))
            if first <= index < end
        ]


@pytest.fixture(scope="module")
def bunny(samples: Path) -> Footage:
    return read(samples / "bigbuckbunny.mp4", 0, 60)


@pytest.fixture(scope="module")
def street(samples: Path) -> Footage:
    return read(samples / "bikes.mp4", 137, 187)


def shots_of(path: Path, pictures: Footage) -> list[tuple[str, int, int]]:
    """Transition, first and end frame of every shot."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "20"}
        for picture in pictures:
            image = np.clip(picture, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())
    rows = scan(str(path), "0" * 32, ScanParams(), 1, lambda: None)["shots"].to_pylist()
    return [(row["transition"], row["start_frame"], row["end_frame"]) for row in rows]


def blend(before: Footage, after: Footage, length: int) -> Footage:
    mixed = [
        before[len(before) - length + step] * (1 - (step + 1) / (length + 1)) + after[step] * (step + 1) / (length + 1)
        for step in range(length)
    ]
    return [*before[: len(before) - length], *mixed, *after[length:]]


def test_a_hard_cut_is_found_at_its_frame(tmp_path: Path, bunny: Footage, street: Footage) -> None:
    assert shots_of(tmp_path / "v.mp4", [*bunny, *street]) == [("start", 0, 60), ("cut", 60, 110)]


@pytest.mark.parametrize("length", [8, 16, 28])
def test_a_dissolve_belongs_to_no_shot(tmp_path: Path, bunny: Footage, street: Footage, length: int) -> None:
    shots = shots_of(tmp_path / "v.mp4", blend(bunny, street, length))
    assert [kind for kind, _, _ in shots] == ["start", "dissolve"]
    assert shots[0][2] == pytest.approx(60 - length, abs=2)
    assert shots[1][1] == pytest.approx(60, abs=2)


def test_a_fade_through_black_belongs_to_no_shot(tmp_path: Path, bunny: Footage, street: Footage) -> None:
    down = [picture * (1 - (step + 1) / 13) for step, picture in enumerate(bunny[-12:])]
    up = [picture * (step + 1) / 13 for step, picture in enumerate(street[:12])]
    black = [np.zeros_like(bunny[0])] * 4
    shots = shots_of(tmp_path / "v.mp4", [*bunny[:-12], *down, *black, *up, *street[12:]])
    assert [kind for kind, _, _ in shots] == ["start", "fade"]
    assert shots[0][2] == pytest.approx(48, abs=3)
    assert shots[1][1] == pytest.approx(76, abs=3)


def test_a_wipe_belongs_to_no_shot(tmp_path: Path, bunny: Footage, street: Footage) -> None:
    wiped = []
    for step in range(16):
        edge = (step + 1) * WIDTH // 17
        picture = bunny[44 + step].copy()
        picture[:, :edge] = street[step][:, :edge]
        wiped.append(picture)
    shots = shots_of(tmp_path / "v.mp4", [*bunny[:44], *wiped, *street[16:]])
    assert [kind for kind, _, _ in shots] == ["start", "wipe"]
    assert shots[0][2] == pytest.approx(44, abs=4)
    assert shots[1][1] == pytest.approx(60, abs=4)


def test_flashes_flicker_and_a_passing_object_are_no_cuts(tmp_path: Path, bunny: Footage) -> None:
    flashed = [picture + (120 if index in (15, 16, 40) else 0) for index, picture in enumerate(bunny)]
    assert len(shots_of(tmp_path / "a.mp4", flashed)) == 1
    rng = np.random.default_rng(0)
    flicker = [picture * (rng.choice([1.0, 0.5]) if 10 < index < 40 else 1.0) for index, picture in enumerate(bunny)]
    assert len(shots_of(tmp_path / "b.mp4", flicker)) == 1
    passed = []
    for index, picture in enumerate(bunny):
        covered = picture.copy()
        left = (index - 20) * 40
        if -100 < left < WIDTH:
            covered[:, max(left, 0) : left + 100] = 90
        passed.append(covered)
    assert len(shots_of(tmp_path / "c.mp4", passed)) == 1


def test_a_fast_pan_is_no_cut(tmp_path: Path, samples: Path) -> None:
    with av.open(str(samples / "bigbuckbunny.mp4")) as container:
        still = next(container.decode(video=0)).to_ndarray(format="bgr24")
    offsets = np.concatenate([np.zeros(20), np.linspace(0, 900, 18), np.full(20, 900)]).astype(int)
    pictures = [still[200 : 200 + HEIGHT, at : at + WIDTH].astype(np.float32) for at in offsets]
    assert len(shots_of(tmp_path / "v.mp4", pictures)) == 1


def test_a_cut_between_dark_scenes_is_found(tmp_path: Path, bunny: Footage, street: Footage) -> None:
    dark = [picture * 0.08 + 4 for picture in [*bunny, *street]]
    assert shots_of(tmp_path / "v.mp4", dark) == [("start", 0, 60), ("cut", 60, 110)]


def test_the_known_cuts_of_a_sample_are_found(samples: Path) -> None:
    rows = scan(str(samples / "bikes.mp4"), "0" * 32, ScanParams(), 1, lambda: None)["shots"].to_pylist()
    assert [row["start_frame"] for row in rows] == [0, 30, 76, 137, 187, 242]


def test_raw_fires_are_those_of_pyscenedetect(samples: Path) -> None:
    """On the same small frames its adaptive detector fires where ours does: the same content value and ratio."""
    rival = AdaptiveDetector(adaptive_threshold=3.0, min_scene_len=1, window_width=2, min_content_val=10.0)
    cuts = []
    with Spill() as spill, open_video(samples / "bikes.mp4") as video:
        thumbs = Thumbs(spill)
        meter = FrameMeter(video, 256, thumbs)
        for index, frame in enumerate(frames(video)):
            picture = cv2.cvtColor(meter(frame).small, cv2.COLOR_YUV2BGR)
            cuts += rival.process_frame(FrameTimecode(index, fps=25.0), picture)
        found = find_shots(meter.table(), thumbs, Fraction(video.time_base), ScanParams())
    assert found.fires.tolist() == [cut.frame_num for cut in cuts]
