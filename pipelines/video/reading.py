"""The one way to open a media file and to get its packets and frames.

What belongs here: exact time, geometry for display, tolerance of damage, seeking. What does not: the restrictions under
which a file is opened (`opening.py`), measuring (`probe.py`, `scan.py`), writing (`export.py`), limits on time and memory
(`sandbox.py`).

PyAV's default of discarding FFmpeg's log is kept while decoding: a log callback from a decoder thread needs Python's lock
and has deadlocked others (facts/curation-systems.md 4.1).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipelines.video.files import AnyPath
from pipelines.video.opening import MAX_SIDE_PX, Counts, Stream, check_size, open_stream, real_video_streams
from pipelines.video.reasons import MediaError, Reason

__all__ = [
    "MAX_SIDE_PX",
    "Counts",
    "MediaError",
    "OpenVideo",
    "Reason",
    "Stream",
    "frames",
    "open_stream",
    "open_video",
    "packets",
    "real_video_streams",
]

MAX_CORRUPT_SHARE = 0.1  # of all frames; a lost packet hurts a few frames, a broken file most of them
MAX_DROPPED_SHARE = 0.1  # of all decoded frames; more and the clock cannot be trusted
MAX_SAR = 16  # pixel aspects beyond this are nonsense in the header; the pixels are then taken as square
MAX_READ_ERRORS = 1_000_000  # in a row; the sandbox's stall limit speaks long before


@dataclass
class OpenVideo:
    """An open video whose first frame has been decoded. Read it with `frames`, never with the container's own methods."""

    media: Stream
    rotation_deg: int  # clockwise, to show it upright: 0, 90, 180, 270
    sar: Fraction  # pixel aspect ratio of the stored frame
    stored_width_px: int
    stored_height_px: int
    first_pts: int
    _iterator: Iterator[VideoFrame] = field(repr=False)

    @property
    def container(self) -> InputContainer:
        return self.media.container

    @property
    def stream(self) -> VideoStream:
        return self.media.stream

    @property
    def time_base(self) -> Fraction:
        """Seconds per PTS unit."""
        return self.media.time_base

    @property
    def counts(self) -> Counts:
        return self.media.counts

    @property
    def is_sideways(self) -> bool:
        return self.rotation_deg in (90, 270)

    @property
    def width_px(self) -> int:
        """Display width: after rotation, then scaled by the pixel aspect as it lies after rotation."""
        if self.is_sideways:
            return max(1, round(self.stored_height_px / self.sar))
        return max(1, round(self.stored_width_px * self.sar))

    @property
    def height_px(self) -> int:
        """Display height: after rotation."""
        return self.stored_width_px if self.is_sideways else self.stored_height_px


@contextmanager
def open_video(path: AnyPath, threads: int = 1) -> Iterator[OpenVideo]:
    """Open `path` and decode its first frame; `threads` are decoder threads.

    Raises:
        MediaError: anything that makes the file unusable.
    """
    with open_stream(path, threads) as media:
        _open_decoder(media.stream)
        decoder = _decode(media)
        try:
            yield _start(media, decoder)
        finally:
            decoder.close()  # type: ignore[attr-defined]


def frames(video: OpenVideo, start_pts: int | None = None) -> Iterator[VideoFrame]:
    """Decoded frames with strictly increasing PTS in the stream's time base, as stored (not rotated, not scaled).

    One pass: a second call goes on where the first stopped. With `start_pts` it seeks instead and yields the frames from
    exactly that PTS on, decoding from the key frame before; the counts then begin anew. Leaving the loop early is fine.

    Raises:
        MediaError: nothing or too little decodes, the frame size changes, or the timestamps are unusable. The shares are
            judged when the stream ends.
    """
    if start_pts is not None:
        video._iterator = _seek(video, start_pts)
    for frame in video._iterator:
        if (frame.width, frame.height) != (video.stored_width_px, video.stored_height_px):
            raise MediaError(
                Reason.FRAME_SIZE_CHANGES,
                f"frames change from {video.stored_width_px}x{video.stored_height_px} to {frame.width}x{frame.height}",
            )
        yield frame


def packets(media: Stream) -> Iterator[av.Packet]:
    """Packets of every stream that is not discarded, then one empty packet for each; read errors are counted and passed over.

    Samples that the container's index places beyond the end of the file are counted as missing when the file ends.
    """
    errors_in_a_row = 0
    while errors_in_a_row < MAX_READ_ERRORS:
        try:
            for packet in media.container.demux():
                errors_in_a_row = 0
                yield packet
            _count_missing(media)
            return
        except MemoryError as error:
            raise MediaError(Reason.OUT_OF_MEMORY, f"reading: {error}") from error
        except av.FFmpegError:
            errors_in_a_row += 1
            media.counts.missing += 1
            media.counts.corrupt += 1
    raise MediaError(Reason.TRUNCATED, f"{errors_in_a_row} read errors in a row")


def _count_missing(media: Stream) -> None:
    """Count index entries that lie beyond the end; one cut in two is delivered, and fails in the decoder."""
    size_bytes = media.container.size
    missing = sum(entry.pos >= size_bytes for entry in media.stream.index_entries if entry.size)
    media.counts.missing += missing
    media.counts.corrupt += missing


def _open_decoder(stream: VideoStream) -> None:
    try:
        stream.codec_context.open(strict=False)
    except (MemoryError, BlockingIOError) as error:  # EAGAIN: no room for a thread's stack
        raise MediaError(Reason.OUT_OF_MEMORY, f"opening the decoder: {error}") from error
    except av.FFmpegError as error:
        raise MediaError(Reason.UNSUPPORTED_CODEC, f"the decoder does not open: {error}") from error


def _decode(media: Stream) -> Iterator[VideoFrame]:
    last_pts: int | None = None
    for packet in packets(media):
        if packet.stream_index != media.stream.index:
            continue
        for frame in _decode_packet(media, packet):
            pts = frame.pts if frame.pts is not None else frame.dts
            media.counts.decoded += 1
            media.counts.corrupt += frame.is_corrupt
            if pts is None or (last_pts is not None and pts <= last_pts):
                media.counts.dropped += 1
                continue
            frame.pts = last_pts = pts
            yield frame
    _judge(media.counts)


def _decode_packet(media: Stream, packet: av.Packet) -> list[VideoFrame]:
    try:
        return media.stream.decode(packet)
    except EOFError:
        return []
    except MemoryError as error:
        raise MediaError(Reason.OUT_OF_MEMORY, f"decoding: {error}") from error
    except av.FFmpegError:
        media.counts.corrupt += 1
        return []


def _judge(counts: Counts) -> None:
    """Say whether a stream that has come to its end was sound enough."""
    frame_count = max(counts.decoded, 1)
    total = counts.decoded + counts.corrupt
    if counts.decoded == 0 and counts.corrupt == 0:
        raise MediaError(Reason.NO_FRAMES)
    if counts.corrupt > MAX_CORRUPT_SHARE * total or counts.decoded == 0:
        reason = Reason.TRUNCATED if 2 * counts.missing > counts.corrupt else Reason.DECODE_ERROR
        raise MediaError(
            reason, f"{counts.corrupt} of {total} frames are corrupt, {counts.missing} of these are not in the file"
        )
    if counts.dropped > MAX_DROPPED_SHARE * frame_count:
        raise MediaError(
            Reason.TIMESTAMPS_BROKEN, f"{counts.dropped} of {counts.decoded} frames repeat a time or run backwards"
        )


def _start(media: Stream, decoder: Iterator[VideoFrame]) -> OpenVideo:
    first = next(decoder, None)
    if first is None:
        raise MediaError(Reason.NO_FRAMES)
    check_size(first.width, first.height)
    video = OpenVideo(
        media=media,
        rotation_deg=_clockwise(first.rotation),
        sar=_sane_aspect(media.stream.sample_aspect_ratio),
        stored_width_px=first.width,
        stored_height_px=first.height,
        first_pts=int(first.pts or 0),
        _iterator=_chain(first, decoder),
    )
    check_size(video.width_px, video.height_px)
    return video


def _chain(first: VideoFrame, rest: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    yield first
    del first
    yield from rest


def _seek(video: OpenVideo, start_pts: int) -> Iterator[VideoFrame]:
    """Frames from `start_pts` on. An index may name a key frame whose leading frames cannot be decoded: then go further back."""
    video._iterator.close()  # type: ignore[attr-defined]
    video.media.counts = Counts()
    for back_s in (0, 2, 10, 60, None):
        target = video.first_pts if back_s is None else start_pts - int(back_s / video.time_base)
        try:
            video.container.seek(max(target, video.first_pts), stream=video.stream, backward=True)
        except av.FFmpegError as error:
            raise MediaError(Reason.DECODE_ERROR, f"cannot seek to PTS {target}: {error}") from error
        decoder = _decode(video.media)
        first = next(decoder, None)
        if first is not None and (int(first.pts or 0) <= start_pts or back_s is None):
            return (frame for frame in _chain(first, decoder) if int(frame.pts or 0) >= start_pts)
    raise MediaError(Reason.DECODE_ERROR, f"no frame can be decoded from PTS {start_pts} on")


def _clockwise(counterclockwise_deg: float) -> int:
    """The clockwise quarter turn nearest to FFmpeg's counterclockwise angle."""
    return round(-counterclockwise_deg / 90) * 90 % 360


def _sane_aspect(sar: Fraction | None) -> Fraction:
    if not sar or sar <= 0 or not Fraction(1, MAX_SAR) <= sar <= MAX_SAR:
        return Fraction(1)
    return Fraction(sar)
