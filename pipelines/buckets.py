"""Aspect and duration buckets: which fixed shape a clip is trained in. Pure arithmetic.

What belongs here: the bucket table of a policy and the rule that sends a clip to exactly one bucket. What does not:
cutting and scaling pixels (`video/export.py`), counting samples (`shards/`), quotas (`policy.py`).

All samples of a bucket share one picture size and one number of latent frames, so that they can share a batch: Movie Gen
(arXiv 2410.13720, pre-training data, bucketization) has five aspect ratios and five durations. A reader resamples a clip
in time to `frame_count`, so a bucket spans a range of frame rates. A spec in a policy's YAML:

    buckets:
      aspects: {"16:9": [352, 192], "4:3": [304, 224], "1:1": [256, 256], "3:4": [224, 304], "9:16": [192, 352]}
      durations:
        - {name: 4s, min_s: 4, max_s: 8, latent_frames: 16}
        - {name: 8s, min_s: 8, max_s: 12, latent_frames: 24}
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

FRAMES_PER_LATENT = 8
"""The autoencoder's compression in time (paper, section 3.1.1)."""

SHAPE_STEP_PX = 16
"""Autoencoder x8 times patch x2: every side of a bucket is a multiple of it."""

MAX_SHAPE_ERROR = 0.05
"""A shape may miss its named ratio by this share: 352x192 misses 16:9 by 3.1 %, and the paper uses it."""


@dataclass(frozen=True)
class Aspect:
    """An aspect ratio and the exact picture size that stands for it."""

    ratio_width: int
    ratio_height: int
    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        if self.ratio_width < 1 or self.ratio_height < 1:
            raise ValueError(f"aspect {self.label}: both parts of a ratio are whole numbers from 1, as in 16:9")
        for side, size_px in (("width", self.width_px), ("height", self.height_px)):
            if size_px < SHAPE_STEP_PX or size_px % SHAPE_STEP_PX:
                nearest = max(1, round(size_px / SHAPE_STEP_PX)) * SHAPE_STEP_PX
                raise ValueError(
                    f"aspect {self.label}: {side} {size_px} px is no multiple of {SHAPE_STEP_PX}; write {nearest}"
                )
        error = float(Fraction(self.width_px, self.height_px) / self.ratio - 1)
        if abs(error) > MAX_SHAPE_ERROR:
            raise ValueError(
                f"aspect {self.label}: {self.width_px}x{self.height_px} px misses that ratio by {error:+.0%}, "
                f"more than {MAX_SHAPE_ERROR:.0%}; choose a size nearer to it"
            )

    @property
    def ratio(self) -> Fraction:
        """Width over height, exact."""
        return Fraction(self.ratio_width, self.ratio_height)

    @property
    def label(self) -> str:
        """'16x9': fit for a folder name."""
        return f"{self.ratio_width}x{self.ratio_height}"


@dataclass(frozen=True)
class DurationClass:
    """Clips of `[min_s, max_s)` seconds that become `latent_frames` latent frames.

    `middle_s`, if set, tells readers to take the middle `middle_s` seconds rather than the whole clip: the paper's classes
    of one exact frame rate (10.67 s at 24 fps, 16 s at 16 fps) are middles of longer clips. Export keeps the whole clip.
    """

    name: str
    min_s: float
    max_s: float
    latent_frames: int
    middle_s: float | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-z_.]+", self.name) or not re.search(r"[0-9a-z]", self.name):
            raise ValueError(f"duration name {self.name!r} must be letters, digits, '_' or '.', as in '4s'")
        if not (math.isfinite(self.max_s) and 0 <= self.min_s < self.max_s):
            raise ValueError(f"duration {self.name}: needs 0 <= min_s < max_s, got {self.min_s} and {self.max_s}")
        if self.latent_frames < 1:
            raise ValueError(f"duration {self.name}: latent_frames must be at least 1, got {self.latent_frames}")
        if self.middle_s is not None and not 0 < self.middle_s <= self.min_s:
            raise ValueError(
                f"duration {self.name}: middle_s must be above 0 and at most min_s {self.min_s}, got {self.middle_s}"
            )

    @property
    def frame_count(self) -> int:
        """Frames that a reader hands to the autoencoder."""
        return self.latent_frames * FRAMES_PER_LATENT


@dataclass(frozen=True)
class Bucket:
    """One cell of the table: an aspect and a duration class."""

    aspect: Aspect
    duration: DurationClass

    @property
    def name(self) -> str:
        """'16x9-4s', the folder of its shards."""
        return f"{self.aspect.label}-{self.duration.name}"

    @property
    def width_px(self) -> int:
        """Width of every picture in it."""
        return self.aspect.width_px

    @property
    def height_px(self) -> int:
        """Height of every picture in it."""
        return self.aspect.height_px


@dataclass(frozen=True)
class BucketSpec:
    """A policy's bucket table: aspects from narrow to wide, durations from short to long without gap or overlap."""

    aspects: tuple[Aspect, ...]
    durations: tuple[DurationClass, ...]

    def __post_init__(self) -> None:
        if not self.aspects or not self.durations:
            raise ValueError("a bucket spec needs at least one aspect and one duration")
        for narrow, wide in pairwise(self.aspects):
            if narrow.ratio == wide.ratio:
                raise ValueError(f"aspects {narrow.label} and {wide.label} are the same ratio; remove one")
            if narrow.ratio > wide.ratio:
                raise ValueError(f"aspects must go from narrow to wide: {wide.label} comes before {narrow.label}")
        for before, after in pairwise(self.durations):
            if after.min_s != before.max_s:
                kind = "a gap" if after.min_s > before.max_s else "an overlap"
                raise ValueError(
                    f"durations: {kind} between {before.name} (ends at {before.max_s:g} s) and {after.name} "
                    f"(starts at {after.min_s:g} s); set min_s of {after.name} to {before.max_s:g}"
                )
        names = [duration.name for duration in self.durations]
        if len(set(names)) < len(names):
            raise ValueError(f"duration names must differ, got {names}")

    @property
    def min_s(self) -> float:
        """Shortest clip that has a bucket, seconds."""
        return self.durations[0].min_s

    @property
    def max_s(self) -> float:
        """Exclusive upper bound of clips that have a bucket, seconds."""
        return self.durations[-1].max_s

    def buckets(self) -> tuple[Bucket, ...]:
        """Every cell, in the table's order."""
        return tuple(Bucket(aspect, duration) for aspect in self.aspects for duration in self.durations)

    def bucket(self, name: str) -> Bucket:
        """The bucket called `name`; ValueError with the known names otherwise."""
        for bucket in self.buckets():
            if bucket.name == name:
                return bucket
        raise ValueError(f"no bucket {name!r}; this policy has {[bucket.name for bucket in self.buckets()]}")


def assign(width_px: int, height_px: int, duration_s: float, spec: BucketSpec) -> Bucket | None:
    """The one bucket of a clip, or None if its duration lies outside `[spec.min_s, spec.max_s)`.

    The aspect is the nearest in log ratio, so a picture and its transpose go to transposed buckets; an exact tie goes to
    the squarer. The size is that of the clip's crop box in display pixels.

    Raises:
        ValueError: a size below 1 px or a duration that is not a number.
    """
    if width_px < 1 or height_px < 1 or math.isnan(duration_s):
        raise ValueError(f"a clip has a size from 1x1 px and a duration, got {width_px}x{height_px}, {duration_s} s")
    for duration in spec.durations:
        if duration.min_s <= duration_s < duration.max_s:
            return Bucket(_nearest_aspect(Fraction(width_px, height_px), spec.aspects), duration)
    return None


def _nearest_aspect(ratio: Fraction, aspects: Sequence[Aspect]) -> Aspect:
    """Nearest in log ratio, exactly: between a < b the border is their geometric mean, so compare ratio^2 with a*b."""
    nearest = aspects[0]
    for aspect in aspects[1:]:
        border = nearest.ratio * aspect.ratio
        is_wider = ratio**2 > border or (ratio**2 == border and nearest.ratio * aspect.ratio < 1)
        if is_wider:
            nearest = aspect
    return nearest


def spec_from_dict(raw: object, where: str = "buckets") -> BucketSpec:
    """A spec from a policy's YAML (see the module's text). `where` names the key in messages.

    Raises:
        ValueError: the key, what it holds, and the mend.
    """
    table = _mapping(raw, where, {"aspects", "durations"})
    aspects_raw, durations_raw = table.get("aspects"), table.get("durations")
    if not isinstance(aspects_raw, Mapping) or not aspects_raw:
        raise ValueError(f'{where}.aspects: expected a mapping such as {{"16:9": [352, 192]}}, got {aspects_raw!r}')
    if not isinstance(durations_raw, Sequence) or isinstance(durations_raw, str) or not durations_raw:
        raise ValueError(f"{where}.durations: expected a list of classes with name, min_s, max_s, latent_frames")
    aspects = [_aspect(label, shape, f"{where}.aspects") for label, shape in aspects_raw.items()]
    durations = [_duration(item, f"{where}.durations[{index}]") for index, item in enumerate(durations_raw)]
    try:
        return BucketSpec(
            tuple(sorted(aspects, key=lambda aspect: aspect.ratio)),
            tuple(sorted(durations, key=lambda duration: (duration.min_s, duration.max_s))),
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _aspect(label: object, shape: object, where: str) -> Aspect:
    match = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", label) if isinstance(label, str) else None
    if match is None:
        raise ValueError(f"{where}: {label!r} is no ratio; write it in quotes as width:height, such as '16:9'")
    is_pair = isinstance(shape, Sequence) and len(shape) == 2 and all(type(side) is int for side in shape)
    if not is_pair:
        raise ValueError(f"{where}.{label}: expected [width, height] in pixels, such as [352, 192], got {shape!r}")
    assert isinstance(shape, Sequence)
    try:
        return Aspect(int(match[1]), int(match[2]), shape[0], shape[1])
    except ValueError as error:
        raise ValueError(f"{where}.{label}: {error}") from error


def _duration(raw: object, where: str) -> DurationClass:
    item = _mapping(raw, where, {"name", "min_s", "max_s", "latent_frames", "middle_s"})
    for key in ("name", "min_s", "max_s", "latent_frames"):
        if key not in item:
            raise ValueError(f"{where}.{key}: missing, as in {{name: 4s, min_s: 4, max_s: 8, latent_frames: 16}}")
    seconds = {key: _seconds(item[key], f"{where}.{key}") for key in ("min_s", "max_s", "middle_s") if key in item}
    if type(item["latent_frames"]) is not int:
        raise ValueError(f"{where}.latent_frames: expected a whole number, got {item['latent_frames']!r}")
    try:
        return DurationClass(name=str(item["name"]), latent_frames=item["latent_frames"], **seconds)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _seconds(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where}: expected seconds as a number, got {value!r}")
    return float(value)


def _mapping(raw: object, where: str, keys: set[str]) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where}: expected a mapping with the keys {sorted(keys)}, got {raw!r}")
    unknown = sorted(str(key) for key in raw if key not in keys)
    if unknown:
        raise ValueError(f"{where}.{unknown[0]}: unknown key; known keys are {sorted(keys)}")
    return raw
