"""What is known now: stored tables, narrowed to the inputs that were brought. Reading only.

What belongs here: which stage and fingerprint holds a table, and the joins that every reader needs. Steps that write are `curate.py`.
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ingest import path_of
from pipelines.policy import Policy
from pipelines.stages import Work
from pipelines.stages.probe import PROBE
from pipelines.stages.scan import SCAN
from pipelines.store import Store
from pipelines.tables import (
    CLIPS,
    DECISIONS,
    FAILURES,
    INPUTS,
    KEYFRAMES,
    SCANS,
    SELECTION,
    SHOTS,
    SIGNALS,
    VIDEOS,
    Table,
)
from pipelines.video.scan_params import ScanParams

MEDIA_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("size_bytes", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("inode", pa.int64()),
    ]
)
"""What a stage that opens media is given."""


def probe_work() -> Work:
    """The probe and its fingerprint."""
    return Work(PROBE)


def scan_work(policy: Policy) -> Work:
    """The scan with a policy's parameters; policies with equal parameters share one."""
    return Work(SCAN, ScanParams.from_dict(policy.scan).to_dict())


def scan_works(policies: Iterable[Policy]) -> list[tuple[Work, list[Policy]]]:
    """The distinct scans that policies ask for, each with those policies."""
    works: dict[str, tuple[Work, list[Policy]]] = {}
    for policy in policies:
        work = scan_work(policy)
        works.setdefault(work.fingerprint, (work, []))[1].append(policy)
    return list(works.values())


def inputs(store: Store, batch: str | None = None) -> pa.Table:
    """Every input of one batch, or of all."""
    names = store.snapshots(INPUTS) if batch is None else [batch]
    return pa.concat_tables([INPUTS.schema.empty_table(), *(store.snapshot(INPUTS, name) for name in names)])


def videos(store: Store) -> pa.Table:
    """Table `videos` of the inputs that are known now."""
    return _of_inputs(store, store.read(PROBE.name, probe_work().fingerprint, VIDEOS))


def measurements(store: Store, policy: Policy) -> dict[str, pa.Table]:
    """The tables that a policy decides from."""
    scan = scan_work(policy)
    tables = {"videos": videos(store)}
    for table in (SCANS, SELECTION, SHOTS, CLIPS):
        tables[table.name] = _of_inputs(store, store.read(SCAN.name, scan.fingerprint, table))
    tables["signals"] = _of_clips(tables["clips"], store.read(SCAN.name, scan.fingerprint, SIGNALS))
    return tables


def failures(store: Store, policies: Iterable[Policy]) -> pa.Table:
    """What the stages could not do, for the inputs that are known now."""
    works = [probe_work(), *(work for work, _ in scan_works(policies))]
    tables = [store.read(work.stage.name, work.fingerprint, FAILURES) for work in works]
    known = pa.array(video_ids(store), pa.string())
    rows = pa.concat_tables([FAILURES.schema.empty_table(), *tables])
    return rows.filter(pc.is_in(rows.column("key"), known))


def keyframes(store: Store, policy: Policy, clip_ids: Iterable[str]) -> pa.Table:
    """The stored pictures of some clips."""
    wanted = pc.field("clip_id").isin(pa.array(sorted(clip_ids), pa.string()))
    return store.read(SCAN.name, scan_work(policy).fingerprint, KEYFRAMES, where=wanted)


def count(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs, by name."""
    return {
        row["values"]: row["counts"]
        for row in sorted(pc.value_counts(column).to_pylist(), key=lambda row: str(row["values"]))
    }


def video_ids(store: Store) -> list[str]:
    """The videos that some input holds, sorted."""
    return sorted({key for key in inputs(store).column("video_id").to_pylist() if key is not None})


def media_rows(store: Store, batch: str | None = None) -> pa.Table:
    """One row to open each video by: of several paths with the same bytes, the first that is still there. Sorted by id."""
    chosen: dict[str, dict[str, object]] = {}
    for row in inputs(store, batch).sort_by("uri").to_pylist():
        key = row["video_id"]
        if key is None:
            continue
        if key not in chosen or (not path_of(str(chosen[key]["uri"])).exists() and path_of(row["uri"]).exists()):
            chosen[key] = {name: row[name] for name in MEDIA_SCHEMA.names}
    return pa.Table.from_pylist([chosen[key] for key in sorted(chosen)], schema=MEDIA_SCHEMA)


def _of_inputs(store: Store, rows: pa.Table) -> pa.Table:
    return rows.filter(pc.is_in(rows.column("video_id"), pa.array(video_ids(store), pa.string())))


def _of_clips(clips: pa.Table, rows: pa.Table) -> pa.Table:
    return rows.filter(pc.is_in(rows.column("clip_id"), clips.column("clip_id").combine_chunks()))


def arrived_inputs(store: Store) -> pa.Table:
    """The inputs that a decision can speak of: without those of a batch whose videos are not probed yet."""
    rows = inputs(store)
    probed = videos(store).column("video_id").combine_chunks()
    has_failed = pc.equal(rows.column("state"), "failed")
    return rows.filter(pc.or_(has_failed, pc.is_in(rows.column("video_id"), probed)))


def scan_table(store: Store, work: Work, table: Table, batch: str | None = None) -> pa.Table:
    """A table of one scan; of one batch's videos, or of all inputs'."""
    rows = store.read(work.stage.name, work.fingerprint, table)
    ids = pa.array(sorted({key for key in inputs(store, batch).column("video_id").to_pylist() if key}), pa.string())
    if "video_id" in table.schema.names:
        return rows.filter(pc.is_in(rows.column("video_id"), ids))
    clips = store.read(work.stage.name, work.fingerprint, CLIPS, ["clip_id", "video_id"])
    return _of_clips(clips.filter(pc.is_in(clips.column("video_id"), ids)), rows)


def selection(store: Store, policy: Policy) -> pa.Table:
    """What a policy decided last; empty if it never did."""
    return store.snapshot(SELECTION, policy.name)


def decisions(store: Store, policy: Policy) -> pa.Table:
    """The ledger of a policy's last decision."""
    return store.snapshot(DECISIONS, policy.name)


def spans_outside_shots(tables: dict[str, pa.Table]) -> list[str]:
    """The clips whose span does not lie inside the shot that they name: there must be none."""
    shots = (
        tables["shots"]
        .select(["video_id", "index", "start_pts", "end_pts"])
        .rename_columns(["video_id", "shot_index", "shot_start", "shot_end"])
    )
    joined = tables["clips"].join(shots, ["video_id", "shot_index"])
    inside = pc.and_(
        pc.less_equal(joined.column("shot_start"), joined.column("start_pts")),
        pc.less_equal(joined.column("end_pts"), joined.column("shot_end")),
    )
    ordered = pc.less(joined.column("start_pts"), joined.column("end_pts"))
    good = pc.fill_null(pc.and_(inside, ordered), False)
    return sorted(joined.filter(pc.invert(good)).column("clip_id").to_pylist())


def failed_inputs(store: Store, policies: Iterable[Policy]) -> list[tuple[str, str, str]]:
    """(path, reason, message) of every input that could not be used: not read, not probed or not scanned."""
    reasons = {row["key"]: (row["reason"], row["message"]) for row in failures(store, policies).to_pylist()}
    found = []
    for row in inputs(store).sort_by("uri").to_pylist():
        if row["state"] == "failed":
            found.append((str(path_of(row["uri"])), row["reason"], row["message"]))
        elif row["video_id"] in reasons:
            found.append((str(path_of(row["uri"])), *reasons[row["video_id"]]))
    return found


def sharded_policies(store: Store) -> list[str]:
    """Policies with finished shards: those whose manifest is there."""
    return sorted(
        {
            path.split("/")[1]
            for path in store.files("shards")
            if path.count("/") == 2 and path.endswith("/manifest.json")
        }
    )
