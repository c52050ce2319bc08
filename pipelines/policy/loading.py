"""Reads a policy and refuses every mistake with its place and its mend.

What belongs here: what each key of a policy must hold. Finding and parsing the text is `source.py`; the result is
`schema.py`; docs/policies.md is the manual.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import pyarrow as pa

from pipelines.buckets import BucketSpec, spec_from_dict
from pipelines.policy.schema import ON_FAILURE, Gate, OrientationQuota, Policy, Scalar
from pipelines.policy.source import TOP_KEYS, KeyPath, Source, read_source, suggest
from pipelines.shards.samples import Packing
from pipelines.tables import TABLES
from pipelines.video.export_settings import settings_from_dict
from pipelines.video.scan_params import ScanParams

IMPLIED_GATES = ("probe", "scan", "clips", "source", "bucket", "orientation")
"""Names that the funnel uses for what no gate of a policy decides."""

_GATE_KEYS = ("column", "min", "max", "in", "not_in", "on_failure", "about", "enabled")
_COST = {"videos": 0, "scans": 1}
_REQUIRED: Any = object()


def load_policy(name_or_path: str, overrides: Sequence[str] = ()) -> Policy:
    """A shipped policy by name, or any by the path of its YAML, with `--set` overrides such as 'gates.motion.min=1.5'.

    Raises:
        PolicyError: names the file and line (or the override), the key, what was given, what was expected and the mend.
    """
    raw, source = read_source(name_or_path, overrides)
    keys = _Keys(raw, (), source, TOP_KEYS)
    gates = _gates(keys)
    policy = Policy(
        name=_name(keys),
        about=keys.text("about", ""),
        gates=gates,
        buckets=_buckets(keys),
        orientation=_orientation(keys),
        shards=_shards(keys),
        scan=_scan(keys),
        export=_export(keys),
    )
    _check_durations(policy, source)
    return policy


class _Keys:
    """One mapping of the file and its place, read key by key with a check on each."""

    def __init__(self, raw: object, path: KeyPath, source: Source, known: Sequence[str] | None) -> None:
        self.path, self.source = path, source
        if not isinstance(raw, Mapping):
            raise source.error(path, f"expected a mapping{f' with {list(known)}' if known else ''}, got {raw!r}")
        self.raw: Mapping[str, Any] = raw
        for key in raw:
            if known is not None and key not in known:
                raise source.error((*path, str(key)), f"unknown key{suggest(key, known)}")

    def fail(self, key: str, message: str) -> NoReturn:
        raise self.source.error((*self.path, key), message)

    def fail_whole(self, message: str) -> NoReturn:
        raise self.source.error(self.path, message)

    def get(self, key: str, default: Any, expected: str) -> Any:
        """The value; null counts as absent; `_REQUIRED` as default means that it must be there."""
        value = self.raw.get(key)
        if value is None and default is _REQUIRED:
            self.fail(key, f"missing; expected {expected}")
        return default if value is None else value

    def text(self, key: str, default: Any = _REQUIRED) -> str:
        value = self.get(key, default, "text")
        if not isinstance(value, str):
            self.fail(key, f"expected text, got {value!r}; put it in quotes")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default, "true or false")
        if not isinstance(value, bool):
            self.fail(key, f"expected true or false, got {value!r}")
        return value

    def choice(self, key: str, choices: Sequence[str]) -> str:
        value = self.get(key, _REQUIRED, " or ".join(choices))
        if value not in choices:
            self.fail(key, f"expected {' or '.join(choices)}, got {value!r}")
        return str(value)

    def number(self, key: str, default: Any = None) -> Any:
        value = self.get(key, default, "a number")
        if value is None:
            return None
        if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
            value = float(value)  # YAML 1.1 takes 1e-3 for text: it wants 1.0e-3
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.fail(key, f"expected a number, got {value!r}")
        return float(value)

    def whole(self, key: str, default: int, lowest: int) -> int:
        value = self.get(key, default, "a whole number")
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            self.fail(key, f"expected a whole number from {lowest}, got {value!r}")
        return value

    def inside(self, key: str, known: Sequence[str] | None = None) -> "_Keys | None":
        """The mapping under `key`, or None if it is absent."""
        value = self.raw.get(key)
        return None if value is None else _Keys(value, (*self.path, key), self.source, known)

    def settings(self, key: str) -> dict[str, Any]:
        """A flat mapping of plain values; who uses it checks the names."""
        inner = self.inside(key)
        for name, value in (inner.raw if inner else {}).items():
            assert inner is not None
            if not isinstance(name, str) or not isinstance(value, str | int | float | bool | None):
                inner.fail(str(name), f"expected a name and a plain value, got {value!r}")
        return dict(inner.raw) if inner else {}


def _name(keys: _Keys) -> str:
    name = keys.text("name")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        keys.fail("name", f"{name!r} becomes a folder's name: use at most 64 of a-z, 0-9, '.', '_' and '-'")
    return name


def _gates(keys: _Keys) -> tuple[Gate, ...]:
    inner = keys.inside("gates")
    if inner is None:
        keys.fail("gates", "missing; expected an ordered mapping of gate names (none at all: write gates: {})")
    gates: list[Gate] = []
    for name in inner.raw:
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
            inner.fail(str(name), "a gate's name is made of a-z, 0-9 and '_', and starts with a letter")
        if name in IMPLIED_GATES:
            inner.fail(name, f"this name is taken; names that stand for steps are {', '.join(IMPLIED_GATES)}")
        gate = _gate(name, _Keys(inner.raw[name], (*inner.path, name), inner.source, _GATE_KEYS))
        before = gates[-1] if gates else None
        if before and _cost(gate) < _cost(before):
            order = "gates stand in order of cost: videos.*, then scans.*, then clips and what is measured on them"
            inner.fail(name, f"{gate.column} comes after {before.column} of {before.name!r}; {order}")
        gates.append(gate)
    return tuple(gates)


def _cost(gate: Gate) -> int:
    return _COST.get(gate.table.name, 2)


def _gate(name: str, keys: _Keys) -> Gate:
    column, kind = _column(keys)
    gate = Gate(
        name=name,
        column=column,
        on_failure=keys.choice("on_failure", ON_FAILURE),
        minimum=keys.number("min"),
        maximum=keys.number("max"),
        allowed=_values(keys, "in", kind),
        refused=_values(keys, "not_in", kind),
        is_enabled=keys.flag("enabled", True),
        about=keys.text("about", ""),
    )
    _check_bounds(gate, keys, kind)
    return gate


def _column(keys: _Keys) -> tuple[str, pa.DataType]:
    """The column's full name and its type; only tables with one row per video or per clip can be gated on."""
    column = keys.text("column")
    kinds = _measured()
    if column not in kinds:
        _refuse_column(keys, column, kinds)
    return column, kinds[column]


def _measured() -> dict[str, pa.DataType]:
    """Every column that a gate can read, as 'table.column'."""
    return {
        f"{name}.{field.name}": field.type
        for name, table in TABLES.items()
        if table.key in (("video_id",), ("clip_id",))
        for field in table.schema
        if field.name not in table.key and not pa.types.is_nested(field.type) and not pa.types.is_binary(field.type)
    }


def _refuse_column(keys: _Keys, column: str, kinds: Mapping[str, pa.DataType]) -> NoReturn:
    usable = list(dict.fromkeys(name.split(".")[0] for name in kinds))
    table, _, field = column.partition(".")
    if table in TABLES and table not in usable:
        keys.fail("column", f"{column!r}: {table} has several rows per clip or video; gate on {', '.join(usable)}")
    elsewhere = next((name for name in kinds if name.endswith(f".{field or table}")), None)
    near = [name for name in kinds if name.startswith(f"{table}.")] if table in usable else list(kinds)
    hint = f"; did you mean {elsewhere!r}?" if elsewhere else suggest(column, near)
    keys.fail("column", f"no measurement is called {column!r}{hint}")


def _values(keys: _Keys, key: str, kind: pa.DataType) -> tuple[Scalar, ...] | None:
    values = keys.raw.get(key)
    if values is None:
        return None
    if not isinstance(values, list) or not values:
        keys.fail(key, f"expected a list of values such as [none, letterbox], got {values!r}")
    wanted = str if pa.types.is_string(kind) else bool if pa.types.is_boolean(kind) else int
    if pa.types.is_floating(kind):
        keys.fail(key, f"{keys.raw['column']} holds measured numbers; use min and max")
    for value in values:
        if type(value) is not wanted:
            hint = " (YAML reads no, yes, on and off as true or false: put them in quotes)" if wanted is str else ""
            words = {str: "text", bool: "true or false", int: "whole numbers"}[wanted]
            keys.fail(key, f"{keys.raw['column']} holds {words}, got {value!r}{hint}")
    return tuple(sorted(set(values), key=values.index))


def _check_bounds(gate: Gate, keys: _Keys, kind: pa.DataType) -> None:
    """Exactly one manner of bound, fit for the column's type, and not upside down."""
    is_ranged = gate.minimum is not None or gate.maximum is not None
    manners = [is_ranged, gate.allowed is not None, gate.refused is not None]
    if sum(manners) != 1:
        given = [key for key in ("min", "max", "in", "not_in") if keys.raw.get(key) is not None]
        keys.fail_whole(f"a gate has min and/or max, or in, or not_in; got {given or 'none of them'}")
    if is_ranged and not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        keys.fail_whole(f"{gate.column} is no number; use in or not_in")
    if gate.minimum is not None and gate.maximum is not None and gate.minimum > gate.maximum:
        keys.fail_whole(f"min {gate.minimum:g} is above max {gate.maximum:g}, so nothing can pass; swap them")


def _orientation(keys: _Keys) -> OrientationQuota | None:
    quotas = keys.inside("quotas", ("orientation",))
    inner = (
        quotas.inside("orientation", ("landscape", "portrait", "strict", "max_dropped_share", "seed"))
        if quotas
        else None
    )
    if inner is None:
        return None
    landscape, portrait = inner.number("landscape", _REQUIRED), inner.number("portrait")
    shares = {"landscape": landscape, "portrait": portrait, "max_dropped_share": inner.number("max_dropped_share", 0.5)}
    for key, share in shares.items():
        if share is not None and not 0 <= share <= 1:
            inner.fail(key, f"expected a share from 0 to 1, got {share:g}")
    if portrait is not None and abs(landscape + portrait - 1) > 1e-6:
        inner.fail("portrait", f"landscape {landscape:g} and portrait {portrait:g} must make 1; leave portrait out")
    return OrientationQuota(
        landscape=landscape,
        is_strict=inner.flag("strict", False),
        max_dropped_share=shares["max_dropped_share"],
        seed=inner.whole("seed", 0, 0),
    )


def _shards(keys: _Keys) -> Packing:
    inner = keys.inside("shards", ("max_bytes", "max_samples", "seed"))
    if inner is None:
        return Packing()
    default = Packing()
    return Packing(
        max_bytes=inner.whole("max_bytes", default.max_bytes, 1),
        max_samples=inner.whole("max_samples", default.max_samples, 1),
        seed=inner.whole("seed", default.seed, 0),
    )


def _buckets(keys: _Keys) -> BucketSpec:
    if keys.raw.get("buckets") is None:
        keys.fail("buckets", "missing; expected aspects and durations, see docs/policies.md")
    try:
        return spec_from_dict(keys.raw["buckets"])
    except ValueError as error:
        keys.fail("buckets", str(error).removeprefix("buckets: ").removeprefix("buckets."))


def _scan(keys: _Keys) -> dict[str, Any]:
    """The overrides alone, in the types of the parameters, so that 4 and 4.0 are the same scan."""
    given = keys.settings("scan")
    try:
        resolved = ScanParams.from_dict(given).to_dict()
    except ValueError as error:
        keys.fail("scan", str(error))
    defaults = ScanParams().to_dict()
    return {name: type(defaults[name])(resolved[name]) for name in given}


def _export(keys: _Keys) -> dict[str, Any]:
    """All export settings, defaults written out."""
    try:
        return settings_from_dict(keys.settings("export")).to_dict()
    except ValueError as error:
        keys.fail("export", str(error).removeprefix("export: ").removeprefix("export."))


def _check_durations(policy: Policy, source: Source) -> None:
    """Every clip that the duration gates let through has a bucket, so that no selected clip falls between."""
    spec = policy.buckets
    gates = [gate for gate in policy.active_gates if gate.column == "clips.duration_s"]
    low = max((gate.minimum for gate in gates if gate.minimum is not None), default=0.0)
    high = min((gate.maximum for gate in gates if gate.maximum is not None), default=math.inf)
    if low >= spec.min_s and high < spec.max_s:
        return
    held = f"the duration buckets hold {spec.min_s:g} s up to but without {spec.max_s:g} s"
    path: KeyPath = ("gates", gates[-1].name, "max" if high >= spec.max_s else "min") if gates else ("gates",)
    # The override that broke the agreement is the one to name, and it may stand on either side of it.
    path = next((key for key in source.overrides if key[0] == "buckets"), path)
    mend = "add an enabled gate on clips.duration_s within them" if not gates else "narrow the gate or add a bucket"
    raise source.error(path, f"clips of {low:g} to {high:g} s pass, but {held}; {mend}")
