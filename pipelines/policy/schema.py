"""What a policy is, once read and found good: frozen dataclasses, their digest, and their text.

What belongs here: the shape of a policy and what follows from it alone. Reading YAML and refusing mistakes is `loading.py`;
turning measurements into decisions is `decide.py`.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from pipelines.buckets import BucketSpec
from pipelines.shards.samples import Packing
from pipelines.tables import TABLES, Table

ON_FAILURE = ("reject", "pass")
Scalar = str | bool | int
"""What `in` and `not_in` may list."""


class PolicyError(ValueError):
    """A policy that cannot be used: the file, the key, what was given, what was expected, and the mend."""


@dataclass(frozen=True)
class Gate:
    """One bound on one column. Bounds are inclusive; `on_failure` says what becomes of a subject without a measurement."""

    name: str
    column: str
    on_failure: str
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[Scalar, ...] | None = None
    refused: tuple[Scalar, ...] | None = None
    is_enabled: bool = True
    about: str = ""

    @property
    def table(self) -> Table:
        """The table that it reads."""
        return TABLES[self.column.split(".")[0]]

    @property
    def field(self) -> str:
        """The column's name within its table."""
        return self.column.split(".")[1]

    @property
    def is_video_gate(self) -> bool:
        """Whether it judges whole videos (`videos.*`, `scans.*`) rather than clips."""
        return self.table.key == ("video_id",)

    @property
    def threshold(self) -> str:
        """The bound as the ledger writes it: '>= 4', '<= 7', '0.5..7', 'in none|letterbox' or 'not in picture_in_picture'."""
        if self.allowed is not None:
            return "in " + "|".join(map(_plain, self.allowed))
        if self.refused is not None:
            return "not in " + "|".join(map(_plain, self.refused))
        if self.minimum is not None and self.maximum is not None:
            return f"{_number(self.minimum)}..{_number(self.maximum)}"
        return f">= {_number(self.minimum)}" if self.minimum is not None else f"<= {_number(self.maximum)}"

    def to_dict(self) -> dict[str, Any]:
        """As it stands in YAML, absent bounds left out."""
        bounds = {
            "min": self.minimum,
            "max": self.maximum,
            "in": None if self.allowed is None else list(self.allowed),
            "not_in": None if self.refused is None else list(self.refused),
        }
        return {
            "column": self.column,
            **{key: bound for key, bound in bounds.items() if bound is not None},
            "on_failure": self.on_failure,
            "enabled": self.is_enabled,
            "about": self.about,
        }


@dataclass(frozen=True)
class OrientationQuota:
    """The share of landscape clips (width >= height after the crop) among those kept; the rest are portrait.

    The side in surplus is thinned in the seeded hash order of its clip ids. Not strict: nothing is dropped if a side has no
    clips, and never more than `max_dropped_share` of the clips that came this far. Strict: the mix is exact to one clip,
    whatever it costs; if a side has no clips, nothing is kept.
    """

    landscape: float
    is_strict: bool = False
    max_dropped_share: float = 0.5
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As it stands in YAML."""
        return {
            "landscape": self.landscape,
            "strict": self.is_strict,
            "max_dropped_share": self.max_dropped_share,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Policy:
    """A resolved policy. `gates` keeps the file's order, which is the order of the funnel; disabled ones are in it too."""

    name: str
    about: str
    gates: tuple[Gate, ...]
    buckets: BucketSpec
    orientation: OrientationQuota | None = None
    shards: Packing = field(default_factory=Packing)
    scan: Mapping[str, Any] = field(default_factory=dict)
    export: Mapping[str, Any] = field(default_factory=dict)

    @property
    def active_gates(self) -> tuple[Gate, ...]:
        """The enabled gates in order."""
        return tuple(gate for gate in self.gates if gate.is_enabled)

    @property
    def video_gates(self) -> tuple[Gate, ...]:
        """Enabled gates on `videos.*`, then on `scans.*` (the loader refuses another order)."""
        return tuple(gate for gate in self.active_gates if gate.is_video_gate)

    @property
    def clip_gates(self) -> tuple[Gate, ...]:
        """Enabled gates on tables of clips, in the file's order."""
        return tuple(gate for gate in self.active_gates if not gate.is_video_gate)

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that `decide` needs: the base three and whatever the gates read."""
        return tuple(dict.fromkeys(["videos", "scans", "clips", *(gate.table.name for gate in self.active_gates)]))

    @property
    def digest(self) -> str:
        """16 hex digits over all that can change a decision or a shard; texts and disabled gates cannot."""
        content = self.to_dict()
        del content["about"]
        content["gates"] = [
            [name, {key: value for key, value in gate.items() if key not in ("about", "enabled")}]
            for name, gate in content["gates"].items()
            if gate["enabled"]
        ]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The resolved policy in the shape of its YAML."""
        return {
            "name": self.name,
            "about": self.about,
            "scan": dict(self.scan),
            "gates": {gate.name: gate.to_dict() for gate in self.gates},
            "quotas": {} if self.orientation is None else {"orientation": self.orientation.to_dict()},
            "buckets": _buckets_dict(self.buckets),
            "export": dict(self.export),
            "shards": asdict(self.shards),
        }

    def resolved_yaml(self) -> str:
        """YAML that loads to an equal policy: overrides applied, defaults written out."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=120)


def bounds_of(threshold: str) -> tuple[float | None, float | None] | None:
    """(minimum, maximum) of a threshold as the ledger writes it; None if it lists values.

    >>> bounds_of("0.5..7"), bounds_of(">= 4"), bounds_of("in none")
    ((0.5, 7.0), (4.0, None), None)
    """
    number = r"(-?[\d.]+(?:e[+-]?\d+)?)"
    if both := re.fullmatch(rf"{number}\.\.{number}", threshold):
        return float(both[1]), float(both[2])
    if low := re.fullmatch(rf">= {number}", threshold):
        return float(low[1]), None
    if high := re.fullmatch(rf"<= {number}", threshold):
        return None, float(high[1])
    return None


def _number(value: float | None) -> str:
    """Shortest text that reads back as the same number: 4, 0.85, 1e-09."""
    assert value is not None and math.isfinite(value)
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _plain(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _buckets_dict(spec: BucketSpec) -> dict[str, Any]:
    aspects = {f"{a.ratio_width}:{a.ratio_height}": [a.width_px, a.height_px] for a in spec.aspects}
    durations = []
    for duration in spec.durations:
        item: dict[str, Any] = {
            "name": duration.name,
            "min_s": duration.min_s,
            "max_s": duration.max_s,
            "latent_frames": duration.latent_frames,
        }
        if duration.middle_s is not None:
            item["middle_s"] = duration.middle_s
        durations.append(item)
    return {"aspects": aspects, "durations": durations}
