"""A table of odd and broken media files: what the wild holds, each made small and on the spot by `media_makers.py`.

What belongs here: `CASES`, (name, maker, what must come of it). Tests run it through the probe, through the scan and
through a whole `curate` over one folder. Nothing is downloaded and nothing is kept.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from tests.faults.media_makers import (
    SIZE,
    atom,
    bound_socket,
    clocks_reset,
    clustered,
    cut,
    data_elsewhere,
    encode,
    fifo,
    folder,
    joined,
    lie_about_duration,
    lie_about_frames,
    linked,
    no_time_passes,
    patched,
    renamed,
    shift_shown_times,
    spoil,
    tone,
    with_cover,
    written,
)


@dataclass(frozen=True)
class BadMedia:
    """One kind. `make(folder)` writes it and returns the path to give to Reelmill.

    `reason` is the reason code that it must end with, None if it is sound however odd; `stage` is where that shows: ingest
    (the file cannot be identified), probe or scan. `facts` are columns of its `videos` row.
    """

    name: str
    make: Callable[[Path], Path]
    reason: str | None = None
    stage: str = "probe"
    facts: dict[str, object] = field(default_factory=dict)


NAMES = {
    "spaces": "a name  with spaces .mp4",
    "newline": "line one\nline two.mp4",
    "quotes": 'it\'s "quoted" `so`.mp4',
    "unicode": "видео-動画-🎬-e\u0301.mp4",
    "percent": "100%25 %s %03d.mp4",
    "leading_dash": "-i.mp4",
    "undecodable_bytes": os.fsdecode(b"caf\xe9-\xff.mp4"),
    "protocol": "concat:a.mp4|b.mp4",
    "url": "http:example.mp4",
    "sequence_pattern": "img%03d.jpg",
    "no_extension": "video",
    "shell": "$(touch x); rm *.mp4",
}

PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile '{target}'\n"
DASH = (
    '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT5S" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">'
    '<Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>\n'
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"

ONE_SECOND = {"duration_s": 1.0, "packet_count": 25, "fps": 25.0}
DISPLAY = {"width_px": SIZE[0], "height_px": SIZE[1]}


def case(
    name: str,
    make: Callable[[Path], Path],
    reason: str | None = None,
    stage: str = "probe",
    suffix: str = ".mp4",
    **facts: object,
) -> BadMedia:
    """A case whose file is called `<name><suffix>`."""
    return BadMedia(name, lambda place: make(place / (name + suffix)), reason, stage, facts)


CASES: tuple[BadMedia, ...] = (
    # Bytes that are no video.
    case("empty", lambda p: written(p, b""), "empty", "ingest"),
    case("text_named_mp4", lambda p: written(p, "This is no video.\n" * 40), "not_media"),
    case("zeros", lambda p: written(p, bytes(5000)), "not_media"),
    case("noise", lambda p: written(p, np.random.default_rng(0).bytes(50_000)), "not_media"),
    case(
        "picture", lambda p: encode(p, "png", "rgb24", pts=[0], mux={"update": "1"}), "forbidden_format", suffix=".png"
    ),
    case("raw_h264", encode, "forbidden_format", suffix=".h264"),
    case("audio_only", tone, "no_video_stream"),
    case("cover_only", lambda p: with_cover(p, None), "no_video_stream"),
    # Cut off or lying.
    case("truncated_index_last", lambda p: cut(encode(p), 0.8), "truncated"),
    case("truncated_start", lambda p: cut(encode(p, mux={"movflags": "faststart"}), 0.02), "header_broken"),
    case(
        "truncated_index_first",
        lambda p: cut(encode(p, mux={"movflags": "faststart"}, options={"g": "5"}), 0.6),
        "truncated",
    ),
    case("truncated_header", lambda p: written(p, encode(p).read_bytes()[:20]), "truncated"),
    case(
        "truncated_fragmented",
        lambda p: cut(encode(p, options={"g": "5", "bf": "0"}, mux={"movflags": "frag_keyframe+empty_moov"}), 0.7),
    ),
    case("truncated_matroska", lambda p: cut(encode(p, options={"g": "5"}), 0.7), suffix=".mkv"),
    case("header_missing", lambda p: patched(encode(p), lambda d: d.replace(b"moov", b"junk")), "truncated"),
    case(
        "header_garbled",
        lambda p: patched(encode(p), lambda d: d[: atom(d, b"stsd") + 8] + b"\xff" * 400),
        "header_broken",
    ),
    case("lying_duration", lambda p: patched(encode(p), lie_about_duration), **ONE_SECOND),
    case("lying_frames", lambda p: patched(encode(p, options={"bf": "0"}), lie_about_frames), **ONE_SECOND),
    case("no_samples", lambda p: encode(p, pts=[], mux={"movflags": "empty_moov"}), "no_frames"),
    case("zero_duration", lambda p: patched(encode(p, options={"bf": "0"}), no_time_passes), "zero_duration"),
    case(
        "all_spoiled",
        lambda p: patched(encode(p, mux={"movflags": "faststart"}), lambda d: spoil(d, 0, 1)),
        "decode_error",
    ),
    case(
        "half_spoiled",
        lambda p: patched(encode(p, "mjpeg", "yuvj420p", pts=range(50)), lambda d: spoil(d, 0.4, 0.9)),
        "decode_error",
        "scan",
    ),
    case(
        "one_packet_spoiled",
        lambda p: patched(encode(p, "mjpeg", "yuvj420p", pts=range(50)), lambda d: spoil(d, 0.5, 0.51)),
    ),
    case(
        "samples_elsewhere", lambda p: patched(encode(p), lambda d: data_elsewhere(d, p.parent / "secret")), "no_frames"
    ),
    # Sound, but odd.
    case("one_frame", lambda p: encode(p, pts=[0]), packet_count=1, duration_s=0.04),
    case("vfr", lambda p: encode(p, pts=np.cumsum([1, 1, 1, 3, 1, 2] * 6).tolist()), is_vfr=True, packet_count=36),
    case(
        "rotated_90", lambda p: encode(p, rotate_deg=-90), rotation_deg=90, width_px=64, height_px=96, coded_width_px=96
    ),
    case("rotated_270", lambda p: encode(p, rotate_deg=90), rotation_deg=270, width_px=64, height_px=96),
    case("rotated_180", lambda p: encode(p, rotate_deg=180), rotation_deg=180, **DISPLAY),
    case("wide_pixels", lambda p: encode(p, sar=Fraction(4, 3)), sar_num=4, sar_den=3, width_px=128, height_px=64),
    case(
        "wide_pixels_rotated",
        lambda p: encode(p, sar=Fraction(4, 3), rotate_deg=-90),
        rotation_deg=90,
        width_px=48,
        height_px=96,
    ),
    case("odd_size_444", lambda p: encode(p, pix_fmt="yuv444p", size=(97, 63)), width_px=97, height_px=63),
    case("odd_size_vp9", lambda p: encode(p, "libvpx-vp9", size=(97, 63)), suffix=".webm", width_px=97, height_px=63),
    case("interlaced", lambda p: encode(p, options={"x264-params": "tff=1"}), is_interlaced=True),
    case(
        "hevc_10_bit",
        lambda p: encode(p, "libx265", "yuv420p10le", options={"x265-params": "log-level=0"}),
        bit_depth=10,
    ),
    case("vp9", lambda p: encode(p, "libvpx-vp9"), suffix=".webm", video_codec="vp9", duration_s=1.0),
    case("av1", lambda p: encode(p, "libsvtav1", options={"preset": "12"}), suffix=".mkv", video_codec="av1"),
    case("alpha_qtrle", lambda p: encode(p, "qtrle", "argb"), suffix=".mov", has_alpha=True, **DISPLAY),
    case("alpha_vp9", lambda p: encode(p, "libvpx-vp9", "yuva420p"), suffix=".webm", has_alpha=True, **DISPLAY),
    case("gray", lambda p: encode(p, "ffv1", "gray"), suffix=".mkv", pixel_format="gray"),
    case("rgb", lambda p: encode(p, "libx264rgb", "rgb24"), pixel_format="gbrp", color_space="gbr"),
    case("full_range", lambda p: encode(p, "mjpeg", "yuvj420p"), suffix=".avi", color_range="pc"),
    case("wide_16384", lambda p: encode(p, "ffv1", size=(16384, 32), pts=range(5)), suffix=".mkv", width_px=16384),
    case("wide_16400", lambda p: encode(p, "ffv1", size=(16400, 32), pts=range(2)), "too_large", suffix=".mkv"),
    case("tiny", lambda p: encode(p, "ffv1", size=(2, 2)), suffix=".mkv", width_px=2, height_px=2),
    case("transport_stream", encode, suffix=".ts", container="mpegts", duration_s=1.0),
    case("program_stream", lambda p: encode(p, "mpeg2video"), suffix=".mpg", container="mpeg", duration_s=1.0),
    case("flash_video", lambda p: encode(p, "flv"), suffix=".flv", container="flv", duration_s=1.0),
    case("pts_negative", lambda p: patched(encode(p), shift_shown_times), start_pts=-3072, **ONE_SECOND),
    case("pts_edit_list", lambda p: encode(p, pts=range(-10, 15), mux={"avoid_negative_ts": "disabled"})),
    case("pts_late_start", lambda p: encode(p, pts=range(1000, 1025)), suffix=".mkv", start_pts=40_000, duration_s=1.0),
    case(
        "pts_gap", lambda p: encode(p, pts=[*range(10), *range(200, 215)]), suffix=".mkv", gap_count=1, duration_s=8.6
    ),
    case(
        "pts_backward",
        lambda p: patched(clustered(p), lambda d: clocks_reset(d, 0.94)),
        suffix=".mkv",
        backward_count=1,
        packet_count=150,
    ),
    case(
        "pts_backward_for_long",
        lambda p: patched(clustered(p), lambda d: clocks_reset(d, 0.6)),
        "timestamps_broken",
        "scan",
        ".mkv",
    ),
    case(
        "pts_wrap", lambda p: encode(p, pts=range(2**33 // 3600 - 12, 2**33 // 3600 + 13)), suffix=".ts", duration_s=1.0
    ),
    case("two_videos", lambda p: encode(p, video_streams=2), video_stream_count=2, **ONE_SECOND),
    case("cover_first", lambda p: with_cover(p, encode(p.with_name("cover.mp4"))), video_stream_count=1, **DISPLAY),
    case(
        "size_changes",
        lambda p: joined(
            p, encode(p.with_name("1.ts"), size=(96, 64)), encode(p.with_name("2.ts"), size=(64, 96), pts=range(25, 50))
        ),
        "frame_size_changes",
        "scan",
        suffix=".ts",
    ),
    # Scripts that point elsewhere.
    case("playlist", lambda p: written(p, PLAYLIST.format(target="secret.ts")), "forbidden_format", suffix=".m3u8"),
    case("playlist_named_mp4", lambda p: written(p, PLAYLIST.format(target="secret.ts")), "forbidden_format"),
    case("concat_script", lambda p: written(p, CONCAT.format(target="secret.ts")), "forbidden_format"),
    case("dash", lambda p: written(p, DASH.format(target="secret.mp4")), "not_media", suffix=".mpd"),
    case("sdp", lambda p: written(p, SDP), "forbidden_format", suffix=".sdp"),
    # The path itself.
    case("folder", folder, "is_a_folder", "ingest"),
    case("dead_link", lambda p: linked(p, "nowhere.mp4"), "missing", "ingest"),
    case("link_loop", lambda p: linked(p, p.name), "link_loop", "ingest"),
    case("fifo", fifo, "not_a_file", "ingest"),
    case("socket", bound_socket, "not_a_file", "ingest"),
    case("device", lambda p: linked(p, "/dev/zero"), "not_a_file", "ingest"),
    *(
        BadMedia(f"name_{name}", lambda place, text=text: renamed(place, text), facts=dict(ONE_SECOND))
        for name, text in NAMES.items()
    ),
)
