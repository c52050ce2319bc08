"""Writing small videos with PyAV, and breaking them byte by byte. The table of kinds is `bad_media.py`."""

import os
import socket
import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

RATE = 25
SIZE = (96, 64)


# --- encoding -----------------------------------------------------------------------------------------------------------


def picture(index: int, size: tuple[int, int], pix_fmt: str) -> av.VideoFrame:
    """A gradient with a square that moves four pixels a frame."""
    width, height = size
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)
    rgb[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    rgb[..., 2] = 90
    left = 4 * index % max(1, width - 16)
    rgb[4:20, left : left + 16] = (250, 40, 40)
    return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix_fmt)


def encode(
    path: Path,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = SIZE,
    pts: Iterable[int] = range(25),
    options: dict[str, str] | None = None,
    mux: dict[str, str] | None = None,
    sar: Fraction | None = None,
    rotate_deg: int = 0,
    video_streams: int = 1,
    frame_sizes: Callable[[int], tuple[int, int]] | None = None,
) -> Path:
    """Write a video of one frame per `pts` (in units of 1/25 s); `rotate_deg` is the counterclockwise display rotation."""
    with av.open(str(path), "w", options=mux or {}) as container:
        streams = []
        for _ in range(video_streams):
            stream = container.add_stream(codec, rate=RATE, options=options or {})
            stream.width, stream.height = size
            stream.pix_fmt = pix_fmt
            stream.codec_context.time_base = Fraction(1, RATE)
            if sar:
                stream.codec_context.sample_aspect_ratio = sar
            if rotate_deg:
                stream.set_display_rotation(rotate_deg)
            streams.append(stream)
        container.start_encoding()
        for index, moment in enumerate(pts):
            for number, stream in enumerate(streams):
                frame = picture(index + 7 * number, frame_sizes(index) if frame_sizes else size, pix_fmt)
                frame.pts, frame.time_base = moment, Fraction(1, RATE)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    return path


def clustered(path: Path) -> Path:
    """Matroska in clusters of a fifth of a second, without B-frames."""
    return encode(path, options={"bf": "0", "g": "5"}, pts=range(150), mux={"cluster_time_limit": "200"})


def tone(path: Path, seconds: int = 1) -> Path:
    """Sound alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        for index in range(seconds * 48000 // 1024):
            phase = np.arange(index * 1024, (index + 1) * 1024) * (2 * np.pi * 440 / 48000)
            frame = av.AudioFrame.from_ndarray(
                np.sin(phase, dtype=np.float32)[None] * 0.3, format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 48000, index * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def with_cover(path: Path, video: Path | None) -> Path:
    """An mp4 whose first stream is a cover picture, followed by the streams of `video` (or by nothing but sound)."""
    other = video or tone(path.with_name(path.name + ".tone.mp4"))
    with av.open(str(other)) as source, av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        copies = {stream.index: container.add_stream_from_template(stream) for stream in source.streams}
        frame = picture(0, (64, 64), "yuvj420p")
        frame.pts = 0
        container.mux(cover.encode(frame))
        container.mux(cover.encode())
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream_index]
                container.mux(packet)
    other.unlink()
    return path


# --- patching -----------------------------------------------------------------------------------------------------------


def patched(path: Path, change: Callable[[bytearray], bytes | bytearray | None]) -> Path:
    """`path` with its bytes changed in place, or replaced by what `change` returns."""
    data = bytearray(path.read_bytes())
    path.write_bytes(change(data) or data)
    return path


def cut(path: Path, share: float) -> Path:
    """`path` without its last `1 - share`."""
    return patched(path, lambda data: data[: int(len(data) * share)])


def atom(data: bytes | bytearray, kind: bytes) -> int:
    """Where the first atom (or EBML id) `kind` stands."""
    index = data.find(kind)
    assert index >= 0, kind
    return index


def lie_about_duration(data: bytearray) -> None:
    """mvhd, tkhd and mdhd announce ten times the duration."""
    for kind, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        place = atom(data, kind) + offset
        (duration,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", data, place, duration * 10)


def lie_about_frames(data: bytearray) -> None:
    """The table of sample times announces 5000 frames where the others hold 25."""
    struct.pack_into(">I", data, atom(data, b"stts") + 12, 5000)


def no_time_passes(data: bytearray) -> None:
    """Every sample lasts 0 ticks."""
    place = atom(data, b"stts")
    for entry in range(struct.unpack_from(">I", data, place + 8)[0]):
        struct.pack_into(">I", data, place + 16 + 8 * entry, 0)


def spoil(data: bytearray, first_share: float, last_share: float) -> None:
    """Noise over a part of the samples."""
    start = atom(data, b"mdat") + 4
    (length,) = struct.unpack_from(">I", data, start - 8)
    begin, end = start + int(first_share * (length - 8)), start + int(last_share * (length - 8))
    data[begin:end] = np.random.default_rng(1).integers(0, 256, end - begin, dtype=np.uint8).tobytes()


def clocks_reset(data: bytearray, from_share: float) -> None:
    """Matroska clusters from `from_share` of them on tell their time as if the clock had been set back to 0."""
    places = [i for i in range(len(data) - 8) if data[i : i + 4] == b"\x1f\x43\xb6\x75"]
    assert len(places) >= 6
    base = None
    for place in places[int(from_share * len(places)) :]:
        stamp = data.index(b"\xe7", place + 4)
        length = data[stamp + 1] & 0x7F
        time = int.from_bytes(data[stamp + 2 : stamp + 2 + length])
        base = time if base is None else base
        data[stamp + 2 : stamp + 2 + length] = (time - base).to_bytes(length)


def shift_shown_times(data: bytearray) -> None:
    """Every frame of an mp4 with B-frames is shown 4096 ticks earlier: the first PTS become negative."""
    edits = atom(data, b"edts")
    data[edits : edits + 4] = b"free"
    place = atom(data, b"ctts")
    data[place + 4] = 1  # version 1: offsets are signed
    for entry in range(struct.unpack_from(">I", data, place + 8)[0]):
        at = place + 16 + 8 * entry
        struct.pack_into(">i", data, at, struct.unpack_from(">i", data, at)[0] - 4096)


def data_elsewhere(data: bytearray, target: Path) -> bytes:
    """An mp4 (index last) whose samples are said to lie in `target`: an `alis` data reference with its path."""
    name = os.fsencode(target)
    name += b"\0" * (len(name) % 2)
    body = bytes(10) + bytes(28) + bytes(12) + bytes(64) + bytes(16) + struct.pack(">hh", 1, 1) + bytes(16)
    body += struct.pack(">hH", 2, len(name)) + name + struct.pack(">hH", -1, 0)
    entry = struct.pack(">I", 12 + len(body)) + b"alis" + bytes(4) + body
    place = atom(data, b"dref")
    old_length = struct.unpack_from(">I", data, place + 12)[0]
    grown = len(entry) - old_length
    result = data[: place + 12] + entry + data[place + 12 + old_length :]
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        head = atom(data, kind) - 4
        struct.pack_into(">I", result, head, struct.unpack_from(">I", data, head)[0] + grown)
    return bytes(result)


def joined(path: Path, *parts: Path) -> Path:
    """The bytes of `parts` one after another."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()
    return path


# --- the file system ----------------------------------------------------------------------------------------------------


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def linked(path: Path, target: str) -> Path:
    path.symlink_to(target)
    return path


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def bound_socket(path: Path) -> Path:
    """A socket's entry; bound under its short relative name, for a socket's path has at most 107 bytes."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"/proc/self/fd/{descriptor}/{path.name}")
    finally:
        os.close(descriptor)
    return path


def renamed(place: Path, name: str) -> Path:
    """A sound video under a strange name."""
    return encode(place / "plain.mp4").rename(place / name)
