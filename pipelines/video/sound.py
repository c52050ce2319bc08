"""The sound of a span of a video, as blocks of samples on one unbroken clock.

What belongs here: decoding, resampling and trimming to a span. What does not: encoding (`export.py`), loudness and content.

Where the source has no sound (a gap, a packet that does not decode, an end before the picture's) there is silence, and
`Sound.missing_samples` counts it. Timestamps decide where samples lie; a distance below `JITTER_S` between what the
timestamps say and where the samples before ended is rounding of a coarse clock (Matroska's is 1 ms) and not a gap.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.stream import Discard

from pipelines.video.reading import Stream, open_stream, packets

SAMPLE_RATE_HZ = 48_000
"""Every exported sound; Movie Gen Audio's rate."""

JITTER_S = 0.02
PREROLL_S = 1
"""Decoding begins this much before the span: AAC and Opus need packets before the first to be exact."""

SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers that index exact presentation times. In any other, reading starts at the beginning."""


@dataclass
class Sound:
    """A span to be filled: `start_s` on the container's clock, exact; lengths in samples at SAMPLE_RATE_HZ."""

    start_s: Fraction
    sample_count: int
    channels: int = 0
    missing_samples: int = 0

    def blocks(self, path: str, beat: Callable[[], None]) -> Generator[np.ndarray[Any, Any]]:
        """float32 (channels, n) blocks, `sample_count` samples in all; nothing at all if the span has no sound.

        Raises:
            MediaError: the file cannot be opened or read.
        """
        for is_seeking in (True, False):
            with open_stream(path) as media:
                audio = next(iter(media.container.streams.audio), None)
                if audio is None or audio.codec_context is None:
                    return
                is_seeking = is_seeking and media.container.format.name in SEEKABLE  # noqa: PLW2901
                _prepare(media, audio, self.start_s if is_seeking else None)
                pieces = self._pieces(media, audio, beat)
                first = next(pieces, None)
                is_late = first is None or first[0] > 0
                if is_seeking and is_late:
                    continue  # the sound begins inside the span, or seeking went wrong: read from the beginning to know
                if first is not None:
                    self.channels = first[1].shape[0]
                    yield from self._fill(first, pieces)
                return

    def _pieces(
        self, media: Stream, audio: AudioStream, beat: Callable[[], None]
    ) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
        """(offset from the span's start in samples, samples) of what decodes and overlaps the span, in file order."""
        expected: int | None = None
        for frame in _resampled(media, audio, beat):
            offset = expected
            if frame.pts is not None and frame.time_base is not None:
                offset = round((frame.pts * frame.time_base - self.start_s) * SAMPLE_RATE_HZ)
                if expected is not None and abs(offset - expected) <= JITTER_S * SAMPLE_RATE_HZ:
                    offset = expected
            if offset is None:
                continue  # sound before the first timestamp has no place
            expected = offset + frame.samples
            if offset >= self.sample_count:
                return
            if expected > 0:
                yield offset, frame.to_ndarray()

    def _fill(
        self, first: tuple[int, np.ndarray[Any, Any]], rest: Iterator[tuple[int, np.ndarray[Any, Any]]]
    ) -> Iterator[np.ndarray[Any, Any]]:
        cursor = 0
        for offset, samples in _chain(first, rest):
            if offset > cursor:
                yield self._silence(offset - cursor)
                cursor = offset
            kept = samples[:, cursor - offset : self.sample_count - offset]
            if kept.shape[1]:
                yield kept
                cursor += kept.shape[1]
        if cursor < self.sample_count:
            yield self._silence(self.sample_count - cursor)

    def _silence(self, count: int) -> np.ndarray[Any, Any]:
        self.missing_samples += count
        return np.zeros((self.channels, count), np.float32)


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _prepare(media: Stream, audio: AudioStream, start_s: Fraction | None) -> None:
    """Seek by the video's index, then read nothing but the sound."""
    if start_s is not None:
        target = int((start_s - PREROLL_S) / media.time_base)
        first = media.stream.start_time or 0
        media.container.seek(max(target, first), stream=media.stream, backward=True)
    media.stream.discard = Discard.all
    audio.discard = Discard.default


def _resampled(media: Stream, audio: AudioStream, beat: Callable[[], None]) -> Iterator[AudioFrame]:
    """Decoded sound as float planar mono or stereo at SAMPLE_RATE_HZ."""
    setup: tuple[str, str, int] | None = None
    resampler: av.AudioResampler | None = None
    for packet in packets(media):
        if packet.stream_index != audio.index:
            continue
        beat()
        for frame in _decode(audio, packet):
            if setup != (frame.format.name, frame.layout.name, frame.sample_rate):
                if resampler is not None:
                    yield from resampler.resample(None)
                setup = (frame.format.name, frame.layout.name, frame.sample_rate)
                layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
                resampler = av.AudioResampler(format="fltp", layout=layout, rate=SAMPLE_RATE_HZ)
            assert resampler is not None
            yield from resampler.resample(frame)
    if resampler is not None:
        yield from resampler.resample(None)


def _decode(audio: AudioStream, packet: av.Packet) -> list[AudioFrame]:
    try:
        return audio.decode(packet)
    except (av.FFmpegError, EOFError):
        return []  # its time stays empty and is counted as missing
