"""From the paths a person gives to table `inputs`: one row for every path, whatever becomes of it.

What belongs here: finding files and telling them apart by content. Opening them as media is `video/`, inside the sandbox.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pyarrow as pa

from pipelines.tables import INPUTS, from_rows
from pipelines.video.files import identify
from pipelines.video.reasons import MediaError, Reason

Row = dict[str, object]


@dataclass(frozen=True)
class Found:
    """A path below a source; `error` if the walk itself could not look inside."""

    path: Path
    error: OSError | None = None


def path_of(uri: str) -> Path:
    """The local path of a `file://` URI, exact to the byte: a file name need not be valid UTF-8."""
    return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))))


def find(sources: Sequence[str | Path]) -> list[Found]:
    """Every file named by `sources` or below them, sorted, each once. Hidden files and folders are left alone.

    Raises:
        ValueError: a source does not exist (a dead link does: it becomes a failed row), or nothing was found at all.
    """
    found: dict[Path, Found] = {}
    for source in sources:
        path = Path(source).absolute()
        if not os.path.lexists(path):
            raise ValueError(f"the source {str(source)!r} does not exist; give files or folders of video")
        for item in _walk(path) if path.is_dir() else [Found(path)]:
            found[item.path] = item
    if not found:
        raise ValueError(
            f"no file under {', '.join(repr(str(source)) for source in sources)}; give files or folders of video"
        )
    return [found[path] for path in sorted(found, key=os.fsencode)]


def _walk(folder: Path) -> Iterator[Found]:
    """Files below `folder`. Linked folders are followed once each, so a link loop ends."""
    seen: set[tuple[int, int]] = set()
    errors: list[OSError] = []
    for root, folders, files in os.walk(folder, followlinks=True, onerror=errors.append):
        facts = Path(root).stat()
        if (facts.st_dev, facts.st_ino) in seen:
            folders.clear()
            continue
        seen.add((facts.st_dev, facts.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Found(Path(root, name)) for name in sorted(files) if not name.startswith("."))
    yield from (Found(Path(os.fsdecode(error.filename)), error) for error in errors)


def ingest(
    found: Sequence[Found],
    batch: str,
    known: pa.Table,
    elsewhere: frozenset[str],
    workers: int,
    advance: Callable[[], None],
) -> pa.Table:
    """Table `inputs` of a batch: `known` rows, with those of `found` added or renewed.

    A file whose size, modification time and inode are those of its known row is not read again. The first path in URI order
    that has given bytes is the `video`; others, and bytes that another batch brought (`elsewhere`), are a `copy`.
    """
    rows: dict[str, Row] = {row["uri"]: row for row in known.to_pylist()}

    def look(item: Found) -> Row:
        row = _row(item, rows.get(item.path.as_uri()))
        advance()
        return row

    with ThreadPoolExecutor(workers, thread_name_prefix="ingest") as pool:
        for row in pool.map(look, found):
            rows[str(row["uri"])] = row | {"batch": batch}
    return from_rows(list(_states((rows[uri] for uri in sorted(rows)), elsewhere)), INPUTS)


def _row(item: Found, known: Row | None) -> Row:
    uri = item.path.as_uri()
    if item.error is not None:
        reason = Reason.PERMISSION_DENIED if isinstance(item.error, PermissionError) else Reason.MISSING
        return {"uri": uri, "state": "failed", "reason": reason.value, "message": str(item.error.strerror)}
    if known is not None and known["video_id"] is not None and _is_unchanged(item.path, known):
        return known
    try:
        facts = identify(item.path)
    except MediaError as error:
        return {"uri": uri, "state": "failed", "reason": error.reason.value, "message": error.message}
    return {
        "uri": uri,
        "video_id": facts.video_id,
        "size_bytes": facts.size_bytes,
        "mtime_ns": facts.mtime_ns,
        "inode": facts.inode,
    }


def _is_unchanged(path: Path, known: Row) -> bool:
    try:
        facts = path.stat()
    except OSError:
        return False
    return (facts.st_size, facts.st_mtime_ns, facts.st_ino) == (known["size_bytes"], known["mtime_ns"], known["inode"])


def _states(rows: Iterable[Row], elsewhere: frozenset[str]) -> Iterator[Row]:
    seen = set(elsewhere)
    for row in rows:
        video_id = row.get("video_id")
        if video_id is None:
            yield row
        else:
            yield row | {"state": "copy" if video_id in seen else "video"}
            seen.add(str(video_id))
