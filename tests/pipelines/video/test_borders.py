"""Crop boxes on real footage with borders of known size added, and on footage that only looks bordered."""

from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.video.scan import scan
from pipelines.video.scan_params import ScanParams

PARAMS = ScanParams(trim_source_s=0.0)
Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def footage(samples: Path) -> list[Picture]:
    """Fifty-two real frames, 1280x720."""
    with av.open(str(samples / "bigbuckbunny.mp4")) as container:
        return [
            frame.to_ndarray(format="bgr24") for _, frame in zip(range(52), container.decode(video=0), strict=False)
        ]


def scanned(path: Path, pictures: list[Picture]) -> tuple[dict, dict, list[dict]]:
    """Clip, signals and keyframes of the one clip."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = pictures[0].shape[1], pictures[0].shape[0], "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "24"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")))
        container.mux(stream.encode())
    tables = scan(str(path), "0" * 32, PARAMS, 1, lambda: None)
    return tables["clips"].to_pylist()[0], tables["signals"].to_pylist()[0], tables["keyframes"].to_pylist()


def framed(
    picture: Picture, box: tuple[int, int, int, int], colour: int = 0, noise: float = 0.0, seed: int = 0
) -> Picture:
    """`picture` squeezed into `box` (left, top, width, height) of a flat frame of its size."""
    left, top, width, height = box
    out = np.full_like(picture, colour)
    out[top : top + height, left : left + width] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    if noise:
        out = np.clip(out + np.random.default_rng(seed).normal(0, noise, out.shape), 0, 255).astype(np.uint8)
    return out


@pytest.mark.parametrize(
    ("kind", "box", "colour"),
    [
        ("letterbox", (0, 90, 1280, 540), 0),
        ("letterbox", (0, 21, 1280, 678), 16),
        ("pillarbox", (160, 0, 960, 720), 0),
        ("pillarbox", (437, 0, 406, 720), 235),
        ("windowbox", (120, 66, 1040, 588), 0),
        ("windowbox", (200, 150, 640, 360), 90),
    ],
)
def test_flat_borders_of_any_colour_are_found_to_two_pixels(
    tmp_path: Path, footage: list[Picture], kind: str, box: tuple[int, int, int, int], colour: int
) -> None:
    pictures = [framed(picture, box, colour, noise=1.0, seed=index) for index, picture in enumerate(footage)]
    clip, signals, keyframes = scanned(tmp_path / "v.mp4", pictures)
    assert signals["border_kind"] == kind
    found = [clip[f"crop_{side}_px"] for side in ("left", "top", "width", "height")]
    assert found == pytest.approx(list(box), abs=2)
    assert found[2] % 2 == found[3] % 2 == 0
    assert found[0] + found[2] <= 1280 and found[1] + found[3] <= 720
    assert signals["border_share"] == pytest.approx(1 - box[2] * box[3] / (1280 * 720), abs=0.01)
    for row in keyframes:
        assert row["width_px"] / row["height_px"] == pytest.approx(box[2] / box[3], rel=0.03)


def darken(picture: Picture, seed: int) -> Picture:
    return (picture * 0.12).astype(np.uint8)


def sky(picture: Picture, seed: int) -> Picture:
    out = picture.copy()
    ground = 110 + 30 * np.sin(np.arange(1280) / 90)  # a sky of one colour over hills
    out[np.arange(720)[:, None] < ground[None, :]] = 210
    return out


def vignette(picture: Picture, seed: int) -> Picture:
    column = np.abs(np.linspace(-1, 1, 1280))
    return (picture * np.clip(1.6 - 1.6 * column, 0, 1)[None, :, None]).astype(np.uint8)


@pytest.mark.parametrize("change", [None, darken, sky, vignette])
def test_plain_dark_skied_and_vignetted_footage_has_no_border(
    tmp_path: Path, footage: list[Picture], change: Callable[[Picture, int], Picture] | None
) -> None:
    pictures = [change(picture, index) if change else picture for index, picture in enumerate(footage)]
    clip, signals, _ = scanned(tmp_path / "v.mp4", pictures)
    assert (signals["border_kind"], signals["border_share"]) == ("none", 0)
    assert (clip["crop_left_px"], clip["crop_top_px"], clip["crop_width_px"], clip["crop_height_px"]) == (
        0,
        0,
        1280,
        720,
    )


def test_the_box_of_a_dark_scene_is_that_of_the_whole_clip(tmp_path: Path, footage: list[Picture]) -> None:
    light = [*np.linspace(0.15, 0.6, 26), *np.linspace(0.6, 0.15, 26)]
    pictures = [
        framed((picture * gain).astype(np.uint8), (0, 80, 1280, 560))
        for picture, gain in zip(footage, light, strict=True)
    ]
    clip, signals, _ = scanned(tmp_path / "v.mp4", pictures)
    assert signals["border_kind"] == "letterbox"
    assert [clip["crop_top_px"], clip["crop_height_px"]] == pytest.approx([80, 560], abs=2)
    assert signals["black_share"] < 0.5


def test_title_cards_and_a_planet_in_the_dark_are_no_borders(samples: Path) -> None:
    for name in ("a.mp4", "world.mp4"):
        tables = scan(str(samples / name), "0" * 32, PARAMS, 1, lambda: None)
        assert set(tables["signals"]["border_kind"].to_pylist()) == {"none"}, name


def test_light_and_motion_are_measured_inside_the_border(tmp_path: Path, footage: list[Picture]) -> None:
    _, plain, _ = scanned(tmp_path / "a.mp4", footage)
    _, boxed, _ = scanned(tmp_path / "b.mp4", [framed(picture, (160, 90, 960, 540)) for picture in footage])
    assert boxed["brightness"] == pytest.approx(plain["brightness"], abs=4)
    assert boxed["contrast"] == pytest.approx(plain["contrast"], abs=4)
    assert boxed["motion_score"] == pytest.approx(plain["motion_score"], rel=0.25)


@pytest.mark.parametrize("width", [406, 540])
def test_a_blurred_fill_beside_an_upright_video_is_a_border(tmp_path: Path, footage: list[Picture], width: int) -> None:
    left = (1280 - width) // 2
    pictures = []
    for picture in footage:
        upright = np.ascontiguousarray(picture[:, 300 : 300 + width])
        tiny = cv2.GaussianBlur(
            cv2.resize(upright, (160, 90 * 1280 // width), interpolation=cv2.INTER_AREA)[:90], (0, 0), 3
        )
        out = cv2.resize(tiny, (1280, 720), interpolation=cv2.INTER_CUBIC)
        out[:, left : left + width] = upright
        pictures.append(out)
    clip, signals, _ = scanned(tmp_path / "v.mp4", pictures)
    assert signals["border_kind"] == "picture_in_picture"
    assert [clip["crop_left_px"], clip["crop_width_px"]] == pytest.approx([left, width], abs=4)
    assert (clip["crop_top_px"], clip["crop_height_px"]) == (0, 720)
