"""Where tables live: parts, fingerprints, what is missing, atomic commit, readers.

What belongs here: names on disk and the rule that makes a part count. What the tables mean is `tables.py`; what computes them is
`stages/`.

The rule. A stage's executor writes one part file per table and then a *receipt*, a small JSON that lists the keys it answered for.
The receipt is the commit: a part without one does not exist for readers, and the next run removes it. Names follow from the
fingerprint and the keys, and every file appears by rename, so a retried or speculative attempt writes the same file: exactly once.

Cost: one receipt read per part. At the default of at most 32 videos a part, 1 M videos are 31,250 small reads.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipelines.tables import FAILURES, TABLES, Table, conform

_TEMPORARY = ".tmp-"
FINGERPRINT_DIGITS = 16


class OutputBusy(RuntimeError):
    """Another run holds the output folder."""


class OutputFull(RuntimeError):
    """The output's disk has no room left."""


def digest(value: object) -> str:
    """sha256 of `value` as canonical JSON: the same for equal values, whatever the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(
    stage: str,
    version: int,
    params: Mapping[str, object],
    weights: Mapping[str, str] | None = None,
    upstream: Sequence[str] = (),
) -> str:
    """The name under which a stage's results live: changes with anything that could change a result.

    `weights` maps a weights name to its sha256; `upstream` are the fingerprints of the stages that it reads.
    """
    parts = {"stage": stage, "version": version, "params": dict(params), "weights": dict(weights or {})}
    return digest(parts | {"upstream": list(upstream)})[:FINGERPRINT_DIGITS]


def part_name(keys: Iterable[str]) -> str:
    """The name of the part that answers for `keys`: the same whatever their order."""
    return "part-" + hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Receipt:
    """What an executor returns: where the part is and what it answers for. Rows and media stay where they were written."""

    stage: str
    fingerprint: str
    part: str
    keys: tuple[str, ...]
    rows: dict[str, int]
    failed: int
    seconds: float
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Store:
    """The output folder on any Arrow file system. All paths are relative to it."""

    fs: pafs.FileSystem
    root: str
    local_root: Path | None

    # -- files ---------------------------------------------------------------------------------------------------------

    def publish(self, path: str, write: Callable[[BinaryIO], None]) -> None:
        """Write a file that appears whole or not at all.

        Locally: a temporary name in the same folder, flushed to disk, then renamed. On an object store an object appears when
        its stream is closed, so it is written under its own name.

        Raises:
            OutputFull: no room left; nothing is left behind.
        """
        if self.local_root is None:
            buffer = io.BytesIO()
            write(buffer)
            self.fs.create_dir(path.rpartition("/")[0] or ".", recursive=True)
            with self.fs.open_output_stream(path) as stream:
                stream.write(buffer.getvalue())
            return
        target = self.local_root / path
        try:
            publish_local(target, write)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OutputFull(
                    f"no room left on the disk of {self.root} while writing {path}; free some space or give another --out, "
                    f"then run the same command again: it continues"
                ) from error
            raise

    def write_json(self, path: str, value: object) -> None:
        text = json.dumps(value, sort_keys=True, indent=1) + "\n"
        self.publish(path, lambda stream: drain(stream, text.encode()))

    def read_bytes(self, path: str) -> bytes:
        with self.fs.open_input_stream(path) as stream:
            return bytes(stream.read())

    def files(self, folder: str) -> list[str]:
        """Relative paths of the files under `folder`, sorted; none if it does not exist."""
        selector = pafs.FileSelector(folder, recursive=True, allow_not_found=True)
        return sorted(info.path for info in self.fs.get_file_info(selector) if info.type == pafs.FileType.File)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def commit(
        self,
        stage: str,
        fingerprint: str,
        keys: Sequence[str],
        tables: Mapping[str, pa.Table],
        seconds: float,
    ) -> Receipt:
        """Write one part of each table and then the receipt that makes them count.

        Rows are sorted by key, so the part's bytes depend on nothing but its rows.
        """
        part = part_name(keys)
        for name, table in tables.items():
            self._write_part(TABLES[name], fingerprint, part, table)
        failures = tables.get(FAILURES.name)
        reasons = failures.column("reason").to_pylist() if failures is not None else []
        receipt = Receipt(
            stage=stage,
            fingerprint=fingerprint,
            part=part,
            keys=tuple(sorted(keys)),
            rows={name: table.num_rows for name, table in sorted(tables.items())},
            failed=len(reasons),
            seconds=round(seconds, 3),
            reasons={reason: reasons.count(reason) for reason in sorted(set(reasons))},
        )
        self.write_json(f"receipts/{stage}/{fingerprint}/{part}.json", asdict(receipt))
        return receipt

    def _write_part(self, table: Table, fingerprint: str, part: str, rows: pa.Table) -> None:
        rows = _in_key_order(rows, table)
        self.publish(
            f"tables/{table.name}/{fingerprint}/{part}.parquet",
            lambda stream: pq.write_table(rows, stream, compression="zstd"),
        )

    def receipts(self, stage: str, fingerprint: str) -> list[Receipt]:
        """The committed parts of a stage, sorted by name."""
        found = []
        for path in self.files(f"receipts/{stage}/{fingerprint}"):
            if path.endswith(".json") and _TEMPORARY not in path:
                record = json.loads(self.read_bytes(path))
                found.append(Receipt(**(record | {"keys": tuple(record["keys"])})))
        return found

    def missing(self, stage: str, fingerprint: str, keys: Iterable[str]) -> list[str]:
        """The keys that no committed part answers for, sorted."""
        done = {key for receipt in self.receipts(stage, fingerprint) for key in receipt.keys}
        return sorted(set(keys) - done)

    def read(
        self,
        stage: str,
        fingerprint: str,
        table: Table,
        columns: Sequence[str] | None = None,
        where: ds.Expression | None = None,
    ) -> pa.Table:
        """The committed rows of a stage's table, sorted by key."""
        paths = [
            f"tables/{table.name}/{fingerprint}/{receipt.part}.parquet"
            for receipt in self.receipts(stage, fingerprint)
            if table.name in receipt.rows
        ]
        if not paths:
            return _project(table.schema.empty_table(), columns)
        dataset = ds.dataset(paths, schema=table.schema, format="parquet", filesystem=self.fs)
        wanted = list(dict.fromkeys([*(columns or table.schema.names), *table.key]))
        rows = dataset.to_table(columns=wanted, filter=where).sort_by([(name, "ascending") for name in table.key])
        return _project(rows, columns)

    def forget(self, stage: str, fingerprint: str, keys: Iterable[str]) -> list[str]:
        """Withdraw the parts that hold any of `keys` (receipt first), so that their keys are missing again; returns those keys."""
        wanted = set(keys)
        gone: list[str] = []
        for receipt in self.receipts(stage, fingerprint):
            if wanted.intersection(receipt.keys):
                self.fs.delete_file(f"receipts/{stage}/{fingerprint}/{receipt.part}.json")
                for name in receipt.rows:
                    self._delete(f"tables/{name}/{fingerprint}/{receipt.part}.parquet")
                gone += receipt.keys
        return sorted(gone)

    # -- snapshots: small tables that are replaced whole ---------------------------------------------------------------

    def replace(self, table: Table, name: str, rows: pa.Table) -> None:
        """Replace the snapshot `name` of a table (an ingest batch's inputs, a policy's decisions) by `rows`, if they differ."""
        rows = _in_key_order(rows, table)
        if not rows.equals(self.snapshot(table, name)):
            self._write_part(table, name, "part-0", rows)

    def snapshot(self, table: Table, name: str) -> pa.Table:
        path = f"tables/{table.name}/{name}/part-0.parquet"
        if self.fs.get_file_info(path).type != pafs.FileType.File:
            return table.schema.empty_table()
        with self.fs.open_input_file(path) as stream:
            return conform(pq.read_table(stream), table)

    def snapshots(self, table: Table) -> list[str]:
        """The names of a table's snapshots, sorted."""
        suffix = "/part-0.parquet"
        folder = f"tables/{table.name}/"
        return [path[len(folder) : -len(suffix)] for path in self.files(folder) if path.endswith(suffix)]

    # -- housekeeping --------------------------------------------------------------------------------------------------

    def clean(self) -> list[str]:
        """Remove what a killed run left: temporary files, and parts without a receipt. Only under the lock."""
        removed = [path for path in self.files(".") if path.rpartition("/")[2].startswith(_TEMPORARY)]
        receipts = {tuple(path.split("/")[2:]) for path in self.files("receipts")}
        committed = {(fingerprint, name.removesuffix(".json")) for fingerprint, name in receipts}
        for path in self.files("tables"):
            _, _, print_, name = path.split("/")
            if name != "part-0.parquet" and (print_, name.removesuffix(".parquet")) not in committed:
                removed.append(path)
        for path in removed:
            self._delete(path)
        return sorted(set(removed))

    def _delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.delete_file(path)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the output folder for one run. The lock is the kernel's, so a killed run leaves none behind.

        Raises:
            OutputBusy: another run holds it.
        """
        if self.local_root is None:
            yield  # an object store has no such lock: one scheduler per output is the operator's part (docs/architecture.md)
            return
        import fcntl

        self.local_root.mkdir(parents=True, exist_ok=True)
        with (self.local_root / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise OutputBusy(
                    f"another run is writing to {self.root}; wait for it to end, or give another --out"
                ) from error
            yield


def open_store(out: str | Path) -> Store:
    """The store at `out`: a local folder, or a URI that Arrow (`s3://`, `gs://`, `hdfs://`) or fsspec understands.

    Raises:
        ValueError: `out` is a file, cannot be made, or its scheme is unknown.
    """
    text = str(out)
    if "://" in text and not text.startswith("file://"):
        fs, base = _remote(text)
        fs.create_dir(base, recursive=True)
        return Store(pafs.SubTreeFileSystem(base, fs), text, None)
    folder = Path(text.removeprefix("file://")).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise ValueError(f"the output {folder} cannot be a folder: {error.strerror}; give another --out") from error
    return Store(pafs.SubTreeFileSystem(str(folder), pafs.LocalFileSystem()), str(folder), folder)


def _remote(uri: str) -> tuple[pafs.FileSystem, str]:
    try:
        return pafs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    try:
        import fsspec

        fs, base = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"cannot write to {uri}: {error}; give a folder, or a URI that Arrow or fsspec understands"
        ) from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(fs)), base


def publish_local(target: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write `target` so that it appears whole or not at all; a failed write leaves nothing behind."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def drain(stream: BinaryIO, data: bytes) -> None:
    """Write `data`: for `publish` with bytes at hand."""
    stream.write(data)


def _in_key_order(rows: pa.Table, table: Table) -> pa.Table:
    return conform(rows, table).sort_by([(name, "ascending") for name in table.key])


def _project(rows: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    return rows if columns is None else rows.select(list(columns))
