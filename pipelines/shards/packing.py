"""Fill tars with samples in order, as far as their exports are there.

What belongs here: what a tar holds, when it is full, and which tars need not be written because they exist. What does not:
running exports (`writing.py`) and making finished tars count (`publishing.py`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa

from pipelines.shards.layout import INDEX_SCHEMA, next_folder, shard_name
from pipelines.shards.publishing import ShardRecord, shard_in_place
from pipelines.shards.reuse import ExportCache, Found
from pipelines.shards.samples import FACT_KEYS, ExportFailure, Packing, Sample, json_member, sha256_hex
from pipelines.shards.tar import END_BYTES, TarWriter, member_bytes
from pipelines.store import Store, digest, drain
from pipelines.video.export_settings import ExportSettings


@dataclass
class BucketPacking:
    """A bucket being packed: samples in order, how many of them are taken, and the tar that is being filled."""

    name: str
    samples: list[Sample]
    cursor: int = 0
    batch: list[Sample] = field(default_factory=list)
    batch_bytes: int = END_BYTES
    records: list[ShardRecord] = field(default_factory=list)


@dataclass
class Work:
    """Everything that one write knows so far."""

    store: Store
    policy: str
    settings: ExportSettings
    packing: Packing
    cache: ExportCache
    exports: dict[str, str]  # clip_id -> export fingerprint
    manifest: Mapping[str, Any] | None
    index: pa.Table | None
    staged: dict[str, tuple[str, dict[str, Any]]]  # "<shard> <content>" -> (where the tar is, its record)
    found: dict[str, Found]
    failures: dict[str, ExportFailure]
    lost: list[Sample] = field(default_factory=list)
    lost_once: set[str] = field(default_factory=set)


class LostExport(Exception):
    """The bytes of an export are gone or not what its facts say."""


def advance(work: Work, bucket: BucketPacking) -> None:
    """Take samples in order as far as their exports are there, closing tars that are full, and the last one at the end."""
    while True:
        is_last = bucket.cursor == len(bucket.samples)
        try:
            if is_last:
                if bucket.batch:
                    _close(work, bucket)
                return
            sample = bucket.samples[bucket.cursor]
            if sample.clip_id not in work.failures:
                if sample.clip_id not in work.found:
                    return
                _take(work, bucket, sample)
            bucket.cursor += 1
        except LostExport:
            bucket.cursor = next(at for at, sample in enumerate(bucket.samples) if sample is bucket.batch[0])
            bucket.batch, bucket.batch_bytes = [], END_BYTES


def _take(work: Work, bucket: BucketPacking, sample: Sample) -> None:
    size_bytes = sum(member_bytes(size) for size in _member_sizes(work, sample))
    is_full = len(bucket.batch) >= work.packing.max_samples or bucket.batch_bytes + size_bytes > work.packing.max_bytes
    if bucket.batch and is_full:
        _close(work, bucket)
    bucket.batch.append(sample)
    bucket.batch_bytes += size_bytes


def _texts(work: Work, sample: Sample) -> dict[str, bytes]:
    """The members that are not media."""
    facts, export = work.found[sample.clip_id].facts, work.exports[sample.clip_id]
    texts = {"json": json_member(sample, facts, export)}
    return texts if sample.caption is None else texts | {"txt": sample.caption.encode()}


def _member_sizes(work: Work, sample: Sample) -> list[int]:
    sizes = [len(text) for text in _texts(work, sample).values()]
    return [*sizes, work.found[sample.clip_id].facts["size_bytes"]]


def _close(work: Work, bucket: BucketPacking) -> None:
    """End the tar being filled: keep or write it, and forget its exports in the cache.

    Raises:
        LostExport: an export's bytes are not there; it was put on the list to be computed again.
    """
    shard = shard_name(bucket.name, len(bucket.records))
    content = _content(work, bucket.batch)
    record = _existing(work, bucket, shard, content) or _write_tar(work, bucket, shard, content)
    bucket.records.append(record)
    for sample in bucket.batch:
        work.cache.drop(work.exports[sample.clip_id], sample.clip_id)
    bucket.batch, bucket.batch_bytes = [], END_BYTES


def _content(work: Work, batch: Sequence[Sample]) -> str:
    """Digest of what the tar will hold, without reading any media."""
    members = []
    for sample in batch:
        texts = {suffix: sha256_hex(text) for suffix, text in _texts(work, sample).items()}
        members.append([sample.clip_id, work.found[sample.clip_id].facts["sha256"], texts])
    return digest(members)[:16]


def _existing(work: Work, bucket: BucketPacking, shard: str, content: str) -> ShardRecord | None:
    """The same tar, written already: by a killed run, or published."""
    key = f"{shard} {content}"
    if key in work.staged:
        where, record = work.staged[key]
        rows = pa.Table.from_pylist(record["rows"], schema=INDEX_SCHEMA)
        return ShardRecord(shard, bucket.name, content, record["sha256"], record["size_bytes"], rows, where)
    return shard_in_place(work.store, work.policy, work.manifest, work.index, shard, content)


def _write_tar(work: Work, bucket: BucketPacking, shard: str, content: str) -> ShardRecord:
    rows: list[dict[str, Any]] = []
    ends: list[tuple[str, int]] = []

    def fill(stream: BinaryIO) -> None:
        tar = TarWriter(stream)
        rows.extend(_add(work, tar, sample, shard, number) for number, sample in enumerate(bucket.batch))
        ends.append((tar.finish(), tar.size_bytes))

    stem = f"{next_folder(work.policy)}/{shard.removesuffix('.tar')}.{content}"
    work.store.publish(f"{stem}.tar", fill)
    [(sha256, size_bytes)] = ends
    record = {"shard": shard, "content": content, "sha256": sha256, "size_bytes": size_bytes, "rows": rows}
    text = json.dumps(record, sort_keys=True).encode()
    work.store.publish(f"{stem}.json", lambda stream: drain(stream, text))
    table = pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)
    return ShardRecord(shard, bucket.name, content, sha256, size_bytes, table, f"{stem}.tar")


def _add(work: Work, tar: TarWriter, sample: Sample, shard: str, number: int) -> dict[str, Any]:
    """Append one sample; its index row."""
    clip_id, found = sample.clip_id, work.found[sample.clip_id]
    media = found.read(work.store)
    if media is None:
        _give_up_on(work, sample)
        raise LostExport(clip_id)
    texts = _texts(work, sample)
    members = {f"{clip_id}.{suffix}": data for suffix, data in texts.items()} | {f"{clip_id}.mp4": media}
    offsets = tar.add(members)
    row: dict[str, Any] = {key: found.facts[key] for key in FACT_KEYS if key != "size_bytes"}
    for key in ("clip_id", "video_id", "start_pts", "end_pts", "time_base_num", "time_base_den"):
        row[key] = sample.clip[key]
    row |= {"bucket": sample.bucket.name, "shard": shard, "sample_index": number, "export": work.exports[clip_id]}
    row |= {"mp4_offset": offsets[f"{clip_id}.mp4"], "mp4_size_bytes": len(media)}
    for suffix in ("json", "txt"):
        data = texts.get(suffix)
        row[f"{suffix}_offset"] = offsets.get(f"{clip_id}.{suffix}")
        row[f"{suffix}_size_bytes"] = None if data is None else len(data)
        row[f"{suffix}_sha256"] = None if data is None else sha256_hex(data)
    return row


def _give_up_on(work: Work, sample: Sample) -> None:
    """Compute a lost export once more; lost twice, it is a failure."""
    del work.found[sample.clip_id]
    work.cache.drop(work.exports[sample.clip_id], sample.clip_id)
    if sample.clip_id in work.lost_once:
        work.failures[sample.clip_id] = ExportFailure("read_error", "the exported clip was damaged on disk twice", True)
        return
    work.lost_once.add(sample.clip_id)
    work.lost.append(sample)
