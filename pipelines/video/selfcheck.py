"""What the media libraries on this machine can do, found by doing it: tasks for the sandbox child, called by `reelmill doctor`.

What belongs here: encoding and decoding a few frames with every codec that Reelmill reads or writes, and two tasks that break a
limit on purpose, to show that the sandbox holds it. Nothing here reads a file of the user's.
"""

import io
import time
from collections.abc import Callable
from typing import Any

import av
import av.error
import cv2
import numpy as np
import pyarrow as pa

Answer = tuple[dict[str, Any], dict[str, pa.Table]]
Beat = Callable[[], None]

# codec -> (encoder, container). What is read most on the web, and what export writes.
VIDEO_CODECS = {
    "h264": ("libx264", "mp4"),
    "hevc": ("libx265", "mp4"),
    "vp9": ("libvpx-vp9", "webm"),
    "av1": ("libsvtav1", "mp4"),
    "mpeg4": ("mpeg4", "mp4"),
}
AUDIO_CODECS = {"aac": ("aac", "mp4"), "opus": ("libopus", "webm")}
DECODERS_ONLY = ("vp8", "mpeg2video", "prores", "mjpeg", "wmv3", "mp3")
FRAMES = 3
WIDTH_PX, HEIGHT_PX = 128, 96


def codecs(request: dict[str, Any], beat: Beat) -> Answer:
    """Versions, and for each codec of a round trip "ok" or what went wrong; for the other decoders whether they are there."""
    trips = {}
    for codec, (encoder, container) in {**VIDEO_CODECS, **AUDIO_CODECS}.items():
        beat()
        try:
            trips[codec] = _round_trip(codec, encoder, container)
        except (av.error.FFmpegError, ValueError) as error:
            trips[codec] = f"{encoder}: {error}"
    facts = {
        "pyav": av.__version__,
        "ffmpeg": getattr(av, "ffmpeg_version_info", "unknown"),
        "cv2": cv2.__version__,
        "round_trips": trips,
        "decoders": {name: _has_decoder(name) for name in DECODERS_ONLY},
    }
    return facts, {}


def hoard(request: dict[str, Any], beat: Beat) -> Answer:
    """Touch `bytes` of memory, more than the limit allows."""
    return {"bytes": int(np.ones(request["bytes"], np.uint8).sum())}, {}


def hang(request: dict[str, Any], beat: Beat) -> Answer:
    """Do nothing for `seconds`, without a sign of life."""
    time.sleep(request["seconds"])
    return {}, {}


def _round_trip(codec: str, encoder: str, container: str) -> str:
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as output:
        if codec in VIDEO_CODECS:
            _write_pictures(output, encoder)
        else:
            _write_sound(output, encoder)
    stream.seek(0)
    with av.open(stream, "r") as source:
        found = source.streams[0].codec_context.name
        count = len(list(source.decode(source.streams[0])))
    return "ok" if count >= FRAMES else f"{encoder} wrote {FRAMES} frames, {found} read {count}"


def _write_pictures(output: av.container.OutputContainer, encoder: str) -> None:
    track = output.add_stream(encoder, rate=24)
    assert isinstance(track, av.VideoStream)
    track.width, track.height, track.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
    for index in range(FRAMES):
        output.mux(track.encode(_picture(index)))
    output.mux(track.encode(None))


def _write_sound(output: av.container.OutputContainer, encoder: str) -> None:
    track = output.add_stream(encoder, rate=48_000, layout="stereo")
    assert isinstance(track, av.AudioStream)
    for index in range(FRAMES):
        output.mux(track.encode(_sound(index)))
    output.mux(track.encode(None))


def _picture(index: int) -> av.VideoFrame:
    pixels = np.full((HEIGHT_PX, WIDTH_PX, 3), 80 * index, np.uint8)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
    frame.pts = index
    return frame


def _sound(index: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.zeros((2, 960), np.float32), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts = 48_000, 960 * index
    return frame


def _has_decoder(name: str) -> bool:
    try:
        av.codec.Codec(name, "r")
    except ValueError:
        return False
    return True
