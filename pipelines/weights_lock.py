"""The lock file of weights and sample videos: what each thing is for, its licence, where it comes from, its digest.

What belongs here: the shape of the file and its validation, nothing that touches a network or the cache (`weights.py` does).
A lock file is JSON, `{"version": 1, "wheels": {...}, "entries": [...]}`; docs/weights.md describes every key. The one in
the package is `weights.lock.json`. A user's own entries go to the file that the environment variable
REELMILL_WEIGHTS_LOCK names, or to ./weights.local.json.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

PACKAGE_LOCK = Path(__file__).with_name("weights.lock.json")
KINDS = ("weights", "sample_video")
# format -> the endings it may have. Pickle-based files are absent on purpose: loading one runs its code. The one exception
# is named after the only way it may be loaded, torch.load(..., weights_only=True).
FORMATS: dict[str, tuple[str, ...]] = {
    "onnx": (".onnx",),
    "safetensors": (".safetensors",),
    "gguf": (".gguf",),
    "svm-text": (".txt",),
    "json": (".json",),
    "text": (".txt",),
    "sentencepiece": (".model",),
    "torch-weights-only": (".pth", ".pt"),
    "video": (".mp4", ".avi", ".mkv", ".mov", ".webm"),
}
_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_PACKAGE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!_-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Wheel:
    """One wheel of a package index. `python_version` is what pip is told when the package asks for another Python."""

    package: str
    version: str
    sha256: str
    size_bytes: int
    python_version: str | None = None

    def __post_init__(self) -> None:
        # These go into a requirements file, so they may carry nothing but a name, a version and a digest.
        _match(_PACKAGE, self.package, "a package name")
        _match(_VERSION, self.version, f"the version of {self.package}")
        _match(_SHA256, self.sha256, f"the sha256 of the wheel of {self.package}")
        _size(self.size_bytes, f"the wheel of {self.package}")
        if self.python_version is not None:
            _match(re.compile(r"3\.\d+"), self.python_version, f"the python_version of {self.package}")


@dataclass(frozen=True)
class Member:
    """A file inside a wheel."""

    wheel: Wheel
    path: str

    def __post_init__(self) -> None:
        _relative(self.path, f"member of {self.wheel.package}")

    def __str__(self) -> str:
        return f"pypi:{self.wheel.package}=={self.wheel.version}"


@dataclass(frozen=True)
class HubFile:
    """A file of a model hub's repository at one commit."""

    repo: str
    file: str
    revision: str

    def __post_init__(self) -> None:
        _match(_REPO, self.repo, "a hub repository, owner/name")
        _relative(self.file, f"file of {self.repo}")
        _match(_COMMIT, self.revision, f"the revision of {self.repo}: a whole commit id, for a branch moves")

    def __str__(self) -> str:
        return f"hub:{self.repo}@{self.revision[:8]}"


@dataclass(frozen=True)
class LocalFile:
    """A file that is already on this machine; a relative path counts from the folder of its lock file."""

    path: Path

    def __str__(self) -> str:
        return f"path:{self.path}"


@dataclass(frozen=True)
class File:
    """One file of an entry: `source` is a wheel's member, several to be joined in order, a hub's file or a local one."""

    file: str
    format: str
    size_bytes: int
    sha256: str
    source: tuple[Member, ...] | HubFile | LocalFile

    def __post_init__(self) -> None:
        _relative(self.file, "file")
        _match(_SHA256, self.sha256, f"the sha256 of {self.file}")
        _size(self.size_bytes, self.file)
        endings = FORMATS.get(self.format)
        if endings is None:
            raise ValueError(
                f"{self.file}: format {self.format!r} is not loaded; safe formats are {', '.join(FORMATS)}. "
                "Convert a pickle (.bin, .ckpt, .pkl) to safetensors."
            )
        if not self.file.endswith(endings):
            raise ValueError(f"{self.file}: a file of format {self.format!r} ends in {' or '.join(endings)}")


@dataclass(frozen=True)
class Entry:
    """A thing that is asked for by name: one file, or a folder of files (a whole model)."""

    name: str
    kind: str
    purpose: str
    licence: str
    terms: str
    files: tuple[File, ...]

    def __post_init__(self) -> None:
        _match(_NAME, self.name, "an entry's name, lower case with hyphens")
        if self.kind not in KINDS:
            raise ValueError(f"{self.name}: kind {self.kind!r} is none of {', '.join(KINDS)}")
        names = [file.file for file in self.files]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{self.name}: needs at least one file, each under its own name; got {names}")
        if any((file.format == "video") != (self.kind == "sample_video") for file in self.files):
            raise ValueError(f"{self.name}: an entry of kind {self.kind} holds {[file.format for file in self.files]}")

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def key(self) -> str:
        """Its folder in the cache: 16 hex digits of its file's digest, or of the list of digests of its files."""
        if len(self.files) == 1:
            return self.files[0].sha256[:16]
        listing = "".join(f"{file.sha256}  {file.file}\n" for file in sorted(self.files, key=lambda file: file.file))
        return hashlib.sha256(listing.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Lock:
    """All entries by name."""

    entries: Mapping[str, Entry] = field(default_factory=dict)

    def select(self, names: list[str]) -> list[Entry]:
        """The entries of `names`, once each; `all`, `weights` and `samples` name groups.

        Raises:
            ValueError: a name that is neither an entry nor a group.
        """
        groups = {"all": KINDS, "weights": ("weights",), "samples": ("sample_video",)}
        unknown = [name for name in names if name not in groups and name not in self.entries]
        if unknown:
            raise ValueError(
                f"no weights called {', '.join(map(repr, unknown))}; `reelmill weights list` shows all: "
                f"{', '.join([*groups, *self.entries])}"
            )
        wanted = {
            entry
            for name in names
            for entry in (
                [entry for entry in self.entries.values() if entry.kind in groups[name]]
                if name in groups
                else [self.entries[name]]
            )
        }
        return [entry for entry in self.entries.values() if entry in wanted]


def load_lock(*paths: Path) -> Lock:
    """The lock files at `paths` as one; without any, the package's own and the user's extra one.

    Raises:
        ValueError: a file that cannot be read as a lock, an unsafe format, a name given twice.
    """
    entries: dict[str, Entry] = {}
    for path in paths or (PACKAGE_LOCK, *_extra_lock()):
        for entry in _read(path):
            if entry.name in entries:
                raise ValueError(f"{path}: the name {entry.name!r} is taken by another lock file; choose another")
            entries[entry.name] = entry
    return Lock(entries)


def _extra_lock() -> list[Path]:
    named = os.environ.get("REELMILL_WEIGHTS_LOCK")
    if named:
        return [Path(named).expanduser()]
    local = Path("weights.local.json")
    return [local] if local.is_file() else []


def _read(path: Path) -> list[Entry]:
    try:
        data = _keys(json.loads(path.read_text("utf-8")), "version", "entries", optional=("wheels",))
        if data["version"] != 1:
            raise ValueError(f"version {data['version']!r} of the lock format is not known; this program reads 1")
        wheels = {
            name: Wheel(name, **_keys(facts, "version", "sha256", "size_bytes", optional=("python_version",)))
            for name, facts in data.get("wheels", {}).items()
        }
        return [_entry(facts, wheels, path.parent) for facts in data["entries"]]
    except (OSError, ValueError) as error:
        raise ValueError(f"the weights lock file {path} cannot be used: {error}") from error


def _entry(data: Any, wheels: dict[str, Wheel], folder: Path) -> Entry:
    facts = _keys(data, "name", "kind", "purpose", "licence", "terms", "files")
    try:
        files = tuple(_file(one, wheels, folder) for one in facts.pop("files"))
    except ValueError as error:
        raise ValueError(f"entry {facts['name']!r}: {error}") from error
    return Entry(**facts, files=files)


def _file(data: Any, wheels: dict[str, Wheel], folder: Path) -> File:
    facts = _keys(data, "file", "format", "size_bytes", "sha256", "source")
    return File(**{**facts, "source": _source(facts["source"], wheels, folder)})


def _source(data: Any, wheels: dict[str, Wheel], folder: Path) -> tuple[Member, ...] | HubFile | LocalFile:
    match data:
        case {"pypi": [_, *_] as members, **rest} if not rest:
            parts = [_keys(member, "package", "member") for member in members]
            unknown = [part["package"] for part in parts if part["package"] not in wheels]
            if unknown:
                raise ValueError(f"no wheel is locked for the package {unknown[0]!r}")
            return tuple(Member(wheels[part["package"]], part["member"]) for part in parts)
        case {"hub": dict() as facts, **rest} if not rest:
            return HubFile(**_keys(facts, "repo", "file", "revision"))
        case {"path": str() as path, **rest} if not rest:
            return LocalFile((folder / Path(path).expanduser()).absolute())
    raise ValueError(f'source is one of {{"pypi": [...]}}, {{"hub": {{...}}}} and {{"path": "..."}}; got {data!r}')


def _keys(data: Any, *required: str, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """A copy of the object `data` if it has exactly these keys."""
    if not isinstance(data, dict) or set(required) - set(data) or set(data) - set(required) - set(optional):
        got = sorted(data) if isinstance(data, dict) else repr(data)
        also = f" and perhaps {', '.join(optional)}" if optional else ""
        raise ValueError(f"expected an object with {', '.join(required)}{also}; got {got}")
    return dict(data)


def _match(pattern: re.Pattern[str], value: object, what: str) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{value!r} is not {what}")


def _size(value: object, what: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"size_bytes of {what} is a positive whole number; got {value!r}")


def _relative(value: object, what: str) -> None:
    """Refuses what could lead out of the folder it is meant for."""
    parts = PurePosixPath(value).parts if isinstance(value, str) else ()
    if not parts or ".." in parts or parts[0] == "/" or re.search(r"[\\:\0\n\r]", str(value)):
        raise ValueError(f"{what}: {value!r} is not a relative path that stays inside its folder")
