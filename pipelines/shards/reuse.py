"""Exports that already exist, wherever they are: nothing is encoded twice.

They are looked for, in this order, in the policy's export cache (a killed run's), in tars of a write under way (a killed run's), and in
the finished shards of every policy of the output. What is found is believed only after its sha256 was compared, when it is read.

Cost at 1 M clips: the indexes' columns of the wanted clips (about 200 MB in memory), and no media until it is copied.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipelines.shards.layout import INDEX_SCHEMA, index_path, next_folder, policy_folder
from pipelines.shards.samples import FACT_KEYS
from pipelines.store import Store

_WANTED = ["clip_id", "export", "shard", "mp4_offset", "mp4_size_bytes", *FACT_KEYS[:-1]]


@dataclass(frozen=True)
class Found:
    """A finished export: its facts, and where its bytes are (a local file, or a range of a tar in the output)."""

    facts: Mapping[str, Any]
    file: Path | None = None
    tar: str | None = None
    offset: int = 0

    def read(self, store: Store) -> bytes | None:
        """The clip's bytes, or None if they are gone or not what the facts say."""
        try:
            if self.file is not None:
                data = self.file.read_bytes()
            else:
                assert self.tar is not None
                with store.fs.open_input_file(self.tar) as stream:
                    data = stream.read_at(self.facts["size_bytes"], self.offset)
        except OSError:
            return None
        is_sound = len(data) == self.facts["size_bytes"] and hashlib.sha256(data).hexdigest() == self.facts["sha256"]
        return data if is_sound else None


@dataclass(frozen=True)
class ExportCache:
    """The local folder `exports/<policy>` of exports that are in no tar yet."""

    root: Path

    def path(self, export: str, clip_id: str) -> Path:
        return self.root / export / clip_id[:2] / f"{clip_id}.mp4"

    def temporary(self, export: str, clip_id: str) -> Path:
        """Where a sandbox writes it; the prefix is the one that `Store.clean` removes."""
        path = self.path(export, clip_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_name(f".tmp-{path.name}")

    def commit(self, export: str, clip_id: str, facts: Mapping[str, Any]) -> Found:
        """Accept the temporary file: facts first, then the rename that makes it count."""
        path = self.path(export, clip_id)
        text = json.dumps({key: facts[key] for key in FACT_KEYS}, sort_keys=True)
        # Not flushed to disk: after a power cut a torn file is told by its facts, and flushing cost 3 ms a clip.
        temporary = path.with_name(f".tmp-{clip_id}.json")
        temporary.write_text(text)
        temporary.replace(path.with_suffix(".json"))
        self.temporary(export, clip_id).replace(path)
        return Found(dict(facts), file=path)

    def find(self, export: str, clip_id: str) -> Found | None:
        path = self.path(export, clip_id)
        try:
            facts = json.loads(path.with_suffix(".json").read_bytes())
            size_bytes = path.stat().st_size
        except (OSError, ValueError):
            return None
        return Found(facts, file=path) if size_bytes == facts.get("size_bytes") else None

    def drop(self, export: str, clip_id: str) -> None:
        """Forget an export that a tar holds now."""
        path = self.path(export, clip_id)
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)


def find_exports(store: Store, policy: str, cache: ExportCache, wanted: Mapping[str, str]) -> dict[str, Found]:
    """Finished exports by clip_id; `wanted` maps clip_id to its export fingerprint."""
    found: dict[str, Found] = {}
    for path, rows in _indexes(store, policy, list(wanted)):
        for row in rows:
            if wanted.get(row["clip_id"]) == row["export"]:
                facts = {key: row[key] for key in FACT_KEYS[:-1]} | {"size_bytes": row["mp4_size_bytes"]}
                found[row["clip_id"]] = Found(facts, tar=path(row), offset=row["mp4_offset"])
    for clip_id, export in wanted.items():
        if cached := cache.find(export, clip_id):
            found[clip_id] = cached
    return found


def _indexes(store: Store, policy: str, clip_ids: list[str]) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    """(path of a row's tar, rows) of every index, weakest claim first."""
    for other in policies(store):
        folder = policy_folder(other)
        rows = read_index(store, other, _WANTED)
        if rows is not None:
            held = rows.filter(pc.is_in(rows.column("clip_id"), pa.array(clip_ids, pa.string()))).to_pylist()
            yield (lambda row, folder=folder: f"{folder}/{row['shard']}"), held
    for name, staged in staged_shards(store, policy).items():
        yield (lambda row, name=name: name), staged["rows"]


def policies(store: Store) -> list[str]:
    """Names of all policies that have an index in this output."""
    selector = pafs.FileSelector("shards", recursive=False, allow_not_found=True)
    return sorted(info.base_name for info in store.fs.get_file_info(selector) if info.type == pafs.FileType.Directory)


def read_index(store: Store, policy: str, columns: list[str] | None = None) -> pa.Table | None:
    """The policy's index, or None if there is none that can be read."""
    try:
        with store.fs.open_input_file(index_path(policy)) as stream:
            table = pq.read_table(stream, columns=columns)
    except (OSError, pa.ArrowInvalid, ValueError):
        return None
    expected = INDEX_SCHEMA.names if columns is None else columns
    return table.select(expected) if set(expected) <= set(table.column_names) else None


def staged_shards(store: Store, policy: str) -> dict[str, dict[str, Any]]:
    """Records of tars of a write under way, by the path where the tar is now: under .next, or already at its place."""
    folder = next_folder(policy)
    found = {}
    files = set(store.files(folder))
    for path in files:
        if not path.endswith(".json") or "/.tmp-" in path:
            continue
        record = json.loads(store.read_bytes(path))
        tar = path.removesuffix(".json") + ".tar"
        if tar not in files:
            tar = f"{policy_folder(policy)}/{record['shard']}"
        info = store.fs.get_file_info(tar)
        if info.type == pafs.FileType.File and info.size == record["size_bytes"]:
            found[tar] = record
    return found
