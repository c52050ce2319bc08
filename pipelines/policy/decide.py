"""Measurements in, ledger and selection out: vectorised and pure.

What belongs here: who is asked by which gate, what the answer is, and the one state that each video and clip ends in.
Reading the outcome (funnel, differences, the check that counts add up) is `outcome.py`; quotas are `quotas.py`.

The rules.
- Every gate whose measurement exists speaks, also about what an earlier gate rejected: histograms and what-if need all
  scores. `selection.gate` is the first gate that stopped a subject, so the funnel follows from the selection.
- A measurement fails if its row is absent or its value null or NaN. About something already stopped a gate with no row is
  silent (nobody paid for the measurement); about something still in the race it speaks: the policy's `on_failure` is the
  verdict, the cause is `error`, the score null. What stops that way is `failed`, never `rejected`.
- A video whose probe or scan failed is `failed` at 'probe' or 'scan' with the reason code; one that no gate rejects and no
  scan has seen is `failed` with the reason `not_scanned`. The clips of a stopped video stop with it, at the same gate.
- Rows come sorted by gate, then id: the order of the measurements cannot matter.

Cost: 1 M clips and 16 clip gates take 9.5 s of one busy core and 5.2 GiB with their tables; 100 k take 1.1 s (docs/policies.md).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.policy.placing import bucket_codes
from pipelines.policy.quotas import over_quota
from pipelines.policy.schema import Gate, Policy
from pipelines.tables import DECISIONS, SELECTION, TABLES

NOT_SCANNED = "not_scanned"
"""Reason of a video that the policy wants and no scan has seen, such as after a gate was loosened: `curate` mends it."""
NOT_MEASURED = "not_measured"
"""Reason of a subject whose measurement is absent or null while no failure is on record."""
NO_VIDEO = "no_video"
"""Reason of a clip whose source is not among the videos."""
NO_BUCKET = "no_bucket"
"""Reason of a clip without a duration or crop box that any bucket takes."""


@dataclass(frozen=True)
class Decisions:
    """`decisions` and `selection` of one policy, as `tables.py` describes them."""

    decisions: pa.Table
    selection: pa.Table


@dataclass
class _Standing:
    """Where each subject stopped so far: arrays in the order of `ids`, which are sorted."""

    kind: str
    ids: pa.Array
    order: pa.Array  # the row of each id in its own table
    stop: np.ndarray  # index into `names`, -1 while in the race
    is_failed: np.ndarray
    reason: pa.Array
    names: list[str]

    @classmethod
    def start(cls, kind: str, table: pa.Table, key: str) -> "_Standing":
        ids, order = _sorted_ids(table, key)
        count = len(ids)
        return cls(
            kind, ids, order, np.full(count, -1, np.int32), np.zeros(count, bool), pa.nulls(count, pa.string()), []
        )

    @property
    def is_open(self) -> np.ndarray:
        """Who is still in the race."""
        return self.stop < 0

    def halt(self, mask: np.ndarray, name: str, reason: pa.Array | str | None = None) -> None:
        """Stops the open subjects under `mask` at `name`; with a reason they count as failed."""
        mask = mask & self.is_open
        if name not in self.names:
            self.names.append(name)
        self.stop[mask] = self.names.index(name)
        if reason is not None:
            self.is_failed |= mask
            self.reason = pc.if_else(pa.array(mask), reason, self.reason)


@dataclass(frozen=True)
class _Answer:
    """What a gate found: arrays in the order of the subjects."""

    score: pa.Array
    value: pa.Array
    passes: np.ndarray
    has_failed: np.ndarray


def decide(policy: Policy, measurements: Mapping[str, pa.Table]) -> Decisions:
    """The ledger and the one final state of every video and clip under `policy`.

    `measurements` holds the tables `policy.tables` by name and, if there, `failures` for the reason codes.

    Raises:
        ValueError: a table or column that the policy needs is not given, or a key stands twice.
    """
    _check(policy, measurements)
    causes = _causes(measurements.get("failures"))
    ledger: list[pa.Table] = [DECISIONS.schema.empty_table()]
    videos = _judge_videos(policy, measurements, causes, ledger)
    clips = _judge_clips(policy, measurements, videos, causes, ledger)
    selection = [
        _video_states(policy, videos, measurements["clips"]),
        _clip_states(policy, clips, measurements["clips"]),
    ]
    return Decisions(pa.concat_tables(ledger), pa.concat_tables(selection))


def wanted_videos(policies: Iterable[Policy], videos: pa.Table) -> list[str]:
    """Ids of the probed videos that at least one policy's `videos.*` gates let through: those worth a scan. Sorted."""
    ids, order = _sorted_ids(videos, "video_id")
    is_good = _mask(pc.equal(videos["status"].take(order), "ok"))
    is_wanted = np.zeros(len(ids), bool)
    for policy in policies:
        passes = is_good.copy()
        for gate in policy.video_gates:
            if gate.table.name == "videos":
                passes &= _ask(gate, videos[gate.field].take(order)).passes
        is_wanted |= passes
    return ids.filter(pa.array(is_wanted)).to_pylist()


def _judge_videos(
    policy: Policy, measurements: Mapping[str, pa.Table], causes: pa.Table, ledger: list[pa.Table]
) -> _Standing:
    videos, scans = measurements["videos"], measurements["scans"]
    standing = _Standing.start("video", videos, "video_id")
    ids, order = standing.ids, standing.order
    is_probed = _mask(pc.equal(videos["status"].take(order), "ok"))
    standing.halt(~is_probed, "probe", pc.fill_null(_one(videos["reason"].take(order)), NOT_MEASURED))
    where = _rows_of(scans, "video_id", ids)
    is_scanned = _mask(pc.equal(_one(scans["status"]).take(where), "ok"))
    for gate in policy.video_gates:
        if gate.table.name == "videos":
            column, speaks = _one(videos[gate.field]).take(order), is_probed
        else:
            _halt_unscanned(standing, scans, where, is_scanned)
            column, speaks = _one(scans[gate.field]).take(where), is_scanned
        _hear(policy, gate, standing, _ask(gate, column), speaks, causes, ledger)
    _halt_unscanned(standing, scans, where, is_scanned)
    return standing


def _halt_unscanned(standing: _Standing, scans: pa.Table, where: pa.Array, is_scanned: np.ndarray) -> None:
    standing.halt(_mask(pc.is_null(where)), "scan", NOT_SCANNED)
    standing.halt(~is_scanned, "scan", pc.fill_null(_one(scans["reason"]).take(where), NOT_MEASURED))


def _judge_clips(
    policy: Policy, measurements: Mapping[str, pa.Table], videos: _Standing, causes: pa.Table, ledger: list[pa.Table]
) -> _Standing:
    clips = measurements["clips"]
    standing = _Standing.start("clip", clips, "clip_id")
    order = standing.order
    _halt_with_source(standing, videos, _one(clips["video_id"]).take(order))
    rows: dict[str, pa.Array] = {"clips": order}
    for gate in policy.clip_gates:
        table = measurements[gate.table.name]
        if gate.table.name not in rows:  # 1.5 s per million: once per table, not per gate
            rows[gate.table.name] = _rows_of(table, "clip_id", standing.ids)
        where = rows[gate.table.name]
        speaks = _mask(pc.is_valid(where)) | standing.is_open
        _hear(policy, gate, standing, _ask(gate, _one(table[gate.field]).take(where)), speaks, causes, ledger)
    standing.halt(_buckets(policy, clips, order)[0] < 0, "bucket", NO_BUCKET)
    if policy.orientation is not None:
        _thin(policy, standing, clips, order, ledger)
    return standing


def _halt_with_source(standing: _Standing, videos: _Standing, video_ids: pa.Array) -> None:
    """Clips of a stopped video stop at the same gate, failed if it failed."""
    where = pc.index_in(video_ids, value_set=videos.ids)
    standing.halt(_mask(pc.is_null(where)), "source", NO_VIDEO)
    row = where.fill_null(0).to_numpy()
    has_source = _mask(pc.is_valid(where))
    for code, name in enumerate(videos.names):
        if not len(videos.ids):
            break
        stopped = has_source & (videos.stop[row] == code)
        standing.halt(stopped & videos.is_failed[row], name, videos.reason.take(where))
        standing.halt(stopped, name)


def _hear(
    policy: Policy,
    gate: Gate,
    standing: _Standing,
    answer: _Answer,
    speaks: np.ndarray,
    causes: pa.Table,
    ledger: list[pa.Table],
) -> None:
    """Enters a gate's answers in the ledger and stops whom it rejects."""
    ledger.append(_ledger_rows(policy, gate.name, gate.column, gate.threshold, standing, answer, speaks))
    rejects = speaks & ~answer.passes
    if (rejects & answer.has_failed).any():
        where = pc.index_in(standing.ids, value_set=_one(causes["key"]))
        reason = pc.fill_null(_one(causes["reason"]).take(where), NOT_MEASURED)
        standing.halt(rejects & answer.has_failed, gate.name, reason)
    standing.halt(rejects, gate.name)


def _ask(gate: Gate, column: pa.Array) -> _Answer:
    """The verdict on every value of `column`, null meaning that the measurement failed."""
    column = _one(column)
    if pa.types.is_string(column.type) or pa.types.is_boolean(column.type):
        score, value = pa.nulls(len(column), pa.float64()), column.cast(pa.string())
        has_failed, passes = _mask(pc.is_null(column)), _is_listed(gate, column)
    else:
        numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        has_failed = np.isnan(numbers)
        score, value = pa.array(numbers, from_pandas=True), pa.nulls(len(column), pa.string())
        if gate.allowed is not None or gate.refused is not None:
            passes = _is_listed(gate, column)
        else:
            passes = ~has_failed
            if gate.minimum is not None:
                passes &= numbers >= gate.minimum
            if gate.maximum is not None:
                passes &= numbers <= gate.maximum
    return _Answer(score, value, np.where(has_failed, gate.on_failure == "pass", passes), has_failed)


def _is_listed(gate: Gate, column: pa.Array) -> np.ndarray:
    listed = gate.allowed if gate.allowed is not None else gate.refused
    assert listed is not None
    is_in = _mask(pc.is_in(column, value_set=pa.array(listed, type=column.type)))
    return is_in if gate.allowed is not None else ~is_in


def _thin(policy: Policy, standing: _Standing, clips: pa.Table, order: pa.Array, ledger: list[pa.Table]) -> None:
    """The orientation quota speaks about every clip that came this far; width >= height is landscape."""
    assert policy.orientation is not None
    width, height = (_numbers(clips, f"crop_{side}_px", order) for side in ("width", "height"))
    is_landscape, speaks = width >= height, standing.is_open
    drops = np.zeros(len(speaks), bool)
    drops[speaks] = over_quota(policy.orientation, standing.ids.filter(pa.array(speaks)), is_landscape[speaks])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = width / height
    answer = _Answer(
        pa.array(ratio, from_pandas=True),
        _words(np.where(is_landscape, 0, 1), ["landscape", "portrait"]),
        ~drops,
        np.zeros(len(speaks), bool),
    )
    threshold = f"landscape {policy.orientation.landscape:g}"
    rows = _ledger_rows(
        policy, "orientation", "clips.crop_width_px", threshold, standing, answer, speaks, rejecting_cause="quota"
    )
    ledger.append(rows)
    standing.halt(drops, "orientation")


def _ledger_rows(
    policy: Policy,
    name: str,
    column: str,
    threshold: str,
    standing: _Standing,
    answer: _Answer,
    speaks: np.ndarray,
    rejecting_cause: str = "quality",
) -> pa.Table:
    count = len(speaks)
    cause = np.where(answer.has_failed, 1, np.where(answer.passes, 0, 2))
    columns = {
        "policy": pa.repeat(policy.name, count),
        "subject_kind": pa.repeat(standing.kind, count),
        "subject_id": standing.ids,
        "gate": pa.repeat(name, count),
        "column": pa.repeat(column, count),
        "score": answer.score,
        "value": answer.value,
        "threshold": pa.repeat(threshold, count),
        "verdict": _words(np.where(answer.passes, 0, 1), ["pass", "reject"]),
        "cause": _words(cause, ["quality", "error", rejecting_cause]),
    }
    rows = pa.table([columns[field] for field in DECISIONS.schema.names], schema=DECISIONS.schema)
    return rows if speaks.all() else rows.filter(pa.array(speaks))


def _video_states(policy: Policy, videos: _Standing, clips: pa.Table) -> pa.Table:
    has_clips = _mask(pc.is_in(videos.ids, value_set=_one(pc.unique(clips["video_id"]))))
    state = np.where(has_clips, 0, 1)
    state = np.where(videos.is_open, state, np.where(videos.is_failed, 3, 2))
    words = _words(state, ["yielded_clips", "without_clips", "rejected", "failed"])
    nothing = pa.nulls(len(videos.ids))
    return _selection(policy, videos, videos.ids, words, nothing, nothing)


def _clip_states(policy: Policy, clips: _Standing, table: pa.Table) -> pa.Table:
    state = np.where(clips.is_open, 0, np.where(clips.is_failed, 3, 1))
    if "orientation" in clips.names:
        state[clips.stop == clips.names.index("orientation")] = 2
    codes, names = _buckets(policy, table, clips.order)
    bucket = _words(np.where(clips.is_open, codes, -1), names)
    weight = pa.array(np.ones(len(codes)), mask=~clips.is_open)
    words = _words(state, ["selected", "rejected", "resampled_away", "failed"])
    return _selection(policy, clips, _one(table["video_id"]).take(clips.order), words, bucket, weight)


def _selection(
    policy: Policy, standing: _Standing, video_ids: pa.Array, state: pa.Array, bucket: pa.Array, weight: pa.Array
) -> pa.Table:
    count = len(standing.ids)
    columns = {
        "policy": pa.repeat(policy.name, count),
        "subject_kind": pa.repeat(standing.kind, count),
        "subject_id": standing.ids,
        "video_id": video_ids,
        "state": state,
        "gate": _words(standing.stop, standing.names),
        "reason": standing.reason,
        "bucket": bucket.cast(pa.string()),
        "weight": weight.cast(pa.float64()),
    }
    return pa.table([columns[field] for field in SELECTION.schema.names], schema=SELECTION.schema)


def _buckets(policy: Policy, clips: pa.Table, order: pa.Array) -> tuple[np.ndarray, list[str]]:
    return bucket_codes(
        policy.buckets, *(_numbers(clips, name, order) for name in ("crop_width_px", "crop_height_px", "duration_s"))
    )


def _check(policy: Policy, measurements: Mapping[str, pa.Table]) -> None:
    missing = [name for name in policy.tables if name not in measurements]
    if missing:
        raise ValueError(f"policy {policy.name!r} needs the tables {missing}; got {sorted(measurements)}")
    needed = {"videos": {"status", "reason"}, "scans": {"status", "reason"}}
    needed["clips"] = {"video_id", "duration_s", "crop_width_px", "crop_height_px"}
    for gate in policy.active_gates:
        needed.setdefault(gate.table.name, set()).add(gate.field)
    for name, columns in needed.items():
        given, key = measurements[name], TABLES[name].key[0]
        absent = sorted((columns | {key}) - set(given.column_names))
        if absent:
            raise ValueError(
                f"policy {policy.name!r} needs {name}.{absent[0]}; the table given has {given.column_names}"
            )
        repeats = given.num_rows - len(pc.unique(given[key]))  # 5-10 times faster than count_distinct
        if repeats:
            raise ValueError(f"table {name}: {repeats} rows repeat a {key}; a key stands once")


def _causes(failures: pa.Table | None) -> pa.Table:
    """One reason code for every key that a stage failed on."""
    if failures is None:
        return pa.table({"key": pa.array([], pa.string()), "reason": pa.array([], pa.string())})
    return failures.group_by("key").aggregate([("reason", "min")]).rename_columns(["key", "reason"])


def _sorted_ids(table: pa.Table, key: str) -> tuple[pa.Array, pa.Array]:
    column = _one(table[key])
    order = pc.sort_indices(column)
    return column.take(order), order


def _rows_of(table: pa.Table, key: str, ids: pa.Array) -> pa.Array:
    """For each id its row in `table`, null if it has none."""
    return pc.index_in(ids, value_set=_one(table[key]))


def _numbers(table: pa.Table, name: str, order: pa.Array) -> np.ndarray:
    return _one(table[name]).cast(pa.float64()).take(order).to_numpy(zero_copy_only=False)


def _one(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A single contiguous array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _mask(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Boolean numpy array; null is False."""
    return pc.fill_null(_one(column), False).to_numpy(zero_copy_only=False)


def _words(codes: np.ndarray, labels: list[str]) -> pa.Array:
    """Labels by code; a negative code is null."""
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(labels, pa.string())).cast(pa.string())
