"""How exported clips are encoded: the `export` section of a policy, validated where it enters.

What belongs here: the settings alone, in the standard library alone, so that a policy can be read without FFmpeg. What they do
is `export.py`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

EXPORT_VERSION = 1
"""Goes into every export's fingerprint: raise it when the same settings would give other bytes."""

X264_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
PRESETS: Mapping[str, tuple[str, ...]] = {
    "h264": X264_PRESETS,  # libx264 preset
    "vp9": tuple(str(speed) for speed in range(9)),  # libvpx cpu-used
    "av1": tuple(str(speed) for speed in range(14)),  # SVT-AV1 preset
}
MAX_CRF = {"h264": 51, "vp9": 63, "av1": 63}
AUDIO_CODECS = ("aac", "opus", "none")


@dataclass(frozen=True)
class ExportSettings:
    """Codec, quality and sound. The picture's size is the bucket's and comes with each clip.

    `crf` is constant quality in the codec's own scale, lower is better; `preset` trades speed for size. `keyframe_frames` is the
    largest distance of key frames: what a reader that wants frames from the middle decodes at most in vain.
    """

    video_codec: str = "h264"
    crf: int = 18
    preset: str = "fast"
    keyframe_frames: int = 48
    audio_codec: str = "aac"
    audio_bitrate_bps: int = 128_000

    def __post_init__(self) -> None:
        _one_of("video_codec", self.video_codec, tuple(PRESETS))
        _one_of("audio_codec", self.audio_codec, AUDIO_CODECS)
        _one_of(f"preset (for {self.video_codec})", self.preset, PRESETS[self.video_codec])
        _within("crf", self.crf, 1, MAX_CRF[self.video_codec])
        _within("keyframe_frames", self.keyframe_frames, 1, 10_000)
        _within("audio_bitrate_bps", self.audio_bitrate_bps, 16_000, 510_000)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in YAML and in a request to the sandbox."""
        return asdict(self)


def settings_from_dict(raw: object, where: str = "export") -> ExportSettings:
    """Settings from a policy's YAML; absent keys take their defaults. `where` names the key in messages.

    Raises:
        ValueError: the key, what it holds, and the mend.
    """
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where}: expected a mapping such as {{video_codec: h264, crf: 18}}, got {raw!r}")
    kinds = {field.name: type(field.default) for field in fields(ExportSettings)}
    for key, value in raw.items():
        if key not in kinds:
            raise ValueError(f"{where}.{key}: unknown key; known keys are {sorted(kinds)}")
        if type(value) is not kinds[key]:
            mend = "write it in quotes" if kinds[key] is str else "write a whole number"
            raise ValueError(f"{where}.{key}: got {value!r}; {mend}")
    try:
        return ExportSettings(**raw)
    except ValueError as error:
        raise ValueError(f"{where}.{error}") from error


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(known)}")


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}: {value} lies outside {low}..{high}")
