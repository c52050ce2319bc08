"""Read finished shards: by index, one sample at a time, or as a table of buckets. Needs neither FFmpeg nor a tar library.

A training node that wants every sample exactly once takes `open_shards(...).index`, permutes its rows by seed and epoch, and reads
rows with `Shards.read` (one ranged read each). Plain WebDataset readers need nothing from here.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.shards.layout import manifest_path, policy_folder
from pipelines.shards.publishing import read_manifest
from pipelines.shards.reuse import read_index
from pipelines.shards.samples import FORMAT_VERSION
from pipelines.store import Store, open_store


class ShardsError(ValueError):
    """There are no finished shards, or a sample is not what the index says."""


@dataclass(frozen=True)
class StoredSample:
    """The bytes of one sample's members."""

    clip_id: str
    mp4: bytes
    json: bytes
    txt: bytes | None


@dataclass(frozen=True)
class Shards:
    """A policy's finished shards: manifest and index in memory (about 0.5 kB a sample), media on disk."""

    store: Store
    policy: str
    manifest: Mapping[str, Any]
    index: pa.Table

    def read(self, row: Mapping[str, Any], is_checked: bool = True) -> StoredSample:
        """The sample of an index row; with `is_checked` its checksums are compared.

        Raises:
            ShardsError: the shard is gone or the bytes are not those that were written.
        """
        path = f"{policy_folder(self.policy)}/{row['shard']}"
        members: dict[str, bytes | None] = {}
        try:
            with self.store.fs.open_input_file(path) as stream:
                for suffix in ("mp4", "json", "txt"):
                    offset, size = row[f"{suffix}_offset"], row[f"{suffix}_size_bytes"]
                    members[suffix] = None if offset is None else stream.read_at(size, offset)
        except OSError as error:
            raise ShardsError(f"shard {row['shard']} of policy {self.policy} cannot be read: {error}") from error
        for suffix, column in (("mp4", "sha256"), ("json", "json_sha256"), ("txt", "txt_sha256")):
            data = members[suffix]
            if is_checked and data is not None and hashlib.sha256(data).hexdigest() != row[column]:
                raise ShardsError(
                    f"sample {row['clip_id']}.{suffix} in {row['shard']} is damaged; run `reelmill shards verify`"
                )
        mp4, json_bytes = members["mp4"], members["json"]
        assert mp4 is not None and json_bytes is not None  # the index has no null there
        return StoredSample(row["clip_id"], mp4, json_bytes, members["txt"])

    def find(self, clip_id: str) -> dict[str, Any]:
        """The index row of a clip.

        Raises:
            ShardsError: the policy has no such clip.
        """
        rows = self.index.filter(pc.equal(self.index.column("clip_id"), clip_id)).to_pylist()
        if not rows:
            raise ShardsError(f"no clip {clip_id} in the shards of policy {self.policy}")
        return dict(rows[0])


def open_shards(out: Store | str | Path, policy: str) -> Shards:
    """The finished shards of a policy.

    Raises:
        ShardsError: there is no manifest (never written, or being changed), or the index is not the manifest's.
    """
    store = out if isinstance(out, Store) else open_store(out)
    manifest = read_manifest(store, policy)
    if manifest is None:
        raise ShardsError(
            f"{store.root}/{manifest_path(policy)} is not there: the shards of {policy!r} were never finished or are being "
            f"changed right now; run `reelmill curate` to its end"
        )
    if manifest["version"] != FORMAT_VERSION:
        raise ShardsError(f"shards of format version {manifest['version']}; this Reelmill reads {FORMAT_VERSION}")
    index = read_index(store, policy)
    if index is None or index.num_rows != manifest["index"]["rows"]:
        raise ShardsError(
            f"the index of policy {policy!r} is damaged or of another write; run `reelmill shards verify`"
        )
    return Shards(store, policy, manifest, index)


def read_sample(out: Store | str | Path, policy: str, clip_id: str) -> StoredSample:
    """One sample by its clip_id, checksums compared. For many, keep `open_shards` and use its `read`.

    Raises:
        ShardsError: see `open_shards` and `Shards.read`.
    """
    shards = open_shards(out, policy)
    return shards.read(shards.find(clip_id))


@dataclass(frozen=True)
class BucketStats:
    """One line of `reelmill shards stats`."""

    bucket: str
    width_px: int
    height_px: int
    latent_frames: int
    samples: int
    sources: int
    shards: int
    size_bytes: int
    duration_s: float
    captioned: int
    with_audio: int


def stats(out: Store | str | Path, policy: str) -> list[BucketStats]:
    """What each bucket holds, in order of name.

    Raises:
        ShardsError: see `open_shards`.
    """
    shards = open_shards(out, policy)
    lines = []
    for name, entry in sorted(shards.manifest["buckets"].items()):
        rows = shards.index.filter(pc.equal(shards.index.column("bucket"), name))
        lines.append(
            BucketStats(
                bucket=name,
                width_px=entry["width_px"],
                height_px=entry["height_px"],
                latent_frames=entry["latent_frames"],
                samples=rows.num_rows,
                sources=pc.count_distinct(rows.column("video_id")).as_py(),
                shards=entry["shards"],
                size_bytes=entry["size_bytes"],
                duration_s=pc.sum(rows.column("duration_s")).as_py(),
                captioned=rows.num_rows - rows.column("txt_offset").null_count,
                with_audio=pc.sum(rows.column("has_audio")).as_py(),
            )
        )
    return lines
