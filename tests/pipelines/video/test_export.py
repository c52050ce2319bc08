"""Promises of pipelines/video/export.py, on small videos made here: every frame carries its number as a picture."""

import shutil
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from pipelines.video import export
from pipelines.video.export_settings import ExportSettings, settings_from_dict
from pipelines.video.framing import whole_pixels
from pipelines.video.reading import frames, open_video
from pipelines.video.reasons import MediaError, Reason
from pipelines.video.sandbox import Sandbox

SAME_FRAME_DB = 33.0  # seen: 36-45 dB for the right frame at crf 12, below 22 dB for its neighbours
OTHER_FRAME_DB = 25.0
FAST = {"video_codec": "h264", "crf": 12, "preset": "superfast"}


def picture(number: int, width_px: int, height_px: int) -> np.ndarray:
    """Smooth waves whose phases jump with `number`, no symmetry: a wrong frame, turn, mirror or shift all show."""
    y, x = np.mgrid[0:height_px, 0:width_px].astype(np.float32)
    x, y = x / width_px, y / height_px
    phase = number * 2.4
    luma = 128 + 55 * np.sin(7 * x + phase) + 45 * np.sin(9 * y + 1.7 * phase + 3 * x) + 20 * x
    return np.clip(luma, 16, 235).astype(np.uint8)


def frame_of(luma: np.ndarray, pix_fmt: str = "yuv420p") -> av.VideoFrame:
    """A grey frame with exactly this luma."""
    planes = np.stack([luma, np.full_like(luma, 128), np.full_like(luma, 128)])
    return av.VideoFrame.from_ndarray(planes, "yuv444p").reformat(format=pix_fmt)


def luma_of(frame: av.VideoFrame) -> np.ndarray:
    """The luma plane, levels as they are."""
    plane = frame.reformat(format="yuv444p").planes[0]
    return np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)[:, : frame.width].copy()


def make(
    path: Path,
    pts: list[int],
    time_base: Fraction = Fraction(1, 12800),
    size_px: tuple[int, int] = (320, 240),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    sar: Fraction = Fraction(1),
    tone: np.ndarray | None = None,
    audio_codec: str = "aac",
    container_options: dict[str, str] | None = None,
) -> Path:
    """A video whose frame k is `picture(k)` shown at pts[k]; `tone` is mono sound at 48 kHz from time 0."""
    with av.open(str(path), "w", options=container_options or {}) as output:
        track = output.add_stream(codec, rate=25, options=options or {"crf": "8", "preset": "superfast", "g": "12"})
        track.width, track.height, track.pix_fmt = *size_px, pix_fmt
        track.codec_context.time_base = track.time_base = time_base
        track.codec_context.sample_aspect_ratio = sar
        voice = None if tone is None else output.add_stream(audio_codec, rate=48_000, layout="mono")
        for number, time in enumerate(pts):
            frame = frame_of(picture(number, *size_px), pix_fmt)
            frame.pts, frame.time_base, frame.pict_type = time, time_base, 0
            output.mux(track.encode(frame))
        output.mux(track.encode(None))
        if voice is not None:
            sound = av.AudioFrame.from_ndarray(tone[None].astype(np.float32), "fltp", "mono")
            sound.sample_rate, sound.pts, sound.time_base = 48_000, 0, Fraction(1, 48_000)
            output.mux(voice.encode(sound))
            output.mux(voice.encode(None))
    return path


def turn_header(path: Path, clockwise_deg: int) -> Path:
    """Write a display matrix into an mp4's track header, as a phone does."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 36
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[clockwise_deg]
    matrix = [cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30]
    data[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    return path


def clip_of(path: Path, first: int, last: int, crop: tuple[int, int, int, int] | None = None) -> dict[str, Any]:
    """The `clips` row of frames [first, last) of a video; `crop` is left, top, width, height in the display frame."""
    with open_video(path) as video:
        pts = [frame.pts or 0 for frame in frames(video)]
        left, top, width, height = crop or (0, 0, video.width_px, video.height_px)
        return {
            "clip_id": "c" * 32,
            "video_id": "v" * 32,
            "start_pts": pts[first],
            "end_pts": pts[last] if last < len(pts) else 2 * pts[-1] - pts[-2],
            "time_base_num": video.time_base.numerator,
            "time_base_den": video.time_base.denominator,
            "frame_count": last - first,
            "crop_left_px": left,
            "crop_top_px": top,
            "crop_width_px": width,
            "crop_height_px": height,
            "width_px": video.width_px,
            "height_px": video.height_px,
        }


def cut(
    path: Path, clip: dict[str, Any], out: Path, size_px: tuple[int, int] = (256, 192), **settings: Any
) -> dict[str, Any]:
    request = {
        "path": str(path),
        "clip": clip,
        "width_px": size_px[0],
        "height_px": size_px[1],
        "settings": FAST | settings,
        "out_path": str(out),
        "threads": 1,
    }
    facts, tables = export.run(request, lambda: None)
    assert tables == {}
    return facts


def lumas(path: Path) -> list[tuple[Fraction, np.ndarray]]:
    """(time in s, luma) of every frame, read plainly."""
    with av.open(str(path)) as container:
        found = []
        for frame in container.decode(video=0):
            assert frame.pts is not None and frame.time_base is not None
            found.append((frame.pts * frame.time_base, luma_of(frame)))
        return found


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def expected(
    source: np.ndarray, display_px: tuple[int, int], crop: tuple[int, int, int, int], size_px: tuple[int, int]
) -> np.ndarray:
    """What the export of one upright stored luma picture should look like, done the plain way with OpenCV."""
    shown = cv2.resize(source, display_px, interpolation=cv2.INTER_AREA)
    left, top, width, height = crop
    aspect = size_px[0] / size_px[1]
    part_w, part_h = min(width, height * aspect), min(height, width / aspect)
    x, y = left + (width - part_w) / 2, top + (height - part_h) / 2
    # A sub-pixel exact crop and scale in one warp; the picture is smooth, so linear sampling is enough.
    scale_x, scale_y = part_w / size_px[0], part_h / size_px[1]
    matrix = np.array([[scale_x, 0, x + scale_x / 2 - 0.5], [0, scale_y, y + scale_y / 2 - 0.5]])
    return cv2.warpAffine(
        shown, matrix, size_px, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )


def check(
    source: Path,
    out: Path,
    clip: dict[str, Any],
    facts: dict[str, Any],
    first: int,
    size_px: tuple[int, int] = (256, 192),
    upright: Callable[[np.ndarray], np.ndarray] = lambda stored: stored,
) -> None:
    """The exported file has the clip's frames, times, length and pictures, told from their neighbours."""
    with open_video(source) as video:
        read = [(f.pts or 0, luma_of(f)) for f in frames(video)]
    display = (clip["width_px"], clip["height_px"])
    crop = tuple(clip[f"crop_{side}_px"] for side in ("left", "top", "width", "height"))
    stored = {k: upright(luma) for k, (_, luma) in enumerate(read)}
    wanted = {k: expected(luma, display, crop, size_px) for k, luma in stored.items()}  # type: ignore[arg-type]
    tick = Fraction(clip["time_base_num"], clip["time_base_den"])
    exported = lumas(out)
    assert len(exported) == clip["frame_count"] == facts["frame_count"]
    for k, (time_s, luma) in enumerate(exported):
        assert abs(time_s - (read[first + k][0] - clip["start_pts"]) * tick) <= Fraction(1, 2 * export.MAX_TIMESCALE)
        assert luma.shape == (size_px[1], size_px[0])
        assert psnr(luma, wanted[first + k]) > SAME_FRAME_DB, k
        for other in (first + k - 1, first + k + 1):
            if other in wanted:
                assert psnr(luma, wanted[other]) < OTHER_FRAME_DB
    with av.open(str(out)) as container:
        track = container.streams.video[0]
        assert track.duration is not None and track.time_base is not None
        length = (clip["end_pts"] - clip["start_pts"]) * tick
        assert abs(track.duration * track.time_base - length) <= Fraction(1, export.MAX_TIMESCALE)
        assert facts["duration_s"] == pytest.approx(float(length), abs=1e-9)
        assert track.start_time == 0
        assert next(container.decode(video=0)).rotation == 0


STEADY = [k * 512 for k in range(40)]
UNEVEN = np.cumsum([0, *([512, 300, 1024, 512, 700] * 8)][:40]).tolist()
B_FRAMES = {"crf": "8", "preset": "superfast", "g": "12", "bf": "3", "x264-params": "b-adapt=0:b-pyramid=normal"}
OPEN_GOP = {"crf": "8", "preset": "superfast", "g": "8", "bf": "3", "x264-params": "open-gop=1:b-adapt=0:scenecut=0"}

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "steady frame rate": ("s.mp4", {"pts": STEADY}),
    "variable frame rate": ("s.mp4", {"pts": UNEVEN}),
    "variable frame rate in a 1 ms clock": ("s.mkv", {"pts": UNEVEN}),
    "B-frames": ("s.mp4", {"pts": STEADY, "options": B_FRAMES}),
    "open groups of pictures": ("s.mp4", {"pts": STEADY, "options": OPEN_GOP}),
    "open groups of pictures in Matroska": ("s.mkv", {"pts": STEADY, "options": OPEN_GOP}),
    "one key frame only": ("s.mp4", {"pts": STEADY, "options": {"crf": "8", "preset": "superfast", "g": "999"}}),
    "MPEG-TS, which starts at 1.4 s": ("s.ts", {"pts": STEADY, "options": B_FRAMES}),
    "AVI with MPEG-4": ("s.avi", {"pts": list(range(40)), "time_base": Fraction(1, 25), "codec": "mpeg4",
                                  "options": {"b": "8000000"}}),
    "negative start": ("s.ts", {"pts": [k * 512 - 6000 for k in range(40)], "options": B_FRAMES,
                                "container_options": {"avoid_negative_ts": "disabled", "mpegts_copyts": "1"}}),
    "an edit list that hides the beginning": (
        "s.mp4", {"pts": [k * 512 - 6000 for k in range(52)], "options": B_FRAMES,
                  "container_options": {"avoid_negative_ts": "disabled"}}),
    "late start without an edit list": (
        "s.mp4", {"pts": [k * 512 + 6000 for k in range(40)], "options": B_FRAMES,
                  "container_options": {"use_editlist": "0"}}),
    "10-bit HEVC": ("s.mp4", {"pts": STEADY, "codec": "libx265", "pix_fmt": "yuv420p10le",
                              "options": {"crf": "8", "preset": "ultrafast", "x265-params": "log-level=none"}}),
    "4:4:4": ("s.mp4", {"pts": STEADY, "pix_fmt": "yuv444p"}),
    "odd sides": ("s.mkv", {"pts": STEADY, "size_px": (321, 241), "codec": "ffv1", "options": {}}),
    "anamorphic": ("s.mp4", {"pts": STEADY, "size_px": (240, 240), "sar": Fraction(4, 3)}),
    "a large gap": ("s.mp4", {"pts": [k * 512 + (k > 15) * 40_000 for k in range(40)]}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_has_exactly_its_frames_times_and_pictures(kind: str, tmp_path: Path) -> None:
    name, parameters = KINDS[kind]
    source = make(tmp_path / name, **parameters)
    for first, last in ((0, 9), (13, 31), (25, 40)):
        clip = clip_of(source, first, last)
        facts = cut(source, clip, tmp_path / "out.mp4")
        check(source, tmp_path / "out.mp4", clip, facts, first)


@pytest.mark.parametrize("clockwise_deg", [90, 180, 270])
@pytest.mark.parametrize("sar", [Fraction(1), Fraction(4, 3)])
def test_a_turned_video_comes_out_upright(clockwise_deg: int, sar: Fraction, tmp_path: Path) -> None:
    source = turn_header(make(tmp_path / "s.mp4", STEADY, sar=sar), clockwise_deg)
    clip = clip_of(source, 5, 20)
    clip |= {"crop_left_px": 24, "crop_top_px": 40, "crop_width_px": 150, "crop_height_px": 120}
    facts = cut(source, clip, tmp_path / "out.mp4")
    turns = (-clockwise_deg // 90) % 4
    check(source, tmp_path / "out.mp4", clip, facts, 5, upright=lambda stored: np.rot90(stored, turns).copy())


@pytest.mark.parametrize(
    ("crop", "size_px"),
    [((0, 0, 320, 240), (352, 192)), ((33, 21, 201, 145), (256, 256)), ((0, 30, 320, 180), (192, 352))],
)
def test_the_picture_is_the_centre_of_the_crop_box_in_the_buckets_aspect(
    crop: tuple[int, int, int, int], size_px: tuple[int, int], tmp_path: Path
) -> None:
    source = make(tmp_path / "s.mp4", STEADY)
    clip = clip_of(source, 10, 20, crop)
    facts = cut(source, clip, tmp_path / "out.mp4", size_px)
    check(source, tmp_path / "out.mp4", clip, facts, 10, size_px)


def test_no_pixel_outside_the_crop_box_reaches_the_picture(tmp_path: Path) -> None:
    """A white border around black footage, cut at an odd place: not one grey row may remain."""
    with av.open(str(tmp_path / "s.mkv"), "w") as output:
        track = output.add_stream("ffv1", rate=25)
        track.width, track.height, track.pix_fmt = 320, 240, "yuv420p"
        for k in range(4):
            luma = np.full((240, 320), 235, np.uint8)
            luma[31:205, 17:303] = 16
            frame = frame_of(luma)
            frame.pts = k
            output.mux(track.encode(frame))
        output.mux(track.encode(None))
    clip = clip_of(tmp_path / "s.mkv", 0, 4, (17, 31, 286, 174))
    cut(tmp_path / "s.mkv", clip, tmp_path / "out.mp4", (320, 192))
    for _, luma in lumas(tmp_path / "out.mp4"):
        assert luma.max() - luma.min() < 12


def test_cropping_rounds_inwards_to_the_chroma_grid() -> None:
    assert whole_pixels(Fraction(33, 320), Fraction(234, 320), 320, 2) == (34, 234)
    assert whole_pixels(Fraction(33, 320), Fraction(235, 320), 320, 2) == (34, 234)
    assert whole_pixels(Fraction(33, 320), Fraction(34, 320), 320, 2) == (32, 34)
    assert whole_pixels(Fraction(0), Fraction(1), 321, 1) == (0, 321)


# -- sound -------------------------------------------------------------------------------------------------------------


def chirp(seconds: float) -> np.ndarray:
    """A tone that rises and never repeats, so that a shift by one sample shows in its correlation."""
    t = np.arange(round(seconds * 48_000)) / 48_000
    return (0.5 * np.sin(2 * np.pi * (200 * t + 900 * t**2))).astype(np.float32)


def sound_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        blocks = [frame.to_ndarray() for frame in container.decode(audio=0)]
        return np.concatenate(blocks, axis=1)[0]


def lag(heard: np.ndarray, wanted: np.ndarray) -> int:
    """By how many samples `heard` comes late."""
    size = min(len(heard), len(wanted))
    spectrum = np.fft.rfft(heard[:size], 2 * size) * np.conj(np.fft.rfft(wanted[:size], 2 * size))
    shift = int(np.argmax(np.fft.irfft(spectrum)))
    return shift if shift < size else shift - 2 * size


@pytest.mark.parametrize(("name", "codec"), [("s.mp4", "aac"), ("s.mkv", "aac"), ("s.mov", "pcm_s16le")])
@pytest.mark.parametrize("audio_codec", ["aac", "opus"])
def test_sound_is_cut_at_the_sample_and_lasts_as_long_as_the_picture(
    name: str, codec: str, audio_codec: str, tmp_path: Path
) -> None:
    tone = chirp(1.6)
    source = make(tmp_path / name, STEADY, options=B_FRAMES, tone=tone, audio_codec=codec)
    clip = clip_of(source, 13, 31)
    facts = cut(source, clip, tmp_path / "out.mp4", audio_codec=audio_codec)
    heard = sound_of(tmp_path / "out.mp4")
    start, length = round(13 / 25 * 48_000), round(18 / 25 * 48_000)
    clock = 24 if name.endswith("mkv") else 1  # half a tick of Matroska's clock, in samples
    assert facts["has_audio"] and facts["audio_missing_s"] == 0
    assert abs(lag(heard, tone[start : start + length])) <= clock
    with av.open(str(tmp_path / "out.mp4")) as container:
        audio, picture_track = container.streams.audio[0], container.streams.video[0]
        assert audio.start_time == 0
        for track in (audio, picture_track):
            assert track.duration is not None and track.time_base is not None
        difference = audio.duration * audio.time_base - picture_track.duration * picture_track.time_base  # type: ignore[operator]
        # Opus ends on a whole packet of 20 ms; AAC's last packet is marked shorter.
        assert 0 <= difference + Fraction(1, 48_000) <= Fraction(1, 40 if audio_codec == "opus" else 24_000)


def test_sound_that_ends_early_is_filled_with_silence_and_counted(tmp_path: Path) -> None:
    source = make(tmp_path / "s.mp4", STEADY, tone=chirp(0.8))
    facts = cut(source, clip_of(source, 13, 31), tmp_path / "out.mp4")
    assert facts["has_audio"]
    assert facts["audio_missing_s"] == pytest.approx(31 / 25 - 0.8, abs=0.03)
    assert np.abs(sound_of(tmp_path / "out.mp4")[-4800:]).max() < 0.01


def test_a_span_without_sound_has_no_sound_track(tmp_path: Path) -> None:
    source = make(tmp_path / "s.mp4", STEADY, tone=chirp(0.4))
    assert not cut(source, clip_of(source, 25, 40), tmp_path / "out.mp4")["has_audio"]
    assert not cut(source, clip_of(source, 0, 10), tmp_path / "out.mp4", audio_codec="none")["has_audio"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


# -- bytes, tags, codecs -----------------------------------------------------------------------------------------------


def test_the_same_clip_gives_the_same_bytes_in_any_folder_with_any_number_of_threads(tmp_path: Path) -> None:
    source = make(tmp_path / "s.mp4", STEADY, options=B_FRAMES, tone=chirp(1.6))
    elsewhere = tmp_path / "another folder: ünïcode\n%03d"
    elsewhere.mkdir()
    copy = shutil.copy(source, elsewhere / "x y.bin")
    clip = clip_of(source, 7, 33)
    first = cut(source, clip, tmp_path / "out.mp4")
    request = {
        "path": str(copy), "clip": clip, "width_px": 256, "height_px": 192, "settings": FAST,
        "out_path": str(elsewhere / "o:ut.mp4"), "threads": 4,
    }  # fmt: skip
    second, _ = export.run(request, lambda: None)
    data = (tmp_path / "out.mp4").read_bytes()
    assert first == second
    assert data == (elsewhere / "o:ut.mp4").read_bytes()
    assert len(data) == first["size_bytes"]
    for trace in (b"x264", b"Lavf", b"Lavc", b"libx", b"out.mp4"):
        assert trace not in data
    movie_header = data.index(b"mvhd")
    assert data[movie_header + 8 : movie_header + 16] == bytes(8), "creation and modification time"
    assert movie_header < data.index(b"mdat"), "the index stands in front"


@pytest.mark.parametrize(("codec", "preset"), [("h264", "medium"), ("vp9", "8"), ("av1", "12")])
def test_every_codec_keeps_frames_times_and_pictures(codec: str, preset: str, tmp_path: Path) -> None:
    source = make(tmp_path / "s.mp4", UNEVEN)
    clip = clip_of(source, 13, 31)
    facts = cut(source, clip, tmp_path / "out.mp4", video_codec=codec, preset=preset, crf=12)
    again = cut(source, clip, tmp_path / "again.mp4", video_codec=codec, preset=preset, crf=12)
    check(source, tmp_path / "out.mp4", clip, facts, 13)
    assert facts["sha256"] == again["sha256"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.name in {codec, "libdav1d" if codec == "av1" else codec}


@pytest.mark.parametrize(("matrix", "is_full_range"), [(1, False), (5, True), (9, False)])
def test_colour_tags_and_levels_survive(matrix: int, is_full_range: bool, tmp_path: Path) -> None:
    source = tmp_path / "s.mp4"
    with av.open(str(source), "w") as output:
        track = output.add_stream("libx264", rate=25, options={"crf": "4"})
        track.width, track.height, track.pix_fmt = 320, 240, "yuv420p"
        track.codec_context.color_range = 2 if is_full_range else 1
        track.codec_context.colorspace = matrix
        track.codec_context.color_primaries = 1
        track.codec_context.color_trc = 1
        levels = np.tile(np.repeat(np.arange(0, 256, 16), 20), (240, 1)).astype(np.uint8)
        yuv = np.concatenate([levels, np.full((120, 320), 140, np.uint8)])
        for k in range(6):
            frame = av.VideoFrame.from_ndarray(yuv, "yuv420p")
            frame.color_range, frame.colorspace, frame.pts = (2 if is_full_range else 1), matrix, k
            output.mux(track.encode(frame))
        output.mux(track.encode(None))
    cut(source, clip_of(source, 0, 6), tmp_path / "out.mp4", (320, 240), crf=4)
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (matrix, 1, 1)
    assert frame.color_range == (2 if is_full_range else 1)
    luma = lumas(tmp_path / "out.mp4")[0][1]
    centres = luma[60:180, 10::20].mean(axis=0)
    assert np.abs(centres - np.arange(0, 256, 16)).max() < 2, "no level is stretched or squeezed"
    assert abs(np.frombuffer(frame.planes[1], np.uint8)[:160].mean() - 140) < 2


@pytest.mark.parametrize(("pix_fmt", "matrix"), [("yuva420p", 2), ("bgra", 1)])
def test_alpha_is_dropped_and_rgb_becomes_tagged_video(pix_fmt: str, matrix: int, tmp_path: Path) -> None:
    source = make(tmp_path / "s.mkv", list(range(10)), Fraction(1, 25), codec="ffv1", pix_fmt=pix_fmt, options={})
    clip = clip_of(source, 2, 8)
    facts = cut(source, clip, tmp_path / "out.mp4")
    check(source, tmp_path / "out.mp4", clip, facts, 2)
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.format.name, frame.colorspace) == ("yuv420p", matrix)


# -- real footage and failures -----------------------------------------------------------------------------------------


def test_real_footage_keeps_its_frames(samples: Path, tmp_path: Path) -> None:
    for name in ("bikes.mp4", "b.avi", "world.mp4", "carphone_pristine.mp4"):
        clip = clip_of(samples / name, 21, 60)
        facts = cut(samples / name, clip, tmp_path / "out.mp4", (352, 192))
        with open_video(samples / name) as video:
            read = [luma_of(f) for f in _first(frames(video), 60)][21:]
        display, crop = (clip["width_px"], clip["height_px"]), (0, 0, clip["width_px"], clip["height_px"])
        exported = lumas(tmp_path / "out.mp4")
        assert len(exported) == facts["frame_count"] == 39
        for stored, (_, luma) in zip(read, exported, strict=True):
            assert psnr(luma, expected(stored, display, crop, (352, 192))) > 24  # seen 27-41: detail, two scalers


def _first(iterator: Iterator[Any], count: int) -> Iterator[Any]:
    return (item for item, _ in zip(iterator, range(count), strict=False))


def test_the_sandbox_gives_the_same_file_and_the_reason_of_a_failure(tmp_path: Path) -> None:
    source = make(tmp_path / "s.mp4", STEADY, tone=chirp(1.6))
    clip = clip_of(source, 13, 31)
    facts = cut(source, clip, tmp_path / "out.mp4")
    request = {
        "path": str(source), "clip": clip, "width_px": 256, "height_px": 192, "settings": FAST,
        "out_path": str(tmp_path / "child.mp4"), "threads": 2,
    }  # fmt: skip
    with Sandbox() as sandbox:
        reply = sandbox.call("export", request)
        assert reply.is_ok and reply.facts == facts
        assert (tmp_path / "child.mp4").read_bytes() == (tmp_path / "out.mp4").read_bytes()
        counted = sandbox.call("recount", {"path": str(tmp_path / "child.mp4"), "threads": 1}).facts
        assert (counted["frame_count"], counted["duration_s"]) == (18, pytest.approx(18 / 25))
        reply = sandbox.call("export", request | {"clip": clip | {"frame_count": 3}})
        assert reply.reason == Reason.DECODE_ERROR and "the clip has 3 frames" in reply.message


def test_beats_are_given_while_working(tmp_path: Path) -> None:
    source = make(tmp_path / "s.mp4", STEADY, tone=chirp(1.6))
    beats: list[None] = []
    request = {
        "path": str(source), "clip": clip_of(source, 20, 40), "width_px": 256, "height_px": 192, "settings": FAST,
        "out_path": str(tmp_path / "out.mp4"), "threads": 1,
    }  # fmt: skip
    export.run(request, lambda: beats.append(None))
    assert len(beats) >= 20


@pytest.mark.parametrize(
    "change", [{"frame_count": 17}, {"start_pts": 13 * 512 + 1}, {"start_pts": 10**9, "end_pts": 2 * 10**9}]
)
def test_a_source_without_the_clips_frames_is_a_failure_with_a_reason(change: dict[str, int], tmp_path: Path) -> None:
    source = make(tmp_path / "s.mp4", STEADY)
    with pytest.raises(MediaError) as failure:
        cut(source, clip_of(source, 13, 31) | change, tmp_path / "out.mp4")
    assert failure.value.reason == Reason.DECODE_ERROR


def test_a_source_of_another_size_or_gone_is_a_failure_with_a_reason(tmp_path: Path) -> None:
    source = make(tmp_path / "s.mp4", STEADY)
    with pytest.raises(MediaError) as failure:
        cut(source, clip_of(source, 13, 31) | {"width_px": 640}, tmp_path / "out.mp4")
    assert failure.value.reason == Reason.FRAME_SIZE_CHANGES
    with pytest.raises(MediaError) as failure:
        cut(tmp_path / "gone.mp4", clip_of(source, 13, 31), tmp_path / "out.mp4")
    assert failure.value.reason == Reason.MISSING


def test_a_wrong_crop_box_is_the_callers_mistake(tmp_path: Path) -> None:
    source = make(tmp_path / "s.mp4", STEADY)
    with pytest.raises(ValueError, match="does not lie inside the display frame 320x240"):
        cut(source, clip_of(source, 0, 5, (100, 0, 300, 240)), tmp_path / "out.mp4")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("h264", "export: expected a mapping"),
        ({"codec": "h264"}, "export.codec: unknown key; known keys are"),
        ({"crf": "18"}, "export.crf: got '18'; write a whole number"),
        ({"preset": 5}, "export.preset: got 5; write it in quotes"),
        ({"crf": 52}, "export.crf: 52 lies outside 1..51"),
        ({"video_codec": "vp9"}, r"export.preset \(for vp9\): 'fast' is not one of 0, 1"),
        ({"video_codec": "hevc"}, "export.video_codec: 'hevc' is not one of h264, vp9, av1"),
        ({"keyframe_frames": True}, "export.keyframe_frames: got True"),
    ],
)
def test_wrong_settings_name_their_key_and_the_mend(raw: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_from_dict(raw)


def test_settings_survive_the_way_through_a_request() -> None:
    settings = ExportSettings(video_codec="av1", preset="8", crf=30)
    assert settings_from_dict(settings.to_dict()) == settings
