"""Running the command line as a person does: in a process of its own, on real video."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

Command = Callable[..., "Ended"]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def reelmill() -> Command:
    """`reelmill("curate", ...)` runs the command; its output is plain text, as in a log."""

    def run(*args: object, **env: str) -> Ended:
        done = subprocess.run(
            [sys.executable, "-m", "orchestration.cli", *map(str, args)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"COLUMNS": "160"} | env,
            timeout=600,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def reels(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with seven of the sample videos and one copy: small enough to curate in seconds."""
    folder = tmp_path_factory.mktemp("reels")
    for name in (
        "bikes.mp4",
        "carphone_pristine.mp4",
        "carphone_distorted.mp4",
        "a.mp4",
        "b.mp4",
        "muted_b.mp4",
        "bigbuckbunny.mp4",
    ):
        shutil.copy(samples / name, folder / name)
    shutil.copy(samples / "bikes.mp4", folder / "bikes again.mp4")
    return folder


@pytest.fixture(scope="session")
def curated(reelmill: Command, reels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one unbroken run of policy demo over `reels`; read-only for tests."""
    out = tmp_path_factory.mktemp("curated") / "out"
    ended = reelmill("curate", reels, "--out", out, "--policy", "demo")
    assert ended.status == 0, ended.err + ended.out
    return out


def shard_digests(out: Path) -> dict[str, str]:
    """sha256 of every file under OUT/shards, by relative path."""
    folder = out / "shards"
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def tree(out: Path) -> set[str]:
    """Relative paths of all files of an output."""
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
