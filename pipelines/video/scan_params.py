"""Every number that the scan depends on, in one validated value: change one, and only the scan and what hangs on it run again.

What belongs here: parameters, their units, their checks. What they do is told where they are used.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class ScanParams:
    """Parameters of the scan. Spans in seconds, luma in 0..255, shares in 0..1."""

    # Clips.
    min_clip_s: float = 2.0
    max_clip_s: float = 16.0
    trim_source_s: float = 1.0  # taken off the start of the source
    trim_cut_s: float = 0.5  # taken off both sides of every true cut, nothing at an artificial split
    gap_s: float = 1.0  # a longer step between two frames ends the shot
    # Planes.
    plane_px: int = 256  # long side of the plane on which everything is measured
    keyframe_px: int = 640  # long side of a keyframe at most
    keyframe_spacing_s: float = 2.0  # about one keyframe for so many seconds of clip, and at least three
    candidate_spacing_s: float = (
        0.25  # grid from which keyframes are chosen: first and last are exact to one step of it
    )
    jpeg_quality: int = 90
    # Shot boundaries.
    cut_ratio: float = 3.0  # content change over the mean of its neighbours, PySceneDetect's adaptive threshold
    cut_content: float = 10.0  # least content change of a cut, PySceneDetect's scale
    cut_window: int = 2  # neighbours on each side
    gradual_content: float = 10.0  # least mean luma difference between both sides of a gradual transition
    # Motion.
    flow_hz: float = 15.0  # optical flow is measured about so often, never more often than every frame

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            is_whole = field.type in (int, "int")
            if isinstance(value, bool) or not isinstance(value, int if is_whole else (int, float)):
                kind = "a whole number" if is_whole else "a number"
                raise ValueError(f"scan parameter {field.name} must be {kind}; got {value!r}")
            if not 0 <= value < 1e6:
                raise ValueError(f"scan parameter {field.name} must lie in 0..1e6; got {value!r}")
        if not 0 < 2 * self.min_clip_s <= self.max_clip_s:
            raise ValueError(
                f"max_clip_s must be at least twice min_clip_s, so that a long shot divides into allowed parts; "
                f"got min_clip_s={self.min_clip_s}, max_clip_s={self.max_clip_s}"
            )
        for name, low, high in (
            ("plane_px", 64, 1024),
            ("keyframe_px", 64, 2048),
            ("jpeg_quality", 1, 100),
            ("cut_window", 1, 16),
            ("flow_hz", 1, 60),
            ("gap_s", 0.1, 1e6),
            ("keyframe_spacing_s", 0.1, 1e6),
            ("candidate_spacing_s", 0.01, self.keyframe_spacing_s),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"scan parameter {name} must lie in {low}..{high}; got {getattr(self, name)!r}")
        if self.plane_px % 4:
            raise ValueError(f"scan parameter plane_px must be a multiple of 4; got {self.plane_px}")

    @classmethod
    def from_dict(cls, given: Mapping[str, object]) -> Self:
        """From JSON; absent parameters take their defaults.

        Raises:
            ValueError: an unknown name or a value out of range, in one sentence.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(given) - known):
            raise ValueError(
                f"unknown scan parameter {', '.join(unknown)}; the parameters are {', '.join(sorted(known))}"
            )
        return cls(**given)  # type: ignore[arg-type]  # checked in __post_init__

    def to_dict(self) -> dict[str, float | int]:
        """As JSON; `from_dict` gives the same value back."""
        return dataclasses.asdict(self)
