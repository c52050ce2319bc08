"""How a media file is opened: with every restriction, and with a reason code when it cannot be.

What belongs here: the container, the choice of the stream, the size limit, the diagnosis of a failed open. What does not:
packets, frames and geometry (`reading.py`).

Restrictions. We open the file and hand FFmpeg the descriptor, through its `fd:` protocol, the only one it may use. So no
name is ever parsed (no `concat:`, no `%03d`, no extension sniffing, any bytes in a name), and nothing inside a file can
make FFmpeg open another file or the network. Only plain containers with timestamps may be demuxed; playlists, scripts,
picture sequences and raw streams are refused.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction

import av
import av.logging
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from pipelines.video.files import AnyPath, open_regular_file
from pipelines.video.reasons import MediaError, Reason

# Containers that hold their own clock. Raw streams (h264, hevc, obu) have none; pictures and playlists are no reels.
FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,mxf,ivf,nut,yuv4mpegpipe"
MAX_SIDE_PX = 16384
MAX_PIXELS = 16384 * 16384
MIN_PROBE_SCORE = 25  # of 100; at or below it FFmpeg itself is guessing


@dataclass
class Counts:
    """What happened to the frames so far."""

    decoded: int = 0  # frames that came out of the decoder
    corrupt: int = 0  # flagged by the decoder, undecodable, or missing
    missing: int = 0  # of these: announced by the file but not in it
    dropped: int = 0  # left out because their PTS is unknown, repeats or runs backwards


@dataclass
class Stream:
    """The chosen video stream of an open container, not yet decoded."""

    container: InputContainer
    stream: VideoStream
    time_base: Fraction  # seconds per PTS unit
    counts: Counts = field(default_factory=Counts)


@contextmanager
def open_stream(path: AnyPath, threads: int = 1) -> Iterator[Stream]:
    """Open `path` for demuxing with every restriction; the stream is the first that is not a cover picture.

    Raises:
        MediaError: anything that makes the file unusable.
    """
    container = _open_container(path)
    try:
        stream = _choose_stream(container)
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        yield Stream(container, stream, _time_base(stream))
    finally:
        container.close()


def check_size(width_px: int, height_px: int) -> None:
    if max(width_px, height_px) > MAX_SIDE_PX:
        raise MediaError(Reason.TOO_LARGE, f"frame of {width_px}x{height_px} px, the limit is {MAX_SIDE_PX} px a side")


def _choose_stream(container: InputContainer) -> VideoStream:
    if not container.streams:
        raise MediaError(Reason.HEADER_BROKEN, "the header names no stream")
    real = real_video_streams(container)
    if not real:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
        raise MediaError(Reason.NO_VIDEO_STREAM, f"no video stream; the streams are: {kinds}")
    stream = real[0]
    if stream.codec_context is None:
        raise MediaError(Reason.UNSUPPORTED_CODEC)
    check_size(stream.codec_context.width, stream.codec_context.height)
    return stream


def _time_base(stream: VideoStream) -> Fraction:
    if not stream.time_base or stream.time_base <= 0:
        raise MediaError(Reason.HEADER_BROKEN, f"the stream's time base is {stream.time_base}")
    return Fraction(stream.time_base)


def real_video_streams(container: InputContainer) -> list[VideoStream]:
    """Video streams that are not cover pictures or thumbnails."""
    still = Disposition.attached_pic | Disposition.timed_thumbnails
    return [stream for stream in container.streams.video if not stream.disposition & still]


def _open_container(path: AnyPath) -> InputContainer:
    descriptor = open_regular_file(path)
    try:
        if os.fstat(descriptor).st_size == 0:
            raise MediaError(Reason.EMPTY)
        try:
            return _av_open(descriptor)
        except MemoryError as error:
            raise MediaError(Reason.OUT_OF_MEMORY, f"opening: {error}") from error
        except av.FFmpegError as error:
            raise _diagnose(descriptor, error) from error
    finally:
        os.close(descriptor)


def _av_open(descriptor: int) -> InputContainer:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return av.open(
        "fd:",
        options={"max_pixels": str(MAX_PIXELS)},
        container_options={
            "fd": str(descriptor),
            "protocol_whitelist": "fd",
            "format_whitelist": FORMATS,
            "enable_drefs": "0",
            "use_absolute_path": "0",
        },
        metadata_errors="replace",
    )


def _diagnose(descriptor: int, error: Exception) -> MediaError:
    """The reason for a failed open, told from FFmpeg's log: nothing is decoded yet, so the log callback is safe here."""
    av.logging.set_skip_repeated(False)
    av.logging.set_level(av.logging.DEBUG)
    try:
        with av.logging.Capture() as log, suppress(av.FFmpegError):
            _av_open(descriptor).close()
    finally:
        av.logging.set_level(None)
    lines = [text.strip() for _, _, text in log]
    recognised = [
        match for line in lines if (match := re.match(r"Format (\S+) probed with size=\d+ and score=(\d+)", line))
    ]
    if any(line.startswith("Not detecting m3u8/hls") for line in lines):
        return MediaError(Reason.FORBIDDEN_FORMAT, "an HLS playlist is not opened")
    if not recognised or int(recognised[-1][2]) <= MIN_PROBE_SCORE:
        return MediaError(Reason.NOT_MEDIA)
    name = recognised[-1][1]
    if any(line.startswith("Format not on whitelist") for line in lines):
        return MediaError(Reason.FORBIDDEN_FORMAT, f"format {name!r} is not accepted; the accepted ones are {FORMATS}")
    if "moov atom not found" in lines:
        return MediaError(Reason.TRUNCATED, "the index (moov atom) is missing: the file was cut off or never finished")
    if isinstance(error, EOFError):
        return MediaError(Reason.TRUNCATED, f"{name}: the file ends within its header")
    return MediaError(Reason.HEADER_BROKEN, f"{name}: {error}")
