"""Read every sample back and say exactly what is wrong, by shard and sample.

What goes in: the output and, if wanted, a way to decode a clip. What comes out: the problems, none if all is well. Each shard is
checked by a function of its own, so a caller may spread them over threads (`map_shards`). Cost: one sequential read and sha256 of
every byte, plus the decoding; the tar is read in one pass, one member in memory at a time.
"""

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.compute as pc

from pipelines.shards.layout import index_path, policy_folder, published_tars
from pipelines.shards.reading import Shards, ShardsError, open_shards
from pipelines.shards.samples import ExportFailure
from pipelines.store import Store

Decode = Callable[[Path], tuple[int, float] | ExportFailure]
"""(frame count, duration in s) of a clip file, found by decoding it, or why that failed. `video/recount.py` does it in a sandbox."""

MAX_DURATION_ERROR_S = 1e-6
"""The track's clock ticks at least once a microsecond or is the source's own."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `shard` is None for index and manifest, `sample` for what concerns the whole shard."""

    shard: str | None
    sample: str | None
    message: str

    def __str__(self) -> str:
        return ": ".join([part for part in (self.shard, self.sample) if part] + [self.message])


@dataclass(frozen=True)
class VerifyReport:
    """What was read, and what is wrong with it."""

    shard_count: int
    sample_count: int
    decoded_count: int
    problems: tuple[Problem, ...]

    @property
    def is_sound(self) -> bool:
        return not self.problems


MapShards = Callable[
    [Callable[[Mapping[str, Any]], list[Problem]], Sequence[Mapping[str, Any]]], Iterable[list[Problem]]
]


def verify(
    out: Store | str | Path, policy: str, decode: Decode | None = None, map_shards: MapShards = map
) -> VerifyReport:
    """Hold every byte of a policy's shards against index and manifest. `map_shards` is `map` or a pool's."""
    try:
        shards = open_shards(out, policy)
    except ShardsError as error:
        return VerifyReport(0, 0, 0, (Problem(None, None, str(error)),))
    entries = shards.manifest["shards"]
    problems = list(_whole(shards))
    for found in map_shards(lambda entry: list(_check_shard(shards, entry, decode)), entries):
        problems += found
    rows = shards.index.num_rows
    return VerifyReport(len(entries), rows, rows if decode else 0, tuple(problems))


def _whole(shards: Shards) -> Iterator[Problem]:
    """Index, manifest and the list of files."""
    data = shards.store.read_bytes(index_path(shards.policy))
    if hashlib.sha256(data).hexdigest() != shards.manifest["index"]["sha256"]:
        yield Problem(None, None, "index.parquet is not the one that the manifest names")
    known = {entry["shard"] for entry in shards.manifest["shards"]}
    for name in published_tars(shards.store, shards.policy):
        if name not in known:
            yield Problem(name, None, "this shard is in no manifest: it is left from elsewhere")
    for name in sorted(set(pc.unique(shards.index.column("shard")).to_pylist()) - known):
        yield Problem(name, None, "the index names this shard, the manifest does not")
    clips = shards.index.column("clip_id")
    if pc.count_distinct(clips).as_py() != len(clips):
        yield Problem(None, None, "the index names a clip twice")


def _check_shard(shards: Shards, entry: Mapping[str, Any], decode: Decode | None) -> Iterator[Problem]:
    name = entry["shard"]
    index = shards.index.filter(pc.equal(shards.index.column("shard"), name))
    rows = {row["clip_id"]: row for row in index.to_pylist()}
    if len(rows) != entry["samples"]:
        yield Problem(name, None, f"the manifest says {entry['samples']} samples, the index has {len(rows)}")
    try:
        with shards.store.fs.open_input_file(f"{policy_folder(shards.policy)}/{name}") as stream:
            yield from _check_bytes(entry, stream)
            stream.seek(0)
            seen: set[str] = set()
            yield from _check_members(name, rows, stream, seen, decode)
    except OSError as error:
        yield Problem(name, None, f"cannot be read: {error}")
        return
    for clip_id in sorted(set(rows) - {member.split(".")[0] for member in seen}):
        yield Problem(name, clip_id, "the index has this sample, the shard does not")


def _check_bytes(entry: Mapping[str, Any], stream: BinaryIO) -> Iterator[Problem]:
    running, size_bytes = hashlib.sha256(), 0
    while chunk := stream.read(1 << 20):
        running.update(chunk)
        size_bytes += len(chunk)
    if size_bytes != entry["size_bytes"]:
        yield Problem(entry["shard"], None, f"has {size_bytes} bytes, the manifest says {entry['size_bytes']}")
    elif running.hexdigest() != entry["sha256"]:
        yield Problem(entry["shard"], None, "its sha256 is not the manifest's")


def _check_members(
    name: str, rows: Mapping[str, Mapping[str, Any]], stream: BinaryIO, seen: set[str], decode: Decode | None
) -> Iterator[Problem]:
    """Every member against its index row; `seen` collects the members' names."""
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                seen.add(member.name)
                clip_id, _, suffix = member.name.partition(".")
                row = rows.get(clip_id)
                if row is None or row.get(f"{suffix}_offset") is None:
                    yield Problem(name, member.name, "this member is not in the index")
                    continue
                handle = tar.extractfile(member)
                data = handle.read() if handle is not None else b""
                yield from _check_member(name, member, data, row, decode)
    except (tarfile.TarError, EOFError) as error:
        yield Problem(name, _next_sample(rows, seen), f"the tar breaks off here: {error}")
        return
    for clip_id, row in rows.items():
        wanted = [f"{clip_id}.{suffix}" for suffix in ("mp4", "json", "txt") if row[f"{suffix}_offset"] is not None]
        present = [member for member in wanted if member in seen]
        if present and present != wanted:
            yield Problem(name, clip_id, f"lacks {', '.join(sorted(set(wanted) - set(present)))}")


def _next_sample(rows: Mapping[str, Mapping[str, Any]], seen: set[str]) -> str | None:
    """The first sample whose members were not all seen."""
    for clip_id, row in sorted(rows.items(), key=lambda item: item[1]["sample_index"]):
        for suffix in ("json", "mp4", "txt"):
            if row[f"{suffix}_offset"] is not None and f"{clip_id}.{suffix}" not in seen:
                return clip_id
    return None


def _check_member(
    name: str, member: tarfile.TarInfo, data: bytes, row: Mapping[str, Any], decode: Decode | None
) -> Iterator[Problem]:
    clip_id, _, suffix = member.name.partition(".")
    if (member.offset_data, member.size) != (row[f"{suffix}_offset"], row[f"{suffix}_size_bytes"]):
        yield Problem(name, member.name, "lies elsewhere than the index says")
    if hashlib.sha256(data).hexdigest() != row["sha256" if suffix == "mp4" else f"{suffix}_sha256"]:
        yield Problem(name, member.name, "its contents are not those that were written (sha256)")
    elif suffix == "json":
        yield from _check_json(name, clip_id, data, row)
    elif suffix == "mp4" and decode is not None:
        yield from _check_decoded(name, clip_id, data, row, decode)


def _check_json(name: str, clip_id: str, data: bytes, row: Mapping[str, Any]) -> Iterator[Problem]:
    try:
        record = json.loads(data)
    except ValueError as error:
        yield Problem(name, clip_id, f"its .json cannot be parsed: {error}")
        return
    told = (record.get("clip_id"), record.get("video_id"), record.get("media", {}).get("sha256"))
    if told != (clip_id, row["video_id"], row["sha256"]):
        yield Problem(name, clip_id, "its .json speaks of another clip")


def _check_decoded(name: str, clip_id: str, data: bytes, row: Mapping[str, Any], decode: Decode) -> Iterator[Problem]:
    with tempfile.TemporaryDirectory(prefix="reelmill-verify-") as folder:
        path = Path(folder) / f"{clip_id}.mp4"
        path.write_bytes(data)
        outcome = decode(path)
    if isinstance(outcome, ExportFailure):
        yield Problem(name, clip_id, f"cannot be decoded: {outcome.reason} {outcome.message}".rstrip())
        return
    frame_count, duration_s = outcome
    if frame_count != row["frame_count"]:
        yield Problem(name, clip_id, f"decodes to {frame_count} frames, the index says {row['frame_count']}")
    if abs(duration_s - row["duration_s"]) > MAX_DURATION_ERROR_S:
        yield Problem(name, clip_id, f"lasts {duration_s:.6f} s, the index says {row['duration_s']:.6f} s")
