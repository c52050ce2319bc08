"""Cut one clip out of its source: exact frames, cropped, scaled to its bucket, encoded, with its sound.

What belongs here: the task `export` of the sandbox child. What does not: which clips (`policy`), what becomes of the file
(`shards/`). Runs inside the child and opens media through `reading.py` only.

In: {path, clip, width_px, height_px, settings, out_path, threads}; `clip` is a row of table `clips`, the sizes are its bucket's,
`settings` an ExportSettings as a dictionary. Out: the file at `out_path` (the caller gives a temporary name) and its facts.

Time. The clip is the frames with start_pts <= PTS < end_pts, as `reading.frames` gives them; they keep their distances, moved so that
the first is at 0, in the source's own time base; the last lasts until end_pts. So variable frame rates survive and the video
track lasts exactly (end_pts - start_pts). Sound is cut at the nearest sample of 48 kHz (the source's clock may be coarser: 1 ms in
Matroska) and lasts as long as the picture to within one sample.

Same bytes for the same clip: one encoder thread, FFmpeg's bitexact paths, no creation time, and no SEI messages, in which x264
writes its version and options. Without B-frames a file grows by about 10 % (bikes.mp4 at 352x192, crf 18), and in return decoding
order is display order, so no reader needs an edit list for the picture and frames are found by counting.

Cost: one seek and the decoding of the clip's frames (a container without exact index, such as AVI or MPEG-TS, is decoded from its
beginning), together 77-350 frames/s at 352x192 on one busy core. Memory does not grow with the clip:
104 MB for 90, 300 and 900 frames of world.mp4.
"""

import errno
import hashlib
import heapq
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from fractions import Fraction
from itertools import chain
from math import lcm
from operator import itemgetter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from pipelines.video.export_settings import ExportSettings, settings_from_dict
from pipelines.video.framing import Framing, colour_tags, unit_box, unrotate
from pipelines.video.reading import MediaError, OpenVideo, Reason, frames, open_video
from pipelines.video.sound import SAMPLE_RATE_HZ, SEEKABLE, Sound

MAX_TIMESCALE = 1_000_000
"""Ticks per second of an exported video track at most; a finer source clock is rounded to microseconds."""

ENCODERS = {"h264": "libx264", "vp9": "libvpx-vp9", "av1": "libsvtav1", "aac": "aac", "opus": "libopus"}
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
H264_SEI = 6


class _OtherFrames(Exception):
    """The frames read are not those that the clip names."""


def run(request: dict[str, Any], beat: Callable[[], None]) -> tuple[dict[str, Any], dict[str, pa.Table]]:
    """The sandbox task: write the clip to `out_path`; facts of the file, no tables.

    Raises:
        MediaError: the source cannot be read, does not hold the clip's frames, or the disk is full.
        ValueError: the request is wrong.
    """
    clip, size_px = request["clip"], (int(request["width_px"]), int(request["height_px"]))
    settings = settings_from_dict(request["settings"])
    out_path = Path(request["out_path"]).absolute()
    problem = ""
    # Seeks first; if the index led to other frames than the clip's, reads from the beginning and trusts no index.
    for is_seeking in (True, False):
        with open_video(request["path"], int(request["threads"])) as video:
            _check_size(video, clip)
            sound = _sound(video, clip)
            try:
                is_heard = _export(video, request["path"], clip, size_px, settings, out_path, sound, is_seeking, beat)
                return _facts(clip, size_px, out_path, sound if is_heard else None), {}
            except _OtherFrames as error:
                problem = str(error)
            except (OSError, av.FFmpegError) as error:
                if error.errno in DISK_ERRORS:
                    raise MediaError(Reason.DISK_FULL, f"writing the clip: {error.strerror}") from error
                raise
    raise MediaError(Reason.DECODE_ERROR, problem)


def _check_size(video: OpenVideo, clip: Mapping[str, Any]) -> None:
    if (video.width_px, video.height_px) != (clip["width_px"], clip["height_px"]):
        raise MediaError(
            Reason.FRAME_SIZE_CHANGES,
            f"the source shows {video.width_px}x{video.height_px} px, but the clip was made of "
            f"{clip['width_px']}x{clip['height_px']} px",
        )


def _sound(video: OpenVideo, clip: Mapping[str, Any]) -> Sound:
    span_s = (clip["end_pts"] - clip["start_pts"]) * video.time_base
    return Sound(clip["start_pts"] * video.time_base, round(span_s * SAMPLE_RATE_HZ))


def _export(
    video: OpenVideo,
    path: str,
    clip: Mapping[str, Any],
    size_px: tuple[int, int],
    settings: ExportSettings,
    out_path: Path,
    sound: Sound,
    is_seeking: bool,
    beat: Callable[[], None],
) -> bool:
    """Write the file; whether it has sound. Picture and sound are read side by side, so neither waits in memory."""
    timescale = min(video.time_base.denominator, MAX_TIMESCALE)
    with ExitStack() as stack:
        spans = stack.enter_context(closing(_span(video, clip, is_seeking, beat)))
        pictures = stack.enter_context(closing(_pictures(spans, video, clip, size_px, timescale)))
        picture = next(pictures)
        blocks = sound.blocks(path, beat) if settings.audio_codec != "none" else _silent()
        stack.enter_context(closing(blocks))
        block = next(blocks, None)
        output = stack.enter_context(_open_output(out_path, timescale))
        track = _video_track(output, settings, picture, timescale, sound.sample_count, clip["frame_count"])
        tracks = [_video_packets(track, chain([picture], pictures))]
        if block is not None:
            voice = _audio_track(output, settings, sound)
            tracks.append(_audio_packets(voice, chain([block], blocks)))
        for _, packet in heapq.merge(*tracks, key=itemgetter(0)):
            output.mux(packet)
    return block is not None


def _silent() -> Generator[np.ndarray[Any, Any]]:
    yield from ()


# -- the picture -------------------------------------------------------------------------------------------------------


def _span(
    video: OpenVideo, clip: Mapping[str, Any], is_seeking: bool, beat: Callable[[], None]
) -> Generator[tuple[VideoFrame, int]]:
    """(stored frame, its duration in PTS units) for every frame of the clip; the last lasts to the clip's end.

    Raises:
        _OtherFrames: the first PTS or the number of frames is not the clip's.
    """
    start_pts, end_pts = clip["start_pts"], clip["end_pts"]
    has_index = video.container.format.name in SEEKABLE
    count = 0
    before: VideoFrame | None = None
    for frame in frames(video, start_pts if is_seeking and has_index and start_pts > video.first_pts else None):
        beat()
        pts = _pts(frame)
        if pts < start_pts:
            continue
        if pts >= end_pts:
            break
        if before is None and pts != start_pts:
            raise _OtherFrames(f"the clip begins at PTS {start_pts}, the first frame found from there on is at {pts}")
        if before is not None:
            yield before, pts - _pts(before)
        before, count = frame, count + 1
    if before is None or count != clip["frame_count"]:
        raise _OtherFrames(f"the clip has {clip['frame_count']} frames in [{start_pts}, {end_pts}), found {count}")
    yield before, end_pts - _pts(before)


def _pts(frame: VideoFrame) -> int:
    assert frame.pts is not None  # `frames` yields none without
    return frame.pts


def _pictures(
    spans: Iterator[tuple[VideoFrame, int]],
    video: OpenVideo,
    clip: Mapping[str, Any],
    size_px: tuple[int, int],
    timescale: int,
) -> Generator[VideoFrame]:
    """Upright pictures of `size_px`, PTS from 0 in 1/timescale s."""
    box = unrotate(unit_box(clip, *size_px), video.rotation_deg)
    framing: Framing | None = None
    for frame, duration in spans:
        if framing is None:
            tags = colour_tags(frame)
            framing = Framing(frame, video.time_base, box, video.rotation_deg, size_px)
        begin = _pts(frame) - clip["start_pts"]
        picture = framing.apply(frame)
        picture.pts = round(begin * video.time_base * timescale)
        picture.duration = round((begin + duration) * video.time_base * timescale) - picture.pts
        picture.time_base = Fraction(1, timescale)
        picture.pict_type = PictureType.NONE  # the encoder would repeat the source's choice of I, P and B
        for name, value in tags.items():
            setattr(picture, name, value)
        yield picture


def _video_track(
    output: OutputContainer,
    settings: ExportSettings,
    first: VideoFrame,
    timescale: int,
    sample_count: int,
    frame_count: int,
) -> VideoStream:
    fps = Fraction(frame_count * SAMPLE_RATE_HZ, max(sample_count, 1)).limit_denominator(10_000)
    track = output.add_stream(ENCODERS[settings.video_codec], rate=fps, options=_video_options(settings))
    assert isinstance(track, VideoStream)
    track.width, track.height, track.pix_fmt = first.width, first.height, "yuv420p"
    context = track.codec_context
    context.time_base = track.time_base = Fraction(1, timescale)
    context.thread_count = 1
    context.sample_aspect_ratio = Fraction(1)
    for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
        setattr(context, name, getattr(first, name))
    return track


def _video_options(settings: ExportSettings) -> dict[str, str]:
    options = {"crf": str(settings.crf), "g": str(settings.keyframe_frames), "flags": "+bitexact"}
    if settings.video_codec == "h264":
        return options | {"preset": settings.preset, "bf": "0"}
    if settings.video_codec == "vp9":
        return options | {"cpu-used": settings.preset, "deadline": "good", "b": "0"}
    return options | {"preset": settings.preset, "svtav1-params": "lp=1"}


def _video_packets(track: VideoStream, pictures: Iterator[VideoFrame]) -> Iterator[tuple[Fraction, av.Packet]]:
    """(time in s, packet) in order; each lasts as long as its picture, and x264's SEI messages are taken out."""
    strip = None
    if track.codec_context.name == "libx264":
        strip = BitStreamFilterContext(f"filter_units=remove_types={H264_SEI}", track)
    durations: dict[int, int] = {}
    for picture in chain(pictures, [None]):
        if picture is not None:
            durations[_pts(picture)] = picture.duration
        for encoded in track.encode(picture):
            for packet in strip.filter(encoded) if strip else [encoded]:
                assert packet.pts is not None
                packet.duration = durations.pop(packet.pts)
                yield packet.pts * packet.time_base, packet


# -- the sound ---------------------------------------------------------------------------------------------------------


def _audio_track(output: OutputContainer, settings: ExportSettings, sound: Sound) -> AudioStream:
    layout = "mono" if sound.channels == 1 else "stereo"
    track = output.add_stream(ENCODERS[settings.audio_codec], rate=SAMPLE_RATE_HZ, options={"flags": "+bitexact"})
    assert isinstance(track, AudioStream)
    track.codec_context.layout = layout
    track.codec_context.bit_rate = settings.audio_bitrate_bps
    return track


def _audio_packets(track: AudioStream, blocks: Iterator[np.ndarray[Any, Any]]) -> Iterator[tuple[Fraction, av.Packet]]:
    """(time in s, packet) in order."""
    position = 0
    for block in chain(blocks, [None]):
        frame = None
        if block is not None:
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(block), "fltp", track.codec_context.layout.name)
            frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE_HZ, position, Fraction(1, SAMPLE_RATE_HZ)
            position += block.shape[1]
        for packet in track.encode(frame):
            assert packet.pts is not None
            yield packet.pts * packet.time_base, packet


# -- the file ----------------------------------------------------------------------------------------------------------


def _open_output(out_path: Path, timescale: int) -> OutputContainer:
    """mp4 with its index in front, no times or versions in it, and clocks that hold both tracks' lengths exactly."""
    both = lcm(timescale, SAMPLE_RATE_HZ)
    options = {
        "movflags": "+faststart",
        "fflags": "+bitexact",
        "video_track_timescale": str(timescale),
        "movie_timescale": str(both if both < 2**31 else timescale),
    }
    return av.open(str(out_path), "w", format="mp4", options=options)


def _facts(clip: Mapping[str, Any], size_px: tuple[int, int], out_path: Path, sound: Sound | None) -> dict[str, Any]:
    with out_path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    duration_s = float((clip["end_pts"] - clip["start_pts"]) * Fraction(clip["time_base_num"], clip["time_base_den"]))
    return {
        "frame_count": clip["frame_count"],
        "duration_s": duration_s,
        "fps": clip["frame_count"] / duration_s,
        "width_px": size_px[0],
        "height_px": size_px[1],
        "has_audio": sound is not None,
        "audio_missing_s": sound.missing_samples / SAMPLE_RATE_HZ if sound is not None else 0.0,
        "sha256": sha256,
        "size_bytes": out_path.stat().st_size,
    }
