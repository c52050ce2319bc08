"""Make finished tars the policy's shards: move, remove what is old, write index and manifest. The manifest comes last."""

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipelines.shards.layout import (
    INDEX_SCHEMA,
    index_path,
    manifest_path,
    next_folder,
    policy_folder,
    published_tars,
)
from pipelines.shards.samples import FORMAT, FORMAT_VERSION
from pipelines.store import Store, drain


@dataclass(frozen=True)
class ShardRecord:
    """A finished tar: what the manifest says of it, and its index rows. `staged` is where it waits; None if in place."""

    shard: str
    bucket: str
    content: str
    sha256: str
    size_bytes: int
    rows: pa.Table
    staged: str | None = None

    def entry(self) -> dict[str, Any]:
        """Its entry in the manifest."""
        return {
            "shard": self.shard,
            "bucket": self.bucket,
            "samples": self.rows.num_rows,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "content": self.content,
        }


def read_manifest(store: Store, policy: str) -> dict[str, Any] | None:
    """The policy's manifest, or None if there is none."""
    try:
        manifest = json.loads(store.read_bytes(manifest_path(policy)))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


def is_complete(store: Store, policy: str, manifest: Mapping[str, Any]) -> bool:
    """Whether index and every tar are there with the size that the manifest says."""
    if store.fs.get_file_info(index_path(policy)).type != pafs.FileType.File:
        return False
    sizes = {entry["shard"]: entry["size_bytes"] for entry in manifest["shards"]}
    folder = policy_folder(policy)
    infos = store.fs.get_file_info([f"{folder}/{name}" for name in sizes]) if sizes else []
    return all(info.size == size for info, size in zip(infos, sizes.values(), strict=True))


def shard_in_place(
    store: Store, policy: str, manifest: Mapping[str, Any] | None, index: pa.Table | None, shard: str, content: str
) -> ShardRecord | None:
    """The published tar called `shard` if it has these contents already."""
    if manifest is None or index is None:
        return None
    for entry in manifest["shards"]:
        if entry["shard"] == shard and entry["content"] == content:
            info = store.fs.get_file_info(f"{policy_folder(policy)}/{shard}")
            rows = index.filter(pc.equal(index.column("shard"), shard))
            if info.size == entry["size_bytes"] and rows.num_rows == entry["samples"]:
                return ShardRecord(shard, entry["bucket"], content, entry["sha256"], entry["size_bytes"], rows)
    return None


def publish(store: Store, policy: str, records: Sequence[ShardRecord], manifest: Mapping[str, Any]) -> None:
    """Put every tar in its place, then index and manifest. Killed anywhere, a repetition ends the same."""
    folder = policy_folder(policy)
    current = manifest_path(policy)
    if store.fs.get_file_info(current).type == pafs.FileType.File:
        store.fs.delete_file(current)  # from here until the new one, readers are told that there are no shards
    for record in records:
        if record.staged is not None and record.staged.startswith(next_folder(policy)):
            store.fs.create_dir(f"{folder}/{record.bucket}", recursive=True)
            move(store, record.staged, f"{folder}/{record.shard}")
    wanted = {record.shard for record in records}
    for name in published_tars(store, policy):
        if name not in wanted:
            store.fs.delete_file(f"{folder}/{name}")
    buffer = io.BytesIO()
    rows = pa.concat_tables([INDEX_SCHEMA.empty_table(), *(record.rows.cast(INDEX_SCHEMA) for record in records)])
    pq.write_table(rows, buffer, compression="zstd")
    data = buffer.getvalue()
    store.publish(index_path(policy), lambda stream: drain(stream, data))
    index = {"rows": rows.num_rows, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    entries = [record.entry() for record in records]
    head = {"format": FORMAT, "version": FORMAT_VERSION}
    store.write_json(current, head | dict(manifest) | {"shards": entries, "index": index})


def move(store: Store, source: str, target: str) -> None:
    """Rename a file of the output, over what is there."""
    store.fs.move(source, target)


def clean(store: Store, policy: str, exports: Path) -> None:
    """Remove what a write leaves when it is done: `.next`, the export cache, and folders of buckets that are no more."""
    if store.fs.get_file_info(next_folder(policy)).type == pafs.FileType.Directory:
        store.fs.delete_dir(next_folder(policy))
    if exports.is_dir():
        shutil.rmtree(exports)
        with contextlib.suppress(OSError):  # other policies still have exports there
            exports.parent.rmdir()
    used = {name.split("/")[0] for name in published_tars(store, policy)}
    selector = pafs.FileSelector(policy_folder(policy), recursive=False, allow_not_found=True)
    for info in store.fs.get_file_info(selector):
        if info.type == pafs.FileType.Directory and info.base_name not in used and not store.files(info.path):
            store.fs.delete_dir(info.path)
