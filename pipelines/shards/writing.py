"""Write a policy's shards: export what is missing, pack, publish.

What goes in: samples, a callable that runs exports in parallel somewhere, and where to write. What comes out: tars, index,
manifest, and the clips that could not be exported, each with its reason (they leave no hole in any numbering).

How it goes. Per bucket the seeded order is fixed. As soon as all exports of the next tar are there, the tar is written to `.next`
beside its index rows, and these exports leave the cache: the disk holds the new tars, those that they replace, and the
exports of at most a tar per bucket. When all tars stand, the manifest is withdrawn, the tars move to their places, those of an
earlier selection go, and index and manifest appear, the manifest last. A reader that finds no manifest knows that the shards
are being changed; one that holds an old manifest sees a checksum differ. A tar whose contents did not change stays.

How it fails. Killed anywhere, the next run finds every finished export (cache, `.next`, tars) and continues; tars of the same
contents are not written again. A failed export is reported, and tried again in a later run only if it may succeed then. Cost at
1 M clips of 1 MB, beside the exports: one copy and one sha256 of 1 TB, and 8.5 GB of memory (8.5 kB a sample).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.shards.layout import policy_folder
from pipelines.shards.packing import BucketPacking, Work, advance
from pipelines.shards.publishing import clean, is_complete, publish, read_manifest
from pipelines.shards.reuse import ExportCache, find_exports, read_index, staged_shards
from pipelines.shards.samples import (
    FACT_KEYS,
    ExportFailure,
    ExportItem,
    Packing,
    Sample,
    export_fingerprint,
    inputs_digest,
    spread_order,
)
from pipelines.store import Store, open_store
from pipelines.video.export_settings import ExportSettings

RunExports = Callable[[Sequence[ExportItem]], Iterable[tuple[str, Mapping[str, Any] | ExportFailure]]]
"""Runs exports anywhere, in any order, and yields (clip_id, facts or failure) once for each."""


@dataclass(frozen=True)
class WriteReport:
    """What a write did. `failures` are the clips left out, by clip_id."""

    sample_count: int
    shard_count: int
    size_bytes: int
    exported_count: int
    reused_count: int
    kept_shard_count: int
    failures: Mapping[str, ExportFailure]
    is_unchanged: bool = False


def write(
    out: Store | str | Path,
    policy: str,
    policy_digest: str,
    samples: Iterable[Sample],
    run_exports: RunExports,
    settings: ExportSettings | None = None,
    packing: Packing | None = None,
    exports_folder: Path | None = None,
) -> WriteReport:
    """Make `OUT/shards/<policy>` hold exactly these samples. Idempotent; continues what a killed run began.

    `exports_folder` is a local folder for exports on their way into a tar; by default `OUT/exports/<policy>`.

    Raises:
        ValueError: a clip_id twice, a policy name unfit for a folder, or an output that is not local and no `exports_folder`.
        RuntimeError: `run_exports` left a clip unanswered.
        pipelines.store.OutputFull: no room on the disk.
    """
    store = out if isinstance(out, Store) else open_store(out)
    settings, packing = settings or ExportSettings(), packing or Packing()
    cache = ExportCache(_exports_folder(store, policy, exports_folder))
    buckets = _buckets(samples, packing.seed)
    inputs = inputs_digest({bucket.name: bucket.samples for bucket in buckets}, settings, packing)
    manifest = read_manifest(store, policy)
    if manifest is not None and _is_current(store, policy, manifest, inputs, policy_digest):
        clean(store, policy, cache.root)
        return _unchanged(manifest)
    work = _begin(store, policy, settings, packing, cache, buckets, manifest)
    exported_count = _export_and_pack(work, buckets, run_exports)
    records = [record for bucket in buckets for record in bucket.records]
    head = _manifest(policy, policy_digest, inputs, work, buckets)
    publish(store, policy, records, head)
    clean(store, policy, cache.root)
    sample_count = sum(record.rows.num_rows for record in records)
    return WriteReport(
        sample_count=sample_count,
        shard_count=len(records),
        size_bytes=sum(record.size_bytes for record in records),
        exported_count=exported_count,
        reused_count=sample_count - exported_count,
        kept_shard_count=sum(record.staged is None for record in records),
        failures=dict(sorted(work.failures.items())),
    )


def _exports_folder(store: Store, policy: str, given: Path | None) -> Path:
    policy_folder(policy)  # refuses a name that is unfit for a folder
    if given is not None:
        return given / policy
    if store.local_root is None:
        raise ValueError(
            f"{store.root} is not local: give exports_folder, a local folder for clips on their way into a tar"
        )
    return store.local_root / "exports" / policy


def _buckets(samples: Iterable[Sample], seed: int) -> list[BucketPacking]:
    by_name: dict[str, list[Sample]] = {}
    seen: set[str] = set()
    for sample in samples:
        if sample.clip_id in seen:
            raise ValueError(f"clip {sample.clip_id} was given twice; a selection names each clip once")
        seen.add(sample.clip_id)
        by_name.setdefault(sample.bucket.name, []).append(sample)
    return [BucketPacking(name, spread_order(group, seed)) for name, group in sorted(by_name.items())]


def _is_current(store: Store, policy: str, manifest: Mapping[str, Any], inputs: str, policy_digest: str) -> bool:
    is_same = manifest.get("inputs") == inputs and manifest.get("policy_digest") == policy_digest
    is_final = not any(entry["is_retryable"] for entry in manifest.get("left_out", []))
    return is_same and is_final and is_complete(store, policy, manifest)


def _unchanged(manifest: Mapping[str, Any]) -> WriteReport:
    totals = manifest["totals"]
    failures = {entry["clip_id"]: _failure(entry) for entry in manifest["left_out"]}
    return WriteReport(
        totals["samples"],
        totals["shards"],
        totals["size_bytes"],
        0,
        totals["samples"],
        totals["shards"],
        failures,
        True,
    )


def _failure(entry: Mapping[str, Any]) -> ExportFailure:
    return ExportFailure(entry["reason"], "failed in an earlier run", entry["is_retryable"])


def _begin(
    store: Store,
    policy: str,
    settings: ExportSettings,
    packing: Packing,
    cache: ExportCache,
    buckets: list[BucketPacking],
    manifest: Mapping[str, Any] | None,
) -> Work:
    exports = {
        sample.clip_id: export_fingerprint(settings, sample.bucket) for bucket in buckets for sample in bucket.samples
    }
    left_out = {entry["clip_id"]: entry for entry in (manifest or {}).get("left_out", [])}
    return Work(
        store=store,
        policy=policy,
        settings=settings,
        packing=packing,
        cache=cache,
        exports=exports,
        manifest=manifest,
        index=None if manifest is None else read_index(store, policy),
        staged={
            f"{record['shard']} {record['content']}": (where, record)
            for where, record in staged_shards(store, policy).items()
        },
        found=find_exports(store, policy, cache, exports),
        failures={
            clip_id: _failure(entry)
            for clip_id, entry in left_out.items()
            if exports.get(clip_id) == entry["export"] and not entry["is_retryable"]
        },
    )


# -- exporting ---------------------------------------------------------------------------------------------------------


def _export_and_pack(work: Work, buckets: list[BucketPacking], run_exports: RunExports) -> int:
    """Run what is missing, pack as it comes; how many exports were computed."""
    home = {sample.clip_id: (bucket, sample) for bucket in buckets for sample in bucket.samples}
    todo = [
        sample
        for bucket in buckets
        for sample in bucket.samples
        if sample.clip_id not in work.found and sample.clip_id not in work.failures
    ]
    exported_count = 0
    for bucket in buckets:
        advance(work, bucket)
    while todo or work.lost:
        todo, work.lost = todo + work.lost, []
        waiting = {sample.clip_id for sample in todo}
        for clip_id, outcome in run_exports([_item(work, sample) for sample in todo]):
            if clip_id not in waiting:
                raise RuntimeError(f"run_exports answered for clip {clip_id}, which it was not asked for, or twice")
            waiting.remove(clip_id)
            bucket, sample = home[clip_id]
            exported_count += _accept(work, sample, outcome)
            advance(work, bucket)
        if waiting:
            raise RuntimeError(f"run_exports gave no answer for {len(waiting)} clips, such as {min(waiting)}")
        todo = []
    return exported_count


def _item(work: Work, sample: Sample) -> ExportItem:
    return ExportItem(
        clip=sample.clip,
        width_px=sample.bucket.width_px,
        height_px=sample.bucket.height_px,
        settings=work.settings.to_dict(),
        out_path=work.cache.temporary(work.exports[sample.clip_id], sample.clip_id),
    )


def _accept(work: Work, sample: Sample, outcome: Mapping[str, Any] | ExportFailure) -> int:
    """Keep what came back: 1 for an export, 0 for a failure. The child's facts are held against the clip and the file."""
    item = _item(work, sample)
    if isinstance(outcome, ExportFailure):
        item.out_path.unlink(missing_ok=True)
        work.failures[sample.clip_id] = outcome
        return 0
    wrong = _wrong_facts(item, outcome)
    if wrong:
        item.out_path.unlink(missing_ok=True)
        work.failures[sample.clip_id] = ExportFailure("internal_error", wrong)
        return 0
    work.found[sample.clip_id] = work.cache.commit(work.exports[sample.clip_id], sample.clip_id, outcome)
    return 1


def _wrong_facts(item: ExportItem, facts: Mapping[str, Any]) -> str:
    missing = [key for key in FACT_KEYS if facts.get(key) is None]
    if missing:
        return f"the export returned no {', '.join(missing)}"
    expected = {"frame_count": item.clip["frame_count"], "width_px": item.width_px, "height_px": item.height_px}
    for key, value in expected.items():
        if facts[key] != value:
            return f"the export has {key} {facts[key]}, expected {value}"
    size_bytes = item.out_path.stat().st_size if item.out_path.exists() else None
    return (
        "" if size_bytes == facts["size_bytes"] else f"the export says {facts['size_bytes']} bytes, found {size_bytes}"
    )


# -- the manifest ------------------------------------------------------------------------------------------------------


def _manifest(
    policy: str, policy_digest: str, inputs: str, work: Work, buckets: Sequence[BucketPacking]
) -> dict[str, Any]:
    """Everything but the list of tars and the index. No times, no paths: the same inputs give the same bytes."""
    tables = {bucket.name: _bucket_entry(bucket) for bucket in buckets if bucket.records}
    return {
        "policy": policy,
        "policy_digest": policy_digest,
        "inputs": inputs,
        "export": work.settings.to_dict(),
        "packing": {
            "max_bytes": work.packing.max_bytes,
            "max_samples": work.packing.max_samples,
            "seed": work.packing.seed,
        },
        "buckets": tables,
        "totals": {key: sum(entry[key] for entry in tables.values()) for key in ("samples", "shards", "size_bytes")},
        "left_out": [
            {
                "clip_id": clip_id,
                "export": work.exports[clip_id],
                "reason": str(failure.reason),
                "is_retryable": failure.is_retryable,
            }
            for clip_id, failure in sorted(work.failures.items())
        ],
    }


def _bucket_entry(bucket: BucketPacking) -> dict[str, Any]:
    cell = bucket.samples[0].bucket
    return {
        "width_px": cell.width_px,
        "height_px": cell.height_px,
        "min_s": cell.duration.min_s,
        "max_s": cell.duration.max_s,
        "middle_s": cell.duration.middle_s,
        "latent_frames": cell.duration.latent_frames,
        "frame_count": cell.duration.frame_count,
        "samples": sum(record.rows.num_rows for record in bucket.records),
        "shards": len(bucket.records),
        "size_bytes": sum(record.size_bytes for record in bucket.records),
    }
