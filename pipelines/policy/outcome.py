"""Reading an outcome: the funnel, and what changed between two selections.

What belongs here: questions asked of decisions and selection, shared by the command line, the report and Dagster. Whether
the counts add up is `states.py`.
"""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.policy.schema import Policy

MAX_EXAMPLES = 5

FUNNEL_SCHEMA = pa.schema(
    [
        ("subject_kind", pa.string()),  # video or clip
        ("gate", pa.string()),  # a gate of the policy, or probe, scan, clips, source, bucket, orientation
        ("column", pa.string()),  # what it reads; null for a step that is no gate
        ("threshold", pa.string()),
        ("in", pa.int64()),  # = rejected + errors + out
        ("rejected", pa.int64()),  # stopped here by the measurement, or by the quota
        ("errors", pa.int64()),  # stopped here because the measurement failed
        ("out", pa.int64()),
        ("excused", pa.int64()),  # among all subjects: measurement failed and the gate says `on_failure: pass`
    ]
)
DIFF_SCHEMA = pa.schema(
    [
        ("subject_kind", pa.string()),
        ("from_state", pa.string()),  # 'absent' if the old selection does not have it
        ("from_gate", pa.string()),
        ("to_state", pa.string()),
        ("to_gate", pa.string()),
        ("count", pa.int64()),
        ("examples", pa.list_(pa.string())),  # the first few ids
    ]
)


def funnel(policy: Policy, decisions: pa.Table, selection: pa.Table) -> pa.Table:
    """Step by step what came in, stopped and went on: the videos' steps, then the clips' (`FUNNEL_SCHEMA`).

    The videos' last step 'clips' stops videos without a clip; the clips' first step 'source' stops clips of a stopped video.
    """
    stops = counts(selection, ["subject_kind", "state", "gate"])
    excused = _excused(decisions)
    video_gates = {gate.name: gate for gate in policy.video_gates}
    clip_gates = {gate.name: gate for gate in policy.clip_gates}
    cheap = [name for name, gate in video_gates.items() if gate.table.name == "videos"]
    steps = {
        "video": ["probe", *cheap, "scan", *(name for name in video_gates if name not in cheap), "clips"],
        "clip": ["source", *clip_gates, "bucket", *(["orientation"] if policy.orientation else [])],
    }
    gates = video_gates | clip_gates
    rows = []
    for kind, names in steps.items():
        left = sum(count for (subject, _, _), count in stops.items() if subject == kind)
        for name in names:
            rejected, errors = _stopped(stops, kind, name, [*video_gates, "probe", "scan"])
            gate = gates.get(name)
            rows.append(
                {
                    "subject_kind": kind,
                    "gate": name,
                    "column": gate.column if gate else None,
                    "threshold": gate.threshold if gate else None,
                    "in": left,
                    "rejected": rejected,
                    "errors": errors,
                    "out": left - rejected - errors,
                    "excused": excused[name],
                }
            )
            left -= rejected + errors
    return pa.Table.from_pylist(rows, schema=FUNNEL_SCHEMA)


def diff(old: pa.Table, new: pa.Table) -> pa.Table:
    """What a recut changed, most frequent first: (state, gate) before and after, count, example ids (`DIFF_SCHEMA`)."""
    columns = ["subject_kind", "subject_id", "state", "gate"]
    before, after = (table.select(columns) for table in (old, new))
    joined = before.join(after, ["subject_kind", "subject_id"], join_type="full outer", right_suffix="_after")
    for name in ("state", "state_after"):
        filled = pc.fill_null(joined[name], "absent")
        joined = joined.set_column(joined.schema.get_field_index(name), name, filled)
    changed = joined.filter(
        pc.or_(
            pc.not_equal(joined["state"], joined["state_after"]),
            pc.not_equal(pc.fill_null(joined["gate"], ""), pc.fill_null(joined["gate_after"], "")),
        )
    )
    keys = ["subject_kind", "state", "gate", "state_after", "gate_after"]
    groups = changed.group_by(keys).aggregate([("subject_id", "count"), ("subject_id", "list")])
    rows = [
        dict(
            zip(DIFF_SCHEMA.names, [*(row[key] for key in keys), row["subject_id_count"]], strict=False),
            examples=sorted(row["subject_id_list"])[:MAX_EXAMPLES],
        )
        for row in groups.to_pylist()
    ]
    rows.sort(key=lambda row: (-row["count"], *(row[name] or "" for name in DIFF_SCHEMA.names[:5])))
    return pa.Table.from_pylist(rows, schema=DIFF_SCHEMA)


def _stopped(stops: Counter[tuple[str, str, str | None]], kind: str, step: str, upstream: list[str]) -> tuple[int, int]:
    """(rejected, errors) at a step."""
    if step == "clips":
        return stops[kind, "without_clips", None], 0
    names = [step, *upstream] if step == "source" else [step]
    rejected = sum(stops[kind, state, name] for name in names for state in ("rejected", "resampled_away", "duplicate"))
    return rejected, sum(stops[kind, "failed", name] for name in names)


def _excused(decisions: pa.Table) -> Counter[str]:
    is_excused = pc.and_(pc.equal(decisions["cause"], "error"), pc.equal(decisions["verdict"], "pass"))
    return Counter({gate: count for (gate,), count in counts(decisions.filter(is_excused), ["gate"]).items()})


def counts(table: pa.Table, columns: list[str]) -> Counter[tuple]:
    """How many rows hold each combination of values of `columns`."""
    groups = table.group_by(columns).aggregate([([], "count_all")])
    return Counter({tuple(row[name] for name in columns): row["count_all"] for row in groups.to_pylist()})
