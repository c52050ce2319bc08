"""From a selection to what people use: samples for the shards, data for the report.

What belongs here: joining stored tables into what `shards` and `report` take. Not here: when that happens (`curate.py`), how a tar or a
page is made.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines import catalog, shards
from pipelines.buckets import Bucket, assign
from pipelines.engines import Engine, EngineSettings, Item, Result
from pipelines.explain import Explanation, explain
from pipelines.ingest import path_of
from pipelines.policy import Decisions, Policy
from pipelines.report import ReportData, ReportPolicy, StageRun, build_report, shown_clips
from pipelines.shards import ExportFailure, ExportItem, Sample, VerifyReport, WriteReport
from pipelines.stages import MediaCall
from pipelines.stages.outcome import ask
from pipelines.steps import Progress, StepResult, quiet
from pipelines.store import Store
from pipelines.tables import TABLES, Table
from pipelines.video.export_settings import settings_from_dict
from pipelines.video.sandbox import Reply

EXPORT_GATE = "export"
_VIDEO_FACTS = (
    "container",
    "video_codec",
    "width_px",
    "height_px",
    "fps",
    "duration_s",
    "bitrate_bps",
    "is_vfr",
    "rotation_deg",
    "licence",
    "origin",
)


def write_shards(
    store: Store, policy: Policy, engine: Engine, settings: EngineSettings, progress: Progress = quiet
) -> WriteReport:
    """Make the policy's shards hold exactly its selection; clips that could not be exported come back as failures."""
    media_rows = {row["video_id"]: row for row in catalog.media_rows(store).to_pylist()}

    def export(item: ExportItem, media: MediaCall) -> tuple[str, Mapping[str, Any] | ExportFailure]:
        source = media_rows[str(item.clip["video_id"])]
        outcome = ask(media, "export", source, item.request(str(path_of(source["uri"])), settings.threads))
        if outcome.reply is not None:
            return item.clip_id, outcome.reply.facts
        reason = outcome.reason
        return item.clip_id, ExportFailure(str(reason), outcome.message or "", bool(reason and reason.is_retryable))

    def run_exports(items: Sequence[ExportItem]) -> Iterator[tuple[str, Mapping[str, Any] | ExportFailure]]:
        for done, outcome in enumerate(engine.map_media(export, items, settings), 1):
            progress(f"export {policy.name}", done, len(items))
            yield outcome

    return shards.write(
        store,
        policy.name,
        policy.digest,
        samples(store, policy),
        run_exports,
        settings_from_dict(policy.export),
        policy.shards,
    )


def samples(store: Store, policy: Policy) -> list[Sample]:
    """The selected clips with their buckets, scores and lineage. No path and no time of day: shards are the same everywhere."""
    tables = catalog.measurements(store, policy)
    selection = catalog.selection(store, policy)
    # what an earlier write could not export is offered again: the shards remember why, and retry what may succeed
    is_offered = pc.or_(
        pc.equal(selection["state"], "selected"), pc.fill_null(pc.equal(selection["gate"], EXPORT_GATE), False)
    )
    chosen = selection.filter(is_offered)
    weights = {row["subject_id"]: row["weight"] or 1.0 for row in chosen.select(["subject_id", "weight"]).to_pylist()}
    videos = {row["video_id"]: row for row in tables["videos"].to_pylist()}
    signals = {row.pop("clip_id"): row for row in tables["signals"].to_pylist()}
    fingerprints = {"probe": catalog.probe_work().fingerprint, "scan": catalog.scan_work(policy).fingerprint}
    clips = tables["clips"].filter(pc.is_in(tables["clips"].column("clip_id"), pa.array(sorted(weights), pa.string())))
    return [
        Sample(
            clip=clip,
            bucket=_bucket(clip, policy),
            metadata={
                "signals": _plain(signals.get(clip["clip_id"], {})),
                "video": _plain({name: videos[clip["video_id"]][name] for name in _VIDEO_FACTS}),
                "fingerprints": fingerprints,
                "weight": weights[clip["clip_id"]],
            },
        )
        for clip in clips.to_pylist()
    ]


def _bucket(clip: Mapping[str, Any], policy: Policy) -> Bucket:
    bucket = assign(clip["crop_width_px"], clip["crop_height_px"], clip["duration_s"], policy.buckets)
    assert bucket is not None, f"clip {clip['clip_id']} was selected without a bucket"
    return bucket


def mark_failed(selection: pa.Table, failures: Mapping[str, ExportFailure]) -> pa.Table:
    """The selection with the clips that could not be exported in state failed, each with its reason."""
    rows = selection.to_pylist()
    for row in rows:
        failure = failures.get(row["subject_id"]) if row["state"] == "selected" else None
        if failure is not None:
            row |= {"state": "failed", "gate": EXPORT_GATE, "reason": failure.reason, "bucket": None, "weight": None}
    return pa.Table.from_pylist(rows, schema=selection.schema)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: a measurement that is none is null."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def verify_shards(store: Store, policy_name: str, engine: Engine, settings: EngineSettings) -> VerifyReport:
    """Read every sample of a policy's shards back, and decode every clip to its end in the engine's sandboxes."""
    own = threading.local()

    def decode(path: Path) -> tuple[int, float] | ExportFailure:
        reply: Reply = own.media("recount", {"path": str(path)})
        if reply.is_ok:
            return int(reply.facts["frame_count"]), float(reply.facts["duration_s"])
        return ExportFailure(str(reply.reason), reply.message, bool(reply.reason and reply.reason.is_retryable))

    def map_shards(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        def one(item: Item, media: MediaCall) -> Result:
            own.media = media
            return function(item)

        return engine.map_media(one, items, settings)

    return shards.verify(store, policy_name, decode, map_shards)


def report_page(store: Store, policies: Iterable[Policy], stages: Sequence[StageRun], date: str) -> str:
    """The report of what is stored now."""
    chosen = tuple(_report_policy(store, policy) for policy in policies)
    data = ReportData(
        inputs=catalog.arrived_inputs(store),
        videos=catalog.videos(store),
        failures=catalog.failures(store, [policy.policy for policy in chosen]),
        policies=chosen,
        stages=tuple(stages),
        out=store.root,
        date=date,
    )
    return build_report(data)


def _report_policy(store: Store, policy: Policy) -> ReportPolicy:
    sharded = policy.name in catalog.sharded_policies(store)
    own = ReportPolicy(
        policy=policy,
        outcome=Decisions(catalog.decisions(store, policy), catalog.selection(store, policy)),
        measurements=catalog.measurements(store, policy),
        bucket_bytes={row.bucket: row.size_bytes for row in shards.stats(store, policy.name)} if sharded else {},
    )
    return replace(own, keyframes=catalog.keyframes(store, policy, shown_clips(own)))


def stage_runs(policies: Iterable[Policy], steps: Sequence[StepResult]) -> list[StageRun]:
    """The stages behind the report, with what the run did of each."""
    by_name = {step.step: step for step in steps}
    works = [catalog.probe_work(), *(work for work, _ in catalog.scan_works(policies))]
    runs = []
    for work in works:
        step = by_name.get(work.stage.name)
        done, reused, failed = (step.done, step.reused, step.failed) if step else (0, 0, 0)
        busy_s = step.facts["stage_s"] if step else 0.0
        runs.append(StageRun(work.stage.name, work.fingerprint, done, reused, failed, busy_s, dict(work.params)))
    return runs


def explain_subject(store: Store, policies: Sequence[Policy], id_or_prefix: str) -> Explanation:
    """Everything known of a clip, a video or a file, under each of the policies.

    Raises:
        ValueError: nothing, or more than one thing, goes by that name.
    """
    tables: dict[str, pa.Table] = {"inputs": catalog.inputs(store), "failures": catalog.failures(store, policies)}
    for policy in policies:
        measured = catalog.measurements(store, policy) | {
            "decisions": catalog.decisions(store, policy),
            "selection": catalog.selection(store, policy),
        }
        for name, table in measured.items():  # policies with one scan share its rows
            tables[name] = pa.concat_tables([tables[name], table]) if name in tables else table
    for name in ("videos", "scans", "shots", "clips", "signals"):
        tables[name] = _distinct(tables[name], TABLES[name])
    indexes = {name: shards.open_shards(store, name).index for name in catalog.sharded_policies(store)}
    lineage: dict[str, object] = {"probe fingerprint": catalog.probe_work().fingerprint}
    for policy in policies:
        lineage |= {
            f"{policy.name}: scan": catalog.scan_work(policy).fingerprint,
            f"{policy.name}: policy": policy.digest,
        }
    return explain(tables, id_or_prefix, indexes, lineage)


def _distinct(rows: pa.Table, table: Table) -> pa.Table:
    """One row for each key: policies with different scans may have made the same clip, measured alike."""
    keys = list(zip(*(rows.column(name).to_pylist() for name in table.key), strict=True))
    first = {key: number for number, key in reversed(list(enumerate(keys)))}
    return rows.take(pa.array(sorted(first.values()), pa.int64()))
