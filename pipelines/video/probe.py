"""Container and stream facts: every packet demuxed, one frame decoded. Runs in the sandbox child.

What belongs here: facts that need no decoding beyond the first frame. What the header claims (duration, frame count, rate)
is never believed; times come from the packets, and geometry, pixel format and colour from the first decoded frame.
"""

from array import array
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pyarrow as pa
from av.audio.stream import AudioStream
from av.stream import Discard

from pipelines.tables import VIDEOS, from_rows
from pipelines.video.reading import (
    MAX_CORRUPT_SHARE,
    MAX_DROPPED_SHARE,
    MediaError,
    OpenVideo,
    Reason,
    Stream,
    frames,
    open_stream,
    open_video,
    packets,
    real_video_streams,
)

GAP_S = 1.0  # a longer step between two frames is a gap
VFR_STEP_SHARE = 0.1  # a step differs if it is off by more than this share of the median step
VFR_FRAME_SHARE = 0.05  # variable if more than this share of the steps differ
ROUNDING_TICKS = 4  # from this many ticks a step on, one tick is rounding: 33 and 34 ms of 30 fps in Matroska
INTERLACED_FIELD_ORDERS = (2, 3, 4, 5)  # AVFieldOrder: TT, BB, TB, BT
RANGES = {0: "unspecified", 1: "tv", 2: "pc"}
# AVColorSpace, by FFmpeg's names
MATRICES = {
    0: "gbr",
    1: "bt709",
    2: "unknown",
    4: "fcc",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "ycgco",
    9: "bt2020nc",
    10: "bt2020c",
    11: "smpte2085",
    12: "chroma-derived-nc",
    13: "chroma-derived-c",
    14: "ictcp",
}


@dataclass
class Times:
    """What the packets of one stream say of time, in its own time base; 8 bytes a packet, so hours of video fit."""

    pts: array = field(default_factory=lambda: array("q"))
    size_bytes: int = 0
    packet_count: int = 0
    backward_count: int = 0
    end_pts: int | None = None  # largest PTS plus its packet's duration
    last_duration: int = 0
    _last_dts: int | None = None

    def add(self, packet: av.Packet) -> None:
        """Count a packet; those that an edit list hides have no time on the screen."""
        self.packet_count += 1
        self.size_bytes += packet.size
        if packet.dts is not None:
            self.backward_count += self._last_dts is not None and packet.dts < self._last_dts
            self._last_dts = packet.dts
        pts = packet.pts if packet.pts is not None else packet.dts
        if pts is None or packet.is_discard:
            return
        self.pts.append(pts)
        duration = packet.duration or 0
        if self.end_pts is None or pts >= self.end_pts - self.last_duration:
            self.end_pts, self.last_duration = pts + duration, duration


def run(request: dict[str, Any], beat: Callable[[], None]) -> tuple[dict[str, Any], dict[str, pa.Table]]:
    """The `videos` row of `request["path"]`, under `request["video_id"]`, as table `videos`; no facts besides.

    Raises:
        MediaError: the file is no usable video.
    """
    path = request["path"]
    with open_stream(path) as media:
        row: dict[str, object] = {"video_id": request["video_id"], "status": "ok", "size_bytes": media.container.size}
        row |= _demux(media, beat)
    with open_video(path) as video:
        row |= _picture(video)
    return {}, {"videos": from_rows([row], VIDEOS)}


def _demux(media: Stream, beat: Callable[[], None]) -> dict[str, object]:
    audio = media.container.streams.audio[0] if media.container.streams.audio else None
    if audio is not None:
        audio.discard = Discard.default
    times: defaultdict[int, Times] = defaultdict(Times)
    for packet in packets(media):
        if packet.size:
            times[packet.stream_index].add(packet)
            beat()
    video_times = times.get(media.stream.index)
    _check(video_times, media.counts.missing)
    assert video_times is not None
    facts = {
        "container": media.container.format.name,
        "video_codec": media.stream.codec_context.codec.canonical_name,
        "time_base_num": media.time_base.numerator,
        "time_base_den": media.time_base.denominator,
        "video_stream_count": len(real_video_streams(media.container)),
    }
    facts |= _clock(video_times, media)
    return facts | (_sound(audio, times.get(audio.index)) if audio is not None else {})


def _check(times: Times | None, missing: int) -> None:
    if times is None:
        raise MediaError(
            Reason.TRUNCATED if missing else Reason.NO_FRAMES, "the file holds no packet of the video stream"
        )
    if missing > MAX_CORRUPT_SHARE * (missing + times.packet_count):
        raise MediaError(Reason.TRUNCATED, f"{missing} packets that the index names are not in the file")
    if times.backward_count > MAX_DROPPED_SHARE * times.packet_count or not times.pts:
        raise MediaError(
            Reason.TIMESTAMPS_BROKEN,
            f"of {times.packet_count} packets {len(times.pts)} have a time and {times.backward_count} run backwards",
        )


def _clock(times: Times, media: Stream) -> dict[str, object]:
    """Everything that follows from the PTS alone."""
    pts = np.unique(np.frombuffer(times.pts, dtype=np.int64))
    steps = np.diff(pts)
    tick_s = float(media.time_base)
    end_pts = int(pts[-1]) + (times.last_duration or _usual_step(steps, media))
    duration_s = (end_pts - int(pts[0])) * tick_s
    if duration_s <= 0 or (len(pts) == 1 and times.packet_count > 1):
        raise MediaError(Reason.ZERO_DURATION, f"{times.packet_count} packets, all at PTS {pts[0]}")
    return {
        "start_pts": int(pts[0]),
        "end_pts": end_pts,
        "duration_s": duration_s,
        "packet_count": times.packet_count,
        "fps": len(pts) / duration_s,
        "is_vfr": is_variable(steps),
        "gap_count": int((steps * tick_s > GAP_S).sum()),
        "backward_count": times.backward_count,
        "bitrate_bps": round(times.size_bytes * 8 / duration_s),
    }


def is_variable(steps: np.ndarray) -> bool:
    """Whether the distances between frames, in ticks, vary by more than rounding to the time base explains."""
    if len(steps) == 0:
        return False
    step = float(np.median(steps))
    tolerance = max(VFR_STEP_SHARE * step, 1.0 if step >= ROUNDING_TICKS else 0.0)
    return bool((np.abs(steps - step) > tolerance).mean() > VFR_FRAME_SHARE)


def _usual_step(steps: np.ndarray, media: Stream) -> int:
    """How long the last frame lasts if its packet does not say: as the others do; a lone one as the announced rate says."""
    if len(steps):
        return int(np.median(steps))
    rate = media.stream.average_rate or media.stream.guessed_rate
    return round(1 / (Fraction(rate) * media.time_base)) if rate else 0


def _sound(audio: AudioStream, times: Times | None) -> dict[str, object]:
    context = audio.codec_context
    if context is None or times is None or not times.pts or times.end_pts is None:
        return {}
    return {
        "audio_codec": context.codec.canonical_name,
        "audio_channels": context.channels,
        "audio_sample_rate_hz": context.sample_rate,
        "audio_duration_s": (times.end_pts - min(times.pts)) * float(audio.time_base or 0),
    }


def _picture(video: OpenVideo) -> dict[str, object]:
    """Everything that the first decoded frame tells."""
    frame = next(frames(video))
    components = frame.format.components
    return {
        "pixel_format": frame.format.name,
        "bit_depth": components[0].bits,
        "has_alpha": any(part.is_alpha for part in components) or video.stream.metadata.get("alpha_mode") == "1",
        "is_interlaced": bool(frame.interlaced_frame)
        or int(video.stream.codec_context.field_order) in INTERLACED_FIELD_ORDERS,
        "color_space": MATRICES.get(int(frame.colorspace), "unknown"),
        "color_range": RANGES.get(int(frame.color_range), "unspecified"),
        "coded_width_px": video.stored_width_px,
        "coded_height_px": video.stored_height_px,
        "rotation_deg": video.rotation_deg,
        "sar_num": video.sar.numerator,
        "sar_den": video.sar.denominator,
        "width_px": video.width_px,
        "height_px": video.height_px,
    }
